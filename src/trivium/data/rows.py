"""Tables to rows: jsonl (.gz, .zst), json, csv, tsv, parquet, and folders of them; what the columns mean is forms.py.

Streams, and stops at nothing: a bad record goes to a quarantine with file, line and reason (see files.py).
"""

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from trivium.data.files import (
    PLAIN,
    RECORD_BYTES,
    TABLES,
    UNREADABLE,
    Quarantine,
    import_pyarrow,
    kind_of,
    list_files,
    read_lines,
)
from trivium.errors import DataError

SURROGATES = re.compile("[\ud800-\udfff]")
DEEPEST = 64  # levels of lists and objects in a row
LIST_CHARACTERS = 1 << 17  # of a JSON list are decoded at once
LIST = re.compile(r"\s*\[\s*")
GAP = re.compile(r"[\s,]*")
OBJECT, COLON = re.compile(r"\s*\{\s*"), re.compile(r"\s*:\s*")
PARTS = {"train": "train", "test": "test"} | dict.fromkeys(("valid", "validation", "val", "dev"), "valid")
_PART = re.compile(rf"(?<![a-z])({'|'.join(PARTS)})(?![a-z])")


@dataclass(frozen=True)
class Row:
    """One record of a table by column, and where it stands; `line` counts from 1 (in parquet: the row)."""

    values: dict[str, Any]
    file: str
    line: int


def read_rows(path: str | Path | Sequence[Path], *, quarantine: Quarantine | None = None) -> Iterator[Row]:
    """Every row of a table, of several, or of all tables in a folder in sorted order.

    Raises `DataError` where there is no table; without a quarantine also at the first record that cannot be read.
    """
    quarantine = quarantine or Quarantine(strict=True)
    paths = [Path(path)] if isinstance(path, str | Path) else path
    for file in [file for each in paths for file in list_tables(each)]:
        for line, record in read_records(file, quarantine):
            values = {"text": record} if isinstance(record, str) else record
            reason = describe_unusable(values)
            if reason:
                quarantine.put(file, line, reason, str(record)[:200])
            else:
                yield Row(values, str(file), line)


def list_tables(path: str | Path) -> list[Path]:
    """The tables at a path, sorted; raises `DataError` when there is none."""
    found = [file for file in list_files(Path(path)) if f".{kind_of(file)}" not in PLAIN]
    if not found:
        raise DataError(f"{path} is plain text; expected rows in a file of {', '.join(TABLES)}; convert it")
    return found


def find_parts(path: str | Path) -> dict[str, list[Path]]:
    """The tables for "train", "valid" and "test", found by the names of files, or else of the folders they are in.

    `valid`, `validation`, `val` and `dev` are one. Where no name says anything all tables are for training. Raises
    `DataError` when there is no table.
    """
    path, files = Path(path), list_tables(path)
    parts: dict[str, list[Path]] = {}
    for file in files:
        inside = [] if path.is_file() else [each.lower() for each in file.relative_to(path).parent.parts]
        name = part_of(file.name) or next((PARTS[each] for each in reversed(inside) if each in PARTS), "")
        if name:
            parts.setdefault(name, []).append(file)
    return {"train": files} if not parts or path.is_file() else parts


def part_of(name: str) -> str:
    """The part that a file's name says it is, as a word of it (`train-v2.0.json`, `DRCD_dev.json`); empty if none or
    two do."""
    found = {PARTS[each] for each in _PART.findall(name.lower())}
    return found.pop() if len(found) == 1 else ""


def read_records(file: Path, quarantine: Quarantine, *, columns: Sequence[str] = ()) -> Iterator[tuple[int, Any]]:
    """What a table holds, with line numbers, whatever its type; `columns` may spare parquet the reading of others."""
    kind = kind_of(file)
    try:
        if kind == "parquet":
            yield from _read_parquet(file, columns)
        elif kind in ("csv", "tsv"):
            yield from _read_csv(file, quarantine, "\t" if kind == "tsv" else ",")
        else:
            lines = read_lines(file, quarantine)
            yield from _read_json(file, lines, quarantine) if kind == "json" else _read_jsonl(file, lines, quarantine)
    except (*UNREADABLE, csv.Error) as error:
        quarantine.put(file, 0, f"the rest of the file cannot be read: {type(error).__name__}", str(error))


