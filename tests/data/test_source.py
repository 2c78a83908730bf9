"""Files of the world: every kind is read, every bad record is counted with file, line and reason, none is fatal."""

import gzip
import json
import random
import tracemalloc
from pathlib import Path

import pytest

from trivium.data.source import Document, Quarantine, clean_text, list_files, read_documents
from trivium.errors import DataError


def read(path: Path, **settings: str) -> tuple[list[Document], list[dict[str, object]]]:
    """The documents at a path, and what went to quarantine."""
    store = path.parent / "quarantine.log"
    store.unlink(missing_ok=True)
    quarantine = Quarantine(store)
    documents = list(read_documents(path, quarantine=quarantine, **settings))
    entries = [json.loads(line) for line in store.read_text().splitlines()] if store.exists() else []
    assert len(entries) == quarantine.counts.total()
    return documents, entries


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.rst", "a.txt.gz"])
def test_short_text_is_one_document(tmp_path: Path, name: str) -> None:
    content = b"a title\n\nbody\r\nmore\x07\n"
    documents, bad = read(write(tmp_path / name, gzip.compress(content) if name.endswith("gz") else content))
    assert [(each.text, each.line) for each in documents] == [("a title\n\nbody\nmore", 1)]
    assert not bad


def test_long_text_is_cut_at_blank_lines(tmp_path: Path) -> None:
    paragraphs = [f"{number} " + "word " * 200 for number in range(100)]
    documents, _ = read(write(tmp_path / "a.txt", "\n\n".join(paragraphs)))
    assert 5 <= len(documents) <= 8 and all(len(each.text) < 18_000 for each in documents)
    assert "\n\n".join(each.text for each in documents).split() == " ".join(paragraphs).split()
    lines = "\n\n".join(paragraphs).split("\n")
    assert all(each.text.startswith(lines[each.line - 1]) for each in documents)


@pytest.mark.parametrize("letter", ["a", "é", "字", "😀"])
def test_endless_line_is_cut_between_characters(tmp_path: Path, letter: str) -> None:
    count = 5_000_000 // len(letter.encode()) + 1
    path = write(tmp_path / "a.txt", "x" + letter * count)
    tracemalloc.start()
    lengths, quarantine = [], Quarantine()
    for document in read_documents(path, quarantine=quarantine):
        assert set(document.text) <= {"x", letter} and document.line == 1
        lengths.append(len(document.text))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(lengths) == count + 1 and quarantine.counts.total() == 0 and len(lengths) > 4
    assert peak < 20_000_000


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_marks_of_encoding(tmp_path: Path, encoding: str) -> None:
    text = "a first line\n\n中文 😀 and é\n" * 2000
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    documents, bad = read(write(tmp_path / "a.txt", mark + text.encode(encoding)))
    assert "\n".join(each.text for each in documents).replace("\n", "") == text.replace("\n", "") and not bad


def test_tables(tmp_path: Path) -> None:
    rows = [{"text": "one, two"}, {"content": "three\nfour"}, "five"]
    plain = "\n".join(json.dumps(row) for row in rows)
    for name, content in (
        ("a.jsonl", plain.encode()),
        ("b.jsonl.gz", gzip.compress(plain.encode())),
        ("c.csv", b'id,text\n1,"one, two"\n2,"three\r\nfour"\n3,five\n'),
        ("d.tsv", b'id\tbody\n1\tone, two\n2\t"three\nfour"\n3\tfive\n'),
    ):
        documents, bad = read(write(tmp_path / name, content))
        assert [each.text for each in documents] == ["one, two", "three\nfour", "five"], name
        assert not bad
    documents, bad = read(write(tmp_path / "e.jsonl", '{"text": "no", "story": "yes"}'), text_field="story")
    assert [each.text for each in documents] == ["yes"]


