"""Random models with task heads, saved: decided enough that labels differ from text to text."""

from dataclasses import replace
from pathlib import Path

import torch

from tests.families import TINY
from tests.generation.spelling import FAMILY_OF, tokenizer_for
from trivium.hub.auto import save_model
from trivium.model import build_model
from trivium.model.config import Head


def make_labelled(
    folder: Path,
    head: Head,
    labels: tuple[str, ...] = (),
    *,
    name: str = "bert",
    kind: str = "wordpiece",
    problem: str = "single",
) -> Path:
    """A folder of a random model with a head, whose scores are spread by making its last layer large."""
    tokenizer = tokenizer_for(FAMILY_OF[name], kind)
    config = replace(
        TINY[name],
        vocab_size=tokenizer.vocab_size,
        pad_id=tokenizer.pad_id,
        eos_id=tokenizer.eos_id,
        norm_epsilon=1e-5 if name == "bart" else TINY[name].norm_epsilon,  # BART has no setting for it
        head=head,
        labels=labels,
        problem=problem,
        head_transform=False,
        head_bias=False,
    )
    model = build_model(config, seed=3)
    with torch.no_grad():
        for name_, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.mul_(40.0 if name_.startswith("classifier.output") else 3.0)
    return save_model(model, folder, tokenizer=tokenizer)
