"""What an inspection says of planted rows: lengths, cuts, repetitions, overlaps, and what is shown as trained."""

import json
import random
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from trivium.cli import main
from trivium.data.forms import FORM_COLUMNS
from trivium.data.inspection import RowsReport, holds_rows, inspect_rows
from trivium.data.sides import MEASURED, input_of, make_sides, output_of
from trivium.errors import ConfigError, DataError
from trivium.tokenizer import Tokenizer, train_tokenizer
from trivium.tokenizer.chat_mask import set_chat_template

_DRAW = random.Random(1)
WORDS = ["".join(_DRAW.choices("abcdefghiklmnoprstu", k=_DRAW.randint(3, 7))) for _ in range(300)]


def sentence(chance: random.Random, count: int = 30) -> str:
    return " ".join(chance.choice(WORDS) for _ in range(count))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([" ".join(WORDS)] * 3, vocab_size=400, num_sentinels=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """200 pairs with planted repetitions, 20 for testing of which some are known, and rows that are no use."""
    chance = random.Random(0)
    train = [{"article": sentence(chance), "highlights": sentence(chance, 4)} for _ in range(200)]
    test = [{"article": sentence(chance), "highlights": sentence(chance, 4)} for _ in range(20)]
    near = train[5]["article"].split()
    near[0] = "omega"
    train += [train[0], train[1], {**train[2], "highlights": "another"}, {**train[5], "article": " ".join(near)}]
    test += [{**train[7], "highlights": "unseen"}, {**train[8]}]
    test.append({**train[9], "article": train[9]["article"].replace(" ", ", ").upper()})
    bad = ["broken", json.dumps({"article": "", "highlights": "x"}), json.dumps({"article": 5, "highlights": "x"})]
    bad.append(json.dumps({"text": "x"}))
    for name, rows in (("train", [*map(json.dumps, train), *bad]), ("test", [*map(json.dumps, test)])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    return tmp_path


def test_planted_rows_are_found(folder: Path, tmp_path: Path) -> None:
    report = inspect_rows(folder, quarantine=tmp_path / "bad.log")
    assert (report.form, report.unit, list(report.parts)) == ("pair", "characters", ["test", "train"])
    train, test = report.parts["train"], report.parts["test"]
    assert (train.rows, test.rows) == (204, 23)
    assert (train.duplicates, train.near_duplicates, train.same_input) == (2, 1, 1)
    assert (test.duplicates, test.near_duplicates, test.same_input) == (0, 0, 0)
    assert report.overlap["test"].rows == 2 and report.overlap["test"].near == 3
    assert sum(train.unusable.values()) == 4 and train.unusable["not JSON"] == train.unusable["source is empty"] == 1
    assert train.unusable["source is int …"] == 1 and not test.unusable
    entries = [json.loads(line) for line in (tmp_path / "bad.log").read_text().splitlines()]
    assert [entry["line"] for entry in entries] == [205, 206, 207, 208]
    lengths = sorted(
        len(json.loads(line)["article"]) for line in (folder / "train.jsonl").read_text().split("\n")[:204]
    )
    found = train.lengths["source"]
    assert (found.shortest, found.longest, found.total) == (lengths[0], lengths[-1], sum(lengths))
    assert (found.median, found.percentile_95) == (lengths[102], lengths[193])
    assert len(report.examples) == 3 and [trained for _, trained in report.examples[0]["target"]] == [True]


def test_what_would_be_cut(folder: Path, tokenizer: Tokenizer) -> None:
    sizes = [
        len(tokenizer.encode(json.loads(line)["article"]))
        for line in (folder / "train.jsonl").read_text().split("\n")[:204]
    ]
    report = inspect_rows(folder, tokenizer=tokenizer, max_length=100)
    found = report.parts["train"].lengths["source"]
    assert report.unit == "tokens" and found.total == sum(sizes)
    assert found.cut == sum(size > 100 for size in sizes) > 10
    assert found.lost == sum(max(size - 100, 0) for size in sizes)
    assert report.parts["train"].lengths["target"].cut == 0
    assert report.parts["train"].cut == found.cut and report.limits == {"source": 100, "target": 128}
    short = inspect_rows(folder, tokenizer=tokenizer, target_length=1)
    train = short.parts["train"]
    assert short.limits == {"source": 512, "target": 1} and train.lengths["source"].cut == sum(x > 512 for x in sizes)
    assert train.cut == train.lengths["target"].cut == train.rows
    assert inspect_rows(folder).limits == {} and inspect_rows(folder).parts["train"].cut == 0
    with pytest.raises(ConfigError, match=r"max_length is 100 without a tokenizer; expected .*; give --tokenizer"):
        inspect_rows(folder, max_length=100)


def test_a_chat_whose_answer_is_cut_off_trains_nothing(tmp_path: Path, tokenizer: Tokenizer) -> None:
    set_chat_template(tokenizer)
    chats = [[("user", "alpha " * size), ("assistant", "beta")] for size in (1, 2, 100)] + [[("user", "alpha")]]
    rows = [{"messages": [{"role": role, "content": content} for role, content in chat]} for chat in chats]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    part = inspect_rows(path, tokenizer=tokenizer, max_length=60).parts["train"]
    assert (part.rows, part.nothing_left, part.lengths["chat"].cut) == (3, 1, 1)
    assert list(part.unusable.values()) == [1] and "no assistant's turn" in next(iter(part.unusable))
    assert inspect_rows(path).parts["train"].rows == 3


ROWS: dict[Any, dict[str, Any]] = {
    "text": {"text": "alpha beta"},
    "chat": {"messages": [{"role": "user", "content": "alpha"}, {"role": "assistant", "content": "beta"}]},
    "completion": {"prompt": "alpha ", "completion": "beta"},
    "preference": {"prompt": "alpha ", "chosen": "beta", "rejected": "gamma"},
    "labelled": {"text": "alpha", "text_pair": "beta", "label": 1},
    "pair": {"source": "alpha", "target": "beta"},
    "tokens": {"tokens": ["alpha", "beta"], "tags": ["O", "B-X"]},
    "question": {"question": "gamma", "context": "alpha beta", "answers": {"text": ["beta"], "answer_start": [6]}},
}


def test_a_call_without_content_is_shown_without() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"x": 1}]}
    (side,) = make_sides("chat", {"messages": [{"role": "user", "content": "alpha"}, call]})
    assert "None" not in "".join(text for text, _ in side.pieces)
    assert output_of("chat", {"messages": [call]}) == "[{'x': 1}]"


