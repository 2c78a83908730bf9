"""What every task works with: an opened model, its tokenizer and its folder's wishes; and how texts become batches.

A text that is longer than the model reads is refused with both lengths, unless the caller said what to do with it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from trivium.errors import RequestError
from trivium.model import Side, Transformer
from trivium.tokenizer import Encoded, Tokenizer
from trivium.tokenizer.windows import cut_end, cut_windows

Options = dict[str, Any]
Answer = dict[str, Any]
_NO_LIMIT = 1_000_000  # what tokenizers write who know no length: this or much more


@dataclass(frozen=True)
class Loaded:
    """A model ready for one task. `settings` are decoding defaults, `prefix` goes before each text, `separator` between
    it and what a decoder was fine-tuned to write about it.

    `first` is the number of the first text of a call that comes in pieces, so that seeds do not depend on the pieces.
    """

    task: str
    model: Transformer
    tokenizer: Tokenizer
    settings: Options = field(default_factory=dict)
    prefix: str = ""
    separator: str = ""
    first: int = 0

    @property
    def limit(self) -> int:
        """How many tokens the model reads at most, 0 for no limit: its position table's or its tokenizer's figure."""
        config, stated = self.model.config, self.tokenizer.model_max_length
        limits = [config.max_positions] if config.position == "learned" else []
        if stated < _NO_LIMIT:
            limits.append(stated)
        return min(limits, default=0)

    def room(self, truncation: bool | None) -> int:
        """The limit that holds under a call's `truncation`: False lifts one that only the tokenizer states."""
        if truncation is False:
            return self.model.config.max_positions if self.model.config.position == "learned" else 0
        return self.limit

    def encode_texts(self, texts: Sequence[str], *, truncation: bool | None = None) -> list[list[int]]:
        """Ids of many texts with the model's special tokens, cut or refused as `encode` does."""
        rows, room = self.tokenizer.encode_batch(texts, add_special=True), self.room(truncation)
        for index, row in enumerate(rows):
            if room and len(row) > room:
                rows[index] = self.encode(texts[index], truncation=truncation).ids
        return rows

    def encode(
        self, text: str, pair: str | None = None, *, truncation: bool | None = None, cut_side: int = 0
    ) -> Encoded:
        """Ids of a text or a pair with the model's special tokens; too long a one is cut where that was asked for.

        Cut is the end of side 0 (the text) or 1 (its pair). Raises `RequestError` with both lengths otherwise.
        """
        found, room = self.tokenizer.pair(text, pair), self.room(truncation)
        if not room or len(found.ids) <= room:
            return found
        cut = cut_end(found, cut_side, longest=room) if truncation else None
        if cut is None:
            raise too_long(len(found.ids), room)
        return cut

    def windows(self, text: str, pair: str | None = None, *, longest: int, overlap: int) -> list[Encoded]:
        """A text, or a pair, in windows of at most `longest` tokens that share `overlap` tokens.

        The last side is cut, all else stands in each window.
        """
        found = self.tokenizer.pair(text, pair)
        windows = cut_windows(found, 0 if pair is None else 1, longest=longest, overlap=overlap)
        if not windows:
            advice = "a window needs room beside these; shorten the other text"
            others = sum(side != (0 if pair is None else 1) for side in found.sides)
            raise too_long(others + overlap, longest, advice)
        return windows

    def side(self, rows: Sequence[Encoded]) -> tuple[Side, Tensor]:
        """A right-padded batch on the model's device, with token types `(B, T)`."""
        device = self.model.embedding.tokens.weight.device
        side = Side.from_ids([row.ids for row in rows], pad_id=self.model.config.pad_id)
        types_BT = Side.from_ids([row.types for row in rows]).ids.to(device)
        # RoBERTa's kind has one type for both texts of a pair, whatever the tokenizer numbers them.
        return side.to(device), types_BT.clamp(max=max(self.model.config.token_types - 1, 0))


_CUT = "pass truncation=True to cut its end, or shorten it"


def too_long(found: int, limit: int, advice: str = _CUT) -> RequestError:
    """The error for a text that the model cannot read."""
    return RequestError(f"the text has {found} tokens; this model reads at most {limit}; {advice}")


def batches(
    lengths: Sequence[int], batch_size: int | None, *, tokens: int = 512, rows: int = 1 << 20
) -> Iterator[list[int]]:
    """Indices in batches of rows of similar length, the longest first: little padding, and memory fails early.

    Without `batch_size` a batch has as many rows as make `tokens` tokens, at least one and at most `rows`: in a model
    384 wide 512 tokens keep what one layer hands to the next in the processor's cache, where 2048 take a tenth longer.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        count = batch_size or max(min(tokens // max(lengths[order[start]], 1), rows), 1)
        yield order[start : start + count]
        start += count
