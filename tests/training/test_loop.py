"""The loop: one batch is learned by heart, budgets and marks are kept, updates that are not finite are skipped."""

import dataclasses
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from tests.data.rows import SIZE, VOCABULARY
from tests.families import TINY
from tests.training.test_golden import make_tokens
from trivium.data.batch import Batch
from trivium.data.loader import Loader
from trivium.errors import CheckpointError
from trivium.model import build_model
from trivium.training.checkpoint import Counters, TrainState
from trivium.training.course import Materials
from trivium.training.loop import clip_gradients, is_due, measure_progress, seed_step, train
from trivium.training.monitor import Monitor, read_metrics
from trivium.training.optim import OptimizerConfig, build_optimizers
from trivium.training.recipe import BudgetConfig, Recipe, SaveConfig, choose_objective
from trivium.training.schedule import ScheduleConfig

MODELS = {"decoder": "qwen3", "encoder": "bert", "encoder_decoder": "t5"}


class OneBatch(Loader):
    """Always the first batch."""

    def batch_at(self, step: int, micro_step: int = 0) -> Batch:
        return super().batch_at(0, micro_step)


def make_run(
    run: Path,
    family: str = "decoder",
    *,
    kind: type[Loader] = Loader,
    compute_dtype: torch.dtype = torch.float32,
    optimizer: OptimizerConfig | None = None,
    **changes: Any,
) -> tuple[TrainState, Materials]:
    optimizer = optimizer or OptimizerConfig(rate=5e-3)
    model = build_model(dataclasses.replace(TINY[MODELS[family]], vocab_size=SIZE), seed=1)
    settings = {"save": SaveConfig(every_steps=0, evaluate_at=()), **changes}
    recipe = Recipe(family=family, run=str(run), optimizer=optimizer, **settings)  # type: ignore[arg-type]
    loader = kind(
        make_tokens(), VOCABULARY, objective=choose_objective(recipe), seq_len=32, rows_per_batch=4, micro_rows=2
    )
    materials = Materials(
        recipe=recipe,
        train=loader,
        valid=loader,
        bytes_per_token=1.0,
        tokenizer=cast(Any, None),
        fingerprint={},
        compute_dtype=compute_dtype,
    )
    return TrainState(model, build_optimizers(model, optimizer)), materials


def go(state: TrainState, materials: Materials, **options: Any) -> list[dict[str, Any]]:
    """Train and give the log."""
    run = Path(materials.recipe.run)
    run.mkdir(exist_ok=True)
    with Monitor(run, name="test", quiet=True) as monitor:
        train(state, materials, monitor, **options)
    return read_metrics(run)


def losses(log: list[dict[str, Any]]) -> list[float]:
    return [line["loss"] for line in log if "loss" in line]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("family", MODELS)
def test_one_batch_is_learned_by_heart(family: str, optimizer: Any, tmp_path: Path) -> None:
    config = OptimizerConfig(name=optimizer, rate=1e-2)
    state, materials = make_run(
        tmp_path / "run", family, kind=OneBatch, optimizer=config, budget=BudgetConfig(steps=100)
    )
    found = losses(go(state, materials))
    assert found[-1] < 0.2 * found[0]


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # of RMSNorm; it is computed all the same
def test_mixed_precision_trains_too(tmp_path: Path) -> None:
    budget = BudgetConfig(steps=12)
    plain = losses(go(*make_run(tmp_path / "plain", budget=budget)))
    mixed = losses(go(*make_run(tmp_path / "mixed", budget=budget, compute_dtype=torch.bfloat16)))
    assert mixed != plain
    assert mixed == pytest.approx(plain, rel=2e-2)


def test_checkpointed_activations_change_no_bit(tmp_path: Path) -> None:
    logs = []
    for checkpointed in (False, True):
        state, materials = make_run(tmp_path / str(checkpointed), "encoder_decoder", budget=BudgetConfig(steps=3))
        for module in state.model.modules():
            if hasattr(module, "dropout"):
                setattr(module, "dropout", 0.2)  # noqa: B010
        state.model.set_checkpointing(checkpointed)
        logs.append(losses(go(state, materials)))
    assert logs[0] == logs[1]


def test_a_step_is_seeded_by_its_place_alone() -> None:
    draws = {}
    for place in [(0, 0, 0), (0, 1, 0), (1, 0, 0), (0, 0, 1)]:
        seed_step(*place)
        draws[place] = float(torch.rand(()))
    assert len(set(draws.values())) == 4
    seed_step(0, 1, 0)
    assert float(torch.rand(())) == draws[0, 1, 0]


def test_clipping_is_to_the_norm() -> None:
    model = torch.nn.Linear(3, 1)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    assert clip_gradients(model, 1.0) == pytest.approx(6.0)
    assert clip_gradients(model, 0.0) == pytest.approx(1.0, rel=1e-5)


