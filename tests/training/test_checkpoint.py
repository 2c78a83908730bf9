"""Checkpoints: exact, whole or absent at every crash point (T2, T6), damage is named (T9), one process a run (T31)."""

import errno
import os
import random
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.families import TINY, context_for
from tests.training.runs import Kill, contents, start_child
from trivium.errors import CheckpointError
from trivium.model import Side, build_model
from trivium.training.checkpoint import (
    MANIFEST,
    Counters,
    TrainState,
    list_checkpoints,
    lock_run,
    restore_latest,
    save_checkpoint,
    verify_folder,
)
from trivium.training.optim import OptimizerConfig, build_optimizers
from trivium.training.storage import Storage

MACHINE = {"processor": "one", "torch": "2", "data": "text"}


def make_state(name: str = "qwen3", optimizer: Any = "adamw", *, steps: int = 0) -> TrainState:
    """A tiny model after a few steps."""
    model = build_model(TINY[name], seed=0).train()
    state = TrainState(model, build_optimizers(model, OptimizerConfig(name=optimizer, rate=0.01)))
    for step in range(steps):
        advance(state, step + 1)
    return state


def advance(state: TrainState, step: int) -> None:
    side = Side.from_ids([[5, 6, 7, step % 60], [9, 8]], pad_id=0)
    loss = state.model.head(state.model(side, context_for(state.model.config, side))).square().mean()
    loss.backward()
    for optimizer in state.optimizers:
        optimizer.step()
    state.model.zero_grad()
    state.counters = Counters(step=step, tokens=6 * step, elapsed_seconds=0.1 * step, evaluation={"loss": 1 / 3})


def tensors_of(state: TrainState) -> dict[str, Tensor]:
    found = {name: each.detach() for name, each in state.model.named_parameters()}
    for number, optimizer in enumerate(state.optimizers):
        for index, group in enumerate(optimizer.param_groups):
            for place, parameter in enumerate(group["params"]):
                for key, value in optimizer.state[parameter].items():
                    found[f"{number}.{index}.{place}.{key}"] = value
    return found


def save(state: TrainState, run: Path, **options: Any) -> Path:
    return save_checkpoint(state, run, tokenizer=None, fingerprint=MACHINE, **options)


def equal(one: TrainState, other: TrainState) -> bool:
    mine, theirs = tensors_of(one), tensors_of(other)
    same = all(torch.equal(each, theirs[name]) and each.dtype == theirs[name].dtype for name, each in mine.items())
    return mine.keys() == theirs.keys() and one.counters == other.counters and same


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("name", ["qwen3", "bert", "t5"])
def test_everything_comes_back_bit_for_bit(name: str, optimizer: str, tmp_path: Path) -> None:
    state = make_state(name, optimizer, steps=3)
    save(state, tmp_path)
    restored = make_state(name, optimizer)
    assert restore_latest(restored, tmp_path, MACHINE)
    assert equal(state, restored)
    for each in (state, restored):
        advance(each, 4)
    assert equal(state, restored)


def test_a_new_run_has_nothing_to_restore(tmp_path: Path) -> None:
    assert not restore_latest(make_state(), tmp_path, MACHINE)


