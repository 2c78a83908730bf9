"""The order of rows: a permutation per epoch, the same from any start, and nothing read to get there."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

from tests.data.rows import END, PAD, VOCABULARY, make_row
from trivium.data.batch import Batch
from trivium.data.loader import Loader, permute
from trivium.data.objective import ObjectiveConfig, Vocabulary
from trivium.errors import ConfigError, DataError


class Source:
    """Documents of random tokens in memory, counting what is read."""

    fingerprint = "a source for tests"

    def __init__(self, *lengths: int) -> None:
        self.tokens = make_row(*lengths)[0] if lengths else np.array([])
        self.offsets = np.cumsum([0, *(n + 1 for n in lengths)])
        self.reads: list[tuple[int, int]] = []

    def read(self, start: int, stop: int) -> np.ndarray:
        self.reads.append((start, stop))
        return self.tokens[start:stop]


def make_loader(source: Source | None = None, *, name: str = "causal", **changes: object) -> Loader:
    settings = {"seq_len": 16, "rows_per_batch": 4, "micro_rows": 0, "seed": 7} | changes
    objective = ObjectiveConfig(name, with_context=settings.pop("with_context", False))
    return Loader(source or Source(*[30] * 40), VOCABULARY, objective=objective, **settings)


def assert_equal(one: Batch, other: Batch) -> None:
    assert torch.equal(one.targets, other.targets) and torch.equal(one.weights, other.weights)
    for a, b in ((one.inputs, other.inputs), (one.context, other.context)):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 100, 1000, 1025])
def test_permute_is_a_permutation_under_every_key(size: int) -> None:
    for key in ((0, 0), (0, 1), (1, 0), (-5, 2**70)):
        assert sorted(permute(index, size, key) for index in range(size)) == list(range(size))


def test_permute_spreads_evenly_and_differs_by_key() -> None:
    size = 12
    first = Counter(permute(0, size, (seed, 0)) for seed in range(2400))
    assert len(first) == size and max(first.values()) < 270 and min(first.values()) > 140
    orders = {tuple(permute(i, size, (3, epoch)) for i in range(size)) for epoch in range(200)}
    assert len(orders) == 200
    large = [permute(i, 10**6, (1, 1)) for i in range(500)]
    steps = np.diff(large)
    assert np.corrcoef(large[1:], large[:-1])[0, 1] < 0.15 and len(set(steps.tolist())) > 490


def test_every_epoch_sees_every_row_once_in_another_order() -> None:
    loader = make_loader(rows_per_batch=3, micro_rows=2)
    rows, steps = len(loader.rows), len(loader.rows)  # three epochs
    ids = [pair for step in range(steps) for micro in range(2) for pair in loader.sample_ids(step, micro)]
    orders = [[row for epoch, row in ids if epoch == number] for number in range(3)]
    assert all(sorted(order) == list(range(rows)) for order in orders)
    assert orders[0] != orders[1] != orders[2] and [epoch for epoch, _ in ids] == sorted(epoch for epoch, _ in ids)


@pytest.mark.parametrize("name", ["causal", "masked", "span_corruption", "prefix"])
def test_a_batch_is_a_pure_function_of_seed_and_step(name: str) -> None:
    one, other = make_loader(name=name), make_loader(name=name)
    for step in (5, 0, 200):
        assert_equal(one.batch_at(step), other.batch_at(step))
    with pytest.raises(AssertionError):
        assert_equal(one.batch_at(3), make_loader(name=name, seed=8).batch_at(3))


@pytest.mark.parametrize("micro_rows", [1, 2, 3, 5, 8])
def test_any_split_has_the_same_samples(micro_rows: int) -> None:
    whole = make_loader(name="masked", rows_per_batch=8)
    split = make_loader(name="masked", rows_per_batch=8, micro_rows=micro_rows)
    parts = [split.batch_at(11, micro) for micro in range(split.num_micro_steps)]
    assert torch.equal(torch.cat([part.inputs.ids for part in parts]), whole.batch_at(11).inputs.ids)
    assert split.fingerprint == whole.fingerprint
    with pytest.raises(ConfigError, match="micro-step"):
        split.sample_ids(0, split.num_micro_steps)


def test_resuming_far_away_reads_nothing_that_it_skips() -> None:
    source = Source(*[30] * 40)
    loader = make_loader(source)
    assert source.reads == []
    loader.batch_at(10**9 // 4)
    assert len(source.reads) == 4 and all(stop - start <= 17 for start, stop in source.reads)


def test_a_text_of_one_row_is_a_training_set() -> None:
    loader = make_loader(Source(6), name="masked", rows_per_batch=4)
    assert len(loader.rows) == 1 and loader.steps_per_epoch == 0.25
    batch = loader.batch_at(0)
    assert batch.inputs.ids.shape == (4, 16) and batch.num_targets == 4
    assert (
        len({tuple(row.tolist()) for row in loader.batch_at(1).weights} | {tuple(r.tolist()) for r in batch.weights})
        > 1
    )
    assert len(list(loader.valid_batches())) == 1


def test_rows_have_their_planned_widths() -> None:
    source = Source(*[100] * 20)
    assert make_loader(source, seq_len=32).batch_at(0).inputs.ids.shape == (4, 32)
    assert make_loader(source, seq_len=32, name="masked").batch_at(0).inputs.ids.shape == (4, 32)
    spans = make_loader(Source(5000), seq_len=64, name="span_corruption", rows_per_batch=64).batch_at(0)
    assert spans.context is not None and spans.context.ids.shape == (64, 64) and spans.inputs.ids.shape == (64, 16)
    assert (spans.context.segments > 0).float().mean() > 0.97
    halves = make_loader(source, name="prefix", with_context=True).batch_at(0)
    assert halves.context is not None and (halves.inputs.ids == PAD).any()


def test_a_full_epoch_of_causal_batches_learns_every_token_once() -> None:
    source = Source(*[3, 40, 1, 77, 15])
    loader = make_loader(source, rows_per_batch=1)
    batches = [loader.batch_at(step) for step in range(len(loader.rows))]
    learned = torch.cat([batch.targets[batch.weights == 1] for batch in batches])
    assert Counter(learned.tolist()) == Counter(source.tokens[1:].tolist())


def test_valid_batches_are_fixed_and_complete() -> None:
    one, other = make_loader(name="masked", micro_rows=3), make_loader(name="masked", micro_rows=3, seed=99)
    batches = list(one.valid_batches())
    assert sum(batch.num_rows for batch in batches) == len(one.rows)
    for a, b, c in zip(batches, one.valid_batches(), other.valid_batches(), strict=True):
        assert_equal(a, b)
        assert_equal(a, c)
    assert [batch.num_rows for batch in one.valid_batches(4)] == [3, 1]


def test_counts_and_fingerprint() -> None:
    loader = make_loader()
    assert loader.tokens_per_batch == 64 and loader.num_micro_steps == 1
    prints = {make_loader(**change).fingerprint for change in ({}, {"seed": 8}, {"seq_len": 17}, {"name": "masked"})}
    assert len(prints) == 4 and loader.fingerprint in prints


def test_what_cannot_be_loaded_is_refused() -> None:
    with pytest.raises(ConfigError, match="micro-batches of 5"):
        make_loader(micro_rows=5)
    with pytest.raises(ConfigError, match="at least 3"):
        make_loader(name="masked", seq_len=2)
    with pytest.raises(DataError, match="no token"):
        make_loader(Source())
    bare = Vocabulary(PAD, END, VOCABULARY.ordinary, VOCABULARY.word_starts)
    for name, role in (("masked", "mask_id"), ("span_corruption", "sentinel_ids")):
        with pytest.raises(ConfigError, match=f"no token for {role}"):
            Loader(Source(9), bare, objective=ObjectiveConfig(name), seq_len=16, rows_per_batch=1)
