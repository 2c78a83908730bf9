"""From a local path or a name on the Hugging Face hub to a folder on this disk.

The only place that knows huggingface_hub, and so the only one that may use the network: for a hub name that is no
folder here. Its variables (HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE) are honoured.
"""

import contextlib
import hashlib
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from trivium.errors import HubError

# What a model folder needs: never pickles, never code, nothing from subfolders.
_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.spm", "*.jinja", "README.md"]
# Some repositories have the same weights a second time, for their makers' own programs.
_NEVER = ["*/*", "consolidated*"]
_NAME = re.compile(r"(?P<repo>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?")


def resolve_folder(name_or_folder: str | Path) -> Path:
    """The folder that a path names, or the downloaded snapshot of `org/name`, `name`, or either with `@revision`.

    Downloads go to the cache that all Hugging Face tools share, go on after a broken connection (and, file by file,
    in a later process), and are compared with the hub's hashes. Raises `HubError`, which says why a name cannot be had
    and what to do.
    """
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        return folder
    name = str(name_or_folder)
    match = _NAME.fullmatch(name)
    if match is None or name.startswith(".") or isinstance(name_or_folder, Path):
        raise HubError(f"{name} is no folder; expected a model folder or a hub name like org/name; check the path")
    return _download(match["repo"], match["revision"])


def _download(repo: str, revision: str | None) -> Path:
    # No word to anyone about who runs this; read when the client is imported.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Imported here: reading a local folder should not pay for an HTTP client.
    from huggingface_hub import snapshot_download

    start = time.time()
    try:
        with _bars_on_terminals_only():
            found = snapshot_download(repo, revision=revision, allow_patterns=_FILES, ignore_patterns=_NEVER)
    except Exception as error:  # the client's own, and those of the libraries that it is made of
        raise HubError(f"{_why_not(repo, revision, error)}") from error
    folder = Path(found)
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.stat().st_mtime >= start - 1:
            _check(path)
    return folder


def _why_not(repo: str, revision: str | None, error: Exception) -> str:
    """One sentence: why a name cannot be had, what is expected, what to do."""
    from huggingface_hub import constants, errors

    where, head = constants.ENDPOINT, f"{repo} is no folder here and"
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ else error
    status = getattr(getattr(cause, "response", None), "status_code", 0)
    if constants.HF_HUB_OFFLINE or isinstance(cause, errors.OfflineModeIsEnabled):
        part = "only partly in" if isinstance(error, errors.IncompleteSnapshotError) else "not in"
        what = f"{part} this machine's cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE is set"
        return f"{head} {what}; expected a model folder or a cached name; unset HF_HUB_OFFLINE to download it"
    if isinstance(cause, errors.GatedRepoError):
        what = f"the hub gives {repo} only to those whom its owner let in (gated)"
        return f"{head} {what}; expected such an account's token; ask at {where}/{repo}, then set HF_TOKEN"
    if isinstance(cause, errors.RepositoryNotFoundError):
        what = f"{where} has no such public model (not found)"
        return f"{head} {what}; expected a name like org/name; check the spelling, or set HF_TOKEN if it is private"
    if isinstance(cause, errors.RevisionNotFoundError):
        what = f"{where} has {repo} but no revision {revision!r}"
        return f"{head} {what}; expected a branch, tag or commit of it; leave @{revision} out for the newest"
    if status in (401, 403):
        return f"{head} {where} refused the token ({status}); expected a valid one; set HF_TOKEN anew or unset it"
    if isinstance(cause, errors.HFValidationError):
        return f"{repo} is neither a folder nor a possible hub name; expected org/name; check the spelling"
    reason = " ".join(str(cause).split("\n")[0].split()).rstrip(".") or type(cause).__name__
    if isinstance(cause, OSError) and cause.errno is not None and not isinstance(cause, ConnectionError):
        cache = constants.HF_HUB_CACHE
        return (
            f"{repo} could not be stored in {cache} ({reason}); expected room and permission; free some or set HF_HOME"
        )
    if status:
        return f"{head} {where} answered {status} ({reason}); expected the model; try again later"
    what = f"could not be had from {where} ({reason})"
    advice = "check the network and try again (whole files are kept), or set HF_ENDPOINT to a mirror"
    return f"{head} {what}; expected a model folder here or a hub that answers; {advice}"


def verify_snapshot(folder: str | Path) -> int:
    """Compare every file of a downloaded snapshot with the hub's hash and give how many have one.

    Raises `HubError` that names the first that differs: what a disk did to it since, too. Reads every byte.
    """
    paths = sorted(path for path in Path(folder).iterdir() if _hash_of(path))
    for path in paths:
        _compare(path, "has changed since it was downloaded")
    return len(paths)


def _check(path: Path) -> None:
    """Compare a file that just came with the hub's hash; a damaged one is thrown away."""
    try:
        _compare(path, "arrived damaged")
    except HubError:
        path.resolve().unlink()
        path.unlink()
        raise


def _hash_of(path: Path) -> str | None:
    """What the hub says that a file's hash is: the name of its blob in the cache."""
    name = path.resolve().name
    return name if path.is_symlink() and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", name) else None


def _compare(path: Path, what: str) -> None:
    if (expected := _hash_of(path)) is None:
        return
    try:
        size = path.stat().st_size
        digest = hashlib.sha256() if len(expected) == 64 else hashlib.sha1(b"blob %d\0" % size)  # as git does
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
        found = digest.hexdigest()
    except OSError as error:
        found = f"not readable: {error}"
    if found != expected:
        raise HubError(
            f"{path} {what} (hash {found[:40]}, the hub says {expected[:12]}…); expected them equal; get it again"
        )


@contextlib.contextmanager
def _bars_on_terminals_only() -> Iterator[None]:
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
