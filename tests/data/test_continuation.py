"""What a decoder learns from: the exact targets, and prefixes over many draws."""

import itertools

import numpy as np

from tests.data.rows import END, VOCABULARY, make_row, pieces
from trivium.data.continuation import causal, prefix
from trivium.data.example import example_rng, make_example
from trivium.data.objective import ObjectiveConfig


def test_causal_predicts_each_next_token_and_lets_an_end_token_open_the_next_document() -> None:
    ids, segments = make_row(3, 2)
    example = causal(ids, segments)
    a, b, c, _, d, e, _ = ids.tolist()
    assert pieces(example.input_ids, example.input_segments) == [[a, b, c], [END, d, e]]
    assert pieces(example.targets, example.input_segments) == [[b, c, END], [d, e, END]]
    assert example.weights.tolist() == [1.0] * 6


def test_prefix_learns_from_a_uniform_split_on() -> None:
    ids, segments = make_row(6, 4, cut=True)
    config = ObjectiveConfig("prefix")
    seen = set()
    for index in range(300):
        example = make_example(ids, segments, config=config, vocabulary=VOCABULARY, rng=example_rng(0, 0, index))
        first, second = pieces(example.weights, example.input_segments)
        assert sorted(first) == first and first[0] == 0 and first[-1] == 1
        assert sorted(second) == second and second[0] == 0 and second[-1] == 1
        seen.add((sum(first), sum(second)))
        assert np.array_equal(example.targets, causal(ids, segments).targets)
    assert seen == set(itertools.product(range(1, 6), range(1, 4)))
    lone = prefix(np.array([50, 51]), np.array([1, 1]), rng=example_rng(0, 0, 0))
    assert lone.weights.tolist() == [1.0]
