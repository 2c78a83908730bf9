"""Tables to rows: every kind gives the same rows, every bad record is counted with its place, none is fatal (T19)."""

import functools
import gzip
import json
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trivium.data.files import Quarantine
from trivium.data.forms import detect_form, to_form
from trivium.data.rows import Row, find_parts, list_tables, part_of, read_rows
from trivium.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"text": "one, two", "label": "good"},
    {"text": 'a "quote"\nand a line', "label": "bad"},
    {"text": "中文 😀", "label": "good"},
]


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def lines_of(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def read(path: Path) -> tuple[list[Row], list[tuple[int, str]]]:
    """The rows at a path, and line and reason of what went to quarantine."""
    store = path.parent / "quarantine.log"
    store.unlink(missing_ok=True)
    rows = list(read_rows(path, quarantine=Quarantine(store)))
    entries = [json.loads(line) for line in store.read_text().splitlines()] if store.exists() else []
    assert all(entry["file"] == str(path) for entry in entries)
    return rows, [(entry["line"], entry["reason"]) for entry in entries]


def as_csv(rows: list[dict[str, Any]], mark: str) -> str:
    import csv
    import io

    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=mark)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "jsonl.zst", "json", "pretty.json", "csv", "tsv", "parquet"])
def test_every_kind_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    elif kind == "jsonl.zst":
        pyarrow = pytest.importorskip("pyarrow")
        write(path, bytes(pyarrow.compress(lines_of(ROWS).encode(), "zstd", asbytes=True)))
    else:
        plain = {"json": json.dumps(ROWS), "pretty.json": json.dumps(ROWS, indent=2), "jsonl": lines_of(ROWS)}
        plain |= {"csv": as_csv(ROWS, ","), "tsv": as_csv(ROWS, "\t")}
        write(path, gzip.compress(lines_of(ROWS).encode()) if kind == "jsonl.gz" else plain[kind])
    rows, bad = read(path)
    assert [row.values for row in rows] == ROWS and not bad and {row.file for row in rows} == {str(path)}
    lines = {"json": [1, 1, 1], "pretty.json": [2, 6, 10], "csv": [2, 4, 5], "tsv": [2, 4, 5]}
    assert [row.line for row in rows] == lines.get(kind, [1, 2, 3])


def test_a_long_json_list_streams(tmp_path: Path) -> None:
    """Rows that span the blocks that are read, at their lines, in memory that does not grow with the file."""
    chance = random.Random(0)
    rows = [{"text": "x" * chance.choice([1, 100, 100_000]), "number": number} for number in range(600)]
    text = json.dumps(rows, indent=1)
    begins = [number for number, line in enumerate(text.split("\n"), start=1) if line == " {"]
    for form in (text, json.dumps(rows)):
        path = write(tmp_path / "a.json", form)
        tracemalloc.start()
        count = 0
        for row, expected, line in zip(read_rows(path), rows, begins, strict=True):
            assert row.values == expected and row.line == (line if form is text else 1)
            count += 1
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # A list on one line is held whole up to the longest record.
        assert count == 600 and len(text) > 15_000_000 and peak < (6_000_000 if form is text else 90_000_000)


@pytest.mark.parametrize(
    ("text", "count", "bad"),
    [
        ("[]", 0, []),
        ("", 0, []),
        (" \n\n", 0, []),
        ('[{"a": 1},\n{"a": 2}', 2, [(2, "a JSON list without its end")]),
        ('[{"a": 1},\n{"a": 2}, {"a": ', 2, [(2, "not JSON, and nothing after it can be read")]),
        ('[{"a": 1},\n oops, {"a": 2}]', 1, [(2, "not JSON, and nothing after it can be read")]),
        ('[{"a": 1}, 5,\n\n"text"]', 2, [(1, "a int, not a row")]),
        ("[" * 100_000, 0, [(1, "not JSON, and nothing after it can be read")]),
        ('{"a": 1}\n{"a": 2}\n', 2, []),
        ('\n{"a": 1}\nx\n', 1, [(3, "not JSON")]),
    ],
)
def test_json_files(tmp_path: Path, text: str, count: int, bad: list[tuple[int, str]]) -> None:
    rows, found = read(write(tmp_path / "a.json", text))
    assert (len(rows), found) == (count, bad)


