"""Prefixes and span corruption against T5's definitions: counts, exact reconstruction, every mask equally likely."""

import itertools

import numpy as np
import pytest

from tests.data.rows import CONFIG, END, FIRST, SENTINELS, VOCABULARY, check_shifted, corrupt, make_row, pieces
from trivium.data.example import example_rng
from trivium.data.rewriting import noise_counts, noise_mask, prefix_context, raw_length
from trivium.errors import ConfigError


def test_prefix_context_gives_both_halves_back() -> None:
    ids, segments = make_row(7, 1, 0, 5, cut=True)  # the third document is an end token alone: nothing to split
    for index in range(100):
        example = prefix_context(ids, segments, vocabulary=VOCABULARY, rng=example_rng(0, 0, index))
        contexts = pieces(example.context_ids, example.context_segments)
        targets = pieces(example.targets, example.input_segments)
        assert all(context[-1] == END and len(context) > 1 for context in contexts)
        rebuilt = [context[:-1] + target for context, target in zip(contexts, targets, strict=True)]
        assert rebuilt == [piece for piece in pieces(ids, segments) if len(piece) > 1]
        check_shifted(example)


def merge(context: list[int], target: list[int]) -> list[int]:
    """Put the spans of a target back where their sentinels stand in the context."""
    assert context[-1] == target[-1] == END
    spans: dict[int, list[int]] = {}
    for token in target[:-1]:
        if token in SENTINELS:
            spans[token] = []
        else:
            spans[list(spans)[-1]].append(token)
    used = [token for token in context if token in SENTINELS]
    assert list(spans) == list(SENTINELS[: len(used) + 1]) and spans.pop(SENTINELS[len(used)]) == []
    assert used == list(spans) and all(spans.values())
    return [t for token in context[:-1] for t in (spans[token] if token in SENTINELS else [token])]


def test_merging_the_spans_gives_the_text_back() -> None:
    ids, segments = make_row(33, 2, 1, 0, 57, 10, cut=True)
    for index in range(200):
        example = corrupt(ids, segments, index)
        contexts = pieces(example.context_ids, example.context_segments)
        targets = pieces(example.targets, example.input_segments)
        rebuilt = [merge(context, target) for context, target in zip(contexts, targets, strict=True)]
        originals = [[t for t in piece if t != END] for piece in pieces(ids, segments)]
        assert rebuilt == [text for text in originals if len(text) > 1]  # shorter ones cannot be corrupted
        assert all(context[0] not in SENTINELS for context in contexts)
        check_shifted(example)
        assert example.weights.tolist() == [1.0] * len(example.targets)


@pytest.mark.parametrize("length", [2, 3, 10, 11, 57, 100, 141, 283])
def test_noise_counts_are_t5s(length: int) -> None:
    """num_noise_tokens = round(length · density), num_noise_spans = round(noise / mean), both at least 1."""
    example = corrupt(*make_row(length))
    noise = max(round(length * 0.15), 1)
    spans = max(round(noise / 3), 1)
    assert sum(token >= FIRST for token in example.targets) == noise
    assert sum(token in SENTINELS for token in example.context_ids) == spans
    assert len(example.context_ids) == length - noise + spans + 1
    assert len(example.targets) == noise + spans + 2


@pytest.mark.parametrize("seq_len", [8, 64, 128, 256, 512])
def test_raw_length_is_the_longest_text_that_fits_as_t5_computes_it(seq_len: int) -> None:
    def input_length(raw: int) -> int:
        noise = round(raw * 0.15)
        return raw - noise + round(noise / 3.0) + 1

    expected = seq_len
    while input_length(expected + 1) <= seq_len:
        expected += 1
    raw, targets = raw_length(seq_len, CONFIG)
    if seq_len > 8:  # T5's helper does not know that every text has at least one span
        assert raw == expected
    example = corrupt(*make_row(raw)) if raw < 600 else None
    assert example is not None and len(example.context_ids) == seq_len and len(example.targets) == targets


def test_every_mask_is_equally_likely() -> None:
    """Six tokens, two spans of noise over three: all masks that begin with a kept token, none adjacent."""
    lengths, noise, spans = np.array([6]), np.array([3]), np.array([2])
    allowed = [
        mask
        for mask in itertools.product((False, True), repeat=6)
        if not mask[0] and sum(mask) == 3 and sum(b and not a for a, b in itertools.pairwise(mask)) == 2
    ]
    draws = 6000
    seen = dict.fromkeys(allowed, 0)
    rng = example_rng(0, 0, 0)
    for _ in range(draws // 100):
        many = noise_mask(lengths.repeat(100), noise.repeat(100), spans.repeat(100), rng).reshape(100, 6)
        for mask in many.tolist():
            seen[tuple(mask)] += 1
    expected = draws / len(allowed)
    assert sum((count - expected) ** 2 / expected for count in seen.values()) < 3 * len(allowed)  # chi squared


def test_span_lengths_have_the_stated_mean() -> None:
    noise, spans = noise_counts(np.array([400]), CONFIG)
    assert (int(noise[0]), int(spans[0])) == (60, 20)


def test_long_texts_need_enough_sentinels() -> None:
    with pytest.raises(ConfigError, match="33 spans in a text and 32 sentinel"):
        corrupt(*make_row(660))
