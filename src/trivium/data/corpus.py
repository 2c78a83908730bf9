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
from importlib import metadata
from pathlib import Path

from trivium.data.dedup import NearSet, digest_letters, letters_of
from trivium.data.source import Document, clean_text
from trivium.errors import DataError

SHORTEST = 60  # characters; shorter docstrings say little
SKIPPED = {"test", "tests", "testing", "idlelib", "site-packages", "dist-packages", "lib2to3", "__pycache__", "_vendor"}
REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+")
# What trivium needs, for a checkout that was never installed.
NEEDED = (
    "torch",
    "tokenizers",
    "safetensors",
    "huggingface_hub",
    "numpy",
    "pydantic",
    "PyYAML",
    "typer",
    "rich",
    "jinja2",
)
VERSION = 3  # of what this file makes of the same sources: a cache of another version is not read
WORKERS = 2
Progress = Callable[[int, int], None]


def python_documents(*, limit_files: int | None = None, progress: Progress | None = None) -> Iterator[Document]:
    """Docstrings no two of which are alike, in a fixed order; `source` is their package or standard module.

    The first call reads some six thousand files (half a minute on two cores) and leaves a cache under
    `XDG_CACHE_HOME`; `limit_files` reads only so many, spread evenly. `progress` is told files done and in all.
    Raises `DataError` where no cache can be written.
    """
    cache = _cache_folder() / f"python-docs-{corpus_key(limit_files)[:16]}.jsonl"
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
    for package in _required_packages():
        for root in map(Path, sys.path):
            if root != library and ((root / package).is_dir() or (root / f"{package}.py").is_file()):
                entry = root / package if (root / package).is_dir() else root / f"{package}.py"
                found |= dict.fromkeys(_walk(entry), package)
                break
    return sorted(((source, path) for path, source in found.items()), key=lambda pair: (pair[0], str(pair[1])))


def _choose(limit_files: int | None) -> list[tuple[str, Path]]:
    files = list_sources()
    if limit_files is None or limit_files >= len(files):
        return files
    return [files[number * len(files) // limit_files] for number in range(limit_files)]


def _fill(cache: Path, limit_files: int | None, progress: Progress | None) -> None:
    """Write the cache beside its place and move it there: nobody sees half of it."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=cache.parent, prefix=cache.stem, suffix=".tmp")
    seen, near = set[int](), NearSet()
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            for document in _read_all(_choose(limit_files), progress):
                letters = letters_of(document.text)
                digest = digest_letters(letters)
                if digest not in seen and near.add(letters):
                    out.write(json.dumps(vars(document), ensure_ascii=False) + "\n")
                seen.add(digest)
            out.flush()
            os.fsync(out.fileno())
        os.replace(unfinished, cache)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise


def _read_all(files: list[tuple[str, Path]], progress: Progress | None) -> Iterator[Document]:
    from pydoc_data.topics import topics

    for number, name in enumerate(sorted(topics), start=1):
        yield Document(clean_text(topics[name]), "language-reference", number)
    # Not multiprocessing, which would import the caller's script again, or fork under torch's threads.
    command = [sys.executable, "-W", "ignore", "-c", "from trivium.data.corpus import serve; serve()"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, encoding="utf-8")
        for _ in range(WORKERS)
    ]
    try:
        yield from _collect(workers, files, progress)
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def _collect(
    workers: list["subprocess.Popen[str]"], files: list[tuple[str, Path]], progress: Progress | None
) -> Iterator[Document]:
    """Files go to the workers in turn and come back in turn, so the order is the list's."""
    for number, worker in enumerate(workers):
        assert worker.stdin is not None
        with worker.stdin as stdin:
            json.dump([str(path) for _, path in files[number :: len(workers)]], stdin)
        worker.stdin = None
    for done, (source, path) in enumerate(files):
        answers = workers[done % len(workers)].stdout
        assert answers is not None
        line = answers.readline()
        if not line:
            raise DataError(f"a process that reads docstrings ended at {path}; expected one answer a file; run again")
        for at, text in json.loads(line):
            yield Document(text, source, at)
        if progress is not None and (done % 256 == 0 or done + 1 == len(files)):
            progress(done + 1, len(files))


def serve() -> None:
    """A worker: a JSON list of paths comes in, one line of `[[line, docstring], …]` for each goes out."""
    for path in json.load(sys.stdin):
        sys.stdout.write(json.dumps(extract_docstrings(Path(path))) + "\n")


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
    waiting, seen = list(NEEDED), set(map(_normal, NEEDED))
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


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trivium"
