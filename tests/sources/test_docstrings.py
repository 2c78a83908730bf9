"""Docstrings as summaries: what follows the first line, whole packages held out, nothing alike in two parts."""

import random
from collections import Counter
from pathlib import Path

import pytest

from trivium.data.source import Document
from trivium.sources import docstrings
from trivium.sources.docstrings import docstring_rows, named_docstrings, spell_name, split_docstring

PROSE = "Every line that ends in a backslash is joined with the next one, and the backslash is left out."


def test_a_docstring_by_hand() -> None:
    text = f"Join the lines of a text.\n\n{PROSE}\n\nArgs:\n    text: what is joined"
    assert split_docstring(text) == ("Join the lines of a text.", PROSE)
    assert split_docstring(f"Join the lines.\nOf a text.\n\n{PROSE}") is None, "a first line has one line"
    assert split_docstring("Join the lines of a text.\n\n>>> join('a')") is None
    assert split_docstring(f"Join.\n\n{PROSE}") is None
    assert spell_name("parse_HTMLFile2") == "parse html file 2"


def test_whole_packages_are_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, draw = [], random.Random(0)
    for number in range(100):
        package, path = f"package{number % 50}", tmp_path / f"{number}.py"
        words = ["".join(draw.choices("abcdefghij", k=7)) for _ in range(14)]
        path.write_text(
            f'def give_it():\n    """Give the {words[0]} {words[1]}.\n\n    {" ".join(words[2:])}\n    """\n'
        )
        files.append((package, path))
    (tmp_path / "broken.py").write_text('def (\n"""')
    documents = [Document(text, package) for package, path in files for _, text in named_docstrings(path)]
    monkeypatch.setattr(docstrings, "list_sources", lambda: [*files, ("package0", tmp_path / "broken.py")])
    monkeypatch.setattr(docstrings, "python_documents", lambda: iter(documents * 20))
    counts: Counter[str] = Counter()
    made = list(docstring_rows(counts))
    parts = {part: {row["package"] for name, row in made if name == part} for part in ("train", "valid", "test")}
    assert parts["test"] and parts["train"] and not parts["test"] & (parts["train"] | parts["valid"])
    assert made[0][1]["name"] == "give it" and str(made[0][1]["source"]).endswith("\nName: give it")
    assert len({row["target"] for _, row in made}) == len(made)
