"""What a save does to a disk, in one small place: sync, write, rename, remove. A test records it and crashes anywhere.

A folder takes its name only when everything in it is on the disk, and gives it up before anything in it is deleted.
Does not know what a checkpoint is.
"""

import os
import shutil
from pathlib import Path

UNFINISHED = ".*.tmp"


class Storage:
    """The disk itself. Methods raise `OSError`."""

    def write(self, path: Path, text: str) -> None:
        """Write a file and wait until it is on the disk."""
        path.write_text(text, encoding="utf-8")
        self.sync(path)

    def sync(self, path: Path) -> None:
        """Wait until a file's content, or a folder's list of names, is on the disk."""
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file or folder its name; a file of that name is replaced."""
        old.replace(new)

    def remove(self, folder: Path) -> None:
        """Delete a folder and all in it, if it is there."""
        shutil.rmtree(folder, ignore_errors=True)


def unfinished_name(path: Path, why: str = "new") -> Path:
    """The hidden neighbour that `path` is written into, or moved to before it is deleted."""
    return path.with_name(f".{path.name}.{why}.tmp")


def sync_tree(storage: Storage, folder: Path) -> None:
    """Sync every file in a folder, then every folder, the outermost last."""
    paths = sorted(folder.rglob("*"), reverse=True)
    for path in [*(path for path in paths if path.is_file()), *(path for path in paths if path.is_dir()), folder]:
        storage.sync(path)


def put_folder(storage: Storage, unfinished: Path, folder: Path) -> None:
    """Let a complete folder take its name, in place of any other."""
    if folder.exists():
        remove_folder(storage, folder)
    storage.rename(unfinished, folder)
    storage.sync(folder.parent)


def put_text(storage: Storage, path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old one or the new one."""
    unfinished = unfinished_name(path)
    storage.write(unfinished, text)
    storage.rename(unfinished, path)
    storage.sync(path.parent)


def remove_folder(storage: Storage, folder: Path) -> None:
    """Delete a folder that never again looks complete, not even half deleted."""
    unwanted = unfinished_name(folder, "old")
    storage.remove(unwanted)
    storage.rename(folder, unwanted)
    storage.remove(unwanted)


def clear_unfinished(folder: Path) -> None:
    """Delete what a killed process left half written in a folder."""
    for path in folder.glob(UNFINISHED):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def start_over(run: Path) -> None:
    """Forget a run: its checkpoints, metrics and result. Prepared data stay."""
    for name in ("checkpoints", "best", "final", "adapter"):
        shutil.rmtree(run / name, ignore_errors=True)
    for name in ("metrics.jsonl", "result.json", "report.html", "config.yaml"):
        (run / name).unlink(missing_ok=True)
