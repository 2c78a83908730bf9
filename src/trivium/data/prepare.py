"""Raw text to a folder that training reads: split, tokenizer, shards, manifest. Streams; memory stays flat.

The input is read four times: to size the sources, to choose what is held out, to train the tokenizer on the rest,
and to encode. Everything is written into a temporary folder that takes its name when it is whole.
"""

import glob
import hashlib
import json
import os
import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from trivium.data.corpus import corpus_key, python_documents
from trivium.data.dedup import HashSet, digest_letters, letters_of
from trivium.data.files import Quarantine, list_files
from trivium.data.rows import part_of
from trivium.data.shards import ShardWriter, flush_path, hash_file, read_manifest
from trivium.data.source import Document, read_documents
from trivium.data.split import HeldOut, hold_out
from trivium.errors import DataError
from trivium.tokenizer import Tokenizer, train_tokenizer

Source = str | Path | Sequence[str | Path]  # "python" is the documentation of this installation
Say = Callable[[str], None]
BATCH_DOCUMENTS = 256
SAMPLE_BYTES = 16_000_000  # for the tokenizer; they decide how much memory a large input takes


@dataclass(frozen=True)
class TokenizerConfig:
    """Which tokenizer to train, or `folder` to take one that exists."""

    kind: Literal["bpe", "wordpiece", "unigram"] = "bpe"
    vocab_size: int = 4096
    num_sentinels: int = 64
    single_characters: bool = False
    prefix_space: bool = False
    folder: str = ""