def test_progress_is_the_share_of_each_kind_of_budget(tmp_path: Path) -> None:
    counters = Counters(step=5, tokens=640, elapsed_seconds=30.0)
    _, materials = make_run(tmp_path / "run", budget=BudgetConfig(steps=1))
    budgets = {
        BudgetConfig(steps=20): 0.25,
        BudgetConfig(tokens=1280): 0.5,
        BudgetConfig(minutes=2): 0.25,
        BudgetConfig(epochs=2): 5 / (2 * materials.train.steps_per_epoch),
    }
    for budget, share in budgets.items():
        course = replace(materials, recipe=replace(materials.recipe, budget=budget))
        assert measure_progress(course, counters) == share


@pytest.mark.parametrize("budget", [BudgetConfig(steps=8), BudgetConfig(tokens=8 * 4 * 32)])
def test_a_budget_is_kept_to_the_step(budget: BudgetConfig, tmp_path: Path) -> None:
    state, materials = make_run(tmp_path / "run", budget=budget)
    assert len(losses(go(state, materials))) == state.counters.step == 8


def test_minutes_count_training_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def tick() -> float:
        clock[0] += 0.5
        return clock[0]

    def slow_sample(_model: object, _progress: float) -> list[str]:
        clock[0] += 1000.0
        return []

    monkeypatch.setattr("time.perf_counter", tick)
    state, materials = make_run(
        tmp_path / "run", budget=BudgetConfig(minutes=0.1), save=SaveConfig(every_steps=0, evaluate_at=(0.5,))
    )
    go(state, materials, on_evaluate=slow_sample)
    assert state.counters.step == 12  # of half a second each, by that clock
    assert state.counters.elapsed_seconds == 6.0


def test_when_to_evaluate() -> None:
    save = SaveConfig(evaluate_every_steps=10, evaluate_at=(0.3, 0.6))
    assert is_due(save, Counters(step=0), 0.0)
    assert not is_due(save, Counters(step=0, evaluated_step=0), 0.0)
    assert not is_due(save, Counters(step=7), 0.07)
    assert is_due(save, Counters(step=10), 0.1)
    assert is_due(save, Counters(step=31), 0.31)
    assert not is_due(save, Counters(step=32, marks_passed=1), 0.32)
    assert is_due(save, Counters(step=32, marks_passed=1), 0.6)
    assert is_due(save, Counters(step=99, marks_passed=2), 1.0)


def test_evaluations_and_samples_are_logged(tmp_path: Path) -> None:
    state, materials = make_run(
        tmp_path / "run", budget=BudgetConfig(steps=9), save=SaveConfig(every_steps=0, evaluate_at=(1 / 3, 2 / 3))
    )
    log = go(state, materials, on_evaluate=lambda _model, progress: [f"at {progress:.2f}"])
    found = [(line["step"], line["samples"]) for line in log if "valid" in line]
    assert found == [(0, ["at 0.00"]), (3, ["at 0.33"]), (6, ["at 0.67"]), (9, ["at 1.00"])]
    assert state.counters.evaluation == log[-1]["valid"]
    assert state.counters.loss_before == log[0]["valid"]["loss"]


class SomeNaN(Loader):
    """Steps 3 and 4 have a target that counts as not a number."""

    def batch_at(self, step: int, micro_step: int = 0) -> Batch:
        batch = super().batch_at(step, micro_step)
        if step in (3, 4):
            batch.weights[0, 0] = math.nan
        return batch


class AllNaN(Loader):
    """Nothing but that."""

    def batch_at(self, step: int, micro_step: int = 0) -> Batch:
        batch = super().batch_at(step, micro_step)
        batch.weights[0, 0] = math.nan
        return batch


def test_an_update_that_is_not_finite_is_skipped(tmp_path: Path) -> None:
    state, materials = make_run(tmp_path / "run", kind=SomeNaN, budget=BudgetConfig(steps=8))
    log = go(state, materials)
    assert [line["step"] for line in log if line.get("skipped")] == [4, 5]
    assert all(math.isfinite(each) for each in losses(log) if each is not None)
    assert all(bool(parameter.isfinite().all()) for parameter in state.model.parameters())
    moments = [slots["step"] for slots in state.optimizers[0].state.values()]
    assert {float(each) for each in moments} == {6.0}  # untouched by the two that were skipped


def test_ten_such_in_a_row_end_the_run(tmp_path: Path) -> None:
    state, materials = make_run(tmp_path / "run", kind=AllNaN, budget=BudgetConfig(steps=50))
    with pytest.raises(CheckpointError, match="10 updates in a row were not finite, the last at step 10"):
        go(state, materials)


def test_the_rate_follows_the_schedule(tmp_path: Path) -> None:
    schedule = ScheduleConfig(name="linear", warmup=0.0)
    state, materials = make_run(tmp_path / "run", budget=BudgetConfig(steps=4), schedule=schedule)
    log = go(state, materials)
    assert [line["rate"] for line in log if "rate" in line] == [5e-3 * share for share in (1.0, 0.75, 0.5, 0.25)]
    assert {group["lr"] for group in state.optimizers[0].param_groups} == {0.25 * 5e-3}