def first_pieces(tokenizer: Tokenizer, *words: str) -> str:
    """Of each word the token that learns its tag."""
    return "".join(tokenizer.decode(tokenizer.encode(word, add_special=False)[:1]) for word in words)


@pytest.mark.parametrize("form", ROWS)
def test_what_is_shown_as_trained(form: Any, tokenizer: Tokenizer) -> None:
    set_chat_template(tokenizer)
    assert set(ROWS) == set(FORM_COLUMNS)
    plain, tokens = make_sides(form, ROWS[form]), make_sides(form, ROWS[form], tokenizer)
    trained = {"text": "alpha beta", "labelled": "1", "preference": "betagamma", "tokens": "alphabeta"}.get(
        form, "beta"
    )
    end = tokenizer.eos_token or ""
    for sides in (plain, tokens):
        assert "".join(text for side in sides for text, is_trained in side.pieces if is_trained).replace(
            end, ""
        ).strip() == (trained if form != "tokens" or sides is plain else first_pieces(tokenizer, "alpha", "beta"))
        assert set(MEASURED[form]) <= {side.name for side in sides}
        whole = "".join(text for side in sides for text, _ in side.pieces)
        assert all(word in whole for word in ("alpha", "beta"))
    for side in tokens:
        assert len(side.ids) == len(side.mask)
        if side.name in MEASURED[form]:
            assert side.size == len(side.ids) > 0
            text = tokenizer.decode(list(side.ids), skip_special=False)
            assert "".join(piece for piece, _ in side.pieces) == text
    assert "alpha" in input_of(form, ROWS[form])
    assert form == "text" or trained[:4] in output_of(form, ROWS[form]) or form == "tokens"


