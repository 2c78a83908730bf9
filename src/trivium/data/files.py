"""Files as numbered lines of Unicode: which there are, how they are opened, and where what is bad goes.

Streams: memory stays flat whatever a file's size. Knows no columns and no documents.
"""

import codecs
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from trivium.errors import DataError

PLAIN = (".txt", ".md", ".rst", ".text")
TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
RECORD_BYTES = 16_000_000  # a longer record of a table is not read
QUARANTINED_LINES = 1_000  # written out for each reason; the rest is only counted: a disk image must not fill a disk
UNREADABLE = (  # what a file that is damaged raises
    *(OSError, EOFError, ValueError, zlib.error),
    *(NotImplementedError, OverflowError, MemoryError),  # pyarrow, at damaged names, numbers and lengths
)


@dataclass
class Quarantine:
    """Bad records: a count by reason, and one JSON line each in `path` (if given) to look at later.

    A `strict` one raises `DataError` at the first instead, with file and line.
    """

    path: Path | None = None
    counts: Counter[str] = field(default_factory=Counter)
    strict: bool = False

    def put(self, file: Path, line: int, reason: str, record: str = "") -> None:
        """Count a record that cannot be used; its first 200 characters are kept."""
        if self.strict:
            raise DataError(f"{file}, line {line}: {reason}; expected a row that can be read; correct or remove it")
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
        if not kind_of(path):
            raise DataError(f"{path} is no text file known here; expected {', '.join(PLAIN + TABLES)}; convert it")
        return [path]
    made = {each.parent for each in path.rglob("train.ends")}  # what was prepared from text is no text
    inside = (each for each in path.rglob("*") if each.is_file() and kind_of(each) and made.isdisjoint(each.parents))
    files = sorted(each for each in inside if not any(part.startswith(".") for part in each.relative_to(path).parts))
    if not files:
        raise DataError(f"{path} holds no text; expected {', '.join(PLAIN + TABLES)} files; add some")
    return files


def kind_of(path: Path) -> str:
    """The suffix that decides how a file is read, without `.gz` or `.zst`; empty for other files."""
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    suffix = Path(name).suffix
    return suffix[1:] if suffix in PLAIN + TABLES else ""


def open_bytes(path: Path) -> IO[bytes]:
    """A file's bytes, decompressed; raises `DataError` where that needs a package that is not there."""
    if path.name.lower().endswith(".gz"):
        return BufferedReader(gzip.open(path, "rb"))
    if path.name.lower().endswith(".zst"):  # not by zstandard, which takes half a file for a whole one
        return BufferedReader(import_pyarrow(path).input_stream(str(path), compression="zstd"))
    return path.open("rb")


def import_pyarrow(path: Path) -> Any:
    """pyarrow with its parquet; raises `DataError` with the command that installs it."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"reading {path} needs pyarrow; run: pip install 'trivium[data]'") from None
    return pyarrow


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
    number, size = 1, 0
    held: list[bytes] = []  # joined once a line ends: adding to one long line is quadratic
    for chunk in chunks:
        held.append(chunk)
        size += len(chunk)
        if b"\n" in chunk:
            *whole, rest = b"".join(held).split(b"\n")
            for line in whole:
                yield number, line + b"\n"
                number += 1
            held, size = [rest], len(rest)
        if size >= longest:
            line = b"".join(held)
            cut = len(line)
            while cut > len(line) - 3 and line[cut - 1] & 0xC0 == 0x80:
                cut -= 1
            cut -= line[cut - 1] >= 0xC0
            yield number, line[:cut]
            held, size = [line[cut:]], len(line) - cut
    if rest := b"".join(held):
        yield number, rest


def read_lines(path: Path, quarantine: Quarantine, longest: int = RECORD_BYTES) -> Iterator[tuple[int, str]]:
    """Numbered lines, or pieces of them, decoded; one that cannot be is put in quarantine."""
    with open_bytes(path) as raw:
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
