"""How right outputs are: labels, numbers, named things, answers and translations, as pure functions of two lists.

All results are fractions from 0 to 1, or correlations from −1 to 1, except BLEU and chrF, which go to 100 as sacrebleu
has them. The order of the rows changes nothing, to the last bit. A score that a formula leaves undefined (no such
label, one constant list) is 0.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any, Literal

from trivium.errors import ConfigError, DataError
from trivium.evaluation.rouge import check_pairs, rouge_corpus
from trivium.evaluation.words import find_spaceless, is_spaceless, split_words

Average = Literal["micro", "macro", "binary"]
Labels = Sequence[Collection[Hashable]]
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_MARKED = re.compile(r"[BIESLU]-")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def accuracy(outputs: Sequence[Any], references: Sequence[Any]) -> float:
    """The share of outputs that equal their reference."""
    check_pairs(outputs, references)
    return sum(bool(ours == theirs) for ours, theirs in zip(outputs, references, strict=True)) / len(outputs)


def f1(
    outputs: Sequence[Hashable], references: Sequence[Hashable], *, average: Average = "macro", positive: Hashable = 1
) -> float:
    """F1 of single labels: of `positive` alone (binary), the mean over labels (macro), or of all counts (micro)."""
    return _f1_of_sets([{each} for each in outputs], [{each} for each in references], average, positive)


def multilabel(outputs: Labels, references: Labels) -> dict[str, float]:
    """F1 (micro, macro) and exact matches where each row has any number of labels."""
    ours, theirs = [set(each) for each in outputs], [set(each) for each in references]
    return {
        "f1_micro": _f1_of_sets(ours, theirs, "micro"),
        "f1_macro": _f1_of_sets(ours, theirs, "macro"),
        "exact_match": accuracy(ours, theirs),
    }


def matthews(outputs: Sequence[Hashable], references: Sequence[Hashable]) -> float:
    """Matthews' correlation for any number of classes (Gorodkin, 2004)."""
    check_pairs(outputs, references)
    total, right = len(outputs), sum(ours == theirs for ours, theirs in zip(outputs, references, strict=True))
    ours, theirs = Counter(outputs), Counter(references)
    both = right * total - sum(ours[label] * theirs[label] for label in ours)
    spread = (total**2 - sum(count**2 for count in ours.values()), total**2 - sum(n**2 for n in theirs.values()))
    return both / math.sqrt(spread[0] * spread[1]) if all(spread) else 0.0


def pearson(outputs: Sequence[float], references: Sequence[float]) -> float:
    """The linear correlation of two lists of numbers; raises `DataError` for what is not finite."""
    _check_numbers(outputs, references)
    ours, theirs = _centred(outputs), _centred(references)
    spread = math.fsum(x * x for x in ours) * math.fsum(y * y for y in theirs)
    together = math.fsum(x * y for x, y in zip(ours, theirs, strict=True))
    return max(-1.0, min(1.0, together / math.sqrt(spread))) if spread else 0.0


def spearman(outputs: Sequence[float], references: Sequence[float]) -> float:
    """The correlation of ranks; equal numbers share the mean of their ranks."""
    _check_numbers(outputs, references)
    return pearson(_ranks(outputs), _ranks(references))


def regression(outputs: Sequence[float], references: Sequence[float]) -> dict[str, float]:
    """Both correlations and the mean squared error; of rows of several numbers, over all of them."""
    outputs, references = _flat(outputs), _flat(references)
    scores = {"pearson": pearson(outputs, references), "spearman": spearman(outputs, references)}
    errors = math.fsum((x - y) ** 2 for x, y in zip(outputs, references, strict=True))
    return scores | {"mean_squared_error": errors / len(outputs)}


def _flat(rows: Sequence[Any]) -> list[float]:
    return [each for row in rows for each in (row if isinstance(row, list | tuple) else [row])]


