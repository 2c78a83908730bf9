"""Rows of ids that were made one by one, filled up to one length: what data collators ask of a tokenizer."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trivium.errors import ConfigError, RequestError
from trivium.tokenizer.batch import TokenBatch, list_of_ids, to_tensor

if TYPE_CHECKING:
    from trivium.tokenizer.tokenizer import Tokenizer


def pad_id_of(tokenizer: "Tokenizer") -> int:
    """The id to pad with; raises `ConfigError` where there is none."""
    if tokenizer.pad_id is None:
        raise ConfigError(
            "padding was asked for and the tokenizer has no pad_token; expected one; set tokenizer.pad_token, for "
            "example to tokenizer.eos_token"
        )
    return tokenizer.pad_id


def pad_rows(
    tokenizer: "Tokenizer",
    encoded: Any,
    padding: bool | str = True,
    *,
    max_length: int | None = None,
    pad_to_multiple_of: int | None = None,
    padding_side: str | None = None,
    return_tensors: str | None = None,
) -> TokenBatch:
    """A list of calls' results, or one of many rows, as a batch of equal lengths; other columns stay as they are.

    Raises `RequestError` without input_ids, `ConfigError` without a padding token.
    """
    if not isinstance(encoded, Mapping | TokenBatch):
        encoded = {name: [row[name] for row in encoded] for name in (encoded[0] if encoded else ())}
    if "input_ids" not in encoded:
        raise RequestError(f"rows of {', '.join(encoded) or 'nothing'} to pad; expected input_ids; give them too")
    data: dict[str, Any] = {**encoded, "input_ids": [list_of_ids(row) for row in encoded["input_ids"]]}
    rows = data["input_ids"]
    data.setdefault("attention_mask", [[1] * len(row) for row in rows])
    longest = max(map(len, rows), default=0)
    length = max(longest, max_length or 0) if padding == "max_length" else longest
    length += -length % (pad_to_multiple_of or 1)
    first = (padding_side or tokenizer.padding_side) == "left"
    filled = {"input_ids": pad_id_of(tokenizer), "attention_mask": 0, "token_type_ids": 0, "special_tokens_mask": 1}
    for name in filled.keys() & data.keys() if padding not in (False, None, "do_not_pad") else ():
        rows = [(list_of_ids(row), [filled[name]] * (length - len(row))) for row in data[name]]
        data[name] = [fill + row if first else row + fill for row, fill in rows]
    return TokenBatch({name: to_tensor(name, values, return_tensors) for name, values in data.items()})
