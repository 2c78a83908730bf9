"""Checkpoints that never lie: written aside, hashed, renamed when whole; a damaged one is named and passed over.

A checkpoint is an ordinary Hugging Face folder plus `state/` (optimizer tensors, counters) and `MANIFEST.json`,
which is written last. No pickle anywhere. A folder without a valid manifest is no checkpoint.
"""

import fcntl
import hashlib
import json
import os
import shutil
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trivium.data.shards import hash_file
from trivium.errors import CheckpointError, HubError
from trivium.hub.adapter import save_adapter
from trivium.hub.auto import load_model, save_model
from trivium.hub.convert import read_tensors, write_tensors
from trivium.model import Transformer
from trivium.model.adapter import has_adapter
from trivium.tokenizer import Tokenizer
from trivium.training.storage import (
    Storage,
    clear_unfinished,
    put_folder,
    remove_folder,
    sync_tree,
    unfinished_name,
)

MANIFEST = "MANIFEST.json"
MACHINE_KIND = ("processor", "machine_class", "device")
TRAINED = "trained.safetensors"


@dataclass
class Counters:
    """The numbers of a run that a checkpoint holds beside its tensors."""

    step: int = 0
    tokens: int = 0
    elapsed_seconds: float = 0.0
    lines: int = 0  # of metrics.jsonl
    marks_passed: int = 0  # of the shares of the budget at which the run is evaluated
    evaluated_step: int = -1
    skipped_in_a_row: int = 0
    loss_before: float = 0.0
    evaluation: dict[str, float] = field(default_factory=dict)  # the last one
    evaluation_before: dict[str, float] = field(default_factory=dict)  # the first one
    best_step: int = -1
    best_evaluation: dict[str, float] = field(default_factory=dict)
    evaluations_since_best: int = 0
    schema: int = 1


@dataclass
class TrainState:
    """Exactly what a checkpoint holds: weights, optimizer state, counters."""

    model: Transformer
    optimizers: list[torch.optim.Optimizer]
    counters: Counters = field(default_factory=Counters)


def save_checkpoint(
    state: TrainState,
    run: Path,
    *,
    tokenizer: Tokenizer | None,
    fingerprint: dict[str, str],
    keep_last: int = 2,
    storage: Storage | None = None,
) -> Path:
    """Write `checkpoints/step-…` so that a reader sees a whole one or none; older ones beyond `keep_last` go.

    Raises `CheckpointError` when the disk is full or cannot be written; the previous checkpoint is untouched.
    """
    storage = storage or Storage()
    folder = run / "checkpoints" / f"step-{state.counters.step:08d}"
    unfinished = unfinished_name(folder)
    try:
        storage.remove(unfinished)
        (unfinished / "state").mkdir(parents=True)
        storage.sync(run)
        save_weights(state.model, unfinished, tokenizer=tokenizer)
        write_tensors(unfinished / "state" / "optimizer.safetensors", _optimizer_tensors(state))
        counters = {**asdict(state.counters), "fingerprint": fingerprint}
        storage.write(unfinished / "state" / "state.json", _to_json(counters))
        _seal(storage, unfinished, folder, state.model, fingerprint)
        # Only older ones go: a newer one is damaged, or this run would have begun from it, and must not count as kept.
        older = [each for each in list_checkpoints(run) if each.name < folder.name]
        for old in older[: max(len(older) + 1 - max(keep_last, 1), 0)]:
            remove_folder(storage, old)
        _forget_best(storage, run)
    except (OSError, HubError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        free, needed = shutil.disk_usage(run).free, _count_bytes(state)
        raise CheckpointError(
            f"the checkpoint at step {state.counters.step} could not be written to {folder.parent} ({error}); it takes "
            f"about {needed:,} bytes and {free:,} are free; earlier ones are whole; make room and run the same command"
        ) from error
    return folder


def save_best(state: TrainState, run: Path, *, tokenizer: Tokenizer | None, fingerprint: dict[str, str]) -> Path:
    """Put the weights aside as `run/best/step-…`, whole or not at all; no optimizer state. Raises `OSError`.

    What was the best before stays for the checkpoints that speak of it: a run may go on from one of them.
    """
    storage, folder = Storage(), _best_folder(run, state.counters.step)
    unfinished = unfinished_name(folder)
    storage.remove(unfinished)
    unfinished.mkdir(parents=True)
    save_weights(state.model, unfinished, tokenizer=tokenizer)
    _seal(storage, unfinished, folder, state.model, fingerprint)
    return folder


def load_best(state: TrainState, run: Path) -> None:
    """Put the best weights of a run into its model; raises `CheckpointError` if they are damaged or another's."""
    folder = _best_folder(run, state.counters.best_step)
    verify_folder(folder)
    load_weights(state.model, folder)


def _best_folder(run: Path, step: int) -> Path:
    return run / "best" / f"step-{step:08d}"


def _forget_best(storage: Storage, run: Path) -> None:
    """Remove the best weights that no checkpoint speaks of."""
    clear_unfinished(run / "best")
    try:
        states = [(each / "state" / "state.json").read_text(encoding="utf-8") for each in list_checkpoints(run)]
        kept = {_best_folder(run, json.loads(each)["best_step"]) for each in states}
    except (OSError, ValueError, KeyError):  # one is damaged: nothing is known of what it needs
        return
    for folder in set((run / "best").glob("step-*")) - kept:
        remove_folder(storage, folder)


def save_weights(model: Transformer, folder: Path, *, tokenizer: Tokenizer | None) -> None:
    """An ordinary model folder; of a model with an adapter PEFT's folder, and what was trained under our names."""
    if not has_adapter(model):
        save_model(model, folder, tokenizer=tokenizer)
        return
    save_adapter(model, folder)
    if tokenizer is not None:
        tokenizer.save(folder)
    trained = {name: each.detach() for name, each in model.named_parameters() if each.requires_grad}
    write_tensors(folder / TRAINED, trained)


def load_weights(model: Transformer, folder: Path) -> None:
    """Copy the weights of a folder that `save_weights` wrote into a model; raises `CheckpointError` if it differs."""
    own = dict(model.named_parameters())
    if has_adapter(model):
        own = {name: each for name, each in own.items() if each.requires_grad}
        weights = read_tensors(folder / TRAINED)
    else:
        weights = dict(load_model(folder).named_parameters())
    if {name: each.shape for name, each in weights.items()} != {name: each.shape for name, each in own.items()}:
        raise CheckpointError(f"{folder} holds another model than the recipe's; use --restart or another run")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])


