"""Hugging Face's call forms: what `tokenizer(texts, return_tensors="pt", padding=True, …)` does and gives.

The backend is shared by threads, and padding and truncation are switches of it, so each call that needs them works on
a copy (the vocabulary, the large part, is not copied).
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tokenizers

from trivium.errors import ConfigError, RequestError
from trivium.tokenizer.backend import copy_of
from trivium.tokenizer.batch import TokenBatch, to_tensor
from trivium.tokenizer.guard import reading
from trivium.tokenizer.padding import pad_id_of

if TYPE_CHECKING:
    from trivium.tokenizer.tokenizer import Tokenizer

STRATEGIES = {True: "longest_first", "longest_first": "longest_first", "only_first": "only_first"} | {
    "only_second": "only_second"
}
PADDINGS = (True, False, None, "longest", "max_length", "do_not_pad")
UNBOUNDED = int(1e30)  # what transformers writes for a model without a longest text


def call_tokenizer(
    tokenizer: "Tokenizer",
    text: Any,
    text_pair: Any = None,
    *,
    text_target: Any = None,
    return_tensors: str | None = None,
    **options: Any,
) -> TokenBatch:
    """What `Tokenizer.__call__` gives."""
    if text is None and text_target is not None:
        return call_tokenizer(tokenizer, text_target, return_tensors=return_tensors, **options)
    batch = _encode(tokenizer, text, text_pair, options, return_tensors)
    if text_target is not None:
        target = call_tokenizer(tokenizer, text_target, return_tensors=return_tensors, **options)
        batch["labels"] = target["input_ids"]
    return batch


def call_encoded(
    tokenizer: "Tokenizer",
    texts: list[str],
    backend: tokenizers.Tokenizer,
    originals: Mapping[int, int],
    options: dict[str, Any],
) -> TokenBatch:
    """A call without special tokens round the texts, on another backend, some of whose ids stand for others."""
    options = dict(options)
    tensors = options.pop("return_tensors", None)
    given = _Options(**_checked({**options, "add_special_tokens": False}))
    with reading(texts):
        rows = _prepared(tokenizer, given, backend).encode_batch(texts, add_special_tokens=False)
    data = _columns(tokenizer, rows, given)
    data["input_ids"] = [[originals.get(number, number) for number in row] for row in data["input_ids"]]
    return TokenBatch({name: to_tensor(name, values, tensors) for name, values in data.items()}, rows)


def _encode(
    tokenizer: "Tokenizer", text: Any, text_pair: Any, options: dict[str, Any], tensors: str | None
) -> TokenBatch:
    given = _Options(**_checked(options))
    words = given.is_split_into_words
    many = isinstance(text, list | tuple) and (not words or (len(text) > 0 and isinstance(text[0], list | tuple)))
    items = _items(text, text_pair, many=many, words=words)
    backend = _prepared(tokenizer, given)
    with reading(each for item in items for each in (item if isinstance(item, tuple) else (item,))):
        rows = backend.encode_batch(items, is_pretokenized=words, add_special_tokens=given.add_special_tokens)
    sources = list(range(len(rows)))
    if given.return_overflowing_tokens:
        sources = [index for index, row in enumerate(rows) for _ in (row, *row.overflowing)]
        rows = [part for row in rows for part in (row, *row.overflowing)]
    data = _columns(tokenizer, rows, given)
    if given.return_overflowing_tokens:
        data["overflow_to_sample_mapping"] = sources
    if not many and tensors is None and not given.return_overflowing_tokens:
        data = {name: values[0] if isinstance(values[0], list) else values for name, values in data.items()}
    return TokenBatch({name: to_tensor(name, values, tensors) for name, values in data.items()}, rows)


@dataclass(frozen=True)
class _Options:
    """The keywords of a call, with transformers' defaults."""

    add_special_tokens: bool = True
    padding: bool | str | None = False
    truncation: bool | str | None = None
    max_length: int | None = None
    stride: int = 0
    is_split_into_words: bool = False
    pad_to_multiple_of: int | None = None
    return_token_type_ids: bool | None = None
    return_attention_mask: bool | None = None
    return_overflowing_tokens: bool = False
    return_special_tokens_mask: bool = False
    return_offsets_mapping: bool = False
    return_length: bool = False
    split_special_tokens: bool = False
    padding_side: str | None = None


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    options = {name: value for name, value in options.items() if name != "verbose"}
    known = _Options.__dataclass_fields__
    if unknown := [name for name in options if name not in known]:
        raise ConfigError(f"a tokenizer's call has no {unknown[0]}; expected one of {', '.join(known)}; correct it")
    for name, allowed in (
        ("padding", PADDINGS),
        ("truncation", (*STRATEGIES, False, None, "do_not_truncate")),
        ("padding_side", (None, "right", "left")),
    ):
        if options.get(name) not in allowed:
            raise ConfigError(f"{name} is {options[name]!r}; expected one of {allowed}; choose one")
    return options


