"""Packed rows and a small vocabulary for the tests of objectives."""

import dataclasses

import numpy as np

from trivium.data.batch import Example
from trivium.data.example import example_rng
from trivium.data.objective import ObjectiveConfig, Vocabulary
from trivium.data.rewriting import span_corruption

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


def check_shifted(example: Example) -> None:
    """The decoder reads its own targets one step later, beginning with the start token (T5: pad)."""
    for inputs, targets in zip(
        pieces(example.input_ids, example.input_segments),
        pieces(example.targets, example.input_segments),
        strict=True,
    ):
        assert inputs == [PAD, *targets[:-1]]


CONFIG = ObjectiveConfig("span_corruption")


def corrupt(ids: np.ndarray, segments: np.ndarray, index: int = 0) -> Example:
    return span_corruption(ids, segments, config=CONFIG, vocabulary=VOCABULARY, rng=example_rng(0, 0, index))
