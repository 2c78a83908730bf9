"""The same seed, epoch and row give the same example, whatever the objective."""

import dataclasses

import numpy as np
import pytest

from tests.data.rows import VOCABULARY, make_row
from trivium.data.batch import Example
from trivium.data.example import example_rng, make_example
from trivium.data.objective import ObjectiveConfig


def assert_equal(one: Example, other: Example) -> None:
    for field in dataclasses.fields(Example):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert (a is None and b is None) or np.array_equal(a, b), field.name


@pytest.mark.parametrize("name", ["causal", "masked", "span_corruption", "prefix"])
def test_the_same_seed_epoch_and_index_give_the_same_example(name: str) -> None:
    config = ObjectiveConfig(name, with_context=name == "prefix")
    ids, segments = make_row(40, 50)

    def example(*key: int) -> Example:
        return make_example(ids, segments, config=config, vocabulary=VOCABULARY, rng=example_rng(*key))

    assert_equal(example(1, 2, 3), example(1, 2, 3))
    if name != "causal":
        for other in ((0, 2, 3), (1, 0, 3), (1, 2, 0)):
            with pytest.raises(AssertionError):
                assert_equal(example(1, 2, 3), example(*other))
