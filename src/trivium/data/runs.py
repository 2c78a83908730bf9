"""Runs of equal numbers in one long array: pieces laid end to end, and their lengths. Knows nothing of text."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from trivium.data.batch import Ints

Bools = NDArray[np.bool_]


def frame(ids: Ints, lengths: Ints, *, before: Ints | None = None, after: Ints | None = None) -> tuple[Ints, Ints]:
    """Put fixed tokens `(pieces, k)` round each piece; the new ids and their segments, numbered from 1."""
    nothing = np.empty((len(lengths), 0), dtype=np.int64)
    before, after = nothing if before is None else before, nothing if after is None else after
    full = lengths + before.shape[1] + after.shape[1]
    out = np.empty(full.sum(), dtype=np.int64)
    begins, ends = starts_of(full), full.cumsum()
    out[np.arange(len(ids)) + np.repeat(begins + before.shape[1] - starts_of(lengths), lengths)] = ids
    out[begins[:, None] + np.arange(before.shape[1])] = before
    out[ends[:, None] - after.shape[1] + np.arange(after.shape[1])] = after
    return out, np.repeat(np.arange(1, len(lengths) + 1), full)


def compose(totals: Ints, parts: Ints, rng: Generator) -> Ints:
    """Cut each total into so many positive parts, all ways equally likely; the sizes laid end to end."""
    group = np.repeat(np.arange(len(totals)), totals)
    begins = starts_of(totals)
    keys = rng.random(len(group))
    keys[begins] = -1.0  # a group's first item always begins a part
    rank = np.arange(len(group)) - np.repeat(begins, totals)
    opens = np.zeros(len(group), dtype=bool)
    opens[np.lexsort((keys, group))] = rank < np.repeat(parts, totals)
    return _sizes(opens)


def split_points(lengths: Ints, rng: Generator) -> Ints:
    """For each length a uniform size from 1 to length − 1 of its first part; 0 where nothing can be split."""
    return np.where(lengths > 1, rng.integers(1, np.maximum(lengths, 2)), 0)


def run_lengths(segments: Ints) -> Ints:
    """The lengths of runs of equal numbers."""
    return _sizes(changes(segments))


def changes(numbers: Ints | Bools) -> Bools:
    """Where a number differs from the one before it, the first place included."""
    changes = np.ones(len(numbers), dtype=bool)
    np.not_equal(numbers[1:], numbers[:-1], out=changes[1:])
    return changes


def _sizes(opens: Bools) -> Ints:
    """The sizes of the parts that open at the marked places, the first place among them."""
    # np.diff with values for the ends is three times slower at such lengths: it was a fourth of the time.
    bounds = np.flatnonzero(opens)
    sizes = np.empty_like(bounds)
    sizes[:-1] = bounds[1:] - bounds[:-1]
    sizes[-1:] = len(opens) - bounds[-1:]
    return sizes


def starts_of(lengths: Ints) -> Ints:
    """Where each piece begins when pieces of these lengths are laid end to end."""
    return lengths.cumsum() - lengths
