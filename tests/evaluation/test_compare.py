"""Comparisons: every number against the function that it comes from, the table, and a page that holds no code."""

import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from trivium.errors import ConfigError, DataError
from trivium.evaluation.compare import PRIMARY, Comparison, compare_outputs
from trivium.evaluation.metrics import METRICS, bleu, chrf
from trivium.evaluation.page import draw_confusion, draw_lengths, render_page, write_page
from trivium.evaluation.rouge import rouge, rouge_corpus
from trivium.evaluation.significance import adjust_p_values, bootstrap_interval, paired_test
from trivium.evaluation.summaries import TrainingText

DRAW = random.Random(7)
WORDS = ["cat", "dog", "fish", "bird", "eats", "sees", "finds", "red", "small", "old", "house", "tree"]
SOURCES = [" ".join(DRAW.choices(WORDS, k=20)) for _ in range(40)]
REFERENCES = [" ".join(source.split()[4:9]) for source in SOURCES]


def spoil(text: str, share: float) -> str:
    return " ".join(DRAW.choice(WORDS) if DRAW.random() < share else word for word in text.split())


SYSTEMS = {
    "lead": [" ".join(source.split()[:5]) for source in SOURCES],
    "good": [spoil(reference, 0.2) for reference in REFERENCES],
    "textrank": [" ".join(source.split()[7:12]) for source in SOURCES],
    "也好": [spoil(reference, 0.3) for reference in REFERENCES],
}


def compare(**options: Any) -> Comparison:
    return compare_outputs(SYSTEMS, REFERENCES, sources=SOURCES, training_texts=REFERENCES[:5], **options)


def rouge_l(name: str) -> list[float]:
    return [rouge(text, wanted).rougeL for text, wanted in zip(SYSTEMS[name], REFERENCES, strict=True)]


def test_every_number_is_that_of_its_function() -> None:
    found = compare()
    assert [row.name for row in found.rows] == ["good", "也好", "textrank", "lead"]
    assert found.against == "textrank" and found.primary == "rougeL"
    tests = {row.name: paired_test(rouge_l(row.name), rouge_l("textrank")) for row in found.rows}
    del tests["textrank"]
    adjusted = dict(zip(tests, adjust_p_values([each.p_value for each in tests.values()]), strict=True))
    for row in found.rows:
        assert row.scores["rougeL"] == bootstrap_interval(rouge_l(row.name))
        assert {name: interval.mean for name, interval in row.scores.items()} == pytest.approx(row.whole)
        assert row.whole == rouge_corpus(SYSTEMS[row.name], REFERENCES)
        assert row.against == tests.get(row.name) and row.adjusted_p == adjusted.get(row.name)
        training = TrainingText(REFERENCES[:5])
        assert row.described["verbatim"] == pytest.approx(sum(map(training.verbatim, SYSTEMS[row.name])) / 40)
        assert row.described["length"] == 5.0
    good, lead = found.rows[0], found.rows[-1]
    assert good.is_significant and not good.is_baseline and not found.rows[2].is_significant
    assert lead.is_baseline and lead.described["copy_rate"] == 1.0 and lead.described["novelty"] == 0.0
    assert found.reference_described["verbatim"] == pytest.approx(5 / 40)


def test_order_changes_nothing() -> None:
    order = DRAW.sample(range(40), 40)
    systems = {name: [SYSTEMS[name][i] for i in order] for name in reversed(SYSTEMS)}
    shuffled = compare_outputs(
        systems, [REFERENCES[i] for i in order], sources=[SOURCES[i] for i in order], training_texts=REFERENCES[:5]
    )
    assert shuffled.to_table() == compare().to_table()
    assert shuffled.to_dict() == compare().to_dict()