def describe_unusable(values: Any) -> str:
    """Why a record is no row that can be used: its type, or what is in its texts; empty for a good one."""
    if not isinstance(values, dict):
        return f"a {type(values).__name__}, not a row"
    if None in values:  # as csv.DictReader has it
        return "more cells than columns"
    level, depth = [values], 0
    while level:  # not by recursion, which depth would break
        depth += 1
        if depth > DEEPEST:
            return f"nested deeper than {DEEPEST} levels"
        below: list[Any] = []
        for each in level:
            parts = [*each.keys(), *each.values()] if isinstance(each, dict) else each
            for part in parts:
                if isinstance(part, dict | list | tuple):
                    below.append(part)
                elif isinstance(part, str) and is_broken(part):
                    return "NUL character or half a surrogate pair"
        level = below
    return ""


def is_broken(text: str) -> bool:
    """Whether a text has what no tokenizer takes: a NUL character or half a surrogate pair."""
    return "\x00" in text or (not text.isascii() and SURROGATES.search(text) is not None)


def _read_jsonl(file: Path, lines: Iterator[tuple[int, str]], quarantine: Quarantine) -> Iterator[tuple[int, Any]]:
    broken = 0
    for number, line in lines:
        if not line.strip() or number == broken:  # the other pieces of a record that is too long
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            long = not line.endswith("\n") and len(line.encode()) >= RECORD_BYTES - 4
            quarantine.put(file, number, "longer than 16 MB" if long else "not JSON", line)
            broken = number
            continue
        yield number, record


def _read_json(file: Path, lines: Iterator[tuple[int, str]], quarantine: Quarantine) -> Iterator[tuple[int, Any]]:
    """A list of rows, whatever its lines; SQuAD's articles; else a row a line, as many files of this name hold."""
    head, place = _seek_articles(lines)
    if place >= 0:
        while place >= len(head[0][1]):
            place -= len(head.pop(0)[1])
        head[0] = (head[0][0], head[0][1][place:])
        for number, article in _read_list(file, chain(head, lines), quarantine, begun='{"data": []'):
            yield from _read_article(file, number, article, quarantine)
    else:
        is_list = LIST.match("".join(line for _, line in head))
        yield from (_read_list if is_list else _read_jsonl)(file, chain(head, lines), quarantine)


def _seek_articles(lines: Iterator[tuple[int, str]]) -> tuple[list[tuple[int, str]], int]:
    """As many lines as tell whether the file is SQuAD's, and where in their text its articles begin (-1: it is not)."""
    head: list[tuple[int, str]] = []
    size, wanted = 0, 1
    while True:
        for line in lines:
            head.append(line)
            size += len(line[1].strip())
            if size >= wanted:
                break
        try:
            return head, _find_articles("".join(text for _, text in head))
        except (ValueError, IndexError, RecursionError):
            if not wanted <= size <= RECORD_BYTES:
                return head, -1
        wanted = 2 * size  # or a long head would be read again with each of its lines


def _find_articles(text: str) -> int:
    """Where the list under "data" begins, in an object that may end too soon; -1 where it holds no articles.

    SQuAD (Rajpurkar et al. 2016), DRCD and CMRC have various names before "data"; other files have it too, but not
    paragraphs in it. Raises `ValueError` or `IndexError` where more text is needed to tell.
    """
    decoder, found = json.JSONDecoder(), OBJECT.match(text)
    if not found:
        return -1
    at = found.end()
    while text[at] != "}":
        name, at = decoder.raw_decode(text, at)
        at = _pass(COLON, text, at)
        if name == "data" and text[at] == "[":
            article, _ = decoder.raw_decode(text, _pass(LIST, text, at))
            return at if isinstance(article, dict) and "paragraphs" in article else -1
        _, at = decoder.raw_decode(text, at)
        at = _pass(GAP, text, at)
    return -1


