"""What a summary is like, whatever its score: how long, how repetitive, how much copied, how much remembered.

Words are those of `words.py`. Knows no model: it compares outputs with their sources and with training texts.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from trivium.evaluation.words import split_words

COPIED_RUN = 3
VERBATIM_RUN = 8


def count_words(text: str) -> int:
    """The length of a text in words (characters in scripts without spaces)."""
    return len(split_words(text))


def repetition(text: str, *, n: int = 3) -> float:
    """The share of a text's n-grams that it had before."""
    grams = _ngrams(split_words(text), n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def copy_rate(output: str, source: str, *, run: int = COPIED_RUN) -> float:
    """The share of an output's words that lie in runs of at least `run` words of its source, in their order.

    An output shorter than `run` counts as a whole. (Grusky et al., 2018, call it coverage, with runs of one word.)
    """
    words = split_words(output)
    run = max(min(run, len(words)), 1)
    known = set(_ngrams(split_words(source), run))
    return _covered([gram in known for gram in _ngrams(words, run)], run)


def novelty(output: str, source: str, *, n: int = 2) -> float:
    """The share of an output's n-grams that its source does not have (See et al., 2017)."""
    known, grams = set(_ngrams(split_words(source), n)), _ngrams(split_words(output), n)
    return sum(gram not in known for gram in grams) / len(grams) if grams else 0.0


class TrainingText:
    """Every run of `run` words of some training texts, as sorted 64-bit hashes: eight bytes a word."""

    def __init__(self, texts: Iterable[str], *, run: int = VERBATIM_RUN) -> None:
        self.run = run
        self._numbers: dict[str, int] = {}
        whole, runs = set(), []
        for text in texts:
            numbers = [self._numbers.setdefault(word, len(self._numbers) + 1) for word in split_words(text)]
            whole.add(tuple(numbers))
            runs.append(_hash_runs(numbers, run))
        self._whole = whole
        self._runs = np.unique(np.concatenate(runs)) if runs else np.empty(0, dtype=np.uint64)

    def verbatim(self, output: str) -> float:
        """The share of an output's words in runs that a training text has; 1 if it is a whole training text."""
        numbers = [self._numbers.get(word, 0) for word in split_words(output)]
        if not numbers:
            return 0.0
        if tuple(numbers) in self._whole:
            return 1.0
        hashes = _hash_runs(numbers, self.run)
        places = np.minimum(np.searchsorted(self._runs, hashes), max(len(self._runs) - 1, 0))
        known = self._runs[places] == hashes if len(self._runs) else np.zeros(len(hashes), dtype=bool)
        return _covered(known.tolist(), self.run, len(numbers))


def describe_output(output: str, source: str | None = None, training: TrainingText | None = None) -> dict[str, float]:
    """Length and repetition of an output, and what can be said with its source and with the training texts."""
    found = {"length": float(count_words(output)), "repetition": repetition(output)}
    if source is not None:
        found |= {"copy_rate": copy_rate(output, source), "novelty": novelty(output, source)}
    if training is not None:
        found["verbatim"] = training.verbatim(output)
    return found


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def _covered(known: Sequence[bool], run: int, length: int | None = None) -> float:
    """The share of words that lie in a known run, given which runs are known."""
    length = len(known) + run - 1 if length is None else length
    covered, reach = 0, 0
    for start, is_known in enumerate(known):
        if is_known:
            covered += start + run - max(reach, start)
            reach = start + run
    return covered / length if known else 0.0


def _hash_runs(numbers: Sequence[int], run: int) -> NDArray[np.uint64]:
    """A hash for each run of words: a polynomial of well mixed numbers, modulo 2⁶⁴."""
    mixed = np.array(numbers, dtype=np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64's finisher
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    count = max(len(numbers) - run + 1, 0)
    hashes = np.zeros(count, dtype=np.uint64)
    for place in range(run):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + mixed[place : place + count]
    return hashes
