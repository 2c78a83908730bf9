"""Masking against BERT's definition: rates over many draws, whole words."""

import numpy as np
import pytest

from tests.data.rows import CLS, END, FIRST, MASK, SEP, SIZE, VOCABULARY, make_row, make_vocabulary, pieces
from trivium.data.example import example_rng
from trivium.data.masking import masked
from trivium.data.objective import ObjectiveConfig


def test_masked_frames_every_piece_and_touches_only_chosen_ordinary_tokens() -> None:
    ids, segments = make_row(20, 1, 0, 30, cut=True)
    for index in range(50):
        example = masked(
            ids,
            segments,
            config=ObjectiveConfig("masked"),
            vocabulary=VOCABULARY,
            rng=example_rng(0, 0, index),
        )
        texts = pieces(example.targets, example.input_segments)
        assert texts == [
            [CLS, *(t for t in piece if t != END), SEP] for piece in pieces(ids, segments) if piece != [END]
        ]
        learned = example.weights == 1
        assert learned.sum() == round(0.15 * 51)
        assert (example.targets[learned] >= FIRST).all()
        assert np.array_equal(example.input_ids[~learned], example.targets[~learned])


def test_masked_rates_are_berts() -> None:
    ids, segments = make_row(200, 100)
    counts, where, random_ids = np.zeros(3), np.zeros(304), []
    for index in range(3000):
        example = masked(
            ids,
            segments,
            config=ObjectiveConfig("masked"),
            vocabulary=VOCABULARY,
            rng=example_rng(1, 0, index),
        )
        learned = example.weights == 1
        inputs, targets = example.input_ids[learned], example.targets[learned]
        swapped = (inputs != MASK) & (inputs != targets)
        counts += [(inputs == MASK).sum(), swapped.sum(), (inputs == targets).sum()]
        where += learned
        random_ids.append(inputs[swapped])
    assert counts.sum() == 3000 * 45
    assert counts / counts.sum() == pytest.approx([0.8, 0.1, 0.1], abs=0.004)
    ordinary = where[VOCABULARY.ordinary[masked_targets(ids, segments)]]
    assert ordinary.min() > 3000 * 0.15 * 0.8 and ordinary.max() < 3000 * 0.15 * 1.2  # every position, evenly
    drawn = np.bincount(np.concatenate(random_ids), minlength=SIZE)
    assert drawn[:FIRST].sum() == 0 and (drawn[FIRST:] > 0).all()


def masked_targets(ids: np.ndarray, segments: np.ndarray) -> np.ndarray:
    return masked(
        ids, segments, config=ObjectiveConfig("masked"), vocabulary=VOCABULARY, rng=example_rng(0, 0, 0)
    ).targets


def test_whole_words_are_masked_together_at_berts_rate() -> None:
    ids, segments = make_row(60, 60)
    config = ObjectiveConfig("masked", whole_word=True)
    total = 0.0
    for index in range(500):
        example = masked(ids, segments, config=config, vocabulary=VOCABULARY, rng=example_rng(0, 0, index))
        words: list[list[float]] = []
        for token, weight, before in zip(example.targets, example.weights, [CLS, *example.targets[:-1]], strict=True):
            if token < FIRST:
                assert weight == 0
                continue
            if token % 3 == 0 or before < FIRST:
                words.append([])
            words[-1].append(float(weight))
        assert all(len(set(word)) == 1 for word in words)
        total += float(example.weights.sum())
    assert 17 < total / 500 <= 18


def test_a_word_larger_than_the_rate_is_masked_whole() -> None:
    ids, segments = np.array([FIRST + 3, FIRST + 1, FIRST + 4, FIRST + 7, END]), np.ones(5, dtype=np.int64)
    vocabulary = make_vocabulary(word_starts=np.zeros(SIZE, dtype=bool))
    config = ObjectiveConfig("masked", whole_word=True)
    example = masked(ids, segments, config=config, vocabulary=vocabulary, rng=example_rng(0, 0, 0))
    assert example.weights.tolist() == [0, 1, 1, 1, 1, 0]


def test_nothing_to_mask_learns_nothing() -> None:
    ids, segments = np.array([END]), np.array([1])
    for whole_word in (False, True):
        config = ObjectiveConfig("masked", whole_word=whole_word)
        assert len(masked(ids, segments, config=config, vocabulary=VOCABULARY, rng=example_rng(0, 0, 0)).targets) == 0
