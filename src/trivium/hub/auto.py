"""Whole model folders: what transformers' from_pretrained reads and save_pretrained writes, in and out.

Ties the table (family.py, names.py) to files (convert.py). Never runs code of a folder.
"""

import contextlib
import gc
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import yaml
from torch import Tensor

from trivium.errors import HubError
from trivium.hub.adapter_config import refuse_alone
from trivium.hub.convert import (
    WEIGHTS,
    file_ranges,
    forget_pages,
    inside,
    read_json,
    read_tensors,
    replace_file,
    write_tensors,
)
from trivium.hub.decoding import read_generation as read_generation
from trivium.hub.family import architecture_of, choose, complete, label_settings, read_config, row_of, write_config
from trivium.hub.names import canonical, to_ours, to_theirs
from trivium.hub.resolve import resolve_folder
from trivium.model.config import Head, ModelConfig, Problem
from trivium.model.init import initialize
from trivium.model.transformer import Transformer

if TYPE_CHECKING:  # a model opens without the tokenizers library
    from trivium.tokenizer import Tokenizer

_TASKS = {"decoder": "text-generation", "encoder": "fill-mask", "encoder_decoder": "text2text-generation"}
_OPENERS = {"decoder": "AutoModelForCausalLM", "encoder": "AutoModelForMaskedLM"}
# What the hub calls the task of each other head, and the class that opens it.
_HEADS: dict[Head, tuple[str, str]] = {
    "sequence": ("text-classification", "AutoModelForSequenceClassification"),
    "token": ("token-classification", "AutoModelForTokenClassification"),
    "span": ("question-answering", "AutoModelForQuestionAnswering"),
    "none": ("feature-extraction", "AutoModel"),
}


def load(name_or_folder: str | Path) -> tuple[Transformer, "Tokenizer"]:
    """Model (evaluation mode, float32) and tokenizer of a folder or hub name; raises `HubError`."""
    folder = resolve_folder(name_or_folder)
    return load_model(folder), load_tokenizer(folder)


def load_model(
    name_or_folder: str | Path,
    *,
    dtype: torch.dtype | Literal["stored"] | None = None,
    head: Head | None = None,
    labels: Sequence[str] | None = None,
    problem: Problem | None = None,
    dropout: float | None = None,
) -> Transformer:
    """The model of a Hugging Face folder or hub name, in evaluation mode.

    Weights are float32 unless `dtype` says otherwise (“stored”: as they lie in the file) and stay mapped from disk
    where nothing has to be converted. `head`, `labels`, `problem` and `dropout` replace what config.json says, to
    fine-tune: what the file lacks for them is freshly initialised, and a `UserWarning` names it. Raises `HubError` when
    the folder cannot be had, is damaged, or holds a model that trivium does not compute.
    """
    folder = resolve_folder(name_or_folder)
    refuse_alone(folder)
    settings = read_json(inside(folder, "config.json"))
    wanted = torch.float32 if dtype is None else dtype
    dtype = None if wanted == "stored" else wanted
    with _collecting_nothing():
        tensors = read_tensors(folder)
        return assemble(
            settings, tensors, dtype=dtype, head=head, labels=labels, problem=problem, dropout=dropout, mapped=True
        )


def load_model_config(name_or_folder: str | Path) -> ModelConfig:
    """The config of a folder or hub name, as far as it tells without the weights; raises `HubError`."""
    return read_config(read_json(inside(resolve_folder(name_or_folder), "config.json")))


def assemble(
    settings: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    dtype: torch.dtype | None = None,
    head: Head | None = None,
    labels: Sequence[str] | None = None,
    problem: Problem | None = None,
    dropout: float | None = None,
    mapped: bool = False,
) -> Transformer:
    """A model from the object of a config.json and foreign tensors, taking these over without a copy.

    `head`, `labels`, `problem` and `dropout` as in `load_model`. `mapped` says that the tensors come from
    `read_tensors` and belong to nobody else: what is converted does not stay in memory twice. Raises `HubError` unless
    the two fit.
    """
    settings = complete(settings, tensors)
    row = row_of(settings)
    if head is not None:
        settings = {**settings, "architectures": [architecture_of(row, head)]}
    if labels is not None or problem is not None:
        settings = {**settings, **label_settings(labels, problem)}
    naming = row.naming
    tensors = canonical(naming, tensors)
    config = read_config(settings, tensors)
    config = config if dropout is None else replace(config, dropout=dropout)
    model = _build_empty(config, len(tensors))
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    ours = to_ours(naming, config, tensors, shapes, fresh_head=head is not None or labels is not None)
    state = _owned(ours, dtype, file_ranges() if mapped else [])
    kind = state["embedding.tokens.weight"].dtype
    fresh = {name: torch.empty(*shape, dtype=kind) for name, shape in shapes.items() if name not in state}
    model.load_state_dict(state | fresh, assign=True)
    for parameter in model.parameters():
        if not parameter.is_contiguous():
            hook = parameter.requires_grad_(True).register_post_accumulate_grad_hook
            hook(_own_rows)  # type: ignore[no-untyped-call]  # torch gives it no types
    if fresh:
        initialize(model, names=fresh)
        text = f"the file has no fitting weights for {', '.join(fresh)}: they begin at random; fine-tune before use"
        warnings.warn(text, UserWarning, stacklevel=3)
    return model.requires_grad_(True).eval()


