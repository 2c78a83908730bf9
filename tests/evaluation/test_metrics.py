"""Metrics against scikit-learn, scipy, sacrebleu and SQuAD's and CoNLL's published rules."""

import random
import re
import string
import sys
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest

from trivium.errors import ConfigError, DataError
from trivium.evaluation import metrics
from trivium.evaluation.metrics import METRICS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sacrebleu
    import scipy.stats
    import sklearn.metrics

DRAW = random.Random(5)
LABELS = [(DRAW.choice("abcd"), DRAW.choice("aabc")) for _ in range(500)]
OUTPUTS, REFERENCES = map(list, zip(*LABELS, strict=True))
NUMBERS = [round(DRAW.gauss(0, 1), 1) for _ in range(300)]
OTHERS = [round(number + DRAW.gauss(0, 2), 1) for number in NUMBERS]


def test_labels_equal_scikit_learn() -> None:
    assert metrics.accuracy(OUTPUTS, REFERENCES) == sklearn.metrics.accuracy_score(REFERENCES, OUTPUTS)
    for average in ("micro", "macro"):
        expected = sklearn.metrics.f1_score(REFERENCES, OUTPUTS, average=average, zero_division=0.0)
        assert metrics.f1(OUTPUTS, REFERENCES, average=average) == pytest.approx(expected)  # type: ignore[arg-type]
    ours, theirs = ([int(each in "ab") for each in part] for part in (OUTPUTS, REFERENCES))
    assert metrics.f1(ours, theirs, average="binary") == pytest.approx(sklearn.metrics.f1_score(theirs, ours))
    assert metrics.f1(["no"], ["no"], average="binary", positive="yes") == 0.0
    for pair in ((OUTPUTS, REFERENCES), (ours, theirs), (ours, [1] * 500), ([1], [1])):
        expected = sklearn.metrics.matthews_corrcoef(pair[1], pair[0]) if len(pair[0]) > 1 else 0.0
        assert metrics.matthews(*pair) == pytest.approx(expected)


def test_several_labels_equal_scikit_learn() -> None:
    draw = random.Random(2)
    rows = [[[int(draw.random() < 0.4) for _ in range(4)] for _ in range(2)] for _ in range(200)]
    names = [[{i for i, each in enumerate(part) if each} for part in row] for row in rows]
    found = metrics.multilabel([row[0] for row in names], [row[1] for row in names])
    ours, theirs = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    for average in ("micro", "macro"):
        assert found[f"f1_{average}"] == pytest.approx(sklearn.metrics.f1_score(theirs, ours, average=average))
    assert found["exact_match"] == pytest.approx(sklearn.metrics.accuracy_score(theirs, ours))
    assert metrics.multilabel([[]], [[]]) == {"f1_micro": 0.0, "f1_macro": 0.0, "exact_match": 1.0}


def test_correlations_equal_scipy() -> None:
    found = metrics.regression(NUMBERS, OTHERS)
    assert found["pearson"] == pytest.approx(scipy.stats.pearsonr(NUMBERS, OTHERS).statistic, abs=1e-12)
    assert found["spearman"] == pytest.approx(scipy.stats.spearmanr(NUMBERS, OTHERS).statistic, abs=1e-12)
    assert found["mean_squared_error"] == pytest.approx(sklearn.metrics.mean_squared_error(NUMBERS, OTHERS))
    assert metrics.pearson([0.1, 0.1, 0.1], [1.0, 2.0, 3.0]) == 0.0
    assert metrics.spearman([1.0, 2.0, 30.0], [1.0, 2.0, 3.0]) == 1.0
    for correlation in (metrics.pearson, metrics.spearman):
        with pytest.raises(DataError, match="row 1 has the number nan; expected a finite one"):
            correlation([1.0, float("nan")], [1.0, 2.0])


# What seqeval 1.2.2 gives: (references, outputs), then precision, recall, F1.
TAGGED = [
    ("O O O B-MISC I-MISC I-MISC O | B-PER I-PER O", "O O B-MISC I-MISC I-MISC I-MISC O | B-PER I-PER O", 1 / 2, 1 / 2),
    ("I-PER I-PER O I-LOC | B-PER B-PER", "B-PER I-PER O B-LOC | I-PER I-PER", 2 / 3, 1 / 2),
    ("B-A I-B I-B O I-C", "B-A B-B I-B O B-C", 1.0, 1.0),
    ("S-A B-B I-B E-B E-B O", "B-A B-B I-B I-B B-B O", 1.0, 1.0),
    ("O O | O", "O O | O", 0.0, 0.0),
    ("B-x-y I-x-y O B-", "B-x-y I-x I-x-y B-", 1 / 4, 1 / 2),
]


@pytest.mark.parametrize(("references", "outputs", "precision", "recall"), TAGGED)
def test_named_things_equal_seqeval(references: str, outputs: str, precision: float, recall: float) -> None:
    ours, theirs = ([line.split() for line in each.split("|")] for each in (outputs, references))
    found = metrics.entities(ours, theirs)
    assert found["precision"] == pytest.approx(precision)
    assert found["recall"] == pytest.approx(recall)
    assert found["f1"] == pytest.approx(2 * precision * recall / ((precision + recall) or 1))
    pairs = [(a, b) for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True)]
    assert found["accuracy"] == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))


