"""T8: 60 steps of each family, float64, against stored losses and gradient norms.

After an intended change of the mathematics: `python -m tests.training.test_golden` writes new curves.
"""

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from tests.data.rows import SIZE, VOCABULARY
from tests.families import TINY
from trivium.data.loader import Loader
from trivium.evaluation.run import TokenArray
from trivium.model import build_model
from trivium.training.checkpoint import TrainState
from trivium.training.course import Materials
from trivium.training.loop import train
from trivium.training.monitor import Monitor, read_metrics
from trivium.training.optim import OptimizerConfig, build_optimizers
from trivium.training.recipe import BudgetConfig, Recipe, SaveConfig, choose_objective

FOLDER = Path(__file__).parents[1] / "golden"
STEPS = 60
RUNS: dict[str, tuple[str, OptimizerConfig]] = {
    "decoder": ("qwen3", OptimizerConfig(rate=4e-3)),
    "encoder": ("bert", OptimizerConfig(rate=3e-3)),
    "encoder_decoder": ("t5", OptimizerConfig(name="muon", rate=3e-3)),
}


def make_tokens(count: int = 4000) -> TokenArray:
    """Documents of 5 to 40 tokens with some order in them, by integer arithmetic alone."""
    ids: list[int] = []
    chance, ends = 1, [0]
    ordinary = np.flatnonzero(VOCABULARY.ordinary).tolist()
    while len(ids) < count:
        chance = (chance * 1103515245 + 12345) % 2**31
        start, length, stride = chance % len(ordinary), 5 + (chance >> 8) % 36, 1 + (chance >> 16) % 3
        ids += [*(ordinary[(start + stride * place) % len(ordinary)] for place in range(length)), VOCABULARY.end_id]
        ends.append(len(ids))
    return TokenArray(np.array(ids, dtype=np.int64), np.array(ends, dtype=np.int64))


def run_curve(family: str, run: Path) -> dict[str, list[float]]:
    """Loss and gradient norm of each step."""
    name, optimizer = RUNS[family]
    model = build_model(dataclasses.replace(TINY[name], vocab_size=SIZE), seed=3, dtype=torch.float64)
    save, budget = SaveConfig(every_steps=0, evaluate_at=()), BudgetConfig(steps=STEPS)
    recipe = Recipe(family=family, run=str(run), seed=7, optimizer=optimizer, save=save, budget=budget)  # type: ignore[arg-type]
    loader = Loader(
        make_tokens(),
        VOCABULARY,
        objective=choose_objective(recipe),
        seq_len=32,
        rows_per_batch=4,
        micro_rows=3,
        seed=7,
    )
    materials = Materials(
        recipe=recipe, train=loader, valid=loader, bytes_per_token=1.0, tokenizer=cast(Any, None), fingerprint={}
    )
    state = TrainState(model, build_optimizers(model, optimizer, compute_dtype=torch.float64))
    run.mkdir(exist_ok=True)
    with Monitor(run, name=family, quiet=True) as monitor:
        train(state, materials, monitor)
    lines = [line for line in read_metrics(run) if "loss" in line]
    return {key: [line[key] for line in lines] for key in ("loss", "gradient_norm")}


@pytest.mark.parametrize("family", RUNS)
def test_the_curve_is_the_stored_one(family: str, tmp_path: Path) -> None:
    stored = json.loads((FOLDER / f"{family}.json").read_text())
    assert stored.pop("schema") == 1
    found = run_curve(family, tmp_path / "run")
    assert len(found["loss"]) == STEPS
    for key, values in stored.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-9, err_msg=f"{family} {key}")
    assert found["loss"][-1] < 0.97 * found["loss"][0]


def write_curves() -> None:
    """Store the curves of the code as it is."""
    FOLDER.mkdir(exist_ok=True)
    for family in RUNS:
        with tempfile.TemporaryDirectory() as folder:
            curve = run_curve(family, Path(folder) / "run")
        (FOLDER / f"{family}.json").write_text(json.dumps({"schema": 1, **curve}, indent=1) + "\n")


if __name__ == "__main__":
    write_curves()
