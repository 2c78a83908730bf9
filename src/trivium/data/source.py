"""Files of the world to documents: txt, md, rst, jsonl (.gz, .zst), csv, parquet, and folders of them.

Streams: memory stays flat whatever a file's size. A bad record is counted, put in quarantine with file, line and
reason, and never stops the run. Does not judge or change text beyond decoding it.
"""

import csv
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from trivium.errors import DataError

PLAIN = (".txt", ".md", ".rst", ".text")
TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
DOCUMENT_CHARACTERS = 16_384  # plain text is cut at the blank line after this many
LINE_CHARACTERS = 1_000_000  # a longer line is cut: it would not fit in memory
FIELDS = ("text", "content", "document", "body")


@dataclass(frozen=True)
class Document:
    """One text, and where it came from: `source` groups what must not be split, `line` counts from 1."""

    text: str
    source: str
    line: int = 1


@dataclass
class Quarantine:
    """Bad records: a count by reason, and one JSON line each in `path` (if given) to look at later."""

    path: Path | None = None
    counts: Counter[str] = field(default_factory=Counter)

    def put(self, file: Path, line: int, reason: str, record: str = "") -> None:
        """Count a record that cannot be used; its first 200 characters are kept."""
        self.counts[reason] += 1
        if self.path is not None:
            entry = {"file": str(file), "line": line, "reason": reason, "record": record[:200]}
            with self.path.open("a", encoding="utf-8") as out:
                out.write(json.dumps(entry, ensure_ascii=False) + "\n")

    @property
    def total(self) -> int:
        """How many records were put aside."""
        return sum(self.counts.values())


def list_files(path: Path) -> list[Path]:
    """The text files at a path, sorted; hidden ones are left out. Raises `DataError` when there is none."""
    if not path.exists():
        raise DataError(f"there is nothing at {path}; expected a text file or a folder of them; check the path")
    if path.is_file():
        if not _kind(path):
            raise DataError(f"{path} is no text file known here; expected {', '.join(PLAIN + TABLES)}; convert it")
        return [path]
    inside = (each for each in path.rglob("*") if each.is_file() and _kind(each))
    files = sorted(
        each for each in inside if not any(part.startswith(".") for part in each.relative_to(path).parts)
    )
    if not files:
        raise DataError(f"{path} holds no text; expected {', '.join(PLAIN + TABLES)} files; add some")
    return files


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
            kind = _kind(file)
            try:
                if kind == "parquet":
                    yield from _read_parquet(file, quarantine, text_field)
                elif kind in ("csv", "tsv"):
                    yield from _read_csv(file, quarantine, text_field)
                elif kind in ("jsonl", "ndjson", "json"):
                    yield from _read_jsonl(file, quarantine, text_field)
                else:
                    yield from _read_plain(file, quarantine)
            except (OSError, EOFError, zlib.error, csv.Error) as error:
                quarantine.put(file, 0, f"the rest of the file cannot be read: {type(error).__name__}", str(error))


def _kind(path: Path) -> str:
    """The suffix that decides how a file is read, without `.gz` or `.zst`; empty for other files."""
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    suffix = Path(name).suffix
    return suffix[1:] if suffix in PLAIN + TABLES else ""


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if path.suffix == ".zst":
        try:
            import pyarrow
        except ImportError:
            raise DataError(f"reading {path} needs pyarrow; run: pip install 'trivium[data]'") from None
        return BufferedReader(pyarrow.input_stream(str(path), compression="zstd"))
    return path.open("rb")


def _encoding(start: bytes) -> str:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    return "utf-8-sig" if start.startswith(b"\xef\xbb\xbf") else "utf-8"


def _lines(path: Path, quarantine: Quarantine) -> Iterator[tuple[int, str]]:
    """Numbered lines of at most `LINE_CHARACTERS`, decoded; a line that cannot be is put in quarantine."""
    with _open(path) as raw:
        encoding = _encoding(raw.peek(4)[:4] if hasattr(raw, "peek") else b"")
        if encoding == "utf-16":
            import io

            yield from enumerate(io.TextIOWrapper(raw, encoding="utf-16", errors="replace"), start=1)
            return
        number = 0
        while line := raw.readline(LINE_CHARACTERS):
            number += 1
            try:
                text = line.decode(encoding if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                cut = len(line) >= LINE_CHARACTERS and error.start >= len(line) - 3
                if not cut:
                    quarantine.put(path, number, "not UTF-8", line.decode("utf-8", "replace"))
                    continue
                text = line[: error.start].decode("utf-8")  # the cut fell inside a character
            if "\x00" in text:
                quarantine.put(path, number, "NUL character", text)
                continue
            yield number, text


def _read_plain(path: Path, quarantine: Quarantine) -> Iterator[Document]:
    """Whole files where they are short, else pieces that end at a blank line."""
    held: list[str] = []
    size, first = 0, 1
    for number, line in _lines(path, quarantine):
        held.append(line)
        size += len(line)
        if size >= DOCUMENT_CHARACTERS and (not line.strip() or size >= 8 * DOCUMENT_CHARACTERS):
            yield Document("".join(held).strip("\r\n"), str(path), first)
            held, size, first = [], 0, number + 1
    text = "".join(held).strip("\r\n")
    if text.strip():
        yield Document(text, str(path), first)


def _row(record: Any, path: Path, line: int, quarantine: Quarantine, text_field: str) -> Iterator[Document]:
    """A table's row as a document, its text column found by name."""
    if isinstance(record, str):
        record = {"text": record}
    if not isinstance(record, dict):
        quarantine.put(path, line, f"a {type(record).__name__}, not a row", str(record))
        return
    names = (text_field,) if text_field else FIELDS
    name = next((each for each in names if each in record), None)
    text = record.get(name) if name else None
    if name is None:
        quarantine.put(path, line, f"no field {' or '.join(names)}", str(record))
    elif not isinstance(text, str):
        quarantine.put(path, line, f"{name} is a {type(text).__name__}, not text", str(record))
    elif not text.strip():
        quarantine.put(path, line, "empty text")
    else:
        yield Document(text, str(path), line)


def _read_jsonl(path: Path, quarantine: Quarantine, text_field: str) -> Iterator[Document]:
    for number, line in _lines(path, quarantine):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            quarantine.put(path, number, "not JSON", line)
            continue
        yield from _row(record, path, number, quarantine, text_field)


def _read_csv(path: Path, quarantine: Quarantine, text_field: str) -> Iterator[Document]:
    csv.field_size_limit(LINE_CHARACTERS)
    delimiter = "\t" if _kind(path) == "tsv" else ","
    reader = csv.DictReader((line for _, line in _lines(path, quarantine)), delimiter=delimiter)
    for row in reader:
        yield from _row(dict(row), path, reader.line_num, quarantine, text_field)


def _read_parquet(path: Path, quarantine: Quarantine, text_field: str) -> Iterator[Document]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"reading {path} needs pyarrow; run: pip install 'trivium[data]'") from None
    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=512):
            for record in batch.to_pylist():
                number += 1
                yield from _row(record, path, number, quarantine, text_field)
    except pyarrow.ArrowException as error:
        quarantine.put(path, number, "the rest of the file cannot be read: ArrowException", str(error))
