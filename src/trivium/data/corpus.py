"""The text that is always there: the documentation inside every Python installation.

Docstrings of the standard library and of the packages that trivium itself needs, and the language reference in
`pydoc_data.topics`: some 17 MB of technical English, offline on every machine. It changes with what is installed,
so scores on it do not compare across machines.
"""

import ast
import hashlib
import inspect
import json
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from pathlib import Path

from trivium.data.source import Document

SHORTEST = 60  # characters; shorter docstrings say little
SKIPPED = {"test", "tests", "testing", "idlelib", "site-packages", "dist-packages", "lib2to3", "__pycache__"}
REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+")


def python_documents(
    *, limit_files: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Iterator[Document]:
    """Docstrings as documents in a fixed order; `source` is the package or standard module they belong to.

    The first call reads some ten thousand files (half a minute on two cores) and leaves a cache under
    `XDG_CACHE_HOME`; `limit_files` reads only some, without a cache. `progress` is told files done and in all.
    """
    files = list_sources()
    if limit_files is not None:
        files = files[:: max(1, len(files) // limit_files)][:limit_files]
    key = hashlib.sha256(repr([(name, path.stat().st_size) for name, path in files]).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trivium" / f"python-docs-{key}.jsonl"
    if limit_files is None and cache.is_file():
        with cache.open(encoding="utf-8") as lines:
            for line in lines:
                yield Document(**json.loads(line))
        return
    documents = _extract_all(files, progress)
    if limit_files is not None:
        yield from documents
        return
    cache.parent.mkdir(parents=True, exist_ok=True)
    unfinished = cache.with_suffix(f".{os.getpid()}.tmp")
    with unfinished.open("w", encoding="utf-8") as out:
        for each in documents:
            out.write(json.dumps(vars(each), ensure_ascii=False) + "\n")
            yield each
    unfinished.replace(cache)


def _extract_all(files: list[tuple[str, Path]], progress: Callable[[int, int], None] | None) -> Iterator[Document]:
    import pydoc_data.topics

    for text in pydoc_data.topics.topics.values():
        yield Document(text.strip(), "language-reference")
    seen: set[int] = set()
    workers = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with ProcessPoolExecutor(workers) as pool:
        extracted = pool.map(extract_docstrings, [path for _, path in files], chunksize=32)
        for done, ((source, _), found) in enumerate(zip(files, extracted, strict=True), start=1):
            for line, text in found:
                letters = hash(re.sub(r"\W+|\d+", "", text.lower()))
                if letters not in seen:
                    seen.add(letters)
                    yield Document(text, source, line)
            if progress is not None and done % 256 == 0:
                progress(done, len(files))


def extract_docstrings(path: Path) -> list[tuple[int, str]]:
    """Line and text of each docstring in a Python file, cleaned of its indentation; none if it does not parse."""
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError, OSError):
        return []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            text = inspect.cleandoc(text).strip() if text else ""
            if len(text) >= SHORTEST and "\x00" not in text:
                found.append((getattr(node, "lineno", 1), text.encode("utf-8", "replace").decode()))
    return found


def list_sources() -> list[tuple[str, Path]]:
    """(package or module, file) of the standard library and of trivium's requirements, sorted."""
    found: list[tuple[str, Path]] = []
    library = Path(sysconfig.get_paths()["stdlib"])
    for entry in sorted(library.iterdir()):
        found += _walk(entry.stem, entry)
    for package in _required_packages():
        for root in map(Path, sys.path):
            if (root / package).is_dir() and root != library:
                found += _walk(package, root / package)
                break
    return found


def _walk(source: str, entry: Path) -> list[tuple[str, Path]]:
    if entry.name in SKIPPED or entry.name.startswith((".", "_sysconfigdata")):
        return []
    if entry.is_file():
        return [(source, entry)] if entry.suffix == ".py" else []
    files = sorted(entry.rglob("*.py"))
    return [(source, path) for path in files if not SKIPPED & set(path.relative_to(entry).parts)]


def _required_packages() -> list[str]:
    """Import names of everything that trivium needs at run time, requirements of requirements included."""
    modules: dict[str, list[str]] = {}
    for module, distributions in metadata.packages_distributions().items():
        for distribution in distributions:
            modules.setdefault(_normal(distribution), []).append(module)
    waiting, seen = ["trivium"], {"trivium"}
    while waiting:
        try:
            wanted = metadata.requires(waiting.pop()) or []
        except metadata.PackageNotFoundError:
            continue
        for requirement in wanted:
            match = REQUIREMENT.match(requirement)
            if match and "extra ==" not in requirement and _normal(match[0]) not in seen:
                seen.add(_normal(match[0]))
                waiting.append(match[0])
    seen.discard("trivium")
    return sorted({module for name in seen for module in modules.get(name, [])})


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
