"""T1, T7, T30: a run that is killed, told to stop, or moved ends as if it had never been interrupted."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.training.runs import (
    INTERVAL,
    STEPS,
    Kill,
    contents,
    kill_often,
    loss_log,
    plan_kills,
    redone_steps,
    settings_for,
)
from trivium.data.batch import Batch
from trivium.data.loader import Loader
from trivium.machine import compute_fingerprint
from trivium.training import Recipe, load_recipe, pretrain, pretraining
from trivium.training.loop import catch_signals
from trivium.training.monitor import read_metrics

RUNS = {
    "decoder": ["size.unigram_start=true"],
    "encoder": ["size.checkpoint_activations=true"],
    "encoder_decoder": ["optimizer.name=muon"],
}


def compare(killed: Path, reference: Path, steps: int) -> None:
    """Weights, optimizer state, counters and log are those of the reference, bit for bit; nothing else is left."""
    places = [Path("final"), Path("checkpoints") / f"step-{steps:08d}"]
    for place in places:
        mine, theirs = contents(killed / place), contents(reference / place)
        assert mine.keys() == theirs.keys()
        for name in ("model.safetensors", "state/optimizer.safetensors", "tokenizer.json"):
            assert mine.get(name) == theirs.get(name), f"{place / name} differs"
    states = [json.loads((run / places[1] / "state" / "state.json").read_text()) for run in (killed, reference)]
    assert states[0].pop("elapsed_seconds") > 0 < states[1].pop("elapsed_seconds")
    assert states[0] == states[1]
    assert loss_log(killed) == loss_log(reference)
    assert not list(killed.rglob("*.tmp"))


def torture(family: str, text: Path, folder: Path, kills: list[Kill], *, more: list[str], steps: int) -> None:
    """Compare a run that is killed with one that is not."""
    more = [*more, f"budget.steps={steps}"]
    reference, killed = folder / "reference", folder / "killed"
    kill_often(settings_for(family, reference, text, *more), reference, [])
    kill_often(settings_for(family, killed, text, *more), killed, kills)
    compare(killed, reference, steps)
    assert all(0 <= redone <= INTERVAL for redone in redone_steps(folder / "killed.steps"))


@pytest.mark.parametrize(("family", "in_steps"), [("decoder", 8), ("encoder", 2), ("encoder_decoder", 8)])
def test_killed_anywhere_resumes_exactly(family: str, in_steps: int, text: Path, tmp_path: Path) -> None:
    kills = plan_kills(STEPS, in_saves=4, in_steps=in_steps, seed=len(family))
    torture(family, text, tmp_path, kills, more=RUNS[family], steps=STEPS)


@pytest.mark.torture
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("family", RUNS)
def test_killed_200_times(family: str, optimizer: str, text: Path, tmp_path: Path) -> None:
    more = [*RUNS[family], f"optimizer.name={optimizer}"]
    kills = plan_kills(400, in_saves=10, in_steps=26, seed=len(family))
    torture(family, text, tmp_path, kills, more=more, steps=400)


@pytest.fixture(scope="module")
def straight(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody interrupted."""
    run = tmp_path_factory.mktemp("straight") / "run"
    pretrain(load_recipe(None, settings_for("decoder", run, text)), quiet=True)
    return run


SIGNALS = {signal.SIGTERM: 143, signal.SIGUSR1: 75, signal.SIGINT: 130}


def stop_at(step: int, number: signal.Signals, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> object:
    """Run until the signal comes while `step` (from 0) loads its batch; the code of the exit."""
    batch_at = Loader.batch_at

    def load_and_signal(self: Loader, at: int, micro_step: int = 0) -> Batch:
        if (at, micro_step) == (step, 0):
            os.kill(os.getpid(), number)
        return batch_at(self, at, micro_step)

    with monkeypatch.context() as patch:
        patch.setattr(Loader, "batch_at", load_and_signal)
        with pytest.raises(SystemExit) as stopped:
            pretrain(recipe, quiet=True)
    return stopped.value.code


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_step_and_saves(
    number: signal.Signals, text: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(None, settings_for("decoder", tmp_path / "run", text))
    before = {each: signal.getsignal(each) for each in SIGNALS}
    assert stop_at(7, number, recipe, monkeypatch) == SIGNALS[number]
    assert {each: signal.getsignal(each) for each in SIGNALS} == before
    assert [line["step"] for line in read_metrics(recipe.run) if "loss" in line] == list(range(1, 9))
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())[-1] == "step-00000008"
    pretrain(recipe, quiet=True)
    compare(tmp_path / "run", straight, STEPS)


def test_a_signal_during_evaluation_takes_no_further_step(text: Path, tmp_path: Path) -> None:
    recipe = load_recipe(None, settings_for("decoder", tmp_path / "run", text, "save.evaluate_every_steps=3"))

    def stop(_model: object, progress: float) -> list[str]:
        if progress > 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return ["a sample"]

    with pytest.raises(SystemExit, match="143"):
        pretrain(recipe, quiet=True, on_evaluate=stop)
    assert [line["step"] for line in read_metrics(recipe.run)] == [0, 1, 2, 3, 3]
    with pytest.raises(SystemExit):
        pretrain(recipe, quiet=True, on_evaluate=stop)
    assert [line["step"] for line in read_metrics(recipe.run)] == [0, 1, 2, 3, 3, 4, 5, 6, 6]


def interrupt_twice() -> None:
    with catch_signals() as interruption:
        signal.raise_signal(signal.SIGINT)
        assert interruption.code == 130
        signal.raise_signal(signal.SIGINT)


def test_asked_twice_it_stops_at_once() -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupt_twice()


def test_a_busy_machine_goes_on_with_the_dtype_that_it_began_with(
    text: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """Timed beside other work, the same processor may call the other dtype the faster one."""
    recipe = load_recipe(None, settings_for("decoder", tmp_path / "run", text))
    stop_at(7, signal.SIGTERM, recipe, monkeypatch)
    own = compute_fingerprint()
    other = {"float32": "bfloat16", "bfloat16": "float32"}[own["compute_dtype"]]
    monkeypatch.setattr(pretraining, "compute_fingerprint", lambda: {**own, "compute_dtype": other})
    pretrain(recipe, quiet=True)
    assert not [each for each in recwarn if "another machine" in str(each.message)]
    compare(tmp_path / "run", straight, STEPS)


def test_another_machine_takes_the_same_samples(
    text: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(None, settings_for("decoder", tmp_path / "run", text))
    stop_at(7, signal.SIGTERM, recipe, monkeypatch)
    monkeypatch.setattr(pretraining, "compute_fingerprint", lambda: {**compute_fingerprint(), "threads": "64"})
    with pytest.warns(UserWarning, match="another machine .threads: .* → 64.: same samples"):
        pretrain(recipe, quiet=True)
    found, expected = (
        [line["loss"] for line in loss_log(run) if "loss" in line] for run in (Path(recipe.run), straight)
    )
    assert found == pytest.approx(expected, rel=1e-3)
