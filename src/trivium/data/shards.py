"""Token shards on disk: flat files of ids, memory-mapped, with the bounds of documents beside them.

Every document ends with the tokenizer's end token, written here once, so that no reader needs to add it. A shard
is trusted only after its hash was found equal to the manifest's. Knows no text.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.errors import DataError

SHARD_TOKENS = 32_000_000


def hash_file(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


class ShardWriter:
    """Appends documents of ids to `part-00000.bin` …, and their ends to `part.ends` (int64), in bounded memory."""

    def __init__(self, folder: Path, part: str, *, vocab_size: int, end_id: int) -> None:
        self.folder, self.part, self.end_id = folder, part, end_id
        self.dtype = np.dtype("uint16" if vocab_size <= 65_536 else "uint32")
        self.tokens, self.documents, self.text_bytes = 0, 0, 0
        self.files: list[Path] = []
        self._in_shard = 0
        self._ends = (folder / f"{part}.ends").open("wb")
        self._shard: Any = None

    def write(self, rows: Sequence[Sequence[int]], texts: Sequence[str]) -> None:
        """Append documents; `texts` are only counted, for bits per byte."""
        for ids in rows:
            if self._shard is None or self._in_shard >= SHARD_TOKENS:
                self._next_shard()
            data = np.empty(len(ids) + 1, dtype=self.dtype)
            data[:-1] = ids
            data[-1] = self.end_id
            self._shard.write(data.tobytes())
            self._in_shard += len(data)
            self.tokens += len(data)
            self._ends.write(np.int64(self.tokens).tobytes())
        self.documents += len(rows)
        self.text_bytes += sum(len(text.encode("utf-8", "replace")) for text in texts)

    def _next_shard(self) -> None:
        if self._shard is not None:
            self._shard.close()
        self.files.append(self.folder / f"{self.part}-{len(self.files):05d}.bin")
        self._shard, self._in_shard = self.files[-1].open("wb"), 0

    def close(self) -> dict[str, Any]:
        """Close the files (`flush_path` is the caller's) and give the manifest's entry for this part."""
        for file in (self._shard, self._ends):
            if file is not None:
                file.close()
        return {
            "shards": [path.name for path in self.files],
            "ends": f"{self.part}.ends",
            "dtype": self.dtype.name,
            "documents": self.documents,
            "tokens": self.tokens,
            "bytes": self.text_bytes,
        }


class Shards:
    """One part (`train` or `valid`) of a prepared folder, memory-mapped; what a Loader reads.

    `offsets` is `(documents + 1,)`: where each document begins, the last one's end included. Raises `DataError`
    that names the file when one is missing or its hash is not the manifest's.
    """

    def __init__(self, folder: str | Path, part: str = "train", *, verify: bool = True) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        if part not in self.manifest["parts"]:
            raise DataError(f"{folder} has no part {part!r}; expected {', '.join(self.manifest['parts'])}; choose one")
        entry = self.manifest["parts"][part]
        for name in (*entry["shards"], entry["ends"]):
            self._check(name, verify=verify)
        self.num_tokens, self.num_documents = int(entry["tokens"]), int(entry["documents"])
        self.num_bytes = int(entry["bytes"])
        self._dtype = dtype = np.dtype(entry["dtype"])
        self._shards = [np.memmap(self.folder / name, dtype=dtype, mode="r") for name in entry["shards"]]
        self._starts = np.cumsum([0, *(len(shard) for shard in self._shards)])
        ends = np.fromfile(self.folder / entry["ends"], dtype=np.int64)
        self.offsets: NDArray[np.int64] = np.concatenate([np.zeros(1, dtype=np.int64), ends])
        found = (int(self.offsets[-1]), int(self._starts[-1]), len(ends))
        if found != (self.num_tokens, self.num_tokens, self.num_documents):
            raise DataError(f"{folder} holds not what its manifest.json counts in {part}; prepare the data again")

    @property
    def fingerprint(self) -> str:
        """A hash of the content: the manifest names the hash of every file."""
        return str(self.manifest["fingerprint"])

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Ids from `start` up to `stop`, across shards where need be."""
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        pieces = []
        while start < stop:
            begin = int(self._starts[first])
            end = min(stop, int(self._starts[first + 1]))
            pieces.append(self._shards[first][start - begin : end - begin])
            start, first = end, first + 1
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, self._dtype), *pieces])

    def count_tokens(self, vocab_size: int) -> NDArray[np.int64]:
        """How often each id occurs, `(vocab_size,)`."""
        counts = np.zeros(vocab_size, dtype=np.int64)
        for shard in self._shards:
            for begin in range(0, len(shard), 1 << 22):
                counts += np.bincount(shard[begin : begin + (1 << 22)], minlength=vocab_size)
        return counts

    def _check(self, name: str, *, verify: bool) -> None:
        path, expected = self.folder / name, self.manifest["files"].get(name, {})
        if not path.is_file():
            raise DataError(f"{path} is missing; the manifest names it; prepare the data again")
        if path.stat().st_size != expected.get("size") or (verify and hash_file(path) != expected.get("sha256")):
            raise DataError(f"{path} is not the file that was written (its hash differs); prepare the data again")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared folder; raises `DataError` when there is none or it is newer than this code."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(f"{folder} holds no prepared data; run: trivium data prepare TEXT --out {folder}") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != 1:
        found = manifest.get("schema") if isinstance(manifest, dict) else None
        raise DataError(f"{path} has schema {found}; this version reads 1; upgrade trivium or prepare again")
    needed = {"shards", "ends", "dtype", "documents", "tokens", "bytes"}
    parts = manifest.get("parts")
    whole = isinstance(parts, dict) and all(isinstance(each, dict) and needed <= each.keys() for each in parts.values())
    if not (whole and isinstance(manifest.get("files"), dict) and "fingerprint" in manifest):
        raise DataError(f"{path} is broken: parts, files or fingerprint are missing; prepare the data again")
    return manifest


def flush_path(path: Path) -> None:
    """Have the disk keep a file's content, or a folder's names."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
