"""From a local path or a name on the Hugging Face hub to a folder on this disk.

The only place that knows huggingface_hub, and so the only one that may use the network: for a hub name that is no
folder here. Its variables (HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE) are honoured.
"""

import contextlib
import hashlib
import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from trivium.errors import HubError
from trivium.folder import read_json
from trivium.hub.convert import replace_file
from trivium.hub.starters import PREFIX, find_starter

# What a model folder needs: never pickles, never code, nothing from subfolders.
_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.spm", "*.jinja", "README.md"]
# Some repositories have the same weights a second time, for their makers' own programs.
_NEVER = ["*/*", "consolidated*"]
_VERIFIED = "trivium-verified.json"
_LARGE_BYTES = 2**24
_LINE_SECONDS = 10.0
_NAME = re.compile(r"(?P<repo>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?")


def resolve_folder(name_or_folder: str | Path) -> Path:
    """The folder that a path or `starter:NAME` names, or the snapshot of `org/name[@revision]` or `name`.

    Downloads go to the cache that all Hugging Face tools share, go on after a broken connection (and, file by file,
    in a later process), and are compared with the hub's hashes. Raises `HubError`, which says why a name cannot be had
    and what to do.
    """
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        return folder
    name = str(name_or_folder)
    if name.startswith(PREFIX):
        return find_starter(name.removeprefix(PREFIX))
    match = _NAME.fullmatch(name)
    if match is None or name.startswith(".") or isinstance(name_or_folder, Path):
        raise HubError(f"{name} is no folder; expected a model folder or a hub name like org/name; check the path")
    return _download(match["repo"], match["revision"])


def _download(repo: str, revision: str | None) -> Path:
    # No word to anyone about who runs this; read when the client is imported.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Imported here: reading a local folder should not pay for an HTTP client.
    from huggingface_hub import snapshot_download

    try:
        with _progress_of(repo):
            found = snapshot_download(repo, revision=revision, allow_patterns=_FILES, ignore_patterns=_NEVER)
    except Exception as error:  # the client's own, and those of the libraries that it is made of
        raise HubError(f"{_why_not(repo, revision, error)}") from error
    verify_snapshot(Path(found))
    return Path(found)


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


def verify_snapshot(folder: Path) -> None:
    """Compare the files of a downloaded snapshot with the hub's hashes, which are the names of its blobs.

    A large file is read once for each state of it (size and time of change), which a file beside the blobs notes:
    hashing takes ten times as long as opening. Raises `HubError` that names the first that differs and removes it.
    """
    record = folder.parent.parent / _VERIFIED
    known = read_json(record) if record.is_file() else {}
    found = dict(known)
    for path in sorted(folder.iterdir()):
        if (expected := _hash_of(path)) is None:
            continue
        state = [path.stat().st_size, path.stat().st_mtime_ns] if path.exists() else []
        if known.get(expected) != state or state[0] < _LARGE_BYTES:
            _compare(path, expected)
        if state[0] >= _LARGE_BYTES:
            found[expected] = state
    if found != known:
        with contextlib.suppress(HubError, OSError):  # a cache that is others': it is read again next time
            replace_file(record, lambda temporary: temporary.write_text(json.dumps(found), encoding="utf-8"))


def _hash_of(path: Path) -> str | None:
    """What the hub says that a file's hash is: the name of its blob in the cache."""
    name = path.resolve().name
    return name if path.is_symlink() and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", name) else None


def _compare(path: Path, expected: str) -> None:
    try:
        size = path.stat().st_size
        digest = hashlib.sha256() if len(expected) == 64 else hashlib.sha1(b"blob %d\0" % size)  # as git does
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
        found = digest.hexdigest()
    except OSError as error:  # perhaps others' file: not ours to remove
        raise HubError(f"{path} is damaged or not readable ({error}); expected a whole file; delete it") from error
    if found == expected:
        return
    with contextlib.suppress(OSError):
        path.resolve().unlink(missing_ok=True)
        path.unlink()
    what = f"{path} is damaged (hash {found[:40]}, the hub says {expected[:12]}…)"
    raise HubError(f"{what}; expected them equal; it was removed: do the same again to get it again")


@contextlib.contextmanager
def _progress_of(repo: str) -> Iterator[None]:
    """The client's bars on a terminal, else a line every ten seconds."""
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    blobs = Path(constants.HF_HUB_CACHE, file_download.repo_folder_name(repo_id=repo, repo_type="model"), "blobs")
    start, done = _bytes_in(blobs), threading.Event()

    def tell() -> None:
        while not done.wait(_LINE_SECONDS):
            print(f"{repo}: {(_bytes_in(blobs) - start) / 1e6:,.1f} MB downloaded", file=sys.stderr, flush=True)

    teller = threading.Thread(target=tell, daemon=True)
    disable_progress_bars()
    teller.start()
    try:
        yield
    finally:
        enable_progress_bars()
        done.set()
        teller.join()


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.glob("*"):
        with contextlib.suppress(OSError):  # renamed meanwhile
            total += path.stat().st_size
    return total
