"""What calls of a tokenizer give and take: rows of ids as lists or tensors. Knows no tokenizer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trivium.errors import ConfigError, RequestError


@dataclass(frozen=True)
class Encoded:
    """One text, or a pair, with special tokens round it; four lists of equal length.

    `types` are BERT's token types; `offsets` are spans of characters in the text or the pair; `sides` say which of the
    two a token is from (0, 1), None for special tokens.
    """

    ids: list[int]
    types: list[int]
    offsets: list[tuple[int, int]]
    sides: list[int | None]


class TokenBatch:
    """What a call gives: a mapping (`**batch` works) whose values are attributes too, lists or tensors."""

    def __init__(self, data: dict[str, Any], encodings: Sequence[Any] = ()) -> None:
        self.data = data
        self.encodings = list(encodings)

    def __getitem__(self, name: str | int) -> Any:
        return self.encodings[name] if isinstance(name, int) else self.data[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.data[name] = value

    def __getattr__(self, name: str) -> Any:
        if name == "data" or name not in self.data:
            raise AttributeError(f"a batch of tokens has no {name}; expected one of {', '.join(self.__dict__['data'])}")
        return self.data[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def __contains__(self, name: object) -> bool:
        return name in self.data

    def __repr__(self) -> str:
        return repr(self.data)

    def keys(self) -> Any:
        """Names of what is there; likewise below."""
        return self.data.keys()

    def values(self) -> Any:
        """The lists or tensors."""
        return self.data.values()

    def items(self) -> Any:
        """Names with their lists or tensors."""
        return self.data.items()

    def get(self, name: str, default: Any = None) -> Any:
        """One list or tensor, or the default."""
        return self.data.get(name, default)

    def pop(self, name: str, *default: Any) -> Any:
        """Take one list or tensor out."""
        return self.data.pop(name, *default)

    def to(self, device: Any) -> "TokenBatch":
        """The tensors moved to a device, here; gives itself."""
        self.data = {name: value.to(device) if hasattr(value, "to") else value for name, value in self.data.items()}
        return self

    def tokens(self, index: int = 0) -> list[str]:
        """The tokens of one row as they are stored."""
        return list(self.encodings[index].tokens)

    def word_ids(self, index: int = 0) -> list[int | None]:
        """For each token of one row, which word it is of; None for special tokens."""
        return list(self.encodings[index].word_ids)

    def char_to_token(self, row: int, char: int | None = None, *, sequence_index: int = 0) -> int | None:
        """The token that a character of the text (or of the pair, 1) is in; of one text, the character alone."""
        row, char = (0, row) if char is None else (row, char)
        found = self.encodings[row].char_to_token(char, sequence_index)
        return None if found is None else int(found)

    def convert_to_tensors(self, tensor_type: str | None = None) -> "TokenBatch":
        """The lists made tensors (`pt`, `np`), here; gives itself."""
        self.data = {name: to_tensor(name, values, tensor_type) for name, values in self.data.items()}
        return self

    def sequence_ids(self, index: int = 0) -> list[int | None]:
        """For each token of one row, whether it is of the text (0) or its pair (1); None for special tokens."""
        return list(self.encodings[index].sequence_ids)


def list_of_ids(ids: Any) -> list[int]:
    """Ids of one text from what people have: an integer, a list, a tensor or an array; `RequestError` for rows."""
    if isinstance(ids, Mapping | TokenBatch):
        ids = ids["input_ids"]
    if hasattr(ids, "tolist"):
        ids = ids.tolist()
    found = [ids] if isinstance(ids, int) else [each.item() if getattr(each, "ndim", 1) == 0 else each for each in ids]
    if not all(isinstance(each, int) for each in found):
        raise RequestError("ids of several rows; expected those of one text; use batch_decode")
    return found


def to_tensor(name: str, values: Any, kind: str | None) -> Any:
    """A column of rows as lists, or as `pt` or `np` asks; `RequestError` for unequal rows, `ConfigError` for others."""
    if kind is None:
        return values
    lengths = {len(row) for row in values if isinstance(row, list)}
    if len(lengths) > 1:
        raise RequestError(
            f"texts of {min(lengths)} to {max(lengths)} tokens make no tensor of {name}; expected equal lengths; pass "
            "padding=True"
        )
    if kind == "pt":
        import torch

        return torch.tensor(values, dtype=torch.long)
    if kind == "np":
        import numpy as np

        return np.array(values, dtype=np.int64)
    raise ConfigError(f"return_tensors is {kind!r}; expected 'pt', 'np' or None; choose one")
