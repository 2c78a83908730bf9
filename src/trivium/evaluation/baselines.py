"""What needs no Transformer: the scores that a model has to beat before anybody should publish one.

A baseline is a function of sources and of training pairs to one output for each source.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.data.sentence import split_sentences
from trivium.errors import ConfigError, DataError
from trivium.evaluation.summaries import count_words
from trivium.evaluation.words import find_words, is_spaceless, split_words

Pairs = Sequence[tuple[str, Any]]


def run_baseline(name: str, sources: Sequence[str], training: Pairs = ()) -> list[Any]:
    """The outputs of a baseline by name; raises `ConfigError` for an unknown one, `DataError` without training."""
    if name not in BASELINES:
        raise ConfigError(f"there is no baseline {name!r}; expected one of {', '.join(BASELINES)}; choose one")
    if not training and name not in ("lead", "textrank"):
        raise DataError(f"baseline {name!r} learns from training pairs and there are none; give a train part with them")
    return BASELINES[name](sources, training)


def lead_sentence(sources: Sequence[str], training: Pairs = ()) -> list[str]:
    """The first sentence of each source."""
    return [" ".join(next(filter(str.strip, split_sentences(source)), "").split()) for source in sources]


def lead_cut(sources: Sequence[str], training: Pairs) -> list[str]:
    """The first words of each source, as many as a training target has on average."""
    length = mean_length(training)
    return [" ".join(source[: _end_of_word(source, length)].split()) for source in sources]


def textrank(sources: Sequence[str], training: Pairs = ()) -> list[str]:
    """The sentences of each source that most others resemble, in its order (Mihalcea and Tarau, 2004).

    As many as reach the mean length of a training target; without training, one.
    """
    length = mean_length(training) if training else 1
    outputs = []
    for source in sources:
        sentences = [" ".join(each.split()) for each in split_sentences(source)]
        sentences = [each for each in sentences if split_words(each)]
        chosen: list[int] = []
        for place in np.argsort(-rank_sentences(sentences), kind="stable").tolist():
            if not chosen or sum(count_words(sentences[each]) for each in chosen) < length:
                chosen.append(place)
        between = "" if is_spaceless(source) else " "
        outputs.append(between.join(sentences[place] for place in sorted(chosen)))
    return outputs


def rank_sentences(sentences: Sequence[str], *, damping: float = 0.85, rounds: int = 50) -> NDArray[np.float64]:
    """PageRank over sentences; two are as near as words that they share, over the logarithms of their lengths."""
    words = [set(split_words(sentence)) for sentence in sentences]
    vocabulary = {word: place for place, word in enumerate(sorted(set().union(*words)))}
    holds = np.zeros((len(words), len(vocabulary)))
    for row, each in enumerate(words):
        holds[row, [vocabulary[word] for word in each]] = 1
    logs = np.log1p(holds.sum(1))  # of the length and 1, so that a sentence of one word is no division by 0
    near = holds @ holds.T / np.maximum(logs[:, None] + logs[None, :], 1e-9)
    np.fill_diagonal(near, 0)
    share = near / np.maximum(near.sum(1, keepdims=True), 1e-9)
    rank = np.full(len(words), 1 / max(len(words), 1))
    for _ in range(rounds):
        rank = (1 - damping) / max(len(words), 1) + damping * rank @ share
    return np.round(rank, 12)  # sentences that are alike tie, and the first of them is taken


def nearest_neighbour(sources: Sequence[str], training: Pairs) -> list[Any]:
    """The target of the training source that is nearest by TF-IDF: what a model gets by remembering alone."""
    index = TfidfIndex([source for source, _ in training])
    return [training[index.nearest(source)][1] for source in sources]


class TfidfIndex:
    """Texts as unit vectors of word counts times ln((1 + texts) / (1 + texts with the word)) + 1, kept by word."""

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [Counter(split_words(text)) for text in texts]
        frequency = Counter(word for each in counts for word in each)
        self.size = len(texts)
        self._idf = {word: math.log((1 + self.size) / (1 + count)) + 1 for word, count in frequency.items()}
        rows: dict[str, list[int]] = {}
        weights: dict[str, list[float]] = {}
        for row, each in enumerate(counts):
            for word, weight in self._unit(each).items():
                rows.setdefault(word, []).append(row)
                weights.setdefault(word, []).append(weight)
        self._columns = {word: (np.array(rows[word]), np.array(weights[word])) for word in rows}

    def nearest(self, text: str) -> int:
        """The number of the text with the greatest cosine; of equal ones, and where no word is known, the first."""
        cosines = np.zeros(self.size)
        for word, weight in sorted(self._unit(Counter(split_words(text))).items()):
            rows, weights = self._columns[word]
            cosines[rows] += weights * weight
        return int(np.round(cosines, 12).argmax())

    def _unit(self, counts: Counter[str]) -> dict[str, float]:
        weights = {word: count * self._idf[word] for word, count in counts.items() if word in self._idf}
        norm = math.sqrt(math.fsum(weight**2 for weight in weights.values()))
        return {word: weight / norm for word, weight in weights.items()}


def majority_class(sources: Sequence[str], training: Pairs) -> list[Any]:
    """The commonest training label, for every source; of equally common ones the first by name."""
    counts = Counter(label for _, label in training)
    label = min(counts, key=lambda each: (-counts[each], str(each)))
    return [label] * len(sources)


def mean_number(sources: Sequence[str], training: Pairs) -> list[float]:
    """The mean of the training numbers, for every source: the best constant by squared error."""
    return [math.fsum(number for _, number in training) / len(training)] * len(sources)


def logistic_regression(sources: Sequence[str], training: Pairs) -> list[Any]:
    """Labels by logistic regression on TF-IDF of words and pairs of them; raises `ConfigError` without scikit-learn."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise ConfigError(
            "baseline 'logistic' needs scikit-learn, which is missing; run: pip install 'trivium[metrics]'"
        ) from None
    if len({label for _, label in training}) == 1:
        return majority_class(sources, training)
    vectors = TfidfVectorizer(analyzer=_words_and_pairs, sublinear_tf=True)
    model = LogisticRegression(C=STRENGTH, max_iter=1000)
    model.fit(vectors.fit_transform([text for text, _ in training]), [label for _, label in training])
    found: list[Any] = model.predict(vectors.transform(list(sources))).tolist()
    return found


def mean_length(training: Pairs) -> int:
    """The mean number of words of the training targets, at least 1."""
    return max(round(sum(count_words(target) for _, target in training) / len(training)), 1)


def _end_of_word(text: str, count: int) -> int:
    places = find_words(text)
    return places[min(count, len(places)) - 1][1] if places else len(text)


def _words_and_pairs(text: str) -> Iterable[str]:
    words = split_words(text)
    return [*words, *map(" ".join, itertools.pairwise(words))]


# scikit-learn's C, the inverse of the penalty.
STRENGTH = 10.0
BASELINES: dict[str, Callable[[Sequence[str], Pairs], list[Any]]] = {
    "lead": lead_sentence,
    "lead-cut": lead_cut,
    "textrank": textrank,
    "nearest": nearest_neighbour,
    "majority": majority_class,
    "logistic": logistic_regression,
    "mean": mean_number,
}