def list_checkpoints(run: Path) -> list[Path]:
    """Checkpoint folders of a run, oldest first."""
    return sorted((run / "checkpoints").glob("step-*"))


def restore_latest(state: TrainState, run: Path, fingerprint: dict[str, str]) -> bool:
    """Put the newest whole checkpoint into `state`; False if the run has none.

    What a killed save left is deleted; a damaged checkpoint is passed over with a warning that names the file.
    Raises `CheckpointError` when all are damaged, or the newest whole one belongs to other data or another model.
    """
    clear_unfinished(run / "checkpoints")
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


def keep_compute_dtype(run: Path, measured: dict[str, str]) -> dict[str, str]:
    """What was measured of this machine, with the compute dtype that a run to go on from has, on a machine of its kind.

    Which dtype is faster is timed anew in each process, and beside other work the answer may be another one: the same
    machine would not go on with the same bits.
    """
    for folder in reversed(list_checkpoints(run)):
        try:
            before = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["machine"]
            kind = [before[name] for name in MACHINE_KIND]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged, which restore_latest tells, or older than this
        same = kind == [measured[name] for name in MACHINE_KIND]
        return {**measured, "compute_dtype": before["compute_dtype"]} if same else measured
    return measured


def verify_folder(folder: Path) -> None:
    """Compare a folder with its manifest, file by file; raises `CheckpointError` that names the first difference."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        schema, digest, files = manifest["schema"], manifest.pop("sha256"), dict(manifest["files"])
        if digest != _digest(manifest):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{folder / MANIFEST} is missing or damaged; expected a finished save") from None
    if schema != 1:
        raise CheckpointError(f"{folder} has schema {schema}; this version reads 1; upgrade trivium")
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
        except BlockingIOError:
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
            f"{folder} was trained on other data or other rows; expected the same; use --restart or another run"
        )
    changed = [name for name in fingerprint if before.get(name, fingerprint[name]) != fingerprint[name]]
    if changed:
        what = ", ".join(f"{name}: {before[name]} → {fingerprint[name]}" for name in changed)
        warnings.warn(f"resuming on another machine ({what}): same samples, but not the same bits", stacklevel=3)
    load_weights(state.model, folder)
    own = dict(state.model.named_parameters())
    device = next(iter(own.values())).device
    for key, value in read_tensors(folder / "state" / "optimizer.safetensors").items():
        place, name = key.split("/", 1)
        number, slot = place.split(".", 1)
        state.optimizers[int(number)].state[own[name]][slot] = value.to(device, copy=True)
    state.counters = Counters(**saved)


def _seal(storage: Storage, unfinished: Path, folder: Path, model: Transformer, fingerprint: dict[str, str]) -> None:
    """Write the manifest when all else is on the disk, then give the folder its name."""
    sync_tree(storage, unfinished)
    storage.write(unfinished / MANIFEST, _to_json(_describe(unfinished, model, fingerprint)))
    storage.sync(unfinished)
    put_folder(storage, unfinished, folder)


def _describe(folder: Path, model: Transformer, fingerprint: dict[str, str]) -> dict[str, Any]:
    """The manifest of a folder: size and hash of each file, the shapes of the tensors, versions, machine, own hash."""
    files = {
        str(path.relative_to(folder)): {"size": path.stat().st_size, "sha256": hash_file(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest: dict[str, Any] = {
        "schema": 1,
        "versions": {name: version(name) for name in ("trivium", "torch", "safetensors")},
        "machine": fingerprint,
        "tensors": {name: list(parameter.shape) for name, parameter in model.named_parameters()},
        "files": files,
    }
    return {**manifest, "sha256": _digest(manifest)}


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _to_json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _count_bytes(state: TrainState) -> int:
    tensors = [*state.model.parameters(), *_optimizer_tensors(state).values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
