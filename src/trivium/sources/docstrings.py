"""Docstrings of this Python installation as summaries: what follows the first line, and the name, to the first line.

Test rows are of the packages that `trivium data prepare python` and the source prose-en hold out: a model pretrained on
this installation has seen none of them.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from trivium.data.corpus import list_sources, python_documents
from trivium.data.dedup import HashSet, digest_letters, letters_of
from trivium.data.source import Document, clean_text
from trivium.data.split import HeldOut, hold_out

FILES = 3000  # of some six thousand to train on, spread evenly: a reader waits for them
LONGEST, SHORTEST = 900, 50  # characters of what follows the first line
WORDS = range(3, 21)  # of a first line
CODE = re.compile(r">>>|^\s*[:@.]|^\s*[-=~*]{3,}|^[A-Z]\w+\s*:?\s*$|^\w+ ?(?:\([^)]*\))? *: ", re.MULTILINE)
VALID = 50  # one of so many training rows chooses the checkpoint
Row = dict[str, object]


def docstring_rows(counts: Counter[str]) -> Iterator[tuple[str, Row]]:
    """(part, row): source, target, name and package; no two rows alike, none of train like one of test."""
    sizes: Counter[str] = Counter()
    for document in python_documents():
        sizes[document.source] += len(document.text.encode())
    away = hold_out(python_documents(), sizes).sources
    rows = list(_read_rows(counts, away))
    tests = [row for row in rows if row["package"] in away]
    held = HeldOut([Document(str(row[side]), str(row["package"])) for row in tests for side in ("source", "target")])
    yield from (("test", row) for row in tests)
    kept = 0
    for row in rows:
        if row["package"] in away:
            continue
        if any(held.resembles(letters_of(str(row[side]))) for side in ("source", "target")):
            counts["like a held-out row"] += 1
            continue
        kept += 1
        yield "train" if kept % VALID else "valid", row


def split_docstring(text: str) -> tuple[str, str] | None:
    """(first line, prose that follows) of a docstring with both; None of another."""
    first, _, rest = text.partition("\n\n")
    prose: list[str] = []
    for paragraph in rest.split("\n\n"):
        if CODE.search(paragraph):  # from here on arguments, examples, sections
            break
        prose.append(" ".join(paragraph.split()))
    body = "\n".join(filter(None, prose))[:LONGEST].strip()
    fits = "\n" not in first and len(first.split()) in WORDS and len(body) >= SHORTEST and first.isascii()
    return (first.strip(), body) if fits else None


def spell_name(name: str) -> str:
    """The words of a name: `parse_HTMLFile` is “parse html file”."""
    return " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)).lower()


def _read_rows(counts: Counter[str], away: frozenset[str]) -> Iterator[Row]:
    seen, files = HashSet(), list_sources()
    train = [each for each in files if each[0] not in away]
    test = [each for each in files if each[0] in away]
    for package, path in test + train[:: max(1, -(-len(train) // FILES))]:
        for name, text in named_docstrings(path):
            found = split_docstring(text)
            if found is None or not (words := spell_name(name)):
                counts["no first line with prose after it"] += 1
            elif not seen.add(digest_letters(letters_of(found[0]))) or not seen.add(
                digest_letters(letters_of(found[1]))
            ):
                counts["seen before"] += 1
            else:
                yield {"source": f"{found[1]}\nName: {words}", "target": found[0], "name": words, "package": package}


def named_docstrings(path: Path) -> list[tuple[str, str]]:
    """Name and docstring of each class and function in a Python file; none if it does not parse."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError, OSError):
        return []
    named = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef))
    found = [(node.name, clean_text(ast.get_docstring(node) or "").strip()) for node in named]
    return [(name, text) for name, text in found if text and not name.startswith("__")]
