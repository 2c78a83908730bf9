"""Baselines: what each gives by hand, and the nearest neighbour and the ranks against scikit-learn and a formula."""

import random
import sys
import warnings

import numpy as np
import pytest

from trivium.errors import ConfigError, DataError
from trivium.evaluation.baselines import BASELINES, TfidfIndex, rank_sentences, run_baseline
from trivium.evaluation.words import split_words

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sklearn.feature_extraction.text import TfidfVectorizer

SOURCE = "\n  Cats eat\n  fish. Dogs eat meat and fish every day. Birds sing. Dogs and cats eat fish every day."
TRAINING = [("Cats sleep all day long", "about cats asleep"), ("Dogs bark", "on dogs"), ("Fish swim", "of some fish")]


def test_lead_and_length() -> None:
    assert run_baseline("lead", [SOURCE, "", " \n\n春眠不觉晓。处处闻啼鸟。"]) == ["Cats eat fish.", "", "春眠不觉晓。"]
    assert run_baseline("lead-cut", [SOURCE, "one", "", "春眠不觉晓"], TRAINING) == [
        "Cats eat fish",
        "one",
        "",
        "春眠不",
    ]


def test_textrank_takes_what_the_others_resemble() -> None:
    assert run_baseline("textrank", [SOURCE, "", "Only one."]) == ["Dogs and cats eat fish every day.", "", "Only one."]
    longer = [("x", "a b c d e f g h i")]
    both = "Dogs eat meat and fish every day. Dogs and cats eat fish every day."
    assert run_baseline("textrank", [SOURCE], longer) == [both]
    assert run_baseline("textrank", ["猫吃鱼。狗吃肉和鱼。鸟要鱼肉。"], [("x", "四个字吧")]) == ["狗吃肉和鱼。"]
    assert run_baseline("textrank", ["猫吃鱼。狗吃肉和鱼。"], [("x", "六个字吧六个")]) == ["猫吃鱼。狗吃肉和鱼。"]


def test_ranks_solve_the_equation_of_pagerank() -> None:
    sentences = ["a b c d", "a b x", "c d x y", "z", "a d y q r"]
    rank, words = rank_sentences(sentences), [set(each.split()) for each in sentences]
    near = np.array(
        [[0.0 if x is y else len(x & y) / (np.log1p(len(x)) + np.log1p(len(y))) for y in words] for x in words]
    )
    totals = near.sum(1)
    for i in range(5):
        arriving = sum(rank[j] * near[j, i] / totals[j] for j in range(5) if totals[j])
        assert rank[i] == pytest.approx(0.15 / 5 + 0.85 * arriving, abs=1e-3)
    assert rank.argmin() == 3


def test_the_nearest_neighbour_equals_scikit_learn() -> None:
    draw = random.Random(3)
    texts = [" ".join(draw.choices("abcdefghijklmnop", k=draw.randint(1, 12))) for _ in range(200)]
    vectors = TfidfVectorizer(analyzer=split_words)
    index, known = TfidfIndex(texts[:150]), vectors.fit_transform(texts[:150])
    cosines = (vectors.transform(texts[150:]) @ known.T).toarray()
    for text, row in zip(texts[150:], cosines, strict=True):
        assert row[index.nearest(text)] == pytest.approx(row.max())
    assert TfidfIndex(["b", "a", "a"]).nearest("a") == 1 and TfidfIndex(["b"]).nearest("unknown") == 0
    found = run_baseline("nearest", ["cats all day", "a fish", "狗"], [*TRAINING, ("狗叫", "中文")])
    assert found == ["about cats asleep", "of some fish", "中文"]


REVIEWS = [
    (f"{word} film number {i}", word in ("good", "great"))
    for i in range(20)
    for word in ("good", "bad", "great", "dull")
]


def test_classes() -> None:
    assert run_baseline("majority", ["x", "y"], [("a", "no"), ("b", "yes"), ("c", "yes")]) == ["yes", "yes"]
    assert run_baseline("majority", ["x"], [("a", 2), ("b", 1)]) == [1]
    assert run_baseline("logistic", ["a great film", "the dull film"], REVIEWS) == [True, False]
    named = [(text, "pos" if label else "neg") for text, label in REVIEWS]
    assert run_baseline("logistic", ["a great film", "the dull film"], named) == ["pos", "neg"]
    assert run_baseline("logistic", ["a", "b"], [("a", 1), ("b", 1)]) == [1, 1]


@pytest.mark.parametrize("name", BASELINES)
def test_each_text_is_answered_alone(name: str) -> None:
    training = {"majority": REVIEWS, "logistic": REVIEWS, "mean": [("a", 1.0), ("b", 2.5)]}.get(name, TRAINING)
    sources = [SOURCE, "Dogs bark at good cats.", "春眠不觉晓。", ""]
    together = run_baseline(name, sources, training)
    assert together == [run_baseline(name, [source], training)[0] for source in sources]


def test_what_cannot_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="there is no baseline 'best'; expected one of lead, lead-cut, textrank"):
        run_baseline("best", ["x"])
    with pytest.raises(DataError, match="baseline 'nearest' learns from training pairs and there are none"):
        run_baseline("nearest", ["x"])
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(
        ConfigError, match=r"needs scikit-learn, which is missing; run: pip install 'trivium\[metrics\]'"
    ):
        run_baseline("logistic", ["x"], REVIEWS)
