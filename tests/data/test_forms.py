"""Columns to forms: what well-known data sets look like, what is mapped, what is refused and with which words."""

from typing import Any

import pytest

from trivium.data.forms import FORM_COLUMNS, detect_form, read_mapping, to_form
from trivium.data.rows import Row
from trivium.errors import ConfigError, DataError


def row(**values: Any) -> Row:
    return Row(values, "a.jsonl", 7)


def chat(*texts: str, system: str = "") -> list[dict[str, str]]:
    turns = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]
    return [{"role": "system", "content": system}, *turns] if system else turns


SQUAD = {"text": ["b c"], "answer_start": [2]}
KNOWN: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("text", {"text": "a", "id": 5}, {"text": "a"}),
    ("text", {"content": "a"}, {"text": "a"}),
    ("chat", {"messages": chat("a", "b"), "prompt": "a", "prompt_id": "5"}, {"messages": chat("a", "b")}),
    (
        "chat",
        {
            "conversations": [
                {"from": "system", "value": "s"},
                {"from": "human", "value": "a"},
                {"from": "gpt", "value": "b"},
            ]
        },
        {"messages": chat("a", "b", system="s")},
    ),
    ("chat", {"conversations": chat("a", "b")}, {"messages": chat("a", "b")}),
    ("chat", {"conversations": chat("a", "b"), "system": "s"}, {"messages": chat("a", "b", system="s")}),
    ("chat", {"messages": chat("a", "b", system="t"), "system": "s"}, {"messages": chat("a", "b", system="t")}),
    ("labelled", {"text": "a", "label": '["x", "y"]'}, {"text": "a", "label": ["x", "y"]}),
    ("labelled", {"text": "a", "label": "['x', 'y']"}, {"text": "a", "label": ["x", "y"]}),
    ("labelled", {"text": "a", "label": "[x"}, {"text": "a", "label": "[x"}),
    ("labelled", {"question": "q", "sentence": "s", "label": 0}, {"text": "q", "text_pair": "s", "label": 0}),
    ("chat", {"messages": '[{"role": "user", "content": "a"}]'}, {"messages": chat("a")}),
    (
        "chat",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]},
        {"messages": chat("ab")},
    ),
    (
        "chat",
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"x": 1}], "name": None}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"x": 1}]}]},
    ),
    (
        "chat",
        {
            "messages": [
                {"role": "tool", "content": [{"name": "f", "result": 1}]},
                {"role": "assistant", "content": "a"},
            ]
        },
        {
            "messages": [
                {"role": "tool", "content": [{"name": "f", "result": 1}]},
                {"role": "assistant", "content": "a"},
            ]
        },
    ),
    ("chat", {"messages": chat("a"), "tools": [{"x": 1}]}, {"messages": chat("a"), "tools": [{"x": 1}]}),
    ("chat", {"instruction": "a", "input": "", "output": "b", "text": "…"}, {"messages": chat("a", "b")}),
    ("chat", {"instruction": "a", "input": "i", "output": "b"}, {"messages": chat("a\n\ni", "b")}),
    (
        "chat",
        {"instruction": "a", "output": "b", "system": "s"},
        {"messages": chat("a", "b", system="s")},
    ),
    ("completion", {"prompt": "", "completion": "b"}, {"prompt": "", "completion": "b"}),
    ("completion", {"prompt": "a", "response": "b"}, {"prompt": "a", "completion": "b"}),
    (
        "preference",
        {"prompt": "a", "chosen": "b", "rejected": "c", "messages": chat("x")},
        {"prompt": "a", "chosen": "b", "rejected": "c"},
    ),
    (
        "preference",
        {"chosen": chat("a", "b"), "rejected": chat("a", "c")},
        {"prompt": chat("a"), "chosen": chat("a", "b")[1:], "rejected": chat("a", "c")[1:]},
    ),
    (
        "preference",  # as UltraFeedback has it
        {"prompt": "a", "chosen": chat("a", "b"), "rejected": chat("a", "c")},
        {"prompt": chat("a"), "chosen": chat("a", "b")[1:], "rejected": chat("a", "c")[1:]},
    ),
    (
        "preference",
        {"prompt": chat("a"), "chosen": chat("a", "b")[1:], "rejected": chat("a", "c")[1:]},
        {"prompt": chat("a"), "chosen": chat("a", "b")[1:], "rejected": chat("a", "c")[1:]},
    ),
    ("labelled", {"text": "a", "label": 0}, {"text": "a", "label": 0}),
    ("labelled", {"sentence": "a", "label": 1, "idx": 3}, {"text": "a", "label": 1}),
    ("labelled", {"review": "a", "rating": 4.5}, {"text": "a", "label": 4.5}),
    ("labelled", {"text": "a", "labels": ["x", "y"]}, {"text": "a", "label": ["x", "y"]}),
    ("labelled", {"text": "a", "labels": []}, {"text": "a", "label": []}),
    (
        "labelled",
        {"premise": "a", "hypothesis": "b", "label": "no"},
        {"text": "a", "text_pair": "b", "label": "no"},
    ),
    ("labelled", {"sentence1": "a", "sentence2": "b", "score": 2.5}, {"text": "a", "text_pair": "b", "label": 2.5}),
    ("pair", {"source": "a", "target": "b"}, {"source": "a", "target": "b"}),
    ("pair", {"article": "a", "highlights": "b", "id": "x"}, {"source": "a", "target": "b"}),
    ("pair", {"document": "a", "summary": "b"}, {"source": "a", "target": "b"}),
    ("pair", {"id": "1", "dialogue": "a", "summary": "b"}, {"source": "a", "target": "b"}),
    ("pair", {"text": "a", "summary": "b", "title": "c"}, {"source": "a", "target": "b"}),
    ("pair", {"translation": {"en": "a", "zh": "b"}}, {"source": "a", "target": "b"}),
    ("tokens", {"tokens": ["a", "b"], "tags": ["O", "B-X"]}, {"tokens": ["a", "b"], "tags": ["O", "B-X"]}),
    ("tokens", {"tokens": ["a"], "ner_tags": [3], "pos_tags": [1]}, {"tokens": ["a"], "tags": [3]}),
    (
        "question",
        {"id": "x", "question": "q", "context": "a b c", "answers": SQUAD},
        {"question": "q", "context": "a b c", "answers": SQUAD},
    ),
    (
        "question",
        {"question": "q", "context": "a b c", "answers": [{"text": "b c", "answer_start": 2}]},
        {"question": "q", "context": "a b c", "answers": SQUAD},
    ),
    (
        "question",
        {"question": "q", "context": "a", "answers": {"text": [], "answer_start": []}},
        {"question": "q", "context": "a", "answers": {"text": [], "answer_start": []}},
    ),
]


