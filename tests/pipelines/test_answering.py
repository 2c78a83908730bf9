"""Extractive answers: transformers 5 has no such pipeline; its model's logits, searched by hand, are the reference."""

from pathlib import Path

import pytest
import torch
import transformers

from tests.generation.spelling import TEXTS
from tests.pipelines.labelled import make_labelled
from trivium import pipeline
from trivium.errors import RequestError
from trivium.pipelines.answering import whole_words

QUESTION, CONTEXT = "Which axis?", TEXTS[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_labelled(tmp_path_factory.mktemp("spans"), "span")


def by_hand(folder: Path, question: str, context: str, longest: int = 15) -> list[tuple[float, int, int]]:
    """Every span's probability and characters, best first, for a context that fits into one window."""
    reader = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(folder)
    inputs = reader(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets, sides = inputs.pop("offset_mapping")[0].tolist(), inputs.sequence_ids(0)
    with torch.no_grad():
        found = model(**inputs)
    allowed = torch.tensor([side == 1 or place == 0 for place, side in enumerate(sides)])
    start, end = (logits[0].masked_fill(~allowed, -1e4).softmax(0) for logits in (found.start_logits, found.end_logits))
    places = [place for place, side in enumerate(sides) if side == 1]
    spans = [
        (float(start[first] * end[last]), offsets[first][0], offsets[last][1])
        for first in places
        for last in places
        if first <= last < first + longest
    ]
    return sorted(spans, reverse=True)


def test_answers_are_the_likeliest_spans(folder: Path) -> None:
    ours = pipeline("question-answering", model=folder)
    for context in TEXTS[:2]:
        expected = by_hand(folder, QUESTION, context)
        found = ours(question=QUESTION, context=context, top_k=5, align_to_words=False)
        assert [(each["start"], each["end"]) for each in found] == [span[1:] for span in expected[:5]]
        for each, span in zip(found, expected, strict=False):
            assert each["score"] == pytest.approx(span[0], abs=1e-6)
            assert each["answer"] == context[each["start"] : each["end"]]
        short = ours(question=QUESTION, context=context, max_answer_len=2, align_to_words=False)
        assert (short["start"], short["end"]) == by_hand(folder, QUESTION, context, 2)[0][1:]


def near(*answers: dict) -> list[dict]:
    """The same answers with scores that may differ in the last places, as those of another batch do."""
    return [{**answer, "score": pytest.approx(answer["score"], rel=1e-4)} for answer in answers]


def test_forms_of_the_call(folder: Path) -> None:
    ours = pipeline("question-answering", model=folder)
    one = ours(question=QUESTION, context=CONTEXT)
    assert one.keys() == {"score", "start", "end", "answer"}
    pair = {"question": QUESTION, "context": CONTEXT}
    assert ours(pair) == ours([pair]) == ours(question=[QUESTION], context=[CONTEXT]) == one
    other = ours(question="What?", context=TEXTS[1])
    assert ours(question=[QUESTION, "What?"], context=[CONTEXT, TEXTS[1]]) == near(one, other)
    assert ours(question=[QUESTION, "What?"], context=CONTEXT)[:1] == near(one)
    assert list(ours(iter([pair, pair]))) == near(one, one)


def test_a_long_context_is_read_in_windows(folder: Path) -> None:
    """With one answer's logits far above all others, every window that holds it finds it, wherever it stands."""
    ours = pipeline("question-answering", model=folder)
    long = " ".join(TEXTS[1] for _ in range(12)) + " " + CONTEXT
    found = ours(question=QUESTION, context=long, top_k=3)
    assert len(found) == 3 and all(each["answer"] == long[each["start"] : each["end"]] for each in found)
    windows = ours._loaded.windows(QUESTION, long, longest=64, overlap=32)
    assert len(windows) > 4 and all(len(window.ids) <= 64 for window in windows)
    covered = {offset for window in windows for offset, side in zip(window.offsets, window.sides, strict=True) if side}
    (whole,) = ours._loaded.windows(QUESTION, long, longest=10_000, overlap=32)
    assert covered == {offset for offset, side in zip(whole.offsets, whole.sides, strict=True) if side}
    best = max(
        (ours(question=QUESTION, context=long[w.offsets[w.sides.index(1)][0] : w.offsets[-2][1]]) for w in windows),
        key=lambda each: each["score"],
    )
    assert found[0]["answer"] == best["answer"]


def test_windows_are_those_of_transformers(folder: Path) -> None:
    ours, reader = pipeline("question-answering", model=folder), transformers.AutoTokenizer.from_pretrained(folder)
    long = " ".join(TEXTS) * 3
    for longest, overlap in ((64, 20), (40, 8), (33, 0)):
        theirs = reader(
            QUESTION, long, truncation="only_second", max_length=longest, stride=overlap, return_overflowing_tokens=True
        )
        found = ours._loaded.windows(QUESTION, long, longest=longest, overlap=overlap)
        assert [window.ids for window in found] == theirs.input_ids


def test_an_impossible_question_may_go_unanswered(folder: Path) -> None:
    ours = pipeline("question-answering", model=folder)
    found = ours(question=QUESTION, context=CONTEXT, handle_impossible_answer=True, top_k=1000, align_to_words=False)
    (null,) = [each for each in found if not each["answer"]]
    assert (null["start"], null["end"]) == (0, 0) and null["score"] > 0
    assert [each["score"] for each in found] == sorted((each["score"] for each in found), reverse=True)


@pytest.mark.parametrize(
    ("text", "span", "expected"),
    [
        ("a whole word here", (4, 6), "whole"),
        ("a whole word here", (2, 10), "whole word"),
        ("(Paris), again", (1, 3), "Paris"),
        ("春眠不觉晓", (1, 2), "眠"),
        ("x", (0, 1), "x"),
    ],
)
def test_spans_grow_to_whole_words(text: str, span: tuple[int, int], expected: str) -> None:
    start, end = whole_words(text, *span)
    assert text[start:end] == expected


def test_what_it_cannot_do_is_said(folder: Path) -> None:
    ours = pipeline("question-answering", model=folder)
    with pytest.raises(RequestError, match="a question without its context"):
        ours(question=QUESTION)
    with pytest.raises(RequestError, match="expected both as text"):
        ours({"question": QUESTION})
    with pytest.raises(RequestError, match="empty question or context"):
        ours(question=" ", context=CONTEXT)
    with pytest.raises(RequestError, match="2 questions for 1 contexts"):
        ours(question=["a", "b"], context=[CONTEXT])
    with pytest.raises(RequestError, match="a window needs room"):
        ours(question=TEXTS[1], context=CONTEXT, max_seq_len=20)