def test_older_checkpoints_go(tmp_path: Path) -> None:
    state = make_state()
    for step in range(1, 5):
        advance(state, step)
        save(state, tmp_path, keep_last=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000003", "step-00000004"]


def test_a_checkpoint_is_a_model_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    state = make_state(steps=1)
    folder = save(state, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([[5, 6, 7]])
    side = Side.from_ids(ids.tolist(), pad_id=0)
    torch.testing.assert_close(theirs(ids).logits, state.model.head(state.model.eval()(side)), atol=1e-4, rtol=1e-4)


# T2 and T6


class Recorder(Storage):
    """Before each operation copies the run as a crash would leave it, and what it could lose: unsynced files."""

    def __init__(self, run: Path, crashes: Path, *, honest: bool = True) -> None:
        self.run, self.crashes, self.honest = run, crashes, honest
        self.synced = set(run.rglob("*"))
        self.count = 0

    def _crash(self) -> None:
        self.count += 1
        unsynced = [path.relative_to(self.run) for path in self.run.rglob("*") if path not in self.synced]
        losses: dict[str, Callable[[Path], object]] = {
            "kept": lambda path: None,
            "emptied": lambda path: path.write_bytes(b""),
            "torn": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
            "missing": Path.unlink,
        }
        for loss, lose in losses.items():
            copy = self.crashes / f"{self.count:03d}-{loss}"
            shutil.copytree(self.run, copy)
            for path in unsynced:
                if (copy / path).is_file():
                    lose(copy / path)

    def sync(self, path: Path) -> None:
        self._crash()
        if self.honest:
            self.synced.add(path)

    def rename(self, old: Path, new: Path) -> None:
        self._crash()
        super().rename(old, new)
        self.synced |= {new / path.relative_to(old) for path in self.synced if path.is_relative_to(old)} | {new}

    def remove(self, folder: Path) -> None:
        self._crash()
        super().remove(folder)


def crash_states(tmp_path: Path, *, again: bool = False, honest: bool = True) -> Iterator[tuple[str, TrainState]]:
    """What `restore_latest` makes of each crash point of the save of step 3, or of step 2 `again`."""
    run, crashes = tmp_path / "run", tmp_path / "crashes"
    state = make_state(steps=1)
    save(state, run)
    advance(state, 2)
    save(state, run)
    if not again:
        advance(state, 3)
    recorder = Recorder(run, crashes, honest=honest)
    save(state, run, storage=recorder)
    assert recorder.count > 15
    for copy in [*sorted(crashes.iterdir()), run]:
        found = make_state()
        assert restore_latest(found, copy, MACHINE), copy
        assert not list(copy.rglob("*.tmp"))
        yield copy.name, found


@pytest.mark.parametrize("again", [False, True])
def test_every_crash_point_of_a_save_loads(again: bool, tmp_path: Path) -> None:
    states = {step: make_state(steps=step) for step in (1, 2, 3)}
    seen = []
    for name, found in crash_states(tmp_path, again=again):
        assert equal(found, states[found.counters.step]), name
        seen.append(found.counters.step)
    assert seen == sorted(seen) or again  # once the new one is there, it stays
    assert seen[0] == 2
    assert seen[-1] == (2 if again else 3)
    assert set(seen) <= ({1, 2} if again else {2, 3})


def test_this_test_would_notice_a_save_that_does_not_sync(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="damaged"):
        list(crash_states(tmp_path, honest=False))


class FullDisk(Storage):
    """A disk that is full from operation number `fails_at` on."""

    def __init__(self, fails_at: int) -> None:
        self.left = fails_at

    def _use(self) -> None:
        self.left -= 1
        if self.left <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, path: Path, text: str) -> None:
        self._use()
        super().write(path, text)

    def sync(self, path: Path) -> None:
        self._use()
        super().sync(path)

    def rename(self, old: Path, new: Path) -> None:
        self._use()
        super().rename(old, new)


@pytest.mark.parametrize("fails_at", range(1, 17))
def test_a_full_disk_leaves_a_whole_checkpoint(fails_at: int, tmp_path: Path) -> None:
    state = make_state(steps=1)
    save(state, tmp_path)
    advance(state, 2)
    with pytest.raises(CheckpointError, match=r"No space left.*takes about [\d,]+ bytes and [\d,]+ are free"):
        save(state, tmp_path, storage=FullDisk(fails_at))
    found = make_state()
    assert restore_latest(found, tmp_path, MACHINE)
    assert equal(found, make_state(steps=found.counters.step))


# T9


def flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    place = chance.randrange(len(data))
    data[place] ^= 1 << chance.randrange(8)
    path.write_bytes(bytes(data))


def truncate(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])


def zero(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    places = [place for place, byte in enumerate(data) if byte]
    begin = chance.choice(places)
    data[begin : begin + 512] = bytes(len(data[begin : begin + 512]))
    path.write_bytes(bytes(data))


def take_away(path: Path, _chance: random.Random) -> None:
    path.unlink()


def add(path: Path, _chance: random.Random) -> None:
    path.with_name("extra.safetensors").write_bytes(path.read_bytes())


def swap(path: Path, _chance: random.Random) -> None:
    one, other = path.parent / "config.json", path.parent / "generation_config.json"
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)


DAMAGES = [flip, truncate, zero, take_away, add, swap]


