"""Tiny runs for the tests of training: text, recipes, and a child process that runs one and may be killed."""

import json
import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from trivium.training import loop
from trivium.training.checkpoint import TrainState
from trivium.training.course import Materials
from trivium.training.monitor import Monitor, read_metrics
from trivium.training.pretraining import _begin, gather_materials, pretrain
from trivium.training.recipe import Recipe, load_recipe
from trivium.training.storage import Storage

WORDS = ("the", "cat", "sat", "on", "a", "mat", "while", "grey", "dogs", "run", "far", "into", "green", "fields", "of")
FAMILIES = ("decoder", "encoder", "encoder_decoder")
STEPS, INTERVAL = 24, 5
SAVE_OPERATIONS = 19  # on the disk in the shortest save; the 18th gives the folder its name


def write_text(path: Path, documents: int = 150) -> Path:
    """A JSON-lines file of random sentences."""
    chance = random.Random(0)
    rows = ({"text": " ".join(chance.choices(WORDS, k=chance.randint(8, 60)))} for _ in range(documents))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def settings_for(family: str, run: Path, text: Path, *more: str) -> list[str]:
    """Overrides of a run that takes about a second: dropout, packing and accumulation on."""
    return [
        f"family={family}",
        f"run={run}",
        f"data.source={text}",
        f"data.prepared={text.parent / 'prepared'}",
        "data.tokenizer={vocab_size: 400, num_sentinels: 16}",
        "data.seq_len=32",
        "data.rows_per_batch=4",
        "data.micro_rows=3",
        "data.valid_rows=4",
        "size={width: 32, layers: 2, head_size: 16, dropout: 0.1, unigram_start: false}",
        f"budget={{minutes: 0, steps: {STEPS}}}",
        f"save={{every_steps: {INTERVAL}, evaluate_at: [0.5]}}",
        *more,
    ]


def begin(settings: list[str]) -> tuple[Recipe, Materials, Any]:
    """The recipe, its materials, and a fresh state, as `pretrain` makes them."""
    materials = gather_materials(load_recipe(None, settings))
    return materials.recipe, materials, _begin(materials)


def loss_log(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what a clock measured."""
    return [{name: value for name, value in line.items() if name != "seconds"} for line in read_metrics(run)]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@dataclass(frozen=True)
class Kill:
    """Where a run dies: in the save at `step` before that `operation` on the disk, or (0) about `micro_step`."""

    step: int
    micro_step: int = 0
    operation: int = 0
    delay_seconds: float = 0.0  # how far into the micro-step; the end of its step is the latest


def plan_kills(steps: int, *, in_saves: int, in_steps: int, seed: int) -> list[Kill]:
    """Kills at random places, each sure to strike: the places never go back, and no save is struck twice.

    A run that died at one place resumes at or before it, so it comes to the next whatever the clock says.
    """
    chance = random.Random(seed)
    saves = chance.sample(range(INTERVAL, steps, INTERVAL), in_saves)
    kills = [Kill(step, operation=chance.randint(1, SAVE_OPERATIONS)) for step in saves]
    for _ in range(in_steps):
        kills.append(Kill(chance.randrange(steps - 1), chance.randrange(2), delay_seconds=0.004 * chance.random()))
    # The save at a step comes before its micro-steps.
    return sorted(kills, key=lambda kill: (kill.step, kill.operation == 0))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(kill: Kill) -> None:
    """Let this process die where `kill` says."""
    saving, count, dying = -1, 0, False
    save, seed_step, record = loop.save_checkpoint, loop.seed_step, Monitor.record

    def watched_save(state: TrainState, *arguments: Any, **options: Any) -> Path:
        nonlocal saving, count
        saving, count = state.counters.step, 0
        folder = save(state, *arguments, **options)
        saving = -1
        return folder

    def crashing(operation: Callable[..., None]) -> Callable[..., None]:
        def run(*arguments: Any) -> None:
            nonlocal count
            count += 1
            if saving == kill.step and count == kill.operation:
                die()
            operation(*arguments)

        return run

    def watched_seed(seed: int, step: int, micro_step: int, rank: int = 0) -> None:
        nonlocal dying
        if not kill.operation and (step, micro_step) == (kill.step, kill.micro_step):
            dying = True
            threading.Timer(kill.delay_seconds, die).start()
        seed_step(seed, step, micro_step, rank)

    def watched_record(self: Monitor, entry: dict[str, Any]) -> None:
        record(self, entry)
        if dying:
            die()

    loop.save_checkpoint, loop.seed_step = watched_save, watched_seed
    for name in ("write", "sync", "rename", "remove"):
        setattr(Storage, name, crashing(getattr(Storage, name)))
    Monitor.record = watched_record  # type: ignore[method-assign]


def run_alone(settings: list[str], kill: Kill | None, steps_log: str) -> None:
    """What a child does: the run, up to where it is killed."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    record = Monitor.record

    def note(self: Monitor, entry: dict[str, Any]) -> None:
        record(self, entry)
        if "loss" in entry:
            with open(steps_log, "a") as file:
                file.write(f"{os.getpid()} {entry['step']}\n")

    Monitor.record = note  # type: ignore[method-assign]
    if kill is not None:
        arm(kill)
    pretrain(load_recipe(None, settings), quiet=True)


def start_child(settings: list[str], *, kill: Kill | None, steps_log: Path) -> BaseProcess:
    """Start `run_alone` in a process forked from a clean server, which has torch imported and no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.runs", "torch._dynamo"])  # what takes seconds to import
    child = context.Process(target=run_alone, args=(settings, kill, str(steps_log)))
    child.start()
    return child


def kill_often(settings: list[str], run: Path, kills: Sequence[Kill]) -> None:
    """Run to the end through SIGKILLs, every one of which must strike."""
    for kill in [*kills, None]:
        child = start_child(settings, kill=kill, steps_log=run.parent / f"{run.name}.steps")
        child.join()
        assert child.exitcode == (0 if kill is None else -signal.SIGKILL), (kill, child.exitcode)


def redone_steps(steps_log: Path) -> list[int]:
    """By how many steps each process began before where the one before it was killed."""
    found, last, before = [], "", 0
    for line in steps_log.read_text().splitlines():
        process, step = line.split()
        if process != last and last:
            found.append(before + 1 - int(step))
        last, before = process, int(step)
    return found
