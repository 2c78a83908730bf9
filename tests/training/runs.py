"""Tiny runs for the tests of training: text, recipes, and a child process that runs one and may be killed."""

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from trivium.training.loop import Materials
from trivium.training.monitor import Monitor, read_metrics
from trivium.training.pretraining import _begin, gather_materials, pretrain
from trivium.training.recipe import Recipe, load_recipe
from trivium.training.storage import Storage

WORDS = ("the", "cat", "sat", "on", "a", "mat", "while", "grey", "dogs", "run", "far", "into", "green", "fields", "of")
FAMILIES = ("decoder", "encoder", "encoder_decoder")
STEPS, INTERVAL = 24, 5


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


def run_alone(settings: list[str], crash_at: int, steps_log: str) -> None:
    """What a child does: the run, ended by SIGKILL before disk operation number `crash_at` (0: never)."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    done = 0

    def crashing(operation: Callable[..., None]) -> Callable[..., None]:
        def run(*arguments: Any) -> None:
            nonlocal done
            done += 1
            if done == crash_at:
                os.kill(os.getpid(), signal.SIGKILL)
            operation(*arguments)

        return run

    for name in ("write", "sync", "rename", "remove"):
        setattr(Storage, name, crashing(getattr(Storage, name)))
    record = Monitor.record

    def note(self: Monitor, entry: dict[str, Any]) -> None:
        record(self, entry)
        if "loss" in entry:
            with open(steps_log, "a") as file:
                file.write(f"{os.getpid()} {entry['step']}\n")

    Monitor.record = note  # type: ignore[method-assign]
    pretrain(load_recipe(None, settings), quiet=True)


def start_child(settings: list[str], *, crash_at: int, steps_log: Path) -> BaseProcess:
    """Start `run_alone` in a process forked from a clean server, which has torch imported and no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.runs", "torch._dynamo"])  # what takes seconds to import
    child = context.Process(target=run_alone, args=(settings, crash_at, str(steps_log)))
    child.start()
    return child


def kill_often(settings: list[str], run: Path, *, kills: dict[str, int], stride: int, seed: int) -> int:
    """Run to the end through SIGKILLs; the number of those that struck a live process.

    `kills` counts those in a save, after some steps (about `stride`), and at any time of a start.
    """
    chance, steps_log = random.Random(seed), run.parent / f"{run.name}.steps"
    kinds = [kind for kind, count in kills.items() for _ in range(count)]
    chance.shuffle(kinds)
    struck = 0
    for kind in [*kinds, "never"]:
        crash_at = chance.randint(1, 4 * stride) if kind == "save" else 0
        enough = count_lines(steps_log) + chance.randint(1, stride)
        child = start_child(settings, crash_at=crash_at, steps_log=steps_log)
        if kind == "step":
            while child.is_alive() and count_lines(steps_log) < enough:
                time.sleep(0.002)
            time.sleep(0.05 * chance.random())
        elif kind == "start":
            child.join(1.5 * chance.random())
        if kind in ("step", "start"):
            child.kill()
        child.join()
        assert child.exitcode in ((0,) if kind == "never" else (0, -signal.SIGKILL)), (kind, child.exitcode)
        struck += child.exitcode != 0
    return struck


def count_lines(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def redone_steps(steps_log: Path) -> list[int]:
    """By how many steps each process began before where the one before it was killed."""
    found, last, before = [], "", 0
    for line in steps_log.read_text().splitlines():
        process, step = line.split()
        if process != last and last:
            found.append(before + 1 - int(step))
        last, before = process, int(step)
    return found
