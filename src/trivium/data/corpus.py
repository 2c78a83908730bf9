"""The text that is always there: the documentation inside every Python installation.

Docstrings of the standard library and of the packages that trivium itself needs, and the language reference in
`pydoc_data.topics`: some 17 MB of technical English, offline on every machine. It changes with what is installed,
so scores on it do not compare across machines. Knows no tokenizer and no split.
"""

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

from trivium.data.dedup import NearSet, digest_letters, letters_of
from trivium.data.source import Document, clean_text
from trivium.errors import DataError

SHORTEST = 60  # characters; shorter docstrings say little
SKIPPED = {"test", "tests", "testing", "idlelib", "site-packages", "dist-packages", "lib2to3", "__pycache__", "_vendor"}
REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+")
# What trivium needs, for a checkout that was never installed.
NEEDED = "torch tokenizers safetensors huggingface_hub numpy pydantic PyYAML typer rich jinja2"
VERSION = 4  # of what this file makes of the same sources: a cache of another version is not read
WORKERS, FILES_AT_ONCE = 2, 512
Progress = Callable[[int, int], None]


def python_documents(*, limit_files: int | None = None, progress: Progress | None = None) -> Iterator[Document]:
    """Docstrings no two of which are alike, in a fixed order; `source` is their package or standard module.

    The first call reads some six thousand files (half a minute on two cores) and leaves a cache under
    `XDG_CACHE_HOME`; `limit_files` reads only so many, spread evenly. `progress` is told files done and in all.
    Raises `DataError` where no cache can be written.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trivium"
    cache = folder / f"python-docs-{corpus_key(limit_files)[:16]}.jsonl"
    if not cache.is_file():
        try:
            _fill(cache, limit_files, progress)
        except OSError as error:
            raise DataError(f"{cache} cannot be written ({error.strerror}); set XDG_CACHE_HOME to a folder") from error
    with cache.open(encoding="utf-8") as lines:
        for line in lines:
            yield Document(**json.loads(line))


def corpus_key(limit_files: int | None = None) -> str:
    """A hash of all that decides the text: this code, Python, the names and sizes of the files."""
    files = [(name, path.name, path.stat().st_size) for name, path in _choose(limit_files)]
    return hashlib.sha256(repr((VERSION, SHORTEST, sys.version, files)).encode()).hexdigest()


def list_sources() -> list[tuple[str, Path]]:
    """(package or module, file) of the standard library and of trivium's requirements, sorted."""
    found: dict[Path, str] = {}
    library = Path(sysconfig.get_paths()["stdlib"])
    for entry in sorted(library.iterdir()):
        found |= dict.fromkeys(_walk(entry), entry.stem)
    roots = [root for root in map(Path, sys.path) if root != library]
    for package in _required_packages():
        places = (root / name for root in roots for name in (package, f"{package}.py"))
        for place in [place for place in places if place.exists()][:1]:
            found |= dict.fromkeys(_walk(place), package)
    return sorted(((source, path) for path, source in found.items()), key=lambda pair: (pair[0], str(pair[1])))


def _choose(limit_files: int | None) -> list[tuple[str, Path]]:
    files = list_sources()
    count = len(files) if limit_files is None else min(limit_files, len(files))
    return [files[number * len(files) // count] for number in range(count)]


def _fill(cache: Path, limit_files: int | None, progress: Progress | None) -> None:
    """Write the cache beside its place and move it there: nobody sees half of it."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    seen, near = set[int](), NearSet()
    with tempfile.TemporaryDirectory(dir=cache.parent) as folder:
        unfinished = Path(folder) / cache.name
        with unfinished.open("w", encoding="utf-8") as out:
            for document in _read_all(_choose(limit_files), progress):
                letters = letters_of(document.text)
                digest = digest_letters(letters)
                if digest not in seen and near.add(letters):
                    out.write(json.dumps(vars(document), ensure_ascii=False) + "\n")
                seen.add(digest)
            out.flush()
            os.fsync(out.fileno())
        unfinished.replace(cache)


def _read_all(files: list[tuple[str, Path]], progress: Progress | None) -> Iterator[Document]:
    from pydoc_data.topics import topics

    for number, name in enumerate(sorted(topics), start=1):
        yield Document(clean_text(topics[name]), "language-reference", number)
    parts = [files[begin : begin + FILES_AT_ONCE] for begin in range(0, len(files), FILES_AT_ONCE)]
    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            done = 0
            for part, answers in zip(parts, pool.map(_extract_all, parts), strict=True):
                for (source, _), found in zip(part, answers, strict=True):
                    yield from (Document(text, source, line) for line, text in found)
                done += len(part)
                if progress is not None:
                    progress(done, len(files))
        finally:
            pool.shutdown(cancel_futures=True)


def _extract_all(part: list[tuple[str, Path]]) -> list[list[tuple[int, str]]]:
    """The docstrings of each file, from a process of its own.

    Not multiprocessing, which would import the caller's script again, or fork under torch's threads.
    """
    command = [sys.executable, "-W", "ignore", "-c", "from trivium.data.corpus import serve; serve()"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    paths = json.dumps([str(path) for _, path in part])
    ended = subprocess.run(command, input=paths, stdout=subprocess.PIPE, env=environment, encoding="utf-8")
    if ended.returncode:
        raise DataError(f"a process that reads docstrings ended with {ended.returncode}; expected 0; run again")
    return list(json.loads(ended.stdout))


def serve() -> None:
    """A process of `_extract_all`: a JSON list of paths comes in, the list of their docstrings goes out."""
    json.dump([extract_docstrings(Path(path)) for path in json.load(sys.stdin)], sys.stdout)


def extract_docstrings(path: Path) -> list[tuple[int, str]]:
    """Line and text of each docstring in a Python file, cleaned of its indentation; none if it does not parse."""
    try:
        content = path.read_bytes()
        if b'"""' not in content and b"'''" not in content:  # saves a third of the time
            return []
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OSError):
        return []
    found: list[tuple[int, str]] = []
    waiting: list[ast.AST] = [tree]
    while waiting:  # definitions stand in statements: expressions, most of a tree, need no visit
        node = waiting.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = clean_text(ast.get_docstring(node) or "").strip()
            if len(text) >= SHORTEST and "\x00" not in text:
                found.append((getattr(node, "lineno", 1), text.encode("utf-8", "replace").decode()))
        for name in ("body", "orelse", "handlers", "finalbody"):
            inside = getattr(node, name, None)
            waiting.extend(inside if isinstance(inside, list) else ())
    return sorted(found)


def _walk(entry: Path) -> list[Path]:
    if entry.name in SKIPPED or entry.name.startswith((".", "_sysconfigdata")):
        return []
    if entry.is_file():
        return [entry] if entry.suffix == ".py" else []
    return [path for path in entry.rglob("*.py") if not SKIPPED & set(path.relative_to(entry).parts)]


def _required_packages() -> list[str]:
    """Import names of everything that trivium needs at run time, requirements of requirements included."""
    modules: dict[str, list[str]] = {}
    for module, distributions in metadata.packages_distributions().items():
        for distribution in distributions:
            modules.setdefault(_normal(distribution), []).append(module)
    waiting, seen = NEEDED.split(), set(map(_normal, NEEDED.split()))
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
    return sorted({module for name in seen for module in modules.get(name, [])})


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
