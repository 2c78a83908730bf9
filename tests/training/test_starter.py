"""A recipe becomes a starter: what is missing is made, 16-bit weights, equal answers, a card with data and scores."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.runs import settings_for, write_text
from trivium import load, load_config, load_recipe, pipeline
from trivium.cli import main
from trivium.config import to_dict
from trivium.errors import ConfigError, DataError
from trivium.hub.convert import read_json, read_tensors
from trivium.hub.starters import served_tasks
from trivium.training import starter
from trivium.training.recipe import BudgetConfig
from trivium.training.starter import StarterRecipe, make_starter
from trivium.training.tuning import TuneRecipe

ROOT = Path(__file__).parent.parent.parent
PACKAGES = [
    {"name": "one", "version": "1.0", "kind": "PyPI", "licence": "MIT"},
    {"name": "two", "version": "2", "kind": "npm", "licence": "MIT"},
    {"name": "three", "version": "3", "kind": "Debian", "licence": "a | b"},
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> StarterRecipe:
    """A recipe of a small decoder, over a corpus with a manifest."""
    home = tmp_path_factory.mktemp("made")
    recipe = load_recipe(None, settings_for("decoder", home / "run", write_text(home / "text.jsonl")))
    (home / "corpus").mkdir()
    manifest = {"source": "words", "summary": "words at random", "made": "2026-01-02T00:00:00", "rows": {"train": 1500}}
    (home / "corpus" / "LICENCES.json").write_text(json.dumps(manifest | {"packages": PACKAGES}))
    return StarterRecipe(
        name="tiny",
        task="text-generation",
        also=("feature-extraction",),
        about="Random words.",
        limits="All of them.",
        pretrain=recipe,
        sources=(str(home / "corpus"),),
        command="trivium starter make tiny.yaml",
        generation={"max_new_tokens": 7},
        samples=("the cat",),
        out=str(home / "starters"),
    )


def test_weights_are_halved_and_answers_are_the_folders_own(made: StarterRecipe) -> None:
    folder = make_starter(made, quiet=True)
    assert folder == Path(made.out) / "tiny" and served_tasks(folder)[:1] == ("text-generation",)
    before, after = load(Path(made.pretrain.run) / "final")[0], load(folder)[0]
    assert {tensor.dtype for tensor in read_tensors(folder).values()} == {torch.float16}
    assert read_json(folder / "config.json")["dtype"] == "float16"
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        assert new.dtype == torch.float32 and torch.equal(new, old.half().float()), name
    card = (folder / "README.md").read_text(encoding="utf-8")
    answer = pipeline("text-generation", model=folder)("the cat", return_full_text=False)[0]["generated_text"]
    assert f"the cat\n→ {answer.strip()}" in card
    for said in ("trivium starter make tiny.yaml", "1,500 train", "one 1.0 (PyPI), two 2 (npm)", r"a \| b"):
        assert said in card, said
    result = read_json(Path(made.pretrain.run) / "result.json")
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


def test_both_halves_and_the_corpus_are_made_and_compared(
    made: StarterRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(name: str, out: Path, **_: object) -> Path:
        out.mkdir()
        (out / "LICENCES.json").write_text((Path(made.sources[0]) / "LICENCES.json").read_text())
        rows = [
            {"source": f"the {word} cat sat. It was {word}.", "target": f"{word} cat"} for word in ("red", "big") * 9
        ]
        for part, some in (("train", rows[:10]), ("valid", rows[10:14]), ("test", rows[14:])):
            (out / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
        assert name == "pairs"
        return out

    monkeypatch.setattr(starter, "build_source", build)
    pairs = str(tmp_path / "pairs")
    tuned = TuneRecipe("summarization", data=pairs, run=str(tmp_path / "tuned"), budget=BudgetConfig(steps=3))
    recipe = replace(
        made,
        task="summarization",
        finetune=tuned,
        sources=(*made.sources, pairs),
        baselines=("lead",),
        out=str(tmp_path / "shelf"),
        samples=(),
    )
    card = (make_starter(recipe, quiet=True) / "README.md").read_text(encoding="utf-8")
    assert (
        "words copied from training" in card
        and "| starter:tiny | " in card
        and "| lead (baseline) | " in card
        and f"4 texts of `{pairs}`" in card
    )
    assert "### Run `run`" in card and "### Run `tuned`" in card
    compared = read_json(tmp_path / "tuned/test/comparison.json")
    assert {system["name"] for system in compared["systems"]} == {"starter:tiny", "lead"}
    weights = read_json(tmp_path / "tuned/result.json")["weights"]
    make_starter(recipe, quiet=True)  # nothing is trained again
    assert read_json(tmp_path / "tuned/result.json")["weights"] == weights


def test_a_poet_is_counted(made: StarterRecipe, tmp_path: Path) -> None:
    corpus = tmp_path / "poems"
    corpus.mkdir()
    (corpus / "LICENCES.json").write_text((Path(made.sources[0]) / "LICENCES.json").read_text())
    lines = ["春眠不觉晓，", "处处闻啼鸟。", "夜来风雨声，", "花落知多少。"]
    row = {"title": "春晓", "author": "孟浩然", "form": "五言绝句", "lines": ["".join(lines[:2]), "".join(lines[2:])]}
    for part in ("train", "test"):
        (corpus / f"{part}.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    recipe = replace(made, sources=(str(corpus),), poems=1, samples=(), out=str(tmp_path / "shelf"))
    card = (make_starter(recipe, quiet=True) / "README.md").read_text(encoding="utf-8")
    assert "| poems in the form that was asked for | 0 of 1 | 0 of 1 |" in card
    assert "| couplets that stand in the training text | 0.0% | 100.0% | 100.0% |" in card  # its first line is one


def test_an_encoder_says_how_many_masked_tokens_it_finds(made: StarterRecipe, tmp_path: Path) -> None:
    pretrained = load_recipe(None, settings_for("encoder", tmp_path / "run", write_text(tmp_path / "text.jsonl")))
    recipe = replace(made, task="fill-mask", pretrain=pretrained, samples=(), out=str(tmp_path / "shelf"))
    card = (make_starter(recipe, quiet=True) / "README.md").read_text(encoding="utf-8")
    found = read_json(tmp_path / "run/result.json")["accuracy"]
    assert f"## Scores\n\nOf the masked tokens of held-out text {found:.1%} are filled in" in card
    share = float(card.partition("would be right for ")[2].partition("%")[0])
    assert 0 < share < 60


def test_what_no_starter_can_be_is_refused(
    made: StarterRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong, found in {
        "baselines without finetune": {"baselines": ("lead",)},
        "poems without sources": {"poems": 3, "sources": ()},
        "-1 poems": {"poems": -1},
    }.items():
        with pytest.raises(ConfigError, match=f"tiny has {wrong}"):
            replace(made, **found)
    manifest, index = read_json(Path(made.sources[0]) / "LICENCES.json"), {"name": "main", "kind": "Debian index"}
    for day in ("one", "two"):
        (tmp_path / day).mkdir()
        packages = [index | {"version": day, "licence": "free", "sha256": day}]
        (tmp_path / day / "LICENCES.json").write_text(json.dumps(manifest | {"packages": packages}))
    with pytest.raises(DataError, match=r"two was made of another main than .*one; expected the same index"):
        make_starter(replace(made, sources=(str(tmp_path / "one"), str(tmp_path / "two"))), quiet=True)
    with pytest.raises(ConfigError, match="there is no source 'nowhere'"):
        make_starter(replace(made, sources=(str(tmp_path / "nowhere"),)), quiet=True)
    monkeypatch.setattr(starter, "LARGEST_BYTES", 10_000)
    with pytest.raises(ConfigError, match="MB; expected at most"):
        make_starter(replace(made, out=str(tmp_path / "shelf")), quiet=True)
    assert not list((tmp_path / "shelf").iterdir())


def test_the_verb(
    made: StarterRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tiny.yaml"
    first = {name: value for name, value in to_dict(made.pretrain).items() if name != "schema"}
    facts = {"name": "tiny", "task": made.task, "about": "a", "limits": "b", "pretrain": first}
    path.write_text(json.dumps(facts))
    monkeypatch.setattr("trivium.hub.starters.starters_folder", lambda: tmp_path / "shelf")
    out = f"out={tmp_path / 'shelf'}"
    for words in (["make", str(path), out], ["list"]):
        monkeypatch.setattr(sys, "argv", ["trivium", "starter", *words])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0
    made_line, listed = capsys.readouterr().out.splitlines()
    assert made_line == f"in {tmp_path / 'shelf' / 'tiny'}"
    assert f"```bash\n{out}\n```" in (tmp_path / "shelf/tiny/README.md").read_text(encoding="utf-8")
    assert listed.startswith("tiny  text-generation; 0.") and listed.endswith(str(tmp_path / "shelf" / "tiny"))


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("starter_*.yaml")), ids=lambda path: path.stem)
def test_recipes_load(recipe: Path) -> None:
    found = load_config(StarterRecipe, recipe)
    assert recipe.stem == f"starter_{found.name.replace('-', '_')}" and recipe.name in found.command
