"""`pipeline(task, model=…)`: one-liners with the names, call forms and results that Hugging Face users know."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from trivium.errors import ConfigError
from trivium.generation.fill import fill_mask
from trivium.generation.settings import SamplingConfig
from trivium.generation.text import generate_text
from trivium.hub.auto import load
from trivium.model import Transformer
from trivium.tokenizer import Tokenizer

Answer = list[dict[str, Any]]
FAMILIES = {
    "text-generation": "decoder",
    "text2text-generation": "encoder_decoder",
    "fill-mask": "encoder",
}
WRITING = {field.name for field in fields(SamplingConfig)} - {"logprobs"}


def pipeline(task: str, model: str | Path) -> Callable[..., Any]:
    """A function from text, or a list of texts, to results; `model` is a folder or a hub name.

    `text-generation` gives `[{"generated_text": prompt and continuation}]`, `text2text-generation` the answer
    alone, `fill-mask` `[{"token", "token_str", "score", "sequence"}, …]`. Keyword arguments of the call are
    `SamplingConfig`'s (or `top_k` for masks). Raises `ConfigError` for an unknown task or a model of another family.
    """
    if task not in FAMILIES:
        raise ConfigError(f"there is no task {task!r}; expected one of {', '.join(FAMILIES)}; choose one")
    network, tokenizer = load(str(model))
    if network.config.family != FAMILIES[task]:
        raise ConfigError(
            f"{model} is a model of family {network.config.family}; {task} needs {FAMILIES[task]}; choose another model"
        )

    options_of = {"top_k"} if task == "fill-mask" else WRITING
    if task == "text-generation":
        options_of = options_of | {"return_full_text"}

    def run(texts: str | Sequence[str], **options: Any) -> Any:
        for name in options:
            if name not in options_of:
                near = get_close_matches(name, options_of, n=1, cutoff=0.4) or sorted(options_of)
                raise ConfigError(f"{task} has no option {name}; expected for example {near[0]}; correct or drop it")
        many = [texts] if isinstance(texts, str) else list(texts)
        if task == "fill-mask":
            answers = [_fill(network, tokenizer, text, **options) for text in many]
        else:
            answers = _write(network, tokenizer, many, task=task, **options)
        if isinstance(texts, str):
            return answers[0]
        # As it is there: the task from text to text gives one result per text of a list, the others lists.
        return [answer for (answer,) in answers] if task == "text2text-generation" else answers

    return run


def _write(model: Transformer, tokenizer: Tokenizer, texts: list[str], *, task: str, **options: Any) -> list[Answer]:
    full = options.pop("return_full_text", True) and task == "text-generation"
    written = generate_text(model, tokenizer, texts, SamplingConfig(**options))
    pairs = zip(texts, written, strict=True)
    return [[{"generated_text": text + answer if full else answer}] for text, answer in pairs]


def _fill(model: Transformer, tokenizer: Tokenizer, text: str, *, top_k: int = 5) -> Any:
    """One mask gives a list of candidates; several give a list of such lists."""
    found = [
        [
            {"score": fill.probability, "token": fill.token, "token_str": fill.token_text, "sequence": fill.sequence}
            for fill in candidates
        ]
        for candidates in fill_mask(model, tokenizer, text, top_k=top_k)
    ]
    return found[0] if len(found) == 1 else found
