"""Batches of whole examples, as fine-tuning reads them: shuffled, mixed by weight, laid out without much padding.

Like data/loader.py a pure function of (seed, step, micro-step), with nothing to store or to skip. A step has a fixed
number of examples, however they are laid out: packed into rows that tell them apart by segments, or one a row among
others of similar length, where a head reads a row's first token. Packing changes no gradient of its examples.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from trivium.data.batch import Batch, Example, Ints, collate
from trivium.data.example import example_rng
from trivium.data.loader import permute
from trivium.data.swapping import Swapper
from trivium.errors import ConfigError, DataError

GROUPED_STEPS = 16  # batches whose examples are sorted by length together
BLOCK = 4096  # samples whose data set is drawn together
Place = tuple[int, int, int]  # data set, epoch, number of the example


class ExampleLoader:
    """Batches of `rows_per_batch` examples from one or several data sets, `micro_rows` of them at a time (0: all).

    With `weights` each sample comes from data set k with that share of the probability; without, the sets are one.
    A `swapper` changes tokens of what steps read, each time an example comes up in another way.
    Raises `DataError` for no examples, `ConfigError` for sizes or weights that cannot be.
    """

    def __init__(
        self,
        sets: Sequence[Sequence[Example]],
        *,
        pad_id: int,
        rows_per_batch: int,
        micro_rows: int = 0,
        pack: bool = True,
        weights: Sequence[float] | None = None,
        swapper: Swapper | None = None,
        seed: int = 0,
    ) -> None:
        if not sets or not all(sets):
            raise DataError("a data set without examples; expected at least one; look at what was left out and why")
        if rows_per_batch < 1 or not 0 <= micro_rows <= rows_per_batch:
            raise ConfigError(
                f"batches of {rows_per_batch} examples, {micro_rows} at a time; expected positive sizes, the second "
                "within the first; change rows_per_batch or micro_rows"
            )
        if weights is not None and (len(weights) != len(sets) or not all(0 < each < math.inf for each in weights)):
            raise ConfigError(f"weights {list(weights)} for {len(sets)} data sets; expected a positive one for each")
        self.sets = list(sets) if weights is not None else [[each for examples in sets for each in examples]]
        self.shares = np.array(weights if weights is not None else [1.0], dtype=np.float64)
        self.shares = self.shares / self.shares.sum()
        self.pad_id, self.seed, self.pack, self.swapper = pad_id, seed, pack, swapper
        self.rows_per_batch, self.micro_rows = rows_per_batch, micro_rows or rows_per_batch
        self._counts = [np.zeros(len(self.sets), dtype=np.int64)]  # of samples before each block, by data set

    @property
    def num_micro_steps(self) -> int:
        """Micro-batches in a batch."""
        return -(-self.rows_per_batch // self.micro_rows)

    @property
    def num_examples(self) -> int:
        """Examples of all data sets."""
        return sum(map(len, self.sets))

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which as many examples are read as there are."""
        return self.num_examples / self.rows_per_batch

    @cached_property
    def tokens_per_batch(self) -> int:
        """Tokens of both sides that a step reads on average."""
        means = [np.mean([example.num_tokens for example in examples]) for examples in self.sets]
        return round(self.rows_per_batch * float(np.dot(means, self.shares)))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that decides what a step reads; how it is split and laid out is no part of it."""
        settings = (self.shares.tolist(), self.rows_per_batch, self.seed)
        digest = hashlib.sha256(repr(settings + ((self.swapper.share,) if self.swapper else ())).encode())
        for examples in self.sets:
            for example in examples:
                digest.update(example.input_ids.tobytes() + b"|" + example.targets.tobytes())
                digest.update(repr((example.label, example.weights.tolist())).encode())
                digest.update(b"" if example.context_ids is None else example.context_ids.tobytes())
        return digest.hexdigest()

    def sample_ids(self, step: int, micro_step: int = 0) -> list[Place]:
        """Which examples a micro-batch has; `ConfigError` if there is no such micro-step."""
        if step < 0 or not 0 <= micro_step < self.num_micro_steps:
            raise ConfigError(
                f"micro-step {micro_step} of step {step}; expected a step from 0 and a micro-step below "
                f"{self.num_micro_steps}; ask for one that exists"
            )
        size = self.rows_per_batch
        if self.pack:
            chosen = [self._sample(number) for number in range(step * size, (step + 1) * size)]
        else:
            steps = max(min(GROUPED_STEPS, self.num_examples // size), 1)  # else one example meets itself in a batch
            group, place = divmod(step, steps)
            samples = [self._sample(number) for number in range(group * steps * size, (group + 1) * steps * size)]
            samples.sort(key=lambda each: (self._example(each).num_tokens, each))
            place = permute(place, steps, (self.seed, group))
            chosen = samples[place * size : (place + 1) * size]
        return chosen[micro_step * self.micro_rows : (micro_step + 1) * self.micro_rows]

    def batch_at(self, step: int, micro_step: int = 0) -> Batch:
        """The batch, or one micro-batch of it, that step number `step` (from 0) trains on."""
        return self._lay_out([self._change(place) for place in self.sample_ids(step, micro_step)])

    def valid_batches(self, limit_rows: int | None = None) -> Iterator[Batch]:
        """Every example once, or the first `limit_rows` of each data set, the shortest first."""
        examples = [example for each in self.sets for example in each[:limit_rows]]
        examples.sort(key=lambda example: example.num_tokens)
        for begin in range(0, len(examples), self.micro_rows):
            yield self._lay_out(examples[begin : begin + self.micro_rows])

    def _example(self, place: Place) -> Example:
        return self.sets[place[0]][place[2]]

    def _change(self, place: Place) -> Example:
        which, epoch, index = place
        example = self._example(place)
        return self.swapper.swap(example, example_rng(self.seed + 1 + which, epoch, index)) if self.swapper else example

    def _sample(self, number: int) -> Place:
        """Sample `number` of the run: the next of its data set's permutation in the epoch that set has reached."""
        which, count = self._set_of(number)
        epoch, index = divmod(count, len(self.sets[which]))
        return which, epoch, permute(index, len(self.sets[which]), (self.seed, epoch))

    def _set_of(self, number: int) -> tuple[int, int]:
        """Which data set a sample is from, and how many before it were."""
        if len(self.sets) == 1:
            return 0, number
        block, place = divmod(number, BLOCK)
        while len(self._counts) <= block:
            draws = self._draws(len(self._counts) - 1)
            self._counts.append(self._counts[-1] + np.bincount(draws, minlength=len(self.sets)))
        draws = self._draws(block)
        which = int(draws[place])
        return which, int(self._counts[block][which] + (draws[:place] == which).sum())

    def _draws(self, block: int) -> Ints:
        return np.asarray(example_rng(self.seed, block, 0).choice(len(self.sets), size=BLOCK, p=self.shares))

    def _lay_out(self, examples: Sequence[Example]) -> Batch:
        return collate(pack_examples(examples) if self.pack else examples, self.pad_id)


