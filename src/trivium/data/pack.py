"""Rows over a long stream of tokens: row `r` is found by arithmetic and one binary search, not by reading on.

All documents lie end to end, each with the end token that data/shards.py wrote after it, and are cut every
`row_tokens` tokens, wherever that falls. No token is lost or repeated, no row but the last is short, and a
row tells its documents apart by segment numbers. Knows no tokenizer, no objective and no files: tokens come
from a function, document bounds from an array.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.data.batch import Ints
from trivium.errors import ConfigError, DataError


class PackedRows:
    """Random access to the packed rows of a token stream.

    `read(start, stop)` gives the tokens of that range; `offsets`, `(documents + 1,)`, says where each
    document begins and the last one ends. `overlap` tokens of the next row are read too (causal targets need
    one). `lead` is how many tokens the objective will put before each document: rows leave room for them, and
    for the same number at a cut (a masked row frames every piece). Raises `ConfigError` for sizes below 1,
    `DataError` if the stream holds no token.
    """

    def __init__(
        self,
        read: Callable[[int, int], NDArray[Any]],
        offsets: NDArray[np.int64],
        *,
        row_tokens: int,
        overlap: int = 0,
        lead: int = 0,
    ) -> None:
        if row_tokens < 1:
            raise ConfigError(f"rows of {row_tokens} tokens; expected at least 1; raise seq_len")
        if len(offsets) < 2 or offsets[-1] <= offsets[0]:
            raise DataError("the data hold no token; expected at least one document; add text to the training data")
        self.read, self.offsets = read, offsets
        self.row_tokens, self.overlap, self.lead = row_tokens, overlap, lead
        # Eight bytes a document, only where documents grow; otherwise the given array, mapped or not.
        self.places = offsets if lead == 0 else np.asarray(offsets) + lead * np.arange(len(offsets))

    def __len__(self) -> int:
        """How many rows there are; the last may be short, but never holds the overlap alone."""
        return max(-(-(int(self.places[-1] - self.places[0]) - self.overlap) // self.row_tokens), 1)

    def row(self, index: int) -> tuple[Ints, Ints]:
        """Token ids and segments of one row, both `(≤ row_tokens + overlap,)`; segments count from 1.

        Raises `ConfigError` if there is no such row.
        """
        if not 0 <= index < len(self):
            raise ConfigError(
                f"row {index} of {len(self)}; expected an index from 0; take it modulo the number of rows"
            )
        start = int(self.places[0]) + index * self.row_tokens
        stop = min(start + self.row_tokens + self.overlap, int(self.places[-1]))
        first = int(np.searchsorted(self.places, start, side="right")) - 1
        last = int(np.searchsorted(self.places, stop, side="left"))
        bounds = np.array(self.offsets[first : last + 1], dtype=np.int64)
        bounds[-1] = self._token_at(stop, last - 1)
        bounds[0] = self._token_at(start, first)
        sizes = np.diff(bounds)
        sizes = sizes[sizes > 0]
        ids = np.asarray(self.read(int(bounds[0]), int(bounds[-1]))).astype(np.int64)
        return ids, np.repeat(np.arange(1, len(sizes) + 1), sizes)

    def _token_at(self, place: int, document: int) -> int:
        """The first token at or after a place; inside a document's lead that is its first token."""
        return int(self.offsets[document]) + max(place - int(self.places[document]) - self.lead, 0)