def prepare_data(
    source: Source,
    out: str | Path,
    *,
    tokenizer: TokenizerConfig | None = None,
    valid_fraction: float = 0.05,
    seed: int = 0,
    limit_files: int | None = None,
    progress: Say | None = None,
) -> Path:
    """Prepare files, folders, or `"python"` (the documentation of this installation) into the folder `out`.

    A folder already prepared from the same input with the same settings is returned at once. Where there are files
    train.* and valid.*, the latter are held out and test.* is not read; else about `valid_fraction` is held out. Bad
    records are counted in manifest.json and kept in quarantine.jsonl. Raises `DataError` for missing or empty input,
    for input that changes meanwhile, and for an `out` that holds something else.
    """
    out, tokenizer = Path(out).resolve(), tokenizer or TokenizerConfig()
    say = progress or (lambda _: None)
    if out.exists() and not (out / "manifest.json").is_file() and (out.is_file() or any(out.iterdir())):
        raise DataError(f"{out} holds something else; expected prepared data or an empty folder; name another folder")
    key = _fingerprint(source, (tokenizer, valid_fraction, seed, limit_files))
    if (out / "manifest.json").is_file() and read_manifest(out).get("input") == key:
        return out
    _remove_left_over(out)
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    unfinished.mkdir(parents=True)
    try:
        manifest = _fill(unfinished, source, tokenizer, (valid_fraction, seed, limit_files), say)
        # What was held out in one reading would be trained on in the next.
        if _fingerprint(source, (tokenizer, valid_fraction, seed, limit_files)) != key:
            raise DataError(f"{source} changed while it was read; expected files that stay as they are; run again")
        manifest = {"schema": 1, "input": key, "seed": seed, **manifest}
        text = json.dumps(manifest, indent=1, ensure_ascii=False)
        (unfinished / "manifest.json").write_text(text + "\n", encoding="utf-8")
        for path in (*unfinished.rglob("*"), unfinished):
            flush_path(path)
        shutil.rmtree(out, ignore_errors=True)
        unfinished.replace(out)
        flush_path(out.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return out


def _fill(
    folder: Path, source: Source, config: TokenizerConfig, split: tuple[float, int, int | None], say: Say
) -> dict[str, Any]:
    fraction, seed, limit = split
    files, given = _parts_of(source)
    alone = False

    def documents(quarantine: Quarantine | None = None) -> Iterator[Document]:
        if source == "python":
            return python_documents(limit_files=limit, progress=lambda done, all: say(f"{done} of {all} files"))
        found = read_documents(files, quarantine=quarantine)
        return _halves(found) if alone else found

    say("reading")
    quarantine = Quarantine(folder / "quarantine.jsonl")
    sizes: dict[str, int] = {}
    count = 0
    for document in documents(quarantine):
        count += 1
        sizes[document.source] = sizes.get(document.source, 0) + len(document.text.encode())
    if not sizes:
        reasons = ", ".join(f"{count} × {reason}" for reason, count in quarantine.counts.items()) or "nothing was there"
        raise DataError(f"no usable document in the input ({reasons}); expected text; look at the files")
    alone = count == 1
    held = hold_out(documents(), sizes, fraction=fraction, seed=seed, given=given)
    say("training the tokenizer")
    chooser = _Chooser(held)
    texts = (document.text for document in chooser.choose(documents()))
    if config.folder:
        tokenizer = Tokenizer.load(config.folder)
        sum(1 for _ in texts)  # what is kept is decided in passing
    else:
        settings = {name: value for name, value in vars(config).items() if name != "folder"}
        tokenizer = train_tokenizer(texts, **settings, sample_bytes=SAMPLE_BYTES, seed=seed)
    tokenizer.save(folder / "tokenizer")
    say("encoding")
    kept = {"train": chooser.repeat(documents()), "valid": iter(held.documents)}
    parts = {part: _write_part(folder, part, each, tokenizer) for part, each in kept.items()}
    rows = [{"text": document.text, "source": document.source} for document in held.documents]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "valid.jsonl").write_text(text, encoding="utf-8")
    written = {str(path.relative_to(folder)): _describe(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        "parts": parts,
        "tokenizer": written["tokenizer/tokenizer.json"]["sha256"],
        "inputs": {str(path): _describe(path) for path in files[:1000]},
        "sources": dict(sorted(sizes.items(), key=lambda item: -item[1])[:1000]),
        "held_out_sources": sorted({document.source for document in held.documents})[:1000],
        "duplicates": chooser.duplicates,
        "near_duplicates_of_held_out": chooser.near,
        "quarantined": dict(quarantine.counts),
        "files": written,
        "fingerprint": hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest(),
    }


def _describe(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": hash_file(path)}


class _Chooser:
    """Decides once which documents train, and repeats the decision: 13 to 25 bytes of memory a document."""

    def __init__(self, held: HeldOut) -> None:
        self.held, self.kept = held, bytearray()
        self.duplicates, self.near = 0, 0

    def choose(self, documents: Iterable[Document]) -> Iterator[Document]:
        seen = HashSet()
        held_places = {(document.source, document.line, document.text) for document in self.held.documents}
        for document in documents:
            letters = letters_of(document.text)
            own = document.source in self.held.sources or (document.source, document.line, document.text) in held_places
            near = not own and self.held.resembles(letters)
            repeated = not own and not near and not seen.add(digest_letters(letters))
            self.near += near
            self.duplicates += repeated
            keep = not (own or near or repeated)
            self.kept.append(keep)
            if keep:
                yield document
        if not any(self.kept):
            raise DataError("nothing is left to train on beside held-out text; expected two different texts; add text")

    def repeat(self, documents: Iterable[Document]) -> Iterator[Document]:
        for keep, document in zip(self.kept, documents, strict=False):  # input that changed is found at the end
            if keep:
                yield document


def _write_part(folder: Path, part: str, documents: Iterable[Document], tokenizer: Tokenizer) -> dict[str, Any]:
    end_id = tokenizer.eos_id if tokenizer.eos_id is not None else tokenizer.sep_id
    if end_id is None:
        raise DataError("the tokenizer has no token that ends a text; expected an eos or sep token; choose another")
    writer = ShardWriter(folder, part, vocab_size=tokenizer.vocab_size, end_id=end_id)
    waiting = iter(documents)
    while batch := [document.text for document in islice(waiting, BATCH_DOCUMENTS)]:
        writer.write(tokenizer.encode_batch(batch), batch)
    return writer.close()


def _parts_of(source: Source) -> tuple[list[Path], frozenset[str]]:
    """The files to read, and which of them are named as held out: valid.* beside train.*; test.* is left alone."""
    if source == "python":
        return [], frozenset()
    paths = [source] if isinstance(source, str | Path) else source
    files = [file for path in paths for file in list_files(Path(path))]
    parts = {file: part_of(file.name) for file in files}
    if "train" not in parts.values():
        return files, frozenset()
    given = frozenset(str(file) for file, part in parts.items() if part == "valid")
    return [file for file in files if parts[file] != "test"], given


def _halves(documents: Iterable[Document]) -> Iterator[Document]:
    """A text that is one document as two, so that its last tenth can be held out."""
    for document in documents:
        text, cut = document.text, len(document.text) * 9 // 10
        marks = (text.rfind(mark, len(text) // 2, cut) + len(mark) for mark in ("\n\n", "\n", " "))
        place = next((each for each in marks if each > len(text) // 2), cut)
        line = document.line + text[:place].count("\n")
        yield replace(document, text=text[:place].rstrip("\n"))
        yield replace(document, text=text[place:].lstrip("\n"), line=line)


def _remove_left_over(out: Path) -> None:
    """Delete what preparations of the same folder that were killed have left; of those that run, nothing."""
    for path in out.parent.glob(f".{glob.escape(out.name)}.*.tmp"):
        try:
            os.kill(int(path.suffixes[-2][1:]), 0)
        except ProcessLookupError:
            shutil.rmtree(path, ignore_errors=True)
        except (OSError, ValueError, OverflowError):
            continue


def _fingerprint(source: Source, settings: tuple[Any, ...]) -> str:
    """What the result depends on: settings, the tokenizer given, each input file's path, size and time of change."""
    config, *_, limit = settings
    files, given = _parts_of(source)
    places = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    known = sorted(Path(config.folder).glob("tokenizer*.json")) if config.folder else []
    inputs = (corpus_key(limit) if source == "python" else places, sorted(given), [hash_file(path) for path in known])
    return hashlib.sha256(repr((inputs, settings)).encode()).hexdigest()


def inspect_data(path: str | Path) -> dict[str, Any]:
    """What `trivium data inspect` shows: a prepared folder's manifest in short, or what raw text holds."""
    path = Path(path)
    if (path / "manifest.json").is_file():
        manifest = read_manifest(path)
        shown = ("parts", "sources", "duplicates", "near_duplicates_of_held_out", "quarantined", "fingerprint")
        return {"form": "prepared", **{name: manifest[name] for name in shown}}
    quarantine = Quarantine()
    lengths = array("q")
    examples: list[str] = []
    for document in read_documents(path, quarantine=quarantine):
        lengths.append(len(document.text))
        if len(examples) < 3:
            examples.append(document.text[:300])
    ordered = sorted(lengths) or [0]
    return {
        "form": "text",
        "files": len(list_files(path)),
        "documents": len(lengths),
        "characters": sum(lengths),
        "document_characters": {"shortest": ordered[0], "median": ordered[len(ordered) // 2], "longest": ordered[-1]},
        "quarantined": dict(quarantine.counts),
        "examples": examples,
    }
