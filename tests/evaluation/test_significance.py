"""Intervals and paired tests against scipy, and against what they promise on data whose truth is known."""

import random
import warnings

import numpy as np
import pytest

from trivium.errors import DataError
from trivium.evaluation import significance
from trivium.evaluation.significance import adjust_p_values, bootstrap_interval, paired_test

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import scipy.stats

SCORES = np.random.default_rng(1).beta(1, 3, 150).tolist()
OTHERS = (np.array(SCORES) + np.random.default_rng(2).normal(0.02, 0.1, 150)).tolist()


def test_intervals_equal_scipy() -> None:
    ours = bootstrap_interval(SCORES, resamples=20_000)
    theirs = scipy.stats.bootstrap((SCORES,), np.mean, method="percentile", n_resamples=20_000, rng=3)
    assert ours.mean == pytest.approx(np.mean(SCORES))
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=1e-3)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=1e-3)
    narrow = bootstrap_interval(SCORES, level=0.5)
    assert ours.low < narrow.low < ours.mean < narrow.high < ours.high
    assert bootstrap_interval([0.25] * 9) == significance.Interval(0.25, 0.25, 0.25)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    draw = np.random.default_rng(4)
    found = [bootstrap_interval(draw.exponential(1.0, 100).tolist(), resamples=400) for _ in range(300)]
    held = sum(each.low <= 1.0 <= each.high for each in found)
    assert 0.89 * 300 <= held <= 0.98 * 300


def test_p_values_equal_scipy() -> None:
    def mean_difference(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        return np.mean(a - b, axis=axis)

    for count in (4, 9, 12, 150):
        a, b = SCORES[:count], OTHERS[:count]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = scipy.stats.permutation_test(
                (a, b), mean_difference, permutation_type="samples", n_resamples=20_000, rng=5, vectorized=True
            )
        exact = count < 13
        found = paired_test(a, b, resamples=20_000)
        assert found.p_value == pytest.approx(theirs.pvalue, abs=1e-12 if exact else 0.01)
        assert found.difference.mean == pytest.approx(np.mean(np.array(a) - np.array(b)))


def test_chance_alone_is_seldom_significant_and_a_difference_is_found() -> None:
    draw = np.random.default_rng(6)
    alike = [paired_test(*draw.normal(0, 1, (2, 40)).tolist(), resamples=300).p_value for _ in range(300)]
    assert sum(p <= 0.05 for p in alike) <= 0.09 * 300
    better = draw.normal(0.7, 1, (20, 60)).tolist()
    assert all(paired_test(a, [0.0] * 60, resamples=2000).p_value < 0.02 for a in better)
    assert paired_test(SCORES, SCORES).p_value == 1.0
    assert paired_test([1.0] * 30 + [0.5] * 30, [0.0] * 30 + [0.5] * 30).p_value == 1 / 5001


def test_order_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    interval, result = bootstrap_interval(SCORES), paired_test(SCORES, OTHERS)
    order = random.Random(0).sample(range(150), 150)
    a, b = [SCORES[i] for i in order], [OTHERS[i] for i in order]
    assert bootstrap_interval(a) == interval and paired_test(a, b) == result
    monkeypatch.setattr(significance, "BLOCK_DRAWS", 1000)
    assert bootstrap_interval(a) == interval and paired_test(a, b) == result
    assert bootstrap_interval(SCORES, seed=1) != interval
    assert paired_test(OTHERS, SCORES).difference.mean == -result.difference.mean


def test_many_comparisons_at_once() -> None:
    assert adjust_p_values([0.01, 0.04, 0.03]) == [pytest.approx(0.03), pytest.approx(0.06), pytest.approx(0.06)]
    assert adjust_p_values([0.5, 0.9]) == [1.0, 1.0] and adjust_p_values([]) == []


def test_what_cannot_be_drawn_from() -> None:
    with pytest.raises(DataError, match="0 scores, 0 of them not finite; expected at least one"):
        bootstrap_interval([])
    with pytest.raises(DataError, match="2 scores, 1 of them not finite"):
        bootstrap_interval([1.0, float("nan")])
    with pytest.raises(DataError, match="1 outputs and 2 references"):
        paired_test([1.0], [1.0, 2.0])
