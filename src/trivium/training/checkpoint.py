"""Checkpoints that never lie: written aside, hashed, renamed when whole; a damaged one is named and passed over.

A checkpoint is an ordinary Hugging Face folder plus `state/` (optimizer tensors, counters) and `MANIFEST.json`,
which is written last. No pickle anywhere. A folder without a valid manifest is no checkpoint.
"""

import fcntl
import json
import os
import shutil
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trivium.data.shards import hash_file
from trivium.errors import CheckpointError
from trivium.hub.auto import load_model, save_model
from trivium.hub.convert import read_tensors, write_tensors
from trivium.model import Transformer
from trivium.tokenizer import Tokenizer

MANIFEST = "MANIFEST.json"


@dataclass
class Counters:
    """The numbers of a run that a checkpoint holds beside its tensors."""

    step: int = 0
    tokens: int = 0
    elapsed_seconds: float = 0.0
    marks_passed: int = 0
    skipped_in_a_row: int = 0
    loss_before: float = 0.0
    schema: int = 1


@dataclass
class TrainState:
    """Exactly what a checkpoint holds: weights, optimizer state, counters."""

    model: Transformer
    optimizers: list[torch.optim.Optimizer]
    counters: Counters = field(default_factory=Counters)


def save_checkpoint(
    state: TrainState, run: Path, *, tokenizer: Tokenizer, fingerprint: dict[str, str], keep_last: int = 2
) -> Path:
    """Write `checkpoints/step-…` so that a reader sees a whole one or none; older ones beyond `keep_last` go.

    Raises `CheckpointError` when the disk is full or cannot be written; the previous checkpoint is untouched.
    """
    folder = run / "checkpoints" / f"step-{state.counters.step:08d}"
    unfinished = folder.with_name(f".{folder.name}.tmp")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        (unfinished / "state").mkdir(parents=True)
        save_model(state.model, unfinished, tokenizer=tokenizer)
        write_tensors(unfinished / "state" / "optimizer.safetensors", _optimizer_tensors(state))
        _write_json(unfinished / "state" / "state.json", {**asdict(state.counters), "fingerprint": fingerprint})
        _write_manifest(unfinished)
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.rename(folder)
        _sync(folder.parent)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        free = shutil.disk_usage(run).free
        raise CheckpointError(
            f"the checkpoint at step {state.counters.step} could not be written to {folder.parent} ({error.strerror}; "
            f"{free} bytes are free); the previous one is whole; make room and run the same command"
        ) from None
    for old in list_checkpoints(run)[:-keep_last]:
        shutil.rmtree(old)
    return folder


def list_checkpoints(run: Path) -> list[Path]:
    """Checkpoint folders of a run, oldest first."""
    return sorted((run / "checkpoints").glob("step-*"))


def restore_latest(state: TrainState, run: Path, fingerprint: dict[str, str]) -> bool:
    """Put the newest whole checkpoint into `state`; False if the run has none.

    A damaged one is passed over with a warning that names the file. Raises `CheckpointError` when all are.
    """
    for leftover in (run / "checkpoints").glob(".*.tmp"):
        shutil.rmtree(leftover)
    folders = list_checkpoints(run)
    for folder in reversed(folders):
        try:
            verify_folder(folder)
        except CheckpointError as error:
            warnings.warn(f"passed over a damaged checkpoint: {error}", stacklevel=2)
            continue
        _restore(state, folder, fingerprint)
        return True
    if folders:
        raise CheckpointError(f"every checkpoint of {run} is damaged; expected one whole one; use --restart")
    return False


def verify_folder(folder: Path) -> None:
    """Compare a folder with its manifest, file by file; raises `CheckpointError` that names the first difference."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(f"{folder / MANIFEST} is missing or unreadable; the save did not finish") from None
    if manifest.get("schema") != 1:
        raise CheckpointError(f"{folder} has schema {manifest.get('schema')}; this version reads 1; upgrade trivium")
    present = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {MANIFEST}
    for name in sorted(present | set(files)):
        path = folder / name
        if name not in files:
            raise CheckpointError(f"{path} is not in the manifest; something else wrote into the checkpoint")
        if name not in present or path.stat().st_size != files[name]["size"]:
            raise CheckpointError(f"{path} is missing or has another size than when it was written")
        if hash_file(path) != files[name]["sha256"]:
            raise CheckpointError(f"{path} has changed since it was written (its hash differs)")


@contextmanager
def lock_run(run: Path) -> Iterator[None]:
    """Keep other processes out of a run folder; the system drops the lock when the holder ends, however it ends.

    Raises `CheckpointError` with the holder's pid and host.
    """
    run.mkdir(parents=True, exist_ok=True)
    with (run / "lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise CheckpointError(
                f"{run} is in use by {holder}; expected one process a run folder; wait for it or choose another folder"
            ) from None
        file.seek(0)
        file.truncate()
        file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def _optimizer_tensors(state: TrainState) -> dict[str, Tensor]:
    """`0.exp_avg/decoder.layers.0.…`: every tensor of optimizer state under its parameter's name."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in state.model.named_parameters()}
    return {
        f"{number}.{key}/{names[parameter]}": value
        for number, optimizer in enumerate(state.optimizers)
        for parameter, slots in optimizer.state.items()
        for key, value in slots.items()
    }


def _restore(state: TrainState, folder: Path, fingerprint: dict[str, str]) -> None:
    saved = json.loads((folder / "state" / "state.json").read_text(encoding="utf-8"))
    before = saved.pop("fingerprint")
    if before.get("data") != fingerprint.get("data"):
        raise CheckpointError(
            f"{folder} was trained on other data or with other row sizes; expected the same; use --restart or another run"
        )
    changed = [name for name in fingerprint if before.get(name) != fingerprint[name]]
    if changed:
        what = ", ".join(f"{name}: {before.get(name)} → {fingerprint[name]}" for name in changed)
        warnings.warn(f"resuming on another machine ({what}): same samples, but not the same bits", stacklevel=3)
    weights = load_model(str(folder)).state_dict()
    own = state.model.state_dict()
    if not set(weights) <= set(own):
        raise CheckpointError(f"{folder} holds another architecture than the recipe; use --restart or another run")
    with torch.no_grad():
        for name, parameter in own.items():
            found = weights.get(name)
            if found is not None and found.shape != parameter.shape:
                raise CheckpointError(f"{folder} holds {name} as {tuple(found.shape)}; use --restart or another run")
            parameter.copy_(torch.zeros_like(parameter) if found is None else found)
    parameters = dict(state.model.named_parameters())
    for key, value in read_tensors(folder / "state" / "optimizer.safetensors").items():
        place, name = key.split("/", 1)
        number, slot = place.split(".", 1)
        state.optimizers[int(number)].state[parameters[name]][slot] = value.clone()
    state.counters = Counters(**saved)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as out:
        json.dump(value, out, indent=1, ensure_ascii=False)
        out.flush()
        os.fsync(out.fileno())


def _write_manifest(folder: Path) -> None:
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            _sync(path)
            files[str(path.relative_to(folder))] = {"size": path.stat().st_size, "sha256": hash_file(path)}
    for inside in (folder / "state", folder):
        _sync(inside)
    _write_json(folder / MANIFEST, {"schema": 1, "torch": torch.__version__, "files": files})
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
