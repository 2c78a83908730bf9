"""`trivium run`: the same results as `pipeline`, as text or JSON, for a text or for each of its lines."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.generation.spelling import TEXTS
from tests.pipelines.labelled import make_labelled
from trivium import pipeline
from trivium.cli import main

LINES = [text for text in TEXTS if "\n" not in text]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(text: str | bytes, *words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["trivium", "run", *map(str, words)])
        raw = text if isinstance(text, bytes) else text.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


def test_a_text_and_its_lines(run: Any, t5_folder: Path) -> None:
    ours = pipeline("summarization", model=t5_folder)
    words = ("summarization", t5_folder, "max_new_tokens=9", "min_length=0")
    options = {"max_new_tokens": 9, "min_length": 0}
    whole = "\n".join(LINES) + "\n"
    expected = ours(whole[:-1], **options)
    assert run(whole, *words) == (0, expected[0]["summary_text"] + "\n", "")
    code, out, _ = run(whole, *words, "--json")
    assert code == 0 and json.loads(out) == expected
    each = ours(LINES, **options)
    code, out, _ = run(whole.replace("\n", "\r\n\n"), *words, "--lines", "--json")
    assert code == 0 and [json.loads(line) for line in out.splitlines()] == each
    code, out, _ = run(whole, *words, "--lines")
    assert out.splitlines() == [one["summary_text"].replace("\n", " ") for one in each]


def test_labels_answers_and_similarity(run: Any, tmp_path: Path, folders: dict[str, Path]) -> None:
    labels = make_labelled(tmp_path / "labels", "sequence", ("entailment", "neutral", "no"))
    (best,) = pipeline("sentiment-analysis", model=labels)(TEXTS[0])
    assert run(TEXTS[0], "sentiment-analysis", labels)[1] == f"{best['label']}\t{best['score']:.4f}\n"
    code, out, _ = run(TEXTS[0], "zero-shot-classification", labels, "candidate_labels=array, rain")
    assert code == 0 and {line.split("\t")[0] for line in out.splitlines()} == {"array", "rain"}
    spans = make_labelled(tmp_path / "spans", "span")
    expected = pipeline("question-answering", model=spans)(question="Which axis?", context=TEXTS[0])
    code, out, _ = run(TEXTS[0] + "\n", "question-answering", spans, "question=Which axis?", "--json")
    assert code == 0 and json.loads(out) == expected
    asked = json.dumps({"question": "Which axis?", "context": TEXTS[0]})
    code, out, _ = run(f"{asked}\n{asked}\n", "question-answering", spans, "--lines", "--json")
    assert code == 0 and [json.loads(line)["answer"] for line in out.splitlines()] == [expected["answer"]] * 2
    scores = pipeline("sentence-similarity", model=folders["bert"])(TEXTS[0], LINES)
    code, out, _ = run("\n".join(LINES), "sentence-similarity", folders["bert"], f"source_sentence={TEXTS[0]}")
    assert [float(line) for line in out.splitlines()] == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("", ["text-generation", "llama"], "no text to read; expected some on standard input"),
        (b"\xff\xfe\xfd", ["text-generation", "llama"], "the text is not UTF-8"),
        ("a", ["text-generation", "llama", "num_beams"], "'num_beams' is no option; expected name=value"),
        ("a", ["text-generation", "llama", "beams=3"], "has no option beams; expected for example num_beams"),
        ("a", ["text-generation", "llama", "temperature=hot"], "temperature is 'hot'"),
        ("a", ["summon", "llama"], "there is no task 'summon'"),
        ("a", ["fill-mask", "bert"], "there is no [MASK]"),
        ('{"question": ', ["question-answering", "span"], "is no JSON"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_wrong_is_said_in_one_sentence(
    run: Any, text: str, words: list[str], message: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    task, name, *options = words
    folder = make_labelled(tmp_path, "span") if name == "span" else folders[name]
    code, out, err = run(text, task, folder, *options)
    assert (code, out) == (2, "")
    assert message in err and err.startswith("error: ") and err.count("\n") == 1