ARTICLES = [
    {
        "title": "t",
        "paragraphs": [
            {
                "context": "the cat is red",
                "qas": [
                    {"id": "1", "question": "what is red ?", "answers": [{"text": "cat", "answer_start": 4}]},
                    {"id": "2", "question": "what is blue ?", "answers": [], "is_impossible": True},
                ],
            }
        ],
    },
    {"title": "u", "paragraphs": [{"context": "a dog", "qas": [{"question": "who ?", "answers": []}]}]},
]


LONG = {"licence": "all rights " * 20_000, "data_of": {"data": [{"paragraphs": 1}]}, "sizes": list(range(9)), "v": 1.3}


@pytest.mark.parametrize(
    ("before", "after"), [({"version": "v2.0"}, {}), ({}, {"version": "1.1"}), ({}, {}), (LONG, LONG)]
)
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("start", ["", "\n\n"])
def test_squads_own_files_are_rows_of_questions(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any], indent: int | None, start: str
) -> None:
    gap = "\n" + " " * 6 if indent else ""
    later = {f"{name}_": value for name, value in after.items()}
    text = start + json.dumps({**before, "data": ARTICLES, **later}, indent=indent)
    rows, bad = read(write(tmp_path / "train-v2.0.json", text))
    assert not bad and detect_form(rows) == "question"
    first, last = (text[: text.index(f'{{{gap}"title": "{title}"')].count("\n") + 1 for title in "tu")
    assert [row.line for row in rows] == [first, first, last]
    assert [to_form(row) for row in rows] == [
        {
            "question": "what is red ?",
            "context": "the cat is red",
            "answers": {"text": ["cat"], "answer_start": [4]},
        },
        *(
            {"question": question, "context": context, "answers": {"text": [], "answer_start": []}}
            for question, context in (("what is blue ?", "the cat is red"), ("who ?", "a dog"))
        ),
    ]


def test_an_article_without_questions_is_named(tmp_path: Path) -> None:
    rows, bad = read(write(tmp_path / "a.json", json.dumps({"data": [{"paragraphs": [{"context": "x"}]}, *ARTICLES]})))
    assert len(rows) == 3 and bad == [(1, "no article with paragraphs, qas and context: 'qas'")]


@pytest.mark.parametrize(
    "line",
    [
        '{"data": [{"text": "a"}]}',
        '{"data": ["a", "b"], "version": "1"}',
        '{"version": "1", "data": []}',
        '{"data": {"paragraphs": []}}',
        '{"data_": [{"paragraphs": []}], "inner": {"data": [{"paragraphs": []}]}}',
    ],
)
def test_other_lists_of_data_are_no_articles(tmp_path: Path, line: str) -> None:
    rows, bad = read(write(tmp_path / "a.json", f"{line}\n{line}\n"))
    assert not bad and [row.values for row in rows] == [json.loads(line)] * 2


@pytest.mark.parametrize("whole", [json.dumps({"data": ARTICLES, "version": "1.1"}), '[{"text": "a"}, {"text": "b"}]'])
@pytest.mark.parametrize("more", ["{whole}", '{{"text": "b"}}', ", 1", "\n" * 9 + "x" * 300_000])
def test_what_comes_after_a_list_is_told(tmp_path: Path, whole: str, more: str) -> None:
    first, _ = read(write(tmp_path / "a.json", f"{whole}\n\n"))
    rows, bad = read(write(tmp_path / "b.json", f"{whole}\n{more.format(whole=whole)}\n"))
    assert [row.values for row in rows] == [row.values for row in first] and len(rows) > 1
    assert bad == [(1, "after the list comes more than its end; only the list is read")]


