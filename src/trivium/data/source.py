"""Files of the world to documents: txt, md, rst, jsonl (.gz, .zst), csv, parquet, and folders of them.

Streams: memory stays flat whatever a file's size. A bad record is counted, put in quarantine with file, line and
reason, and never stops the run. Changes no word: line ends become `\\n`, control characters go.
"""

import codecs
import csv
import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from trivium.errors import DataError

PLAIN = (".txt", ".md", ".rst", ".text")
TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
DOCUMENT_CHARACTERS = 16_384  # plain text is cut at the blank line after this many
LINE_BYTES = 1_000_000  # a longer line of plain text is cut: it would not fit in memory
RECORD_BYTES = 16_000_000  # a longer record of a table is not read
QUARANTINED_LINES = 1_000  # written out for each reason; the rest is only counted: a disk image must not fill a disk
CONTROLS = re.compile("[\x01-\x08\x0b-\x1f\x7f-\x9f\ufeff]")
SURROGATES = re.compile("[\ud800-\udfff]")
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
        if self.path is not None and self.counts[reason] <= QUARANTINED_LINES:
            entry = {"file": str(file), "line": line, "reason": reason, "record": record[:200]}
            with self.path.open("a", encoding="utf-8") as out:
                out.write(json.dumps(entry) + "\n")  # in ASCII: a record may hold what UTF-8 cannot


def list_files(path: Path) -> list[Path]:
    """The text files at a path, sorted; hidden ones are left out. Raises `DataError` when there is none."""
    if not path.exists():
        raise DataError(f"there is nothing at {path}; expected a text file or a folder of them; check the path")
    if path.is_file():
        if not _kind(path):
            raise DataError(f"{path} is no text file known here; expected {', '.join(PLAIN + TABLES)}; convert it")
        return [path]
    made = {each.parent for each in path.rglob("train.ends")}  # what was prepared from text is no text
    inside = (each for each in path.rglob("*") if each.is_file() and _kind(each) and made.isdisjoint(each.parents))
    files = sorted(each for each in inside if not any(part.startswith(".") for part in each.relative_to(path).parts))
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
                    yield from _cut(_lines(file, quarantine, LINE_BYTES), file)
            except (OSError, EOFError, ValueError, zlib.error, csv.Error) as error:
                quarantine.put(file, 0, f"the rest of the file cannot be read: {type(error).__name__}", str(error))


def _kind(path: Path) -> str:
    """The suffix that decides how a file is read, without `.gz` or `.zst`; empty for other files."""
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    suffix = Path(name).suffix
    return suffix[1:] if suffix in PLAIN + TABLES else ""


def _open(path: Path) -> IO[bytes]:
    if path.name.lower().endswith(".gz"):
        return BufferedReader(gzip.open(path, "rb"))
    if path.name.lower().endswith(".zst"):  # not by zstandard, which takes half a file for a whole one
        return BufferedReader(_import_pyarrow(path).input_stream(str(path), compression="zstd"))
    return path.open("rb")


def _import_pyarrow(path: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"reading {path} needs pyarrow; run: pip install 'trivium[data]'") from None
    return pyarrow


def clean_text(text: str) -> str:
    """The text with `\\n` at the end of lines, without control characters and outer blank lines."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n").replace("\x85", "\n")
    return CONTROLS.sub("", text).strip("\n")


def _chunks(raw: IO[bytes]) -> Iterator[bytes]:
    """The file as UTF-8 without a mark at its beginning; UTF-16 is known by its mark alone."""
    start = raw.read(1 << 18)
    is_utf16 = start.startswith((b"\xff\xfe", b"\xfe\xff"))
    # What is no UTF-16 stays no UTF-8, and the line that holds it goes to quarantine.
    decoder = codecs.getincrementaldecoder("utf-16")("surrogatepass")
    chunk = start.removeprefix(b"\xef\xbb\xbf")
    while chunk:
        yield decoder.decode(chunk).encode("utf-8", "surrogatepass") if is_utf16 else chunk
        chunk = raw.read(1 << 18)
    if is_utf16:
        yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")


def _raw_lines(chunks: Iterator[bytes], longest: int) -> Iterator[tuple[int, bytes]]:
    """Numbered lines; one that is too long comes in several pieces of one number, cut between characters."""
    number, held = 1, b""
    for chunk in chunks:
        *whole, held = (held + chunk).split(b"\n")
        for line in whole:
            yield number, line + b"\n"
            number += 1
        if len(held) >= longest:
            cut = len(held)
            while cut > len(held) - 3 and held[cut - 1] & 0xC0 == 0x80:
                cut -= 1
            cut -= held[cut - 1] >= 0xC0
            yield number, held[:cut]
            held = held[cut:]
    if held:
        yield number, held


def _lines(path: Path, quarantine: Quarantine, longest: int = RECORD_BYTES) -> Iterator[tuple[int, str]]:
    """Numbered lines, or pieces of them, decoded; one that cannot be is put in quarantine."""
    with _open(path) as raw:
        for number, line in _raw_lines(_chunks(raw), longest):
            try:
                text = line.decode()
            except UnicodeDecodeError:
                quarantine.put(path, number, "not UTF-8", line[:800].decode("utf-8", "replace"))
                continue
            if "\x00" in text:
                quarantine.put(path, number, "NUL character", text)
                continue
            yield number, text


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
    elif "\x00" in text or SURROGATES.search(text):
        quarantine.put(path, line, "NUL character or half a surrogate pair", text)
    else:
        yield from _cut(((line, part) for part in text.splitlines(keepends=True)), path)


def _read_jsonl(path: Path, quarantine: Quarantine, text_field: str) -> Iterator[Document]:
    broken = 0
    for number, line in _lines(path, quarantine):
        if not line.strip() or number == broken:  # the other pieces of a record that is too long
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            long = not line.endswith("\n") and len(line.encode()) >= RECORD_BYTES - 4
            quarantine.put(path, number, "longer than 16 MB" if long else "not JSON", line)
            broken = number
            continue
        yield from _row(record, path, number, quarantine, text_field)


def _read_csv(path: Path, quarantine: Quarantine, text_field: str) -> Iterator[Document]:
    csv.field_size_limit(RECORD_BYTES)
    at = 0

    def lines() -> Iterator[str]:
        nonlocal at
        for number, line in _lines(path, quarantine):
            at = number  # where the reader is when it fails
            yield line.replace("\r\n", "\n").replace("\r", "\n")

    reader = csv.DictReader(lines(), delimiter="\t" if _kind(path) == "tsv" else ",")
    while True:
        try:
            yield from _row(dict(next(reader)), path, at, quarantine, text_field)
        except StopIteration:
            return
        except csv.Error as error:
            quarantine.put(path, at, f"not CSV: {error}")


def _read_parquet(path: Path, quarantine: Quarantine, text_field: str) -> Iterator[Document]:
    with _import_pyarrow(path).parquet.ParquetFile(path) as table:
        names = [name for name in ([text_field] if text_field else FIELDS) if name in table.schema_arrow.names]
        batches = table.iter_batches(batch_size=512, columns=names or None)
        for number, record in enumerate((record for batch in batches for record in batch.to_pylist()), start=1):
            yield from _row(record, path, number, quarantine, text_field)
