"""`pipeline(task, model=…)`: one-liners with the names, call forms and results that Hugging Face users know."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from trivium.errors import ConfigError
from trivium.generation.fill import fill_mask
from trivium.generation.sample import SamplingConfig
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

    def run(texts: str | list[str], **options: Any) -> Any:
        many = [texts] if isinstance(texts, str) else list(texts)
        if task == "fill-mask":
            answers = [_fill(network, tokenizer, text, **options) for text in many]
        else:
            answers = _write(network, tokenizer, many, task=task, **options)
        return answers[0] if isinstance(texts, str) else answers

    return run


def _write(model: Transformer, tokenizer: Tokenizer, texts: list[str], *, task: str, **options: Any) -> list[Answer]:
    known = {field.name for field in fields(SamplingConfig)}
    unknown = sorted(set(options) - known - {"return_full_text"})
    if unknown:
        raise ConfigError(f"there is no option {unknown[0]}; expected one of {', '.join(sorted(known))}; drop it")
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