def _pass(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at


def _read_article(file: Path, number: int, article: Any, quarantine: Quarantine) -> Iterator[tuple[int, Any]]:
    """The questions of an article of SQuAD's, each a row with its paragraph."""
    try:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                yield number, {**asked, "context": paragraph["context"]}
    except (KeyError, TypeError) as error:
        quarantine.put(file, number, f"no article with paragraphs, qas and context: {error}", str(article)[:200])


def _read_list(
    file: Path, lines: Iterator[tuple[int, str]], quarantine: Quarantine, *, begun: str = "[]"
) -> Iterator[tuple[int, Any]]:
    """The items of a list as they come; `begun` is what stands before its end, without its items."""
    blocks = _blocks(lines)
    decoder, held, wanted = json.JSONDecoder(), "", 0
    number, gap = 1, LIST  # then commas
    for block in chain(blocks, [None]):
        held += block or ""
        if block and len(held) < wanted:
            continue
        at = 0
        while True:
            start = _pass(gap, held, at)
            number += held.count("\n", at, start)
            at = start
            if start == len(held) or held[start] == "]":
                break
            gap = GAP
            try:
                record, at = decoder.raw_decode(held, start)
            except (ValueError, RecursionError) as error:
                if block is None or isinstance(error, RecursionError) or len(held) - start > RECORD_BYTES:
                    reason = "not JSON, and nothing after it can be read"
                    quarantine.put(file, number, reason, held[start : start + 200])
                    return
                break
            yield number, record
            number += held.count("\n", start, at)
        if held[at : at + 1] == "]":
            rest = held[at + 1 :]
            while len(rest) <= RECORD_BYTES and (more := next(blocks, "")):
                rest += more
            try:
                json.loads(begun + rest)
            except (ValueError, RecursionError):
                quarantine.put(
                    file, number, "after the list comes more than its end; only the list is read", rest[:200]
                )
            return
        held, wanted = held[at:], 2 * (len(held) - at)  # what is not whole yet is tried again when it has doubled
    quarantine.put(file, number, "a JSON list without its end", held[:200])


def _blocks(lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    """Numbered lines joined to texts of some size, an empty line standing for each that could not be read."""
    pieces: list[str] = []
    size, last = 0, 0
    for number, line in lines:
        pieces += ["\n" * max(number - last - 1, 0), line]
        size, last = size + len(line), number
        if size >= LIST_CHARACTERS:
            yield "".join(pieces)
            pieces, size = [], 0
    yield "".join(pieces)


def _read_csv(file: Path, quarantine: Quarantine, delimiter: str) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(RECORD_BYTES)
    at = 0

    def lines() -> Iterator[str]:
        nonlocal at
        for number, line in read_lines(file, quarantine):
            at = number  # where the reader is when it fails
            yield line.replace("\r\n", "\n").replace("\r", "\n")

    reader = csv.DictReader(lines(), delimiter=delimiter)
    while True:
        try:
            record = dict(next(reader))  # which moves `at`
            yield at, record
        except StopIteration:
            return
        except csv.Error as error:
            quarantine.put(file, at, f"not CSV: {error}")


def _read_parquet(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, Any]]:
    with import_pyarrow(file).parquet.ParquetFile(file) as table:
        names = [name for name in columns if name in table.schema_arrow.names]
        batches = table.iter_batches(batch_size=512, columns=names or None)
        labels = _label_names(table.schema_arrow.metadata or {})
        records = (record for batch in batches for record in batch.to_pylist())
        for line, record in enumerate(records, start=1):
            yield line, record | {name: _named(record[name], labels[name]) for name in labels if name in record}


def _label_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """What the numbers of a column mean, where Hugging Face's datasets wrote it beside them."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        inner = {name: each.get("feature", each) for name, each in features.items() if isinstance(each, dict)}
        return {name: each["names"] for name, each in inner.items() if each.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _named(value: Any, names: Sequence[str]) -> Any:
    """Numbers as the names that they stand for; what is none stays."""
    if isinstance(value, list):
        return [_named(each, names) for each in value]
    return names[value] if type(value) is int and 0 <= value < len(names) else value