def test_the_table_reads_well() -> None:
    lines = compare().to_table().splitlines()
    assert re.match(r"system +rougeL \[95 %\] +rouge1 +rouge2 +rougeLsum +against textrank +p +length", lines[0])
    assert re.match(
        r"good +\d\d\.\d \[\d\d\.\d, \d\d\.\d\] .* \+\d\d\.\d \[\+\d\d\.\d, \+\d\d\.\d\] +0\.0\d+ \* +5\.0 ", lines[2]
    )
    assert lines[4].startswith("textrank (baseline)  ") and lines[6].startswith("(reference) ")
    assert lines[2].index("+") == lines[3].index("+") + 2, "a Chinese name is two columns a character"
    assert lines[-1].startswith(
        "40 texts; brackets: 95 % bootstrap intervals; p: paired randomisation against textrank"
    )


def test_json_holds_the_table_and_if_asked_the_texts() -> None:
    found = json.loads(json.dumps(compare().to_dict(texts=True)))
    assert found["systems"][0]["scores"]["rougeL"]["mean"] == pytest.approx(sum(rouge_l("good")) / 40)
    assert found["rows"][3]["outputs"]["lead"] == SYSTEMS["lead"][3]
    assert found["rows"][3]["source"] == SOURCES[3] and found["texts"] == 40
    assert found["rows"][3]["scores"]["lead"]["rougeL"] == rouge_l("lead")[3]
    assert "rows" not in compare().to_dict()


def test_without_baselines_the_worst_is_the_measure() -> None:
    found = compare_outputs({"a": ["x y"], "b": ["x z"]}, [["x y", "y"]], baselines=())
    assert found.against == "b" and found.rows[0].name == "a" and not found.rows[1].is_baseline
    assert list(found.rows[0].described) == ["length", "repetition"]
    alone = compare_outputs({"a": ["x"]}, ["x"])
    assert alone.rows[0].against is None and "against" not in alone.to_table()


OTHER: dict[str, tuple[list[Any], list[Any], list[Any]]] = {
    "accuracy": (["x", "y", "y"], ["x", "x", "y"], ["x", "y", "x"]),
    "bleu": (
        ["北京是首都。", "天气很好啊", "我来了"],
        ["北京是首都。", "天气真好啊", "他走了"],
        ["北京是首都。", "天气很好啊", "我来了"],
    ),
    "entities": ([["B-a", "I-a"], ["O"], ["O"]], [["B-a", "O"], ["O"], ["B-a"]], [["B-a", "I-a"], ["O"], ["O"]]),
    "exact_match": (["x", "y", "z"], ["x", "x", "y"], ["x", ["y", "w"], "z"]),
    "multilabel": ([[1, 2], [], [1]], [[1], [], [2]], [[2, 1], [], [1]]),
    "regression": ([1.0, 2.5, 3.0], [2.0, 2.0, 2.0], [1.0, 2.0, 3.0]),
    "rouge": (["x y", "y z", "z"], ["x", "y", "z"], ["x y", "y z", "z"]),
    "squad": (["Paris", "", "x"], ["in Paris", "x", ""], [{"text": ["Paris"]}, [], "x"]),
}


