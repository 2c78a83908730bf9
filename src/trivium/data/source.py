"""Files of the world to documents: txt, md, rst, jsonl (.gz, .zst), csv, parquet, and folders of them.

Streams: memory stays flat whatever a file's size. A bad record is counted, put in quarantine with file, line and
reason, and never stops the run. Changes no word: line ends become `\\n`, control characters go.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trivium.data.files import PLAIN, UNREADABLE, Quarantine, kind_of, list_files, read_lines
from trivium.data.rows import is_broken, read_records

DOCUMENT_CHARACTERS = 16_384  # plain text is cut at the blank line after this many
LINE_BYTES = 1_000_000  # a longer line of plain text is cut: it would not fit in memory
CONTROLS = re.compile("[\x01-\x08\x0b-\x1f\x7f-\x9f\ufeff]")
FIELDS = ("text", "content", "document", "body")


@dataclass(frozen=True)
class Document:
    """One text, and where it came from: `source` groups what must not be split, `line` counts from 1."""

    text: str
    source: str
    line: int = 1


def read_documents(
    paths: Path | Sequence[Path], *, quarantine: Quarantine | None = None, text_field: str = ""
) -> Iterator[Document]:
    """Every document at the paths, in sorted order of files, one file after another.

    `text_field` names the column of tables; by default the first of text, content, document, body that is there.
    Raises `DataError` for a path that does not exist or holds no text.
    """
    quarantine = quarantine or Quarantine()
    for path in [paths] if isinstance(paths, Path) else paths:
        for file in list_files(path):
            if f".{kind_of(file)}" in PLAIN:
                try:
                    yield from _cut(read_lines(file, quarantine, LINE_BYTES), file)
                except UNREADABLE as error:
                    quarantine.put(file, 0, f"the rest of the file cannot be read: {type(error).__name__}", str(error))
                continue
            names = (text_field,) if text_field else FIELDS
            for line, record in read_records(file, quarantine, columns=names):
                yield from _row(record, file, line, quarantine, names)


def clean_text(text: str) -> str:
    """The text with `\\n` at the end of lines, without control characters and outer blank lines."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n").replace("\x85", "\n")
    return CONTROLS.sub("", text).strip("\n")


def _cut(lines: Iterable[tuple[int, str]], path: Path) -> Iterator[Document]:
    """One document where the lines are few, else pieces that end at a blank line."""
    held: list[str] = []
    size, first = 0, 0
    for number, line in lines:
        first = first or number
        held.append(line)
        size += len(line)
        if size >= DOCUMENT_CHARACTERS and (not line.strip() or size >= 8 * DOCUMENT_CHARACTERS):
            yield Document(clean_text("".join(held)), str(path), first)
            held, size, first = [], 0, 0
    text = clean_text("".join(held))
    if text.strip():
        yield Document(text, str(path), first)


def _row(record: Any, path: Path, line: int, quarantine: Quarantine, names: Sequence[str]) -> Iterator[Document]:
    """A table's row as a document, its text column found by name."""
    if isinstance(record, str):
        record = {"text": record}
    if not isinstance(record, dict):
        quarantine.put(path, line, f"a {type(record).__name__}, not a row", str(record))
        return
    name = next((each for each in names if each in record), None)
    text = record.get(name) if name else None
    if name is None:
        quarantine.put(path, line, f"no field {' or '.join(names)}", str(record))
    elif not isinstance(text, str):
        quarantine.put(path, line, f"{name} is a {type(text).__name__}, not text", str(record))
    elif not text.strip():
        quarantine.put(path, line, "empty text")
    elif is_broken(text):
        quarantine.put(path, line, "NUL character or half a surrogate pair", text)
    else:
        yield from _cut(((line, part) for part in text.splitlines(keepends=True)), path)