@pytest.mark.parametrize(
    ("form", "values", "expected"), KNOWN, ids=[f"{at}-{case[0]}" for at, case in enumerate(KNOWN)]
)
def test_well_known_columns(form: Any, values: dict[str, Any], expected: dict[str, Any]) -> None:
    assert detect_form([row(**values)]) == form
    assert to_form(row(**values)) == to_form(row(**values), form=form) == expected
    assert set(FORM_COLUMNS[form]) <= set(expected)
    assert to_form(row(**expected), form=form) == expected  # what is canonical stays


@pytest.mark.parametrize(
    ("mapping", "values", "form", "expected"),
    [
        ("source=body, target=title", {"body": "a", "title": "b"}, "pair", {"source": "a", "target": "b"}),
        ("target=title", {"article": "a", "title": "b", "highlights": "c"}, "pair", {"source": "a", "target": "b"}),
        (
            "source=translation.zh,target=translation.en",
            {"translation": {"en": "a", "zh": "b", "de": "c"}},
            "pair",
            {"source": "b", "target": "a"},
        ),
        ("label=mark", {"review": "a", "mark": 5, "label": "x"}, "labelled", {"text": "a", "label": 5}),
        ("text=note", {"note": "a", "text": "b"}, "text", {"text": "a"}),
        ("messages=turns", {"turns": chat("a")}, "chat", {"messages": chat("a")}),
        ("instruction=q,output=a", {"q": "a", "a": "b"}, "chat", {"messages": chat("a", "b")}),
        ("instruction=q,output=a,input=i", {"q": "a", "a": "b", "i": "c"}, "chat", {"messages": chat("a\n\nc", "b")}),
        ("prompt=q,completion=a", {"q": "x", "a": "y"}, "completion", {"prompt": "x", "completion": "y"}),
        ("text=a.b", {"a.b": "x", "a": {"b": "y"}}, "text", {"text": "x"}),
    ],
)
def test_mapped_columns(mapping: str, values: dict[str, Any], form: Any, expected: dict[str, Any]) -> None:
    names = read_mapping(mapping)
    assert detect_form([row(**values)], mapping=names) == form
    assert to_form(row(**values), mapping=names, form=form) == expected


