"""A finished run becomes a starter: 16-bit weights, equal answers, a card with data, commands, curve and scores."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.runs import settings_for, write_text
from trivium import load, load_config, load_recipe, pipeline, pretrain
from trivium.cli import main
from trivium.errors import ConfigError
from trivium.hub.convert import read_json, read_tensors
from trivium.hub.starters import served_tasks
from trivium.training import starter
from trivium.training.starter import StarterRecipe, make_starter

ROOT = Path(__file__).parent.parent.parent
PACKAGES = [
    {"name": "one", "version": "1.0", "kind": "PyPI", "licence": "MIT"},
    {"name": "two", "version": "2", "kind": "npm", "licence": "MIT"},
    {"name": "three", "version": "3", "kind": "Debian", "licence": "a | b"},
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> StarterRecipe:
    """A recipe over a finished run of a decoder and a corpus with a manifest."""
    home = tmp_path_factory.mktemp("made")
    pretrain(load_recipe(None, settings_for("decoder", home / "run", write_text(home / "text.jsonl"))), quiet=True)
    (home / "corpus").mkdir()
    manifest = {"source": "words", "summary": "words at random", "made": "2026-01-02T00:00:00", "rows": {"train": 1500}}
    (home / "corpus" / "LICENCES.json").write_text(json.dumps(manifest | {"packages": PACKAGES}))
    return StarterRecipe(
        name="tiny",
        task="text-generation",
        also=("feature-extraction",),
        about="Random words.",
        limits="All of them.",
        runs=(str(home / "run"),),
        sources=(str(home / "corpus"),),
        commands=("trivium pretrain tiny.yaml",),
        generation={"max_new_tokens": 7},
        scores={"legal form": "95 of 100"},
        samples=("the cat",),
        out=str(home / "starters"),
    )


def test_weights_are_halved_and_answers_are_the_folders_own(made: StarterRecipe) -> None:
    folder = make_starter(made)
    assert folder == Path(made.out) / "tiny" and served_tasks(folder)[:1] == ("text-generation",)
    before, after = load(Path(made.runs[0]) / "final")[0], load(folder)[0]
    assert {tensor.dtype for tensor in read_tensors(folder).values()} == {torch.float16}
    assert read_json(folder / "config.json")["dtype"] == "float16"
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        assert new.dtype == torch.float32 and torch.equal(new, old.half().float()), name
    card = (folder / "README.md").read_text(encoding="utf-8")
    answer = pipeline("text-generation", model=folder)("the cat", return_full_text=False)[0]["generated_text"]
    assert f"the cat\n→ {answer.strip()}" in card
    for said in ("trivium pretrain tiny.yaml", "1,500 train", "one 1.0 (PyPI), two 2 (npm)", r"a \| b", "95 of 100"):
        assert said in card, said
    result = read_json(Path(made.runs[0]) / "result.json")
    assert f"| tokens read | {result['tokens']:,} |" in card and f"| {result['loss_after']:.3f} |" in card
    assert "| processor |" in card and "All of them." in card
    again = make_starter(replace(made, about="Anew."))
    assert "Anew." in (again / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in again.parent.iterdir()] == ["tiny"]


def test_transformers_opens_it_with_equal_logits(made: StarterRecipe) -> None:
    from transformers import AutoModelForCausalLM

    folder = make_starter(made)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.arange(1, 13)[None]
    from trivium import AutoModelForCausalLM as Ours

    with torch.no_grad():
        torch.testing.assert_close(Ours.from_pretrained(folder)(ids).logits, theirs(ids).logits, atol=1e-4, rtol=1e-4)
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.float16


def test_a_comparison_becomes_a_table(made: StarterRecipe, tmp_path: Path) -> None:
    score = {"mean": 0.25, "low": 0.2, "high": 0.3}
    systems = [
        {"name": "ours", "is_baseline": False, "scores": {"rougeL": score}},
        {"name": "lead", "is_baseline": True, "scores": {"rougeL": {**score, "mean": 0.22}}},
    ]
    found = {"metric": "rouge", "primary": "rougeL", "texts": 12, "data": "pairs", "systems": systems}
    (tmp_path / "comparison.json").write_text(json.dumps(found))
    card = (make_starter(replace(made, comparison=str(tmp_path / "comparison.json"))) / "README.md").read_text()
    assert "| ours | 25.0 [20.0, 30.0] |" in card and "| lead (baseline) | 22.0 [20.0, 30.0] |" in card


def test_what_no_starter_can_be_is_refused(
    made: StarterRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"nowhere has no result.json; expected a finished run"):
        make_starter(replace(made, runs=("nowhere",)))
    with pytest.raises(ConfigError, match="names no run"):
        replace(made, runs=())
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"other.json is no comparison; expected comparison.json"):
        make_starter(replace(made, out=str(tmp_path / "shelf"), comparison=str(tmp_path / "other.json")))
    assert not list((tmp_path / "shelf").iterdir()), "nothing half made stays"
    monkeypatch.setattr(starter, "LARGEST_BYTES", 10_000)
    with pytest.raises(ConfigError, match="MB; expected at most"):
        make_starter(replace(made, out=str(tmp_path / "shelf")))
    assert not list((tmp_path / "shelf").iterdir())


def test_the_verb(
    made: StarterRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(
        json.dumps({"name": "tiny", "task": made.task, "about": "a", "limits": "b", "runs": list(made.runs)})
    )
    monkeypatch.setattr("trivium.hub.starters.starters_folder", lambda: tmp_path / "shelf")
    for words in (["make", str(path), f"out={tmp_path / 'shelf'}"], ["list"]):
        monkeypatch.setattr(sys, "argv", ["trivium", "starter", *words])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0
    made_line, listed = capsys.readouterr().out.splitlines()
    assert made_line == f"in {tmp_path / 'shelf' / 'tiny'}"
    assert listed.startswith("tiny  text-generation; 0.") and listed.endswith(str(tmp_path / "shelf" / "tiny"))


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes" / "starters").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_load(recipe: Path) -> None:
    assert load_config(StarterRecipe, recipe).name == recipe.stem