def pack_examples(examples: Sequence[Example]) -> list[Example]:
    """As few rows as first-fit decreasing finds (Johnson 1973), none wider on either side than the widest example."""
    if any(example.label is not None for example in examples):
        raise ConfigError("examples with labels for whole texts share no row; expected pack=False; set it")
    sizes = [(len(each.input_ids), 0 if each.context_ids is None else len(each.context_ids)) for each in examples]
    room = np.array(sizes).max(axis=0)
    rows: list[list[Example]] = []
    free: list[np.ndarray] = []
    for index in sorted(range(len(examples)), key=lambda index: -sum(sizes[index])):
        place = next((row for row, left in enumerate(free) if (left >= sizes[index]).all()), len(rows))
        if place == len(rows):
            rows.append([])
            free.append(room.copy())
        rows[place].append(examples[index])
        free[place] = free[place] - sizes[index]
    return [_join(row) for row in rows]


def _join(row: Sequence[Example]) -> Example:
    """Several examples as one row, each a document of its own."""
    if len(row) == 1:
        return row[0]
    contexts = [each.context_ids for each in row if each.context_ids is not None]
    types = [each.input_types for each in row if each.input_types is not None]
    return Example(
        np.concatenate([each.input_ids for each in row]),
        _number([each.input_ids for each in row]),
        np.concatenate([each.targets for each in row]),
        np.concatenate([each.weights for each in row]),
        np.concatenate(contexts) if contexts else None,
        _number(contexts) if contexts else None,
        np.concatenate(types) if types else None,
    )


def _number(parts: Sequence[Ints]) -> Ints:
    return np.repeat(np.arange(1, len(parts) + 1), [len(part) for part in parts])
