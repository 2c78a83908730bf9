"""Objectives against the papers' definitions: rates over many draws, exact reconstruction, determinism."""

import dataclasses
import itertools
from typing import cast

import numpy as np
import pytest
import torch

from trivium.data.batch import Batch, Example, collate
from trivium.data.objective import (
    ObjectiveConfig,
    Vocabulary,
    causal,
    example_rng,
    make_example,
    masked,
    noise_counts,
    noise_mask,
    prefix,
    prefix_context,
    raw_length,
    span_corruption,
)
from trivium.errors import ConfigError
from trivium.model.mask import Side
from trivium.tokenizer import Tokenizer

SIZE, PAD, END, MASK, CLS, SEP = 200, 0, 1, 2, 3, 4
SENTINELS = tuple(range(5, 37))
FIRST = 40  # ids from here on are ordinary


def make_vocabulary(**changes: object) -> Vocabulary:
    ordinary = np.arange(SIZE) >= FIRST
    word_starts = np.arange(SIZE) % 3 == 0
    vocabulary = Vocabulary(PAD, END, ordinary, word_starts, MASK, CLS, SEP, SENTINELS)
    return dataclasses.replace(vocabulary, **changes)


VOCABULARY = make_vocabulary()


def make_row(*lengths: int, seed: int = 0, cut: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Documents of these many tokens, each with its end token; `cut` leaves out the last one's."""
    rng = np.random.default_rng(seed)
    documents = [np.append(rng.integers(FIRST, SIZE, n), END) for n in lengths]
    ids = np.concatenate(documents)
    segments = np.repeat(np.arange(1, len(lengths) + 1), [n + 1 for n in lengths])
    return (ids[:-1], segments[:-1]) if cut else (ids, segments)


def pieces(ids: np.ndarray, segments: np.ndarray) -> list[list[int]]:
    return [ids[segments == number].tolist() for number in range(1, segments.max(initial=0) + 1)]


def assert_equal(one: Example, other: Example) -> None:
    for field in dataclasses.fields(Example):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert (a is None and b is None) or np.array_equal(a, b), field.name


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


def check_shifted(example: Example) -> None:
    """The decoder reads its own targets one step later, beginning with the start token (T5: pad)."""
    for inputs, targets in zip(
        pieces(example.input_ids, example.input_segments),
        pieces(example.targets, example.input_segments),
        strict=True,
    ):
        assert inputs == [PAD, *targets[:-1]]


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


CONFIG = ObjectiveConfig("span_corruption")


def corrupt(ids: np.ndarray, segments: np.ndarray, index: int = 0) -> Example:
    return span_corruption(ids, segments, config=CONFIG, vocabulary=VOCABULARY, rng=example_rng(0, 0, index))


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


@pytest.mark.parametrize(
    "change", [{"mask_rate": 0.0}, {"noise_density": 1.0}, {"mean_span": 0.5}, {"mask_random": 0.3}]
)
def test_rates_out_of_range_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        ObjectiveConfig(**change)


def test_a_tokenizer_without_the_needed_token_is_refused() -> None:
    with pytest.raises(ConfigError, match="no token for mask_id"):
        make_vocabulary(mask_id=-1).need("mask_id")
    with pytest.raises(ConfigError, match="seq_len 2 holds no corrupted text"):
        raw_length(2, CONFIG)


class FakeTokenizer:
    """The attributes of a tokenizer that `Vocabulary` reads."""

    vocab_size = 20
    pad_id, bos_id, eos_id, unk_id, mask_id, cls_id, sep_id = 0, None, None, 1, 4, 2, 3
    sentinel_ids = (18, 19)
    control_ids = frozenset({0, 1, 2, 3, 4, 5, 18, 19})  # 5: one without a role

    def word_starts(self) -> np.ndarray:
        return np.arange(20) % 2 == 0


def test_vocabulary_reads_a_tokenizer() -> None:
    vocabulary = Vocabulary.from_tokenizer(cast(Tokenizer, FakeTokenizer()))
    assert (vocabulary.end_id, vocabulary.pad_id, vocabulary.sentinel_ids) == (3, 0, (18, 19))
    assert vocabulary.ordinary_ids.tolist() == list(range(6, 18))
    FakeTokenizer.sep_id = None
    with pytest.raises(ConfigError, match="neither an eos nor a sep"):
        Vocabulary.from_tokenizer(cast(Tokenizer, FakeTokenizer()))


def test_collate_pads_right_restarts_positions_and_never_cuts() -> None:
    examples = [corrupt(*make_row(9, 4)), corrupt(*make_row(35))]
    batch = collate(examples, PAD, width=8, context_width=16)
    assert batch.inputs.ids.shape == (2, 16) and batch.context is not None and batch.context.ids.shape == (2, 40)
    assert batch.inputs.segments[0].tolist() == [1] * 4 + [2] * 4 + [0] * 8
    assert batch.inputs.positions[0].tolist() == [0, 1, 2, 3] * 2 + [0] * 8
    assert batch.num_targets == len(examples[0].targets) + len(examples[1].targets)
    assert batch.weights.dtype == torch.float32 and batch.targets.dtype == torch.int64
    assert batch.to("cpu").num_rows == 2
    assert collate([causal(np.array([50]), np.array([1]))], PAD).inputs.ids.shape == (1, 8)
    with pytest.raises(ConfigError, match="with and without a context"):
        collate([examples[0], causal(*make_row(4))], PAD)


def test_a_batch_of_unequal_shapes_is_refused() -> None:
    side = Side.from_ids([[1, 2, 3]])
    good = torch.zeros(1, 3)
    with pytest.raises(ConfigError, match=r"weights has shape \(1, 2\); expected \(1, 3\)"):
        Batch(side, None, good.long(), good[:, :2])
    with pytest.raises(ConfigError, match="context has 2 rows beside 1"):
        Batch(side, Side.from_ids([[1], [2]]), good.long(), good)
    with pytest.raises(ConfigError, match=r"context.positions has shape"):
        Batch(side, Side(side.ids, side.positions[:, :1], side.segments), good.long(), good)
