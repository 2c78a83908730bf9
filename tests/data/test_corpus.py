"""The documentation inside Python: a fixed order, whole caches only, no text twice."""

from pathlib import Path

import pytest

from trivium.data.corpus import corpus_key, extract_docstrings, list_sources, python_documents
from trivium.data.dedup import digest_letters, letters_of


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "trivium"


def test_documents_are_distinct_ordered_and_cached(cache: Path) -> None:
    told: list[tuple[int, int]] = []
    documents = list(python_documents(limit_files=30, progress=lambda done, total: told.append((done, total))))
    assert told[-1] == (30, 30)
    assert len({digest_letters(letters_of(each.text)) for each in documents}) == len(documents) > 100
    assert all(each.text == each.text.strip("\n") and "\r" not in each.text and each.source for each in documents)
    assert {"language-reference"} < {each.source for each in documents}
    (stored,) = cache.iterdir()
    assert stored.suffix == ".jsonl"
    assert (
        list(python_documents(limit_files=30, progress=lambda *_: pytest.fail("the cache was not read"))) == documents
    )
    stored.unlink()
    assert list(python_documents(limit_files=30)) == documents


def test_broken_off_reading_leaves_nothing(cache: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(python_documents(limit_files=5, progress=stop))
    assert not list(cache.iterdir())


def test_sources_are_packages_without_tests() -> None:
    files = list_sources()
    assert {"asyncio", "os", "torch", "numpy", "tokenizers", "rich", "sympy"} <= {source for source, _ in files}
    assert not [
        path for _, path in files if {"test", "tests", "site-packages"} & set(path.parts[path.parts.index("lib") :][3:])
    ]
    assert files == sorted(files, key=lambda pair: (pair[0], str(pair[1]))) and len(dict.fromkeys(files)) == len(files)
    assert corpus_key(3) != corpus_key(4) and corpus_key(3) == corpus_key(3)


def test_docstrings_at_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    long = "words that say enough to be kept, for they are more than sixty characters"
    path.write_text(
        f'"""{long} 1"""\nif True:\n    class A:\n        """{long} 2\n\n        more"""\n\n        async def f(self):'
        f"\n            '''{long} 3'''\n\ndef g():\n    \"\"\"short\"\"\"\n"
    )
    found = extract_docstrings(path)
    assert found == [(1, f"{long} 1"), (3, f"{long} 2\n\nmore"), (8, f"{long} 3")]
    for content in (b'"""\xff"""', b'"""never closed', b'def (: """', b'"""x"""\x00', b"x = " + b"(" * 5000 + b'"""'):
        path.write_bytes(content)
        assert extract_docstrings(path) == []
    assert extract_docstrings(tmp_path / "missing.py") == []
