"""How far a mean may be off, and whether one system is really better than another on the same texts.

Scores are sorted before anything is drawn from them, so that the order of the texts changes nothing.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.errors import DataError
from trivium.evaluation.rouge import check_pairs

BLOCK_DRAWS = 2_000_000


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its confidence interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedResult:
    """The mean difference of two systems, its interval, and how often chance alone gives one as large."""

    difference: Interval
    p_value: float


def bootstrap_interval(
    scores: Sequence[float], *, level: float = 0.95, resamples: int = 5000, seed: int = 0
) -> Interval:
    """The mean of scores and its percentile interval over resamples of the texts (Efron, 1979).

    Raises `DataError` without a score or for one that is not finite.
    """
    values = _sorted(scores)
    draw, means, count = np.random.default_rng(seed), np.empty(resamples), len(values)
    rows = max(BLOCK_DRAWS // count, 1)
    for begin in range(0, resamples, rows):
        stop = min(begin + rows, resamples)
        means[begin:stop] = values[draw.integers(0, count, (stop - begin, count))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(math.fsum(values) / count, float(low), float(high))


def paired_test(
    a: Sequence[float], b: Sequence[float], *, level: float = 0.95, resamples: int = 5000, seed: int = 0
) -> PairedResult:
    """How much better `a` is than `b` on the same texts, by approximate randomisation (Noreen, 1989).

    If the two systems were alike, either could have written each text: the signs of the differences are thrown
    anew, all ways if there are no more of them than `resamples`, and the p-value is the share of throws whose mean
    is at least as far from 0 (two-sided; with draws, one added above and below). Raises `DataError` for lists of
    unequal length.
    """
    check_pairs(a, b)
    all_differences = [x - y for x, y in zip(a, b, strict=True)]
    differences = _sorted(all_differences)
    differences = differences[differences != 0]  # where both are alike, signs change nothing
    # Equal sums that were added in another order are as far.
    bound = abs(math.fsum(differences)) - 1e-9 * float(np.abs(differences).sum())
    reached = thrown = 0
    for signs in _signs(len(differences), resamples, seed):
        reached += int((np.abs(signs @ differences) >= bound).sum())
        thrown += len(signs)
    exact = thrown == 2 ** len(differences)
    p_value = reached / thrown if exact else (reached + 1) / (thrown + 1)
    return PairedResult(bootstrap_interval(all_differences, level=level, resamples=resamples, seed=seed), p_value)


def adjust_p_values(p_values: Sequence[float]) -> list[float]:
    """p-values of several comparisons made at once, so that 5 % holds for all of them together (Holm, 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def _signs(count: int, resamples: int, seed: int) -> Iterator[NDArray[Any]]:
    """Blocks of rows of −1 and 1: every row there is, if `resamples` allows, else drawn ones."""
    if 2**count <= resamples:
        yield ((np.arange(2**count)[:, None] >> np.arange(count)) & 1) * 2.0 - 1.0
        return
    draw, rows = np.random.default_rng(seed), max(BLOCK_DRAWS // count, 1)
    for begin in range(0, resamples, rows):
        yield draw.integers(0, 2, (min(rows, resamples - begin), count)) * 2.0 - 1.0


def _sorted(scores: Sequence[float]) -> NDArray[np.float64]:
    values = np.sort(np.array(scores, dtype=np.float64))
    if not values.size or not np.isfinite(values).all():
        raise DataError(
            f"{values.size} scores, {int((~np.isfinite(values)).sum())} of them not finite; "
            "expected at least one and finite ones; score some texts first"
        )
    return values
