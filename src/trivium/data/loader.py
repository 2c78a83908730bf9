"""Which rows make which batch: a pure function of (seed, step, micro-step), with nothing to store or to skip.

Sample number `n` of a run is row `permute(n mod rows)` of epoch `n div rows`, under a permutation keyed by
seed and epoch. A batch may therefore span the end of an epoch, and a text of a single row is a training set
too: it comes again every sample, masked anew each time. Does not know the model, nor who trains on the
batches.
"""

import hashlib
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trivium.data.batch import Batch, Example, collate
from trivium.data.example import example_rng, make_example
from trivium.data.objective import ObjectiveConfig, Vocabulary
from trivium.data.pack import PackedRows
from trivium.data.rewriting import raw_length
from trivium.errors import ConfigError

ROUNDS = 8
WORD = (1 << 64) - 1


class TokenSource(Protocol):
    """What a loader reads: data/shards.py's `Shards`, or any token stream with document bounds."""

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Where each document begins, `(documents + 1,)`, the end of the last one included."""

    @property
    def fingerprint(self) -> str:
        """A hash of the content."""

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """The token ids of a range."""


class Loader:
    """Batches of one split under one objective, in an order that is computed and never remembered.

    `rows_per_batch` rows make a step; `micro_rows` of them a micro-step (0: all; the last may be smaller).
    Raises `ConfigError` if the tokenizer lacks a token that the objective needs or a size cannot be,
    `DataError` if the source is empty.
    """

    def __init__(
        self,
        source: TokenSource,
        vocabulary: Vocabulary,
        *,
        objective: ObjectiveConfig,
        seq_len: int,
        rows_per_batch: int,
        micro_rows: int = 0,
        seed: int = 0,
    ) -> None:
        if min(seq_len, rows_per_batch) < 1 or not 0 <= micro_rows <= rows_per_batch:
            raise ConfigError(
                f"{rows_per_batch} rows of {seq_len} tokens in micro-batches of {micro_rows}; expected "
                "positive sizes, micro-batches within the batch; change seq_len, rows_per_batch or micro_rows"
            )
        self.source, self.vocabulary, self.objective = source, vocabulary, objective
        self.seq_len, self.rows_per_batch, self.seed = seq_len, rows_per_batch, seed
        self.micro_rows = micro_rows or rows_per_batch
        self.width, self.context_width = seq_len, 0
        self.rows = self._plan()

    def _plan(self) -> PackedRows:
        """How many tokens of text make a row, and how wide each side of it is planned."""
        read, offsets, seq_len = self.source.read, self.source.offsets, self.seq_len
        if self.objective.name == "masked":
            self.vocabulary.need("mask_id", "cls_id", "sep_id")
            if seq_len < 3:
                raise ConfigError(f"seq_len {seq_len} for masked rows; expected at least 3, [CLS] x [SEP]; raise it")
            return PackedRows(read, offsets, row_tokens=seq_len - 2, lead=1)
        if self.objective.name == "span_corruption":
            self.vocabulary.need("sentinel_ids")
            row_tokens, targets = raw_length(seq_len, self.objective)
            self.width, self.context_width = -(-targets // 8) * 8, seq_len
            # One token less: rows of several documents round differently, and without it half of the batches of
            # 120-token documents were eight columns wider (97 % filled at a planned 128, with it 99 %).
            return PackedRows(read, offsets, row_tokens=max(row_tokens - 1, 2))
        if self.objective.has_context:
            self.width = 0  # a prefix may be any part of a row: as wide as the longest of the batch
            return PackedRows(read, offsets, row_tokens=seq_len)
        return PackedRows(read, offsets, row_tokens=seq_len, overlap=1)

    @property
    def num_micro_steps(self) -> int:
        """Micro-batches in a batch."""
        return -(-self.rows_per_batch // self.micro_rows)

    @property
    def tokens_per_batch(self) -> int:
        """Tokens of text that one step reads, as planned; the last row of an epoch may be shorter."""
        return self.rows_per_batch * self.rows.row_tokens

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which every row is seen once; less than 1 if one batch repeats rows."""
        return len(self.rows) / self.rows_per_batch

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides what a step reads; how it is split into micro-steps is no part of it."""
        decisive = (self.source.fingerprint, self.objective, self.seq_len, self.rows_per_batch, self.seed)
        return hashlib.sha256(repr(decisive).encode()).hexdigest()

    def sample_ids(self, step: int, micro_step: int = 0) -> list[tuple[int, int]]:
        """The (epoch, row) pairs of one micro-batch; `ConfigError` if there is no such micro-step."""
        if step < 0 or not 0 <= micro_step < self.num_micro_steps:
            raise ConfigError(
                f"micro-step {micro_step} of step {step}; expected a step from 0 and a micro-step below "
                f"{self.num_micro_steps}; ask for one that exists"
            )
        begin = step * self.rows_per_batch + micro_step * self.micro_rows
        end = min(begin + self.micro_rows, (step + 1) * self.rows_per_batch)
        places = (divmod(number, len(self.rows)) for number in range(begin, end))
        return [(epoch, permute(index, len(self.rows), (self.seed, epoch))) for epoch, index in places]

    def batch_at(self, step: int, micro_step: int = 0) -> Batch:
        """The batch, or one micro-batch of it, that step number `step` (from 0) trains on."""
        return self._collate([self._example(row, epoch, self.seed) for epoch, row in self.sample_ids(step, micro_step)])

    def valid_batches(self, limit_rows: int | None = None) -> Iterator[Batch]:
        """Every row once (or the first `limit_rows`) in the order of the text, masked alike in every run."""
        count = len(self.rows) if limit_rows is None else min(limit_rows, len(self.rows))
        for begin in range(0, count, self.micro_rows):
            end = min(begin + self.micro_rows, count)
            yield self._collate([self._example(row, epoch=0, seed=0) for row in range(begin, end)])

    def _example(self, row: int, epoch: int, seed: int) -> Example:
        ids, segments = self.rows.row(row)
        rng = example_rng(seed, epoch, row)
        return make_example(ids, segments, config=self.objective, vocabulary=self.vocabulary, rng=rng)

    def _collate(self, examples: list[Example]) -> Batch:
        pad_id = self.vocabulary.pad_id
        return collate(examples, pad_id, width=self.width, context_width=self.context_width)


def permute(index: int, size: int, key: tuple[int, int]) -> int:
    """Where `index` goes in a keyed permutation of `range(size)`: a Feistel network, walked until inside.

    Black and Rogaway 2002: a cipher on the next even number of bits permutes its domain, and following it
    from inside a subset until it returns there permutes the subset. At most four steps are expected.
    """
    half = max((size - 1).bit_length() + 1, 2) // 2
    low = (1 << half) - 1
    while True:
        left, right = index >> half, index & low
        for number in range(ROUNDS):
            left, right = right, left ^ (_mix(right, number, key) & low)
        index = (left << half) | right
        if index < size:
            return index


def _mix(value: int, number: int, key: tuple[int, int]) -> int:
    """A keyed hash of a half word: splitmix64's finaliser (Steele et al. 2014), part after part."""
    state = 0
    for part in (*key, number, value):
        state = (state + (part & WORD) + 0x9E3779B97F4A7C15) & WORD
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & WORD
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & WORD
        state ^= state >> 31
    return state