def test_chats_as_preferences(tokenizer: Tokenizer) -> None:
    set_chat_template(tokenizer)
    answers = {name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    values = {"prompt": [{"role": "user", "content": "alpha"}], **answers}
    for sides in (make_sides("preference", values), make_sides("preference", values, tokenizer)):
        found = {side.name: "".join(text for text, trained in side.pieces if trained) for side in sides}
        assert {name: text.replace(tokenizer.eos_token or "", "") for name, text in found.items()} == {
            name: name for name in answers
        }
    assert input_of("preference", values) == "alpha" and output_of("preference", values) == "chosen\nrejected"


def test_which_paths_hold_rows(folder: Path, tmp_path: Path) -> None:
    assert holds_rows(folder) and not holds_rows(tmp_path / "missing")
    (tmp_path / "b").mkdir()
    for name, content in (("a.txt", "x"), ("b/a.jsonl", '{"text": "x"}'), ("b/c.jsonl", "broken")):
        (tmp_path / name).write_text(content)
        assert not holds_rows(tmp_path / name)
    (tmp_path / "d.jsonl").write_text('{"source": "", "target": "x"}')
    with pytest.raises(
        DataError, match=r"no usable row of the form pair at .*d.jsonl \(1 × source is empty\); expected"
    ):
        inspect_rows(tmp_path / "d.jsonl")
    with pytest.raises(DataError, match="has no row that can be read"):
        inspect_rows(tmp_path / "b" / "c.jsonl")


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> str:
    monkeypatch.setattr(sys, "argv", ["trivium", "data", "inspect", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert ended.value.code in (0, None), err
    return out


def test_command(
    folder: Path,
    tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    tokenizer.save(tmp_path / "tokenizer")
    rest = ("--test", folder / "test.jsonl", "--tokenizer", tmp_path / "tokenizer", "--max-length", 100)
    out = run(monkeypatch, capsys, folder / "train.jsonl", *rest)
    for words in (
        "form      pair",
        "train     204 rows",
        "unusable 1: source is empty",
        "are longer than 100 and would lose",
        "would be cut or dropped; a run wants --on-long drop or truncate",
        "repeats 2 rows; 1 more nearly (of the first 204); 1 have an earlier input with another output",
        "overlap   2 rows of test (8.7%) have an input that is in train too",
        "example 3 (trained: ⟦so⟧)",
        "  target: ⟦",
    ):
        assert words in out
    assert "\x1b" not in out
    report = json.loads(run(monkeypatch, capsys, folder, "--json", "--map", "target=highlights"))
    assert report["overlap"] == {"test": {"rows": 2, "near": 3}} and set(report) == set(RowsReport.__dataclass_fields__)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-length", "5"], "max_length is 5 without a tokenizer; expected a number of tokens"),
        (["--target-length", "5"], r"target_length is 5 without .*; give --tokenizer and a positive --target-length"),
        (["--map", "nothing"], "a mapping says 'nothing'; expected such as source=article"),
        (["--map", "label=x"], r"has the columns article, highlights; expected .*text"),
        (["--tokenizer", "/nowhere"], "nowhere"),
        (["--test", "/nowhere"], "there is nothing at /nowhere"),
    ],
)
def test_wrong_words_are_one_sentence(
    words: list[str],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["trivium", "data", "inspect", str(folder), *words])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and not out and err.startswith("error: ") and err.count("\n") == 1
    assert re.search(message, err)


def test_colours_on_a_terminal_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"source": "x\x1b[31m\u202e", "target": "y" * 2000}))
    monkeypatch.setattr("trivium.cli.inspect._is_terminal", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = run(monkeypatch, capsys, path)
    assert "\x1b[1;32myyy" in out and "yyy\x1b[0m" in out and "⟦" not in out
    assert "source: x\\x1b[31m\\u202e" in out and " … " in out and len(out) < 2000
    monkeypatch.setenv("NO_COLOR", "1")
    out = run(monkeypatch, capsys, path)
    assert "\x1b" not in out and "⟦yyy" in out
