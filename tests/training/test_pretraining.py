"""Recipes, and whole runs of `pretrain` with their folder."""

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from tests.training.runs import FAMILIES, STEPS, begin, contents, settings_for
from trivium.errors import ConfigError
from trivium.evaluation.likelihood import evaluate_loss
from trivium.hub.auto import load
from trivium.model import ModelConfig
from trivium.training import PretrainResult, Recipe, load_recipe, pretrain
from trivium.training.monitor import read_metrics
from trivium.training.pretraining import count_targets, gather_materials
from trivium.training.recipe import BudgetConfig, choose_rate, find_change, resolve_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("[!fs]*.yaml"))  # others: test_docs.py, test_starter.py


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_project_loads(path: Path) -> None:
    recipe = load_recipe(path, ["budget={steps: 5}"])
    assert recipe.family == path.stem or path.stem.startswith("starter_")
    assert recipe.budget == BudgetConfig(steps=5)


def test_there_is_a_recipe_for_each_family() -> None:
    assert {path.stem for path in RECIPES} >= set(FAMILIES)


def test_a_recipe_is_three_levels_deep_at_most() -> None:
    def depth(cls: object) -> int:
        if not dataclasses.is_dataclass(cls):
            return 0
        inner = (getattr(each.type, "__args__", (each.type,)) for each in dataclasses.fields(cls))
        return 1 + max(depth(kind) for kinds in inner for kind in kinds)

    assert depth(Recipe) <= 3


def test_the_dial_sets_depth_and_rate() -> None:
    small, large = (load_recipe(None, [f"size.width={width}"]) for width in (128, 512))
    assert (small.size.num_layers, large.size.num_layers) == (3, 12)
    assert choose_rate(small) == 2 * choose_rate(large) == 3e-3
    assert choose_rate(load_recipe(None, ["optimizer.rate=0.5"])) == 0.5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("size.width=100", "no multiple of head_size"),
        ("budget={minutes: 1, steps: 2}", "expected exactly one"),
        ("size.widht=64", "did you mean size.width"),
        ("family=reader", "family is 'reader'"),
    ],
)
def test_impossible_recipes_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(None, [override])


def test_a_resolved_recipe_leaves_nothing_to_choose() -> None:
    resolved = resolve_recipe(Recipe())
    assert resolved.size.layers == 3
    assert resolved.optimizer.rate == 3e-3
    assert resolved.objective is not None
    assert resolve_recipe(resolved) == resolved
    assert find_change(resolved, resolve_recipe(Recipe(seed=1))) == "seed: 0 → 1"
    assert find_change(resolved, resolve_recipe(Recipe(run="elsewhere", budget=BudgetConfig(steps=9)))) is None