def entities(outputs: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Precision, recall and F1 of whole named things, and the accuracy of tags; each row a sentence's tags.

    A thing is right if its kind and both its ends are. Tags are `B-kind`, `I-kind` and `O` (also `E-`, `S-`); as in
    CoNLL's script and seqeval, an `I-` after another kind or after `O` begins a thing. Raises `DataError` for
    sentences of unequal length.
    """
    check_pairs(outputs, references)
    found = wanted = right = tags = right_tags = 0
    for row, (ours, theirs) in enumerate(zip(outputs, references, strict=True)):
        if len(ours) != len(theirs):
            raise DataError(
                f"row {row} has {len(ours)} tags for {len(theirs)} words; expected one each; tag every word"
            )
        spans, true_spans = find_entities(ours), find_entities(theirs)
        found, wanted, right = found + len(spans), wanted + len(true_spans), right + len(spans & true_spans)
        tags += len(ours)
        right_tags += sum(a == b for a, b in zip(ours, theirs, strict=True))
    return {
        "precision": right / max(found, 1),
        "recall": right / max(wanted, 1),
        "f1": 2 * right / max(found + wanted, 1),
        "accuracy": right_tags / max(tags, 1),
    }


def find_entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """The named things that tags mark: kind, first word, and the word after the last.

    `B-PER I-PER` and its kin are read as marks; of tags without marks (`PER`, `NN`, `5`) neighbours that are equal are
    one thing, and only `O` is none.
    """
    spans, before, kind, start = set(), "O", "", 0
    for place, tag in enumerate([*tags, "O"]):
        mark, named = (tag[:1], tag[2:]) if tag == "O" or _MARKED.match(tag) else ("I", tag)
        goes_on = before in "BI" and mark in "IEL" and named == kind
        if before != "O" and not goes_on:
            spans.add((kind, start, place))
        if mark != "O" and not goes_on:
            start = place
        before, kind = mark, named
    return spans


def exact_match(outputs: Sequence[str], references: Sequence[Any]) -> float:
    """The share of texts that equal a reference of theirs, runs of spaces counted as one."""
    check_pairs(outputs, references)
    pairs = zip(outputs, references, strict=True)
    return sum(_plain(text) in map(_plain, list_texts(wanted)) for text, wanted in pairs) / len(outputs)


def squad_match(output: str, reference: Any) -> tuple[float, float]:
    """Exact match and F1 of one answer against the best of its references, as SQuAD's own script has them.

    A reference is a text, several, SQuAD's `{"text": [...]}`, or none at all where the right answer is no text.
    Case, punctuation and articles do not count; in scripts without spaces a word is a character.
    """
    # References of articles and punctuation alone count only where there are no others.
    pairs = [words for text in list_texts(reference) if (words := _answer_words(text))] or [_answer_words("")]
    found = _answer_words(output)
    return max(float(found == wanted) for wanted in pairs), max(_overlap(found, wanted) for wanted in pairs)


def squad_f1(outputs: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """The means of `squad_match`."""
    check_pairs(outputs, references)
    found = [squad_match(text, wanted) for text, wanted in zip(outputs, references, strict=True)]
    exact, overlap = (math.fsum(each) / len(found) for each in zip(*found, strict=True))
    return {"exact_match": exact, "f1": overlap}


def bleu(outputs: Sequence[str], references: Sequence[Any], *, tokenize: str | None = None) -> float:
    """BLEU of a whole corpus by sacrebleu, 0 to 100; raises `ConfigError` without it.

    `tokenize` is sacrebleu's name; by default `zh` for Chinese, `char` for other scripts without spaces, else `13a`.
    """
    streams = _streams(outputs, references)
    name = tokenize or choose_tokenize([text for texts in references for text in list_texts(texts)])
    return float(load_sacrebleu().BLEU(tokenize=name).corpus_score(list(outputs), streams).score)


def chrf(outputs: Sequence[str], references: Sequence[Any]) -> float:
    """chrF2 of a whole corpus by sacrebleu, 0 to 100; raises `ConfigError` without it."""
    return float(load_sacrebleu().CHRF().corpus_score(list(outputs), _streams(outputs, references)).score)


def choose_tokenize(references: Sequence[str]) -> str:
    """sacrebleu's tokenizer for the script that references are written in."""
    text = "\n".join(references)
    if not is_spaceless(text):
        return "13a"
    characters = find_spaceless(text)
    chinese = sum("\u3400" <= each <= "\u9fff" or each >= "\U00020000" or each == "〇" for each in characters)
    return "zh" if chinese >= 0.95 * len(characters) else "char"


def list_texts(reference: Any) -> list[str]:
    """The texts of a reference: one, several, or SQuAD's `{"text": [...]}`."""
    texts = reference["text"] if isinstance(reference, Mapping) else reference
    return [texts] if isinstance(texts, str) else list(texts)


def load_sacrebleu() -> Any:
    """sacrebleu's metrics, or `ConfigError` that says how to get them."""
    try:
        import sacrebleu.metrics
    except ImportError:
        raise ConfigError(
            "BLEU and chrF were asked for; they need sacrebleu, which is missing; run: pip install 'trivium[metrics]'"
        ) from None
    return sacrebleu.metrics


def _f1_of_sets(
    outputs: Sequence[set[Hashable]], references: Sequence[set[Hashable]], average: Average, positive: Hashable = 1
) -> float:
    check_pairs(outputs, references)
    found, wanted, right = (Counter[Hashable]() for _ in range(3))
    for ours, theirs in zip(outputs, references, strict=True):
        found.update(ours)
        wanted.update(theirs)
        right.update(ours & theirs)
    if average == "micro":
        return 2 * right.total() / max(found.total() + wanted.total(), 1)
    labels = {positive} if average == "binary" else found.keys() | wanted.keys()
    scores = [2 * right[label] / max(found[label] + wanted[label], 1) for label in labels]
    return math.fsum(scores) / max(len(scores), 1)


def _check_numbers(outputs: Sequence[float], references: Sequence[float]) -> None:
    check_pairs(outputs, references)
    for row, number in enumerate((*outputs, *references)):
        if not math.isfinite(number):
            row %= len(outputs)
            raise DataError(f"row {row} has the number {number}; expected a finite one; see whether training diverged")


def _centred(numbers: Sequence[float]) -> list[float]:
    mean = math.fsum(numbers) / len(numbers)
    return [number - mean for number in numbers] if len(set(numbers)) > 1 else [0.0] * len(numbers)


def _ranks(numbers: Sequence[float]) -> list[float]:
    counts, before, ranks = Counter(numbers), 0, {}
    for number in sorted(counts):
        ranks[number] = before + (counts[number] + 1) / 2
        before += counts[number]
    return [ranks[number] for number in numbers]


def _plain(text: str) -> str:
    return " ".join(text.split())


def _answer_words(text: str) -> list[str]:
    if find_spaceless(text):
        return split_words(text)
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def _overlap(found: Sequence[str], wanted: Sequence[str]) -> float:
    if not found or not wanted:
        return float(found == wanted)
    return 2 * (Counter(found) & Counter(wanted)).total() / (len(found) + len(wanted))


def _streams(outputs: Sequence[str], references: Sequence[Any]) -> list[list[str | None]]:
    """References as sacrebleu takes them: the first of every row, the second of every row, …"""
    check_pairs(outputs, references)
    rows = [list_texts(each) for each in references]
    return [[row[i] if i < len(row) else None for row in rows] for i in range(max(map(len, rows)))]


def _classification(outputs: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
    scores = {"accuracy": accuracy(outputs, references), "f1_macro": f1(outputs, references)}
    return scores | {"matthews": matthews(outputs, references)}


# The names that a task may give as its metric: outputs and references to named numbers.
METRICS: dict[str, Callable[[Sequence[Any], Sequence[Any]], dict[str, float]]] = {
    "accuracy": _classification,
    "bleu": lambda outputs, references: {"bleu": bleu(outputs, references), "chrf": chrf(outputs, references)},
    "entities": entities,
    "exact_match": lambda outputs, references: {"exact_match": exact_match(outputs, references)},
    "multilabel": multilabel,
    "regression": regression,
    "rouge": rouge_corpus,
    "squad": squad_f1,
}