@pytest.mark.parametrize("metric", PRIMARY)
def test_every_metric_compares(metric: str) -> None:
    good, bad, references = OTHER[metric]
    found = compare_outputs({"good": good, "bad": bad}, references, metric=metric, baselines=["bad"])
    assert [row.name for row in found.rows] == ["good", "bad"] and found.against == "bad"
    assert found.rows[0].whole == METRICS[metric](good, references)
    assert found.primary in found.rows[0].scores and found.primary in found.to_table()
    assert "good" in render_page(found)
    if metric == "bleu":
        assert found.rows[0].whole == {"bleu": bleu(good, references), "chrf": chrf(good, references)}
        assert found.rows[0].scores["chrf"].mean == pytest.approx(100) == found.rows[0].scores["sentence_bleu"].mean
    if metric == "regression":  # scikit-learn's r2_score, and an error in its own unit
        from sklearn.metrics import r2_score

        assert found.rows[0].scores["r2"].mean == pytest.approx(r2_score(references, good))
        assert f"{found.rows[0].whole['mean_squared_error']:.4g}" in found.to_table()


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ConfigError, match="metric 'none' has no score of one text; expected one of accuracy, bleu"):
        compare_outputs({"a": [1.0]}, [1.0], metric="none")
    with pytest.raises(ConfigError, match="a metric gives hits; expected misses among them"):
        compare_outputs({"a": ["x"]}, ["x"], metric=lambda ours, theirs: {"hits": 1.0}, best="misses")
    with pytest.raises(DataError, match="system 'b' has 2 texts for 1 references; expected as many"):
        compare_outputs({"a": ["x"], "b": ["x", "y"]}, ["x"])
    with pytest.raises(DataError, match="the list of sources has 0 texts for 1 references"):
        compare_outputs({"a": ["x"]}, ["x"], sources=[])
    with pytest.raises(DataError, match="0 systems and 1 references; expected one of each or more; name some"):
        compare_outputs({}, ["x"])


class Tags(HTMLParser):
    """Collects tags, attributes and text, as a browser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "line", "circle", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_no_code_and_no_address(tmp_path: Path) -> None:
    evil = '<script>alert(1)</script><img src="http://evil.example/x" onerror=alert(1)>" onload="\'&amp;'
    systems = {"lead": [evil, "x", "\ud800"], f"model {evil}": ["y", evil * 9, "z"]}
    found = compare_outputs(systems, [evil, "x", "y"], sources=[evil] * 3)
    path = write_page(found, tmp_path / "page.html", title=evil)
    page = path.read_text(encoding="utf-8")
    seen = Tags(page)
    assert not seen.open
    allowed = "html head meta title style body h1 h2 h3 p div table tr th td svg text line circle rect details summary"
    assert {tag for tag, _ in seen.tags} <= set(allowed.split())
    names = {name for _, attributes in seen.tags for name in attributes}
    assert not {name for name in names if name.startswith("on")} | (names & {"src", "href", "srcset", "action"})
    assert evil in seen.text and "default-src 'none'" in page and "url(" not in page


def test_the_page_shows_the_worst_and_the_best_of_the_model() -> None:
    found = compare()
    page = render_page(found, examples=3)
    order = sorted(range(40), key=lambda i: (rouge_l("good")[i], i))
    shown = [int(each) - 1 for each in re.findall(r"<h3>Text (\d+)</h3>", page)]
    assert shown == [*order[:3], *order[:-4:-1]]
    assert "Worst by rougeL of good" in page and page.index("Worst by") < page.index("Best by")
    few = render_page(compare_outputs({"lead": ["x"]}, ["x"]), examples=3)
    assert few.count("<h3>") == 1 and "Best by" not in few


def test_labels_that_were_mistaken() -> None:
    references, outputs = ["b", "a", "b", "c", "b"], ["b", "b", "b", "<x>", "c"]
    rows = [
        re.findall(r">([^<>]+)</t[hd]>", row) for row in draw_confusion(outputs, references, labels=2).split("<tr>")
    ]
    assert rows[1:] == [
        ["true \\ found", "b", "a", "(other)"],
        ["b", "2", "0", "1"],
        ["a", "1", "0", "0"],
        ["(other)", "0", "0", "1"],
    ]
    assert "Labels of m" in render_page(compare_outputs({"m": [1, 2]}, [1, 1], metric="accuracy"))


def test_lengths_are_bars_of_one_scale() -> None:
    bars = re.findall(
        r'x="([0-9]+)" y="[0-9.]+" width="9" height="([0-9.]+)"', draw_lengths(["a b", "a b", ""], ["a", "a", "a"])
    )
    assert bars == [("42", "120.0"), ("73", "80.0"), ("29", "40.0")]
    assert draw_lengths([""], ["x " * 300]).count("<rect") == 2