@pytest.fixture(scope="module", params=FAMILIES)
def finished(request: pytest.FixtureRequest, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that came to its end."""
    run: Path = tmp_path_factory.mktemp("finished") / request.param
    pretrain(load_recipe(None, settings_for(request.param, run, text)), quiet=True, on_evaluate=lambda *_: ["<sample>"])
    return run


def test_a_run_folder_is_whole(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names == {"checkpoints", "config.yaml", "final", "lock", "metrics.jsonl", "report.html", "result.json"}
    result = PretrainResult(**json.loads((finished / "result.json").read_text()))
    assert result.steps == STEPS
    assert result.loss_after < result.loss_before
    assert result.tokens > 0
    assert load_recipe(finished / "config.yaml") == resolve_recipe(load_recipe(finished / "config.yaml"))
    assert "&lt;sample&gt;" in (finished / "report.html").read_text()
    assert "held-out loss" in (finished / "final" / "README.md").read_text()


def test_the_final_folder_opens_and_scores_as_the_run_said(finished: Path) -> None:
    recipe = load_recipe(finished / "config.yaml")
    model, tokenizer = load(finished / "final")
    assert model.config.vocab_size >= tokenizer.vocab_size
    materials = gather_materials(recipe)
    report = evaluate_loss(model, materials.valid.valid_batches(recipe.data.valid_rows), bytes_per_token=1.0)
    result = json.loads((finished / "result.json").read_text())
    assert report.loss == pytest.approx(result["loss_after"], rel=1e-6)


def test_the_same_call_gives_the_same_result_at_once(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trivium.training.pretraining.gather_materials", lambda *_: pytest.fail("it trained again"))
    recipe = load_recipe(finished / "config.yaml")
    assert pretrain(recipe).loss_after == json.loads((finished / "result.json").read_text())["loss_after"]


def test_another_model_in_the_same_folder_is_refused(finished: Path) -> None:
    recipe = load_recipe(finished / "config.yaml", ["size.width=64"])
    with pytest.raises(ConfigError, match=r"size.width: 32 → 64\); expected the same recipe; use --restart"):
        pretrain(recipe)


def test_a_larger_budget_goes_on(text: Path, tmp_path: Path) -> None:
    settings = settings_for("decoder", tmp_path / "run", text)
    first = pretrain(load_recipe(None, [*settings, "budget.steps=6"]), quiet=True)
    second = pretrain(load_recipe(None, [*settings, "budget.steps=9"]), quiet=True)
    assert (first.steps, second.steps) == (6, 9)
    assert [line["step"] for line in read_metrics(tmp_path / "run") if "loss" in line] == list(range(1, 10))
    assert second.loss_before == first.loss_before


def test_an_interrupted_larger_budget_is_not_taken_for_finished(text: Path, tmp_path: Path) -> None:
    def settings(steps: int) -> Recipe:
        more = (f"budget.steps={steps}", "save.evaluate_every_steps=3")
        return load_recipe(None, settings_for("decoder", tmp_path / "run", text, *more))

    def stop(_model: object, progress: float) -> list[str]:
        if 0.55 < progress < 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return []

    assert pretrain(settings(10), quiet=True).steps == 10
    with pytest.raises(SystemExit, match="143"):
        pretrain(settings(20), quiet=True, on_evaluate=stop)
    assert pretrain(settings(20), quiet=True).steps == 20


def test_restart_begins_again(text: Path, tmp_path: Path) -> None:
    settings = settings_for("decoder", tmp_path / "run", text, "budget.steps=6")
    recipe = load_recipe(None, settings)
    pretrain(recipe, quiet=True)
    before = contents(tmp_path / "run" / "final")
    (tmp_path / "run" / "mine.txt").write_text("kept")
    assert pretrain(recipe, restart=True, quiet=True).steps == 6
    assert contents(tmp_path / "run" / "final")["model.safetensors"] == before["model.safetensors"]
    assert (tmp_path / "run" / "mine.txt").exists()
    other = load_recipe(None, [*settings, "size.width=16"])
    assert pretrain(other, restart=True, quiet=True).steps == 6


def test_damage_to_the_newest_checkpoint_costs_one_interval(text: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    recipe = load_recipe(None, settings_for("decoder", run, text, "budget.steps=12"))
    pretrain(recipe, quiet=True)
    reference = contents(run / "final")["model.safetensors"]
    (run / "result.json").unlink()
    shutil.rmtree(run / "final")
    weights = run / "checkpoints" / "step-00000012" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="step-00000012/model.safetensors is missing or has another size"):
        pretrain(recipe, quiet=True)
    assert contents(run / "final")["model.safetensors"] == reference
    assert [line["step"] for line in read_metrics(run) if "loss" in line] == list(range(1, 13))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_untrained_model_predicts_frequencies(family: str, text: Path, tmp_path: Path) -> None:
    settings = settings_for(family, tmp_path / "run", text, "size.unigram_start=true", "size.width=64")
    _, materials, state = begin(settings)
    config: ModelConfig = state.model.config
    frequencies = count_targets(materials.train, config.vocab_size)
    batch = materials.train.batch_at(0)
    learned = batch.weights > 0
    with torch.no_grad():
        logits = state.model.eval().head(state.model(batch.inputs, batch.context))[learned]
    mean = torch.nn.functional.cross_entropy(logits, batch.targets[learned])
    expected = -frequencies[batch.targets[learned]].mean()
    # An encoder's tied head adds noise of variance one to the scores, which costs it half a nat.
    tolerance = 0.7 if family == "encoder" else 0.1 * float(expected)
    assert float(mean) == pytest.approx(float(expected), abs=tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_goes_on_from_a_folder(family: str, text: Path, tmp_path: Path) -> None:
    first = pretrain(load_recipe(None, settings_for(family, tmp_path / "one", text)), quiet=True)
    data = [f"data.source={text}", "data.seq_len=32", "data.rows_per_batch=4", "data.valid_rows=4"]
    settings = [f"family={family}", *data, "budget={steps: 4}"]
    recipe = load_recipe(None, [*settings, f"model={first.folder}", f"run={tmp_path / 'two'}"])
    second = pretrain(recipe, quiet=True)
    assert second.parameters == first.parameters
    assert second.loss_before == pytest.approx(first.loss_after, abs=0.3) and second.loss_before < first.loss_before
    before, after = (load(result.folder)[0].state_dict() for result in (first, second))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert load(first.folder)[1].encode("return the value") == load(second.folder)[1].encode("return the value")
    other = "encoder" if family == "decoder" else "decoder"
    wrong = dataclasses.replace(recipe, family=other, run=str(tmp_path / "wrong"))
    with pytest.raises(ConfigError, match=f"is of family {family}"):
        pretrain(wrong, quiet=True)