def _items(text: Any, text_pair: Any, *, many: bool, words: bool) -> list[Any]:
    texts = list(text) if many else [text]
    pairs = None if text_pair is None else list(text_pair) if many else [text_pair]
    one = list if words else str
    for each in [*texts, *(pairs or [])]:
        if not isinstance(each, one) and not (words and isinstance(each, tuple)):
            if words or not (isinstance(each, list | tuple) and len(each) == 2):  # a pair in the list of texts
                raise RequestError(
                    f"a tokenizer was called with {type(each).__name__}; expected a text or a list of texts; convert it"
                )
    if pairs is not None and len(pairs) != len(texts):
        raise RequestError(f"{len(texts)} texts with {len(pairs)} pairs; expected as many; give one pair for each text")
    return (
        [tuple(each) if not words and isinstance(each, list) else each for each in texts]
        if pairs is None
        else list(zip(texts, pairs, strict=True))
    )


def _prepared(tokenizer: "Tokenizer", given: _Options, own: tokenizers.Tokenizer | None = None) -> tokenizers.Tokenizer:
    """The backend, or a copy of it that pads and cuts as a call wants; or one that is the call's own."""
    backend = tokenizer.plain if given.split_special_tokens else tokenizer.backend
    backend = backend if own is None else own
    strategy, limit = STRATEGIES.get(given.truncation or False), given.max_length
    padding = given.padding not in (False, None, "do_not_pad")
    if limit is not None and given.truncation is None and not padding:
        warnings.warn(f"max_length={limit} without truncation: texts are cut there; say truncation=True", stacklevel=5)
        strategy = "longest_first"
    if limit is None and (strategy or given.padding == "max_length"):
        limit = tokenizer.model_max_length if tokenizer.model_max_length < UNBOUNDED else None
        if limit is None and given.padding == "max_length":
            raise ConfigError("padding='max_length' without max_length; expected a length; pass max_length=")
    if not (strategy and limit is not None) and not padding:
        return backend
    backend = copy_of(backend) if own is None else own
    if strategy and limit is not None:
        backend.enable_truncation(limit, stride=given.stride, strategy=strategy, direction=tokenizer.truncation_side)
    if padding:
        backend.enable_padding(
            direction=given.padding_side or tokenizer.padding_side,
            pad_id=pad_id_of(tokenizer),
            pad_token=tokenizer.special_tokens["pad_token"],
            length=limit if given.padding == "max_length" else None,
            pad_to_multiple_of=given.pad_to_multiple_of,
        )
    return backend


def _columns(tokenizer: "Tokenizer", rows: Sequence[Any], given: _Options) -> dict[str, list[Any]]:
    names = tokenizer.settings.get("model_input_names")
    names = names if isinstance(names, list) else []
    typed = "token_type_ids" in names if given.return_token_type_ids is None else given.return_token_type_ids
    data = {"input_ids": [row.ids for row in rows]}
    if typed:
        data["token_type_ids"] = [row.type_ids for row in rows]
    if given.return_attention_mask in (None, True):
        data["attention_mask"] = [row.attention_mask for row in rows]
    if given.return_special_tokens_mask:
        data["special_tokens_mask"] = [row.special_tokens_mask for row in rows]
    if given.return_offsets_mapping:
        data["offset_mapping"] = [row.offsets for row in rows]
    if given.return_length:
        data["length"] = [len(row.ids) for row in rows]
    return data