def test_parquet_and_zst(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"text": ["one", None, "two"], "other": [1, 2, 3]})
    parquet.write_table(table, tmp_path / "a.parquet")
    documents, bad = read(tmp_path / "a.parquet")
    assert [each.text for each in documents] == ["one", "two"]
    assert [(entry["line"], entry["reason"]) for entry in bad] == [(2, "text is a NoneType, not text")]
    whole = bytes(pyarrow.compress(b'{"text": "one"}\n' * 50_000, "zstd", asbytes=True))
    assert len(read(write(tmp_path / "a.jsonl.zst", whole))[0]) == 50_000
    for name, content in (("b.jsonl.zst", whole[: len(whole) // 2]), ("c.parquet", b"PAR1 and then nothing")):
        _, bad = read(write(tmp_path / name, content))
        assert [entry["line"] for entry in bad] == [0] and "cannot be read" in str(bad[0]["reason"])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "broken', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"9" * 5_000, "not JSON"),
        (b'{"text": 5}', "text is a int, not text"),
        (b'{"text": null}', "text is a NoneType, not text"),
        (b'{"text": "  "}', "empty text"),
        (b'{"other": "x"}', "no field text or content or document or body"),
        (b'["text"]', "a list, not a row"),
        (b'{"text": "\xc0\xaf"}', "not UTF-8"),
        (b'{"text": "\xed\xa0\x80"}', "not UTF-8"),
        (b'{"text": "\x00"}', "NUL character"),
        (b'{"text": "\\u0000"}', "NUL character or half a surrogate pair"),
        (b'{"text": "\\ud800"}', "NUL character or half a surrogate pair"),
        (b'{"text": "' + b"a" * 40_000_000 + b'"}', "longer than 16 MB"),
    ],
)
def test_bad_record_goes_to_quarantine(tmp_path: Path, line: bytes, reason: str) -> None:
    path = write(tmp_path / "a.jsonl", b'{"text": "before"}\n' + line + b'\n{"text": "after"}\n')
    documents, bad = read(path)
    assert [each.text for each in documents] == ["before", "after"]
    found = [(entry["file"], entry["line"], entry["reason"]) for entry in bad]
    assert found == [(str(path), 2, reason)] or (reason == "not JSON" and line[:1] == b"9")


def test_bad_lines_and_files(tmp_path: Path) -> None:
    documents, bad = read(write(tmp_path / "a.txt", b"good\n\xff\xfe bad\nNUL \x00 here\nfine\n"))
    assert [each.text for each in documents] == ["good\nfine"]
    assert [(entry["line"], entry["reason"]) for entry in bad] == [(2, "not UTF-8"), (3, "NUL character")]
    whole = gzip.compress("".join(f'{{"text": "{random.random()}"}}\n' for _ in range(20_000)).encode())
    documents, bad = read(write(tmp_path / "b.jsonl.gz", whole[: len(whole) // 2]))
    assert len(documents) > 5_000 and "cannot be read: EOFError" in str(bad[-1]["reason"])
    for content in (whole[:5], b"no gzip", b""):
        read(write(tmp_path / "c.jsonl.gz", content))
    documents, bad = read(write(tmp_path / "d.csv", b'text,id\n"never closed\n' + b"a\n" * 10))
    assert len(documents) + len(bad) == 1


def test_endless_quarantine_is_counted_and_not_written(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "quarantine")
    path = write(tmp_path / "a.txt", b"\xff\n" * 5_000)
    assert not list(read_documents(path, quarantine=quarantine))
    assert quarantine.counts == {"not UTF-8": 5_000}
    assert len((tmp_path / "quarantine").read_text().splitlines()) == 1_000


@pytest.mark.parametrize("seed", range(60))
def test_noise_never_stops_a_reader(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    seeds = (b'{"text": "a b"}\n', b'a,text\n"x",y\n', "é字\n\n".encode(), b"\xff\xfea\x00", b"\x1f\x8b\x08\x00")
    content = bytearray(chance.choice(seeds) * chance.randint(1, 40))
    for _ in range(chance.randint(0, 30)):
        content[chance.randrange(len(content))] = chance.randrange(256)
    for suffix in (".txt", ".jsonl", ".csv", ".tsv", ".txt.gz", ".jsonl.zst", ".parquet"):
        for document in read_documents(write(tmp_path / f"a{suffix}", bytes(content))):
            document.text.encode()


def test_folders_in_order_and_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("b/z.md", "a.txt", "c.exe", ".hidden/x.txt", "b/.y.txt"):
        write(tmp_path / name, name)
    assert [str(path.relative_to(tmp_path)) for path in list_files(tmp_path)] == ["a.txt", "b/z.md"]
    with pytest.raises(DataError, match=r"nothing at .*; expected a text file or a folder"):
        list(read_documents(tmp_path / "missing"))
    with pytest.raises(DataError, match=r"holds no text; expected .*; add some"):
        list_files(_empty(tmp_path))
    with pytest.raises(DataError, match="no text file known here"):
        list_files(tmp_path / "c.exe")


def _empty(path: Path) -> Path:
    (path / "empty").mkdir()
    return path / "empty"


def test_clean_text_keeps_words() -> None:
    assert clean_text("\n\na\r\nb\rc\fd\x85e\tf\x1b[0m\ufeff  g\n") == "a\nb\nc\nd\ne\tf[0m  g"


def test_suffixes_in_capitals(tmp_path: Path) -> None:
    documents, bad = read(write(tmp_path / "A.JSONL.GZ", gzip.compress(b'{"text": "one"}\n')))
    assert [each.text for each in documents] == ["one"] and not bad