def test_most_rows_decide() -> None:
    good, bad = row(source="a", target="b"), row(text="x")
    assert detect_form([good, good, bad]) == "pair"
    assert detect_form([bad, bad, good]) == "text"
    with pytest.raises(DataError, match=r"a.jsonl, line 7 has the columns text; expected source\+target or art"):
        to_form(bad, form="pair")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"question": "a", "answer": "b"},
            r"the columns question, answer; expected prompt\+chosen.* or text;",
        ),
        ({}, "has the columns none; expected"),
        ({"text": "  "}, "text is empty; expected text"),
        ({"text": None}, "text is nothing; expected text"),
        ({"source": "a", "target": 5}, "target is int '5'; expected text"),
        ({"translation": {"en": "a", "zh": "b", "de": "c"}}, "expected two languages"),
        ({"translation": "a"}, "translation is str 'a'; expected two languages"),
        ({"messages": []}, "messages is an empty list; expected a list with something in it"),
        ({"messages": "hello"}, "messages is str 'hello'; expected a list"),
        ({"messages": "[hello"}, "is a list in JSON that cannot be read"),
        ({"messages": ["a"]}, r"messages\[0\] is str 'a'; expected an object with role and content"),
        ({"messages": [{"content": "a"}]}, r"messages\[0\] has the role None"),
        ({"messages": [*chat("a"), {"role": "user"}]}, r"messages\[1\] has a content that is nothing"),
        ({"conversations": [{"from": "cat", "value": "a"}]}, r"messages\[0\] is from 'cat'; expected one of human"),
        ({"text": "a", "label": None}, "label is nothing; expected a name, a number"),
        ({"text": "a", "label": float("nan")}, "label is float 'nan'"),
        ({"text": "a", "label": {"x": 1}}, "label is dict"),
        ({"tokens": ["a", "b"], "tags": ["O"]}, "tags has 1 entries for 2 tokens; expected one for each token"),
        ({"tokens": ["a", 5], "tags": [0, 1]}, "tokens has what is no word"),
        ({"tokens": ["a"], "tags": [None]}, "tags has what is no tag"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen is the same as rejected"),
        ({"chosen": chat("a", "b"), "rejected": chat("x", "c")}, "begins with another message than rejected"),
        ({"chosen": chat("a", "b"), "rejected": chat("a", "b")}, "is no other answer than rejected"),
        ({"question": "q", "context": "abc", "answers": "b"}, "answers is str 'b'"),
        (
            {"question": "q", "context": "abc", "answers": {"text": ["c"], "answer_start": [1]}},
            "answers has 'c' where the context has 'b'; expected it at character 1",
        ),
        (
            {"question": "q", "context": "abc", "answers": {"text": ["c"], "answer_start": []}},
            "answers has 1 texts and 0 starts",
        ),
        (
            {"question": "q", "context": "abc", "answers": {"text": ["c"], "answer_start": [-1]}},
            "expected a text and the character where it starts",
        ),
        ({"instruction": "a", "input": 5, "output": "b"}, "input is int '5'"),
    ],
)
def test_errors_say_where_and_what(values: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        to_form(row(**values))
    assert str(caught.value).startswith("a.jsonl, line 7") and str(caught.value).count(";") >= 2


def test_mappings_that_are_none() -> None:
    for wrong in ("source", "source=", "=a", "a=b,c"):
        with pytest.raises(ConfigError, match=r"a mapping says .*; expected such as source=article"):
            read_mapping(wrong)
    with pytest.raises(ConfigError, match=r"is for summary, columns of no one form; expected some of prompt, chosen"):
        detect_form([row(a="b")], mapping={"summary": "a"})
    with pytest.raises(ConfigError, match="expected some of source, target"):
        to_form(row(a="b"), mapping={"label": "a"}, form="pair")
    with pytest.raises(DataError, match=r"has the columns a; expected x\+y; say what they are"):
        detect_form([row(a="b")], mapping={"source": "x", "target": "y"})
    with pytest.raises(DataError, match="there is no row"):
        detect_form([])