def test_tags_and_words_must_agree() -> None:
    with pytest.raises(DataError, match="row 1 has 1 tags for 2 words; expected one each"):
        metrics.entities([["O"], ["O"]], [["O"], ["O", "O"]])


def squad_words(text: str) -> list[str]:
    """The rule that SQuAD publishes: lower case, no punctuation, no articles, words between spaces."""
    text = "".join(each for each in text.lower() if each not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def test_answers_equal_the_published_rule_on_english() -> None:
    draw = random.Random(8)
    words = ["The", "an", "a", "cat", "Cat's", "dog", "(1999)", "café", "–", "U.S.", "theory"]
    for _ in range(2000):
        output, reference = (" ".join(draw.choices(words, k=draw.randint(0, 5))) for _ in range(2))
        ours, theirs = squad_words(output), squad_words(reference)
        common = sum((Counter(ours) & Counter(theirs)).values())
        expected = 2 * common / (len(ours) + len(theirs)) if ours and theirs else float(ours == theirs)
        exact, overlap = metrics.squad_match(output, reference)
        assert (exact, overlap) == (float(ours == theirs), pytest.approx(expected, abs=1e-12))


def test_answers_in_chinese_and_of_several_references() -> None:
    assert metrics.squad_match("在北京。", "北京") == (0.0, pytest.approx(4 / 5))
    assert metrics.squad_match("《红楼梦》", "红楼梦") == (1.0, 1.0)
    assert metrics.squad_match("", ["the", "cat"]) == (0.0, 0.0), "an article is no answer beside another"
    assert metrics.squad_match("", ["the"]) == metrics.squad_match("", []) == (1.0, 1.0)
    assert metrics.squad_match("Paris", {"text": ["London", "the Paris"], "answer_start": [0, 9]}) == (1.0, 1.0)
    assert metrics.squad_match("", []) == (1.0, 1.0) and metrics.squad_match("Paris", {"text": []}) == (0.0, 0.0)
    assert metrics.squad_f1(["Paris", "x"], ["in Paris", "x"]) == {"exact_match": 0.5, "f1": pytest.approx(5 / 6)}
    assert metrics.exact_match([" a  b\n", "c"], ["a b", ["d", "e"]]) == 0.5


ENGLISH = (["the cat sat on the mat .", "a dog, it barks"], ["the cat sat on a mat .", "a dog barks loudly today"])
CHINESE = (["北京是中国的首都。", "今天天气很好"], ["北京是我国的首都。", "今天天气真好"])
JAPANESE = (["東京は日本の首都です。", "コーヒーを飲む"], ["東京は日本の首都だ。", "コーヒーを飲みます"])


@pytest.mark.parametrize(("pair", "tokenize"), [(ENGLISH, "13a"), (CHINESE, "zh"), (JAPANESE, "char")])
def test_translations_equal_sacrebleu(pair: tuple[list[str], list[str]], tokenize: str) -> None:
    outputs, references = pair
    assert metrics.choose_tokenize(references) == tokenize
    expected = sacrebleu.corpus_bleu(outputs, [references], tokenize=tokenize).score
    assert metrics.bleu(outputs, references) == expected > 20
    assert metrics.chrf(outputs, references) == sacrebleu.corpus_chrf(outputs, [references]).score > 20
    assert METRICS["bleu"](outputs, references) == {"bleu": expected, "chrf": metrics.chrf(outputs, references)}
    assert (
        metrics.bleu(outputs, references, tokenize="none")
        == sacrebleu.corpus_bleu(outputs, [references], tokenize="none").score
    )


def test_translations_of_unequally_many_references() -> None:
    outputs, (first, second) = ENGLISH[0], ENGLISH[1]
    found = metrics.bleu(outputs, [[first, "the cat sat on the mat ."], second])
    assert found == sacrebleu.corpus_bleu(outputs, [[first, second], ["the cat sat on the mat .", None]]).score
    assert found > metrics.bleu(*ENGLISH)


def test_a_missing_extra_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(ConfigError, match=r"needs? sacrebleu, which is missing; run: pip install 'trivium\[metrics\]'"):
        metrics.bleu(*ENGLISH)


CASES: dict[str, tuple[list[Any], list[Any]]] = {
    "accuracy": (OUTPUTS, REFERENCES),
    "bleu": (OUTPUTS, REFERENCES),
    "entities": ([["B-x", each] for each in OUTPUTS], [["B-x", each] for each in REFERENCES]),
    "exact_match": (OUTPUTS, REFERENCES),
    "multilabel": (OUTPUTS, REFERENCES),
    "regression": (NUMBERS, OTHERS),
    "rouge": ([f"{a} {b} c" for a, b in LABELS], REFERENCES),
    "squad": ([f"{a} {b} c" for a, b in LABELS], REFERENCES),
}


@pytest.mark.parametrize("name", METRICS)
def test_the_order_of_rows_changes_nothing(name: str) -> None:
    outputs, references = CASES[name]
    found = METRICS[name](outputs, references)
    assert all(isinstance(value, float) for value in found.values())
    for seed in range(3):
        order = random.Random(seed).sample(range(len(outputs)), len(outputs))
        assert METRICS[name]([outputs[i] for i in order], [references[i] for i in order]) == found
    with pytest.raises(DataError, match=r"outputs and \d+ references; expected as many of each"):
        METRICS[name](outputs[:-1], references)
    with pytest.raises(DataError, match="0 outputs and 0 references"):
        METRICS[name]([], [])