def test_what_ends_before_its_data_is_read_by_lines(tmp_path: Path) -> None:
    rows, bad = read(write(tmp_path / "a.json", '{"version":\n"1",\n{"a": 1}\n'))
    assert len(rows) == 1 and bad == [(1, "not JSON"), (2, "not JSON")]


DEEP = '{"a": ' + "[" * 70 + "]" * 70 + "}"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "broken', "not JSON"),
        ("[" * 100_000, "not JSON"),
        (DEEP, "nested deeper than 64 levels"),
        ("[1]", "a list, not a row"),
        ("5", "a int, not a row"),
        ("null", "a NoneType, not a row"),
        ('{"a": ["\\u0000"]}', "NUL character or half a surrogate pair"),
        ('{"a": {"\\ud800": 1}}', "NUL character or half a surrogate pair"),
        ('{"text": "\x00"}', "NUL character"),
        (b'{"text": "\xc0\xaf"}', "not UTF-8"),
        (b'{"text": "' + b"a" * 17_000_000 + b'"}', "longer than 16 MB"),
    ],
)
def test_bad_rows_go_to_quarantine_or_stop_a_strict_reader(tmp_path: Path, line: bytes | str, reason: str) -> None:
    line = line if isinstance(line, bytes) else line.encode()
    path = write(tmp_path / "a.jsonl", b'{"text": "before"}\n' + line + b'\n{"text": "after"}\n')
    rows, bad = read(path)
    assert [row.values["text"] for row in rows] == ["before", "after"] and bad == [(2, reason)]
    with pytest.raises(DataError, match=rf"a\.jsonl, line 2: {reason}; expected a row .*; correct or remove it"):
        list(read_rows(path))


def test_csv_that_does_not_fit_its_header(tmp_path: Path) -> None:
    rows, bad = read(write(tmp_path / "a.csv", "a,b\n1,2\n1,2,3\n1\n"))
    assert [row.values for row in rows] == [{"a": "1", "b": "2"}, {"a": "1", "b": None}]
    assert bad == [(3, "more cells than columns")]


def test_parts_by_names_of_files_and_folders(tmp_path: Path) -> None:
    for name in ("train.jsonl", "validation-00000-of-00001.csv", "Dev.jsonl", "test.json", "README.md", "other.csv"):
        write(tmp_path / "a" / name, "x")
    parts = {part: [file.name for file in files] for part, files in find_parts(tmp_path / "a").items()}
    found = {"train": ["train.jsonl"], "valid": ["Dev.jsonl", "validation-00000-of-00001.csv"], "test": ["test.json"]}
    assert parts == found
    for name in ("train/0.csv", "train/1.csv", "val/0.csv"):
        write(tmp_path / "b" / name, "x")
    assert {part: len(files) for part, files in find_parts(tmp_path / "b").items()} == {"train": 2, "valid": 1}
    alone = write(tmp_path / "c" / "test.jsonl", "x")
    assert find_parts(alone) == {"train": [alone]}
    assert find_parts(str(write(tmp_path / "d" / "rows.csv", "x").parent)) == {"train": [tmp_path / "d" / "rows.csv"]}
    with pytest.raises(DataError, match=r"README.md is plain text; expected rows in a file of .*; convert it"):
        list_tables(tmp_path / "a" / "README.md")
    with pytest.raises(DataError, match="there is nothing at"):
        find_parts(tmp_path / "missing")


SEEDS = (
    lines_of(ROWS).encode(),
    json.dumps(ROWS, indent=1).encode(),
    as_csv(ROWS, ",").encode(),
    lines_of([{"messages": [{"role": "user", "content": "x"}]}]).encode(),
    lines_of([{"tokens": ["a"], "ner_tags": [0]}, {"chosen": [], "rejected": {}}]).encode(),
    b"\xff\xfea\x00",
    b"\x1f\x8b\x08\x00",
    b"\xef\xbb\xbf",
    b"[" * 3000,
    b'{"a":' * 900,
)


