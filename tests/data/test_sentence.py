"""Sentences: where they end, and where they only seem to."""

import random

import pytest

from trivium.data.sentence import split_sentences

CASES = [
    ("One. Two words! Three “quoted.” Four?", ["One. ", "Two words! ", "Three “quoted.” ", "Four?"]),
    ("It reads e.g. GIF and PNG, i.e. pictures. It ends.", ["It reads e.g. GIF and PNG, i.e. pictures. ", "It ends."]),
    (
        "Dr. J. Smith of the U.S. Army wrote v1.2. See fig. 3.",
        ["Dr. J. Smith of the U.S. Army wrote v1.2. ", "See fig. 3."],
    ),
    ("He waits ... and goes. why? because! so", ["He waits ... and goes. why? ", "because! ", "so"]),
    ("春眠不觉晓。处处闻啼鸟！“夜来？”花落；多少", ["春眠不觉晓。", "处处闻啼鸟！", "“夜来？”", "花落；多少"]),
    ("यह है। वह था।", ["यह है। ", "वह था।"]),
    ("A title\nThe body is here", ["A title\n", "The body is here"]),
    ("A line that\ngoes on. End", ["A line that\ngoes on. ", "End"]),
    ("This package holds the documentation and the examples of the GNU\nCompiler", None),
    ("It is a sensible, clean and simple way to write\nWebSocket-capable servers, which any one may\nuse.", None),
    (
        "Things that it has, and there are many:\n- One of them\n- Another",
        ["Things that it has, and there are many:\n", "- One of them\n", "- Another"],
    ),
    ("No mark here\n\nlower case", ["No mark here\n\n", "lower case"]),
    ("...", ["..."]),
    ("", []),
]


@pytest.mark.parametrize(("text", "sentences"), CASES)
def test_sentences_end_where_a_reader_says(text: str, sentences: list[str] | None) -> None:
    assert split_sentences(text) == (sentences if sentences is not None else [text])


def test_nothing_is_lost() -> None:
    draw = random.Random(0)
    for _ in range(2000):
        text = "".join(
            draw.choices(["a", "B", ".", "!", " ", "\n", "。", "”", ")", "e.g.", "x" * 30], k=draw.randint(0, 30))
        )
        sentences = split_sentences(text)
        assert "".join(sentences) == text and all(sentences)
