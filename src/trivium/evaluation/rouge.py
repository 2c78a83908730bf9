"""ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum: how many words, pairs and sequences a text shares with a reference.

Equal to the rouge-score package on English, and right in other scripts, where that package sees no words at all.
What a word is stands in `words.py`; sentences of ROUGE-Lsum are lines. (Lin, 2004, “ROUGE: a package for automatic
evaluation of summaries”; the clipped counts of ROUGE-Lsum are those of its script 1.5.5.)
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

from trivium.errors import DataError
from trivium.evaluation.words import split_words

Words = Sequence[str]


@dataclass(frozen=True)
class RougeScores:
    """F-measures from 0 to 1."""

    rouge1: float
    rouge2: float
    rougeL: float
    rougeLsum: float


def rouge(
    prediction: str,
    references: str | Sequence[str],
    *,
    ascii_only: bool = False,
    stem: Callable[[str], str] | None = None,
) -> RougeScores:
    """F-measures of a text against one reference, or for each kind the best of several.

    `ascii_only` lets letters beyond a–z separate words, to compare with published figures of texts that hold some
    (*naïve* counts as *na*, *ve* there); `stem` is applied to words of over three letters, as a Porter stemmer is in
    many papers. Raises `DataError` without a reference.
    """
    references = [references] if isinstance(references, str) else references
    if not references:
        raise DataError("a prediction has no reference; expected at least one; drop the row or write one")

    def words_of(text: str) -> list[str]:
        words = split_words(text, ascii_only=ascii_only)
        return [stem(word) if len(word) > 3 else word for word in words] if stem else words

    predicted = words_of(prediction)
    predicted_lines = [words_of(line) for line in prediction.split("\n")]
    found = []
    for reference in references:
        wanted, wanted_lines = words_of(reference), [words_of(line) for line in reference.split("\n")]
        longest = _f_measure(_common_length(wanted, predicted), len(wanted), len(predicted))
        one_line = len(wanted_lines) == len(predicted_lines) == 1  # then both kinds of L are the same
        by_line = longest if one_line else _lines_f_measure(wanted_lines, predicted_lines)
        found.append((_ngrams(wanted, predicted, 1), _ngrams(wanted, predicted, 2), longest, by_line))
    return RougeScores(*map(max, zip(*found, strict=True)))


def rouge_corpus(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> dict[str, float]:
    """The mean of each F-measure over all texts, whatever their order. Raises `DataError` for unequal numbers."""
    check_pairs(predictions, references)
    rows = [asdict(rouge(text, wanted)) for text, wanted in zip(predictions, references, strict=True)]
    return {name: math.fsum(row[name] for row in rows) / len(rows) for name in rows[0]}


def check_pairs(outputs: Sequence[object], references: Sequence[object]) -> None:
    """Raise `DataError` unless there are as many outputs as references, and at least one."""
    if len(outputs) != len(references) or not outputs:
        raise DataError(
            f"{len(outputs)} outputs and {len(references)} references; expected as many of each, and at least one; "
            "give one reference for each output"
        )


def _f_measure(hits: int, wanted: int, predicted: int) -> float:
    if not hits:
        return 0.0
    precision, recall = hits / predicted, hits / wanted
    return 2 * precision * recall / (precision + recall)


def _ngrams(wanted: Words, predicted: Words, n: int) -> float:
    ours, theirs = (Counter(zip(*(words[i:] for i in range(n)), strict=False)) for words in (predicted, wanted))
    return _f_measure((ours & theirs).total(), theirs.total(), ours.total())


def _common_rows(wanted: Words, predicted: Words) -> Iterator[int]:
    """The table of longest common subsequences, a row of bits for each wanted word, after one for none.

    The zeros among the low j bits of row i are the length for the first i wanted and j predicted words
    (Hyyrö, 2004): one addition replaces a row of comparisons.
    """
    places: dict[str, int] = {}
    for number, word in enumerate(predicted):
        places[word] = places.get(word, 0) | 1 << number
    everything = (1 << len(predicted)) - 1
    row = everything
    yield row
    for word in wanted:
        same = row & places.get(word, 0)
        row = ((row + same) | (row - same)) & everything
        yield row


def _common_length(wanted: Words, predicted: Words) -> int:
    (last,) = deque(_common_rows(wanted, predicted), maxlen=1)  # never the whole table: a book's would fill the memory
    return len(predicted) - last.bit_count()


def _common_places(wanted: Words, predicted: Words) -> set[int]:
    """Which wanted words a longest common subsequence takes; of several, the one that rouge-score takes."""
    rows, places = list(_common_rows(wanted, predicted)), set()
    i, j = len(wanted), len(predicted)

    def length(i: int, j: int) -> int:
        return j - (rows[i] & ((1 << j) - 1)).bit_count()

    while i and j:
        if wanted[i - 1] == predicted[j - 1]:
            i, j = i - 1, j - 1
            places.add(i)
        elif length(i, j - 1) > length(i - 1, j):
            j -= 1
        else:
            i -= 1
    return places


def _lines_f_measure(wanted: Sequence[Words], predicted: Sequence[Words]) -> float:
    """Hits are the union, for each wanted line, of what it has in common with each predicted line; no word counts
    more often than it stands in both texts."""
    left_wanted = Counter(word for line in wanted for word in line)
    left_predicted = Counter(word for line in predicted for word in line)
    sizes, hits = (left_wanted.total(), left_predicted.total()), 0
    for line in wanted:
        for place in sorted(set[int]().union(*(_common_places(line, other) for other in predicted))):
            word = line[place]
            if left_wanted[word] > 0 and left_predicted[word] > 0:
                hits += 1
                left_wanted[word] -= 1
                left_predicted[word] -= 1
    return _f_measure(hits, *sizes)