def hostile(seed: int, folder: Path) -> Path:
    """A file of some kind whose content has been damaged, cut off, or is of another kind."""
    chance = random.Random(seed)
    content = bytearray(chance.choice(SEEDS) * chance.randint(1, 30))
    for _ in range(chance.randint(0, 30)):
        content[chance.randrange(len(content))] = chance.choice(b'\x00\xff"{}[],:\n\\u\xd8\xc0')
    del content[chance.randint(len(content) // 2, len(content)) :]
    suffix = chance.choice((".jsonl", ".json", ".csv", ".tsv", ".jsonl.gz", ".csv.gz", ".json.zst", ".parquet"))
    made = gzip.compress(content) if suffix.endswith(".gz") and chance.random() < 0.8 else bytes(content)
    if chance.random() < 0.3:
        made = made[: chance.randint(0, len(made))]
    return write(folder / f"a{suffix}", made)


def survive(seed: int, folder: Path) -> None:
    path = hostile(seed, folder)
    rows, _ = read(path)
    calls: list[Callable[[], object]] = [lambda: detect_form(rows[:20])]
    calls += [functools.partial(to_form, row) for row in rows]
    for row in rows:
        json.dumps(row.values, allow_nan=True).encode()
    for call in calls:
        try:
            call()
        except DataError as error:
            told = str(error)
            assert told.count(";") >= 2 and "\n" not in told and (f"{path}, line " in told or not rows)


@pytest.mark.parametrize("tens", range(40))
def test_hostile_tables_never_stop_a_reader(tmp_path: Path, tens: int) -> None:
    for seed in range(10 * tens, 10 * tens + 10):
        survive(seed, tmp_path)


@pytest.mark.torture
def test_ten_thousand_hostile_tables(tmp_path: Path) -> None:
    for seed in range(10_000):
        survive(seed, tmp_path)


def test_bombs_stay_small(tmp_path: Path) -> None:
    """What unpacks to 60 MB, and a record that is all brackets, in bounded memory."""
    bomb = write(tmp_path / "a.jsonl.gz", b"")
    with gzip.open(bomb, "wb", compresslevel=1) as out:
        for _ in range(60):
            out.write(b'{"text": "' if _ == 0 else b"a" * 1_000_000)
    tracemalloc.start()
    rows, bad = read(bomb)
    assert not rows and bad == [(1, "longer than 16 MB")]
    brackets = write(tmp_path / "b.jsonl", b'{"a": [' + b"[]," * 200_000 + b"[]]}\n")
    assert len(read(brackets)[0]) == 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000_000


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train-v2.0.json", "train"),
        ("DRCD_dev.json", "valid"),
        ("cmrc2018_test.json", "test"),
        ("train_data.csv", "train"),
        ("test-00000-of-00001-a09b74b3ef9c3b56.parquet", "test"),
        ("Validation.jsonl", "valid"),
        ("latest.jsonl", ""),
        ("training.jsonl", ""),
        ("train-test.jsonl", ""),
    ],
)
def test_a_part_is_a_word_of_a_files_name(name: str, part: str) -> None:
    assert part_of(name) == part


def test_parquet_names_its_labels(tmp_path: Path) -> None:
    """Where Hugging Face's datasets wrote what the numbers of a column mean."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pyarrow.Table.from_pylist(
        [{"text": "a", "label": 1, "ner_tags": [0, 2], "n": 1}, {"text": "b", "label": -1}]
    )
    features = {
        "text": {"dtype": "string", "_type": "Value"},
        "label": {"names": ["neg", "pos"], "_type": "ClassLabel"},
        "ner_tags": {"feature": {"names": ["O", "B-X", "I-X"], "_type": "ClassLabel"}, "_type": "Sequence"},
    }
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, tmp_path / "a.parquet")
    first, second = (each.values for each in read_rows(tmp_path / "a.parquet"))
    assert first == {"text": "a", "label": "pos", "ner_tags": ["O", "I-X"], "n": 1}
    assert second["label"] == -1 and second["ner_tags"] is None
    parquet.write_table(table.replace_schema_metadata({"huggingface": "{"}), tmp_path / "b.parquet")
    assert next(read_rows(tmp_path / "b.parquet")).values["label"] == 1