def count_unnoticed(tmp_path: Path, rounds: int) -> int:
    """Damage a copy of a checkpoint in each way, each time another file; how often loading did not notice."""
    chance, unnoticed = random.Random(0), 0
    good = save(make_state(steps=1), tmp_path / "good")
    names = sorted(contents(good))
    for number in range(rounds):
        damage, name = DAMAGES[number % len(DAMAGES)], chance.choice(names)
        folder = tmp_path / f"copy{number}"
        shutil.copytree(good, folder)
        damage(folder / ("config.json" if damage is swap else name), chance)
        try:
            verify_folder(folder)
            unnoticed += 1
        except CheckpointError as error:
            damaged = "onfig.json" if damage is swap else "extra.safetensors" if damage is add else Path(name).name
            assert damaged in str(error), (damage, name, str(error))
        shutil.rmtree(folder)
    return unnoticed


def test_damage_is_noticed_and_named(tmp_path: Path) -> None:
    assert count_unnoticed(tmp_path, 120) == 0


@pytest.mark.torture
def test_damage_is_noticed_and_named_2000_times(tmp_path: Path) -> None:
    assert count_unnoticed(tmp_path, 2000) == 0


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    state = make_state(steps=1)
    save(state, tmp_path)
    advance(state, 2)
    flip(save(state, tmp_path) / "model.safetensors", random.Random(1))
    found = make_state()
    with pytest.warns(UserWarning, match=r"step-00000002/model.safetensors has changed since it was written"):
        assert restore_latest(found, tmp_path, MACHINE)
    assert equal(found, make_state(steps=1))


@pytest.mark.parametrize("keep_last", [1, 2, 3])
def test_a_damaged_newer_checkpoint_does_not_count_as_kept(keep_last: int, tmp_path: Path) -> None:
    state = make_state(steps=1)
    save(state, tmp_path)
    advance(state, 10)
    flip(save(state, tmp_path) / "model.safetensors", random.Random(1))
    found = make_state()
    with pytest.warns(UserWarning, match="step-00000010"):
        assert restore_latest(found, tmp_path, MACHINE)
    advance(found, 5)  # as a signal or a token budget would save it, before step 10 comes again
    save(found, tmp_path, keep_last=keep_last)
    again = make_state()
    with pytest.warns(UserWarning, match="step-00000010"):
        assert restore_latest(again, tmp_path, MACHINE)
    assert equal(again, found)


@pytest.mark.parametrize("keep_last", [1, 2, 4, 9])
def test_as_many_are_kept_as_was_asked(keep_last: int, tmp_path: Path) -> None:
    state = make_state()
    for step in range(1, 6):
        advance(state, step)
        save(state, tmp_path, keep_last=keep_last)
        assert [int(path.name[5:]) for path in list_checkpoints(tmp_path)] == list(range(1, step + 1))[-keep_last:]


def test_all_damaged_is_an_error(tmp_path: Path) -> None:
    (save(make_state(steps=1), tmp_path) / MANIFEST).unlink()
    with (
        pytest.warns(UserWarning, match="MANIFEST.json is missing or damaged"),
        pytest.raises(CheckpointError, match=r"every checkpoint of .* is damaged; .*--restart"),
    ):
        restore_latest(make_state(), tmp_path, MACHINE)


# T30 and T31


def test_another_machine_is_a_warning(tmp_path: Path) -> None:
    save(make_state(steps=1), tmp_path)
    with pytest.warns(UserWarning, match="another machine .processor: one → two.: same samples, but not the same bits"):
        assert restore_latest(make_state(), tmp_path, {**MACHINE, "processor": "two"})


def test_other_data_are_an_error(tmp_path: Path) -> None:
    save(make_state(steps=1), tmp_path)
    with pytest.raises(CheckpointError, match="other data"):
        restore_latest(make_state(), tmp_path, {**MACHINE, "data": "another text"})


def test_another_model_is_an_error(tmp_path: Path) -> None:
    save(make_state(steps=1), tmp_path)
    with pytest.raises(CheckpointError, match="another model"):
        restore_latest(make_state("llama"), tmp_path, MACHINE)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with lock_run(tmp_path):
        holder = f"in use by pid {os.getpid()} on {socket.gethostname()}"
        with pytest.raises(CheckpointError, match=holder), lock_run(tmp_path):
            pass


def test_a_stale_lock_is_no_obstacle(text: Path, tmp_path: Path) -> None:
    from tests.training.runs import settings_for

    run = tmp_path / "run"
    child = start_child(settings_for("decoder", run, text), kill=Kill(3), steps_log=tmp_path / "steps")
    child.join()
    assert f"pid {child.pid}" in (run / "lock").read_text()
    with lock_run(run):
        assert f"pid {os.getpid()}" in (run / "lock").read_text()