def save_model(
    model: Transformer,
    folder: str | Path,
    *,
    tokenizer: "Tokenizer | None" = None,
    generation: Mapping[str, Any] | None = None,
    tasks: Mapping[str, Any] | None = None,
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Write a folder that transformers opens: config, weights, generation settings, model card, tokenizer if given.

    `generation` adds to generation_config.json, `tasks` is config.json's `task_specific_params`; `card` gives `title`,
    `text` and any front matter keys (license, language, datasets, …) of README.md. Each file is replaced atomically,
    the weights last. Raises `HubError` when no published architecture expresses the model, before anything is written.
    """
    folder, config = Path(folder), model.config
    dtype = model.embedding.tokens.weight.dtype
    settings = write_config(config, dtype=dtype) | ({"task_specific_params": dict(tasks)} if tasks else {})
    ours = {name: parameter.detach() for name, parameter in model.named_parameters()}
    tensors = to_theirs(row_of(settings).naming, config, ours)
    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer is not None:
        tokenizer.save(folder)
    _write_text(folder / "README.md", model_card(config, dict(card or {})))
    _write_text(folder / "generation_config.json", _as_json(_generation(config) | dict(generation or {})))
    _write_text(folder / "config.json", _as_json(settings))
    write_tensors(folder / WEIGHTS, tensors)
    return folder


def load_tokenizer(name_or_folder: str | Path) -> "Tokenizer":
    """The tokenizer of a folder or hub name; raises `HubError` when the folder cannot be had."""
    from trivium.tokenizer import Tokenizer

    return Tokenizer.load(resolve_folder(name_or_folder))


def model_card(config: ModelConfig, card: dict[str, Any]) -> str:
    """README.md: front matter for the hub, then what the model is and how to open it."""
    title, text = card.pop("title", f"A {choose(config)} model"), card.pop("text", "")
    language = _TASKS[config.family], _OPENERS.get(config.family, "AutoModelForSeq2SeqLM")
    task, opener = _HEADS.get(config.head, language)
    front = {"library_name": "transformers", "pipeline_tag": task, "tags": ["trivium"]} | card
    layers = f"{config.num_encoder_layers} + " * (config.num_encoder_layers > 0) + str(config.num_layers)
    return f"""---
{yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip()}
---

# {title}

{text}

| family | layers | hidden size | heads | vocabulary |
|---|---|---|---|---|
| {config.family} | {layers} | {config.hidden_size} | {config.num_heads} | {config.vocab_size} |

Trained with trivium, where `trivium.load(folder)` opens it. In transformers, without remote code:

```python
from transformers import {opener}

model = {opener}.from_pretrained(folder)
```
"""


def _generation(config: ModelConfig) -> dict[str, Any]:
    ids = {f"{role}_token_id": getattr(config, f"{role}_id") for role in ("bos", "eos", "pad", "decoder_start")}
    return {name: value for name, value in ids.items() if value is not None}


def _build_empty(config: ModelConfig, num_tensors: int) -> Transformer:
    """A model without memory, unless the config promises what the file cannot hold."""
    layers = config.num_layers + config.num_encoder_layers
    if layers > num_tensors:  # before so many are built
        found = f"config.json promises {layers} layers, the file has {num_tensors} tensors"
        raise HubError(f"{found}; expected several a layer; use a folder whose two files belong together")
    try:
        with torch.device("meta"):
            return Transformer(config)
    except RuntimeError as error:  # sizes whose product no machine can address
        raise HubError(f"config.json describes no possible model ({error}); correct its sizes") from error


@contextlib.contextmanager
def _collecting_nothing() -> Iterator[None]:
    """Without the garbage collector: all that is made here stays, and going through what torch's import made takes as
    long as opening a model of 135 M."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def _owned(tensors: Mapping[str, Tensor], dtype: torch.dtype | None, mapped: Sequence[range]) -> dict[str, Tensor]:
    """The tensors as parameters should be: of the wanted type, copied only where that is another."""
    owned = {}
    for name, tensor in tensors.items():
        owned[name] = tensor.to(tensor.dtype if dtype is None else dtype)
        if owned[name].data_ptr() != tensor.data_ptr():
            forget_pages(tensor, mapped)
    return owned


def _own_rows(parameter: Tensor) -> None:
    """Rows in order, and memory of its own, for a matrix that gets a gradient.

    GPT-2's are views across its file: as fast to read, and turning them takes ten times as long as opening the rest.
    But AdamW's fused form takes every matrix for dense: on views of a part of one it writes beside them.
    """
    if not parameter.is_contiguous():
        parameter.data = parameter.data.contiguous()
        parameter.grad = None if parameter.grad is None else parameter.grad.contiguous()


def _as_json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _write_text(path: Path, text: str) -> None:
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
