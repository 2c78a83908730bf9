"""Fine-tuning learns each kind of task, resumes exactly, keeps the best, and leaves ordinary folders."""

import contextlib
import json
import random
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.runs import contents, loss_log
from tests.training.tuned import ANIMALS, COLOURS, make_model, make_tokenizer, pairs, write_rows
from trivium import evaluate_task
from trivium.errors import ConfigError, DataError
from trivium.hub.auto import load, load_model
from trivium.model.adapter import LoraConfig
from trivium.tasks import Task
from trivium.tasks.task import TASKS
from trivium.tokenizer import Tokenizer
from trivium.training.finetuning import finetune
from trivium.training.monitor import read_metrics
from trivium.training.optim import OptimizerConfig
from trivium.training.recipe import BudgetConfig, SaveConfig
from trivium.training.tuning import MixConfig


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return make_tokenizer()


@pytest.fixture
def two(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    return make_model(tmp_path / "two", "encoder_decoder", tokenizer)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "pairs.jsonl", pairs(200))


def tune(model: Any, task: Any, data: Path, run: Path, **settings: Any) -> Any:
    budget = {} if settings.keys() & {"steps", "epochs"} else {"epochs": 4}
    return finetune(model, task, data, run=str(run), quiet=True, **({"rows_per_batch": 8} | budget | settings))


@pytest.mark.parametrize("family", ["encoder_decoder", "decoder"])
def test_pairs_are_learned_and_the_folder_writes(family: str, tmp_path: Path, tokenizer: Tokenizer, data: Path) -> None:
    model = make_model(tmp_path / "model", family, tokenizer)
    result = tune(str(model), "summarization", data, tmp_path / "run")
    assert result.before["rougeL"] < 0.5 < 0.95 < result.scores["rougeL"]
    assert tune(str(model), "summarization", data, tmp_path / "run") == result
    from trivium import pipeline

    asked, wanted = [row["source"] for row in pairs(20, seed=9)], [row["target"] for row in pairs(20, seed=9)]
    ours = pipeline("summarization", result.folder)
    found = [each["summary_text"].strip() for each in ours(asked)]
    judged = evaluate_task(
        "summarization", write_rows(tmp_path / "asked.jsonl", pairs(20, seed=9)), models=[result.folder]
    )
    assert found == list(judged.outputs[result.folder]) and sum(map(str.__eq__, found, wanted)) > 17
    assert "".join(ours(asked[0], stream=True, num_beams=1)).strip()
    long = ours("the cat " * 400 + asked[0], truncation=True)[0]["summary_text"]
    assert ours.model.config.position != "learned" or long
    if family == "decoder":
        with pytest.raises(ConfigError, match="family decoder; summarization needs encoder_decoder"):
            pipeline("summarization", model)
        with pytest.raises(ConfigError, match="family decoder; translation needs encoder_decoder"):
            pipeline("translation", result.folder)
        told = json.loads((Path(result.folder) / "config.json").read_text(encoding="utf-8"))["task_specific_params"]
        assert told == {"summarization": {"separator": "\nTL;DR: "}}
    assert "report.html" in contents(tmp_path / "run")
    lines = [line for line in read_metrics(tmp_path / "run") if "valid" in line]
    assert [set(each) for line in lines for each in line["samples"]] == [{"source", "target", "output"}] * 6 * len(
        lines
    )
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Words of model (blue)" in page and "rougeL [95 %]" in page and "Worst by rougeL" in page


def labelled(draw: random.Random) -> dict[str, Any]:
    animal = draw.choice(ANIMALS)
    return {
        "text": f"the {animal} saw {' '.join(draw.choices(COLOURS, k=2))}",
        "label": "large" if animal in ANIMALS[:4] else "small",
    }


def scored(draw: random.Random) -> dict[str, Any]:
    animals = draw.choices(ANIMALS, k=3)
    return {"text": " ".join(animals), "label": float(sum(each in ANIMALS[:4] for each in animals))}


def many(draw: random.Random) -> dict[str, Any]:
    words = draw.choices([*ANIMALS[:2], *COLOURS], k=4)
    return {"text": " ".join(words), "label": [word for word in ANIMALS[:2] if word in words]}


def tagged(draw: random.Random) -> dict[str, Any]:
    words = draw.choices([*ANIMALS, *COLOURS], k=6)
    return {"tokens": words, "tags": ["B-A" if word in ANIMALS else "O" for word in words]}


def asked(draw: random.Random) -> dict[str, Any]:
    animal, colour = draw.choice(ANIMALS), draw.choice(COLOURS)
    context = f"a {draw.choice(ANIMALS)} saw the {animal} is {colour}"
    answers = {"text": [colour], "answer_start": [context.index(colour)]}
    return {"question": f"what colour is the {animal} ?", "context": context, "answers": answers}


@pytest.mark.parametrize(
    ("task", "make", "score", "reached"),
    [
        ("text-classification", labelled, "accuracy", 0.9),
        ("multi-label-classification", many, "f1_micro", 0.8),
        ("regression", scored, "spearman", 0.7),
        ("token-classification", tagged, "f1", 0.95),
        ("question-answering", asked, "f1", 0.9),
    ],
)
def test_heads_are_learned(
    task: str, make: Any, score: str, reached: float, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    draw = random.Random(0)
    rows = write_rows(tmp_path / "rows.jsonl", [make(draw) for _ in range(300)])
    model = make_model(tmp_path / "model", "encoder", tokenizer)
    settings = {"optimizer": replace(TUNED, rate=5e-3), "budget": EPOCHS, "valid_fraction": 0.3}
    result = finetune(str(model), task, rows, run=str(tmp_path / "run"), quiet=True, rows_per_batch=8, **settings)
    assert result.scores[score] >= reached, result
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert page.count("<h3>Text ") == 20 and "Worst by" in page and "Best by" in page
    curves = re.findall(r"<figcaption>(\S+)[^<]* of held-out examples, by step", page)
    assert curves[0] == score.split("_")[0] and page.count("<th>source</th>") >= 20 + 6 * 5
    assert ("true \\ found" in page) == (task not in ("regression", "question-answering"))
    assert "<script" not in page
    reopened = load_model(result.folder)
    assert reopened.config.head == TASKS[task].head and bool(reopened.config.labels) == (task != "question-answering")


TUNED = OptimizerConfig(beta2=0.999)
EPOCHS = BudgetConfig(epochs=8)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2, targets=("all",))])
def test_an_interrupted_run_goes_on_to_the_same_bits(
    lora: LoraConfig | None, tmp_path: Path, two: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trivium.training import loop

    save = SaveConfig(every_steps=10, best="rougeL", evaluate_at=(0.5,))
    settings = {"steps": 25, "save": save, "lora": lora, "scored_rows": 4}
    tune(str(two), "summarization", data, tmp_path / "whole", **settings)

    original, calls = loop._accumulate, []

    def stop(*given: Any) -> float:
        calls.append(1)
        if len(calls) == 18:
            raise RuntimeError("the power goes")
        return original(*given)

    monkeypatch.setattr(loop, "_accumulate", stop)
    with pytest.raises(RuntimeError, match="power"):
        tune(str(two), "summarization", data, tmp_path / "cut", **settings)
    monkeypatch.setattr(loop, "_accumulate", original)
    tune(str(two), "summarization", data, tmp_path / "cut", **settings)
    weights = [(tmp_path / run / "final" / "model.safetensors").read_bytes() for run in ("whole", "cut")]
    assert weights[0] == weights[1]
    assert loss_log(tmp_path / "whole") == loss_log(tmp_path / "cut")


def test_a_model_in_memory_learns_in_place(two: Path, data: Path, tmp_path: Path) -> None:
    model, tokenizer = load(two)
    before = model.embedding.tokens.weight.clone()
    settings: dict[str, Any] = {"run": str(tmp_path / "run"), "quiet": True, "steps": 3, "save": SaveConfig()}
    result = finetune(model, tokenizer, task="summarization", data=data, **settings)
    assert not torch.equal(model.embedding.tokens.weight, before)
    saved = load_model(result.folder)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), saved.parameters(), strict=True))


def test_frozen_weights_stay(two: Path, data: Path, tmp_path: Path) -> None:
    result = tune(str(two), "summarization", data, tmp_path / "run", steps=3, freeze=("encoder.*",), save=SaveConfig())
    before, after = (dict(load_model(folder).named_parameters()) for folder in (two, result.folder))
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if name.startswith("encoder.")} and len(same) < len(before)


def test_training_stops_when_nothing_gets_better(two: Path, data: Path, tmp_path: Path) -> None:

    save = SaveConfig(best="rougeL", evaluate_every_steps=40, evaluate_at=(), patience=2)
    result = tune(str(two), "summarization", data, tmp_path / "run", save=save, epochs=100, scored_rows=8)
    assert result.steps < 1000 and result.steps % 40 == 0 and result.scores["rougeL"] == 1.0


def test_a_mixture_reads_both_sets(two: Path, data: Path, tmp_path: Path) -> None:
    other = write_rows(tmp_path / "other.jsonl", [{"said": f"the {c}", "short": c} for c in COLOURS] * 10)
    mix = (MixConfig("summarization", str(other), weight=1.0, columns={"source": "said", "target": "short"}),)
    result = tune(str(two), "summarization", data, tmp_path / "run", mix=mix, epochs=4)
    model, tokenizer = load(result.folder)
    from trivium import generate_text

    assert generate_text(model, tokenizer, ["the green", "the owl is red blue"]) == ["green", "owl"]


def test_a_task_of_ones_own(two: Path, tmp_path: Path) -> None:
    rows = [{"body": row["source"], "title": row["target"]} for row in pairs(200)]
    task = Task(
        "headline",
        "pair",
        metric=lambda outputs, references: {"hit": sum(map(str.__eq__, outputs, references)) / len(outputs)},
        best="hit",
        prepare=lambda row: {"source": row["body"], "target": row["title"]},
    )
    result = tune(str(two), task, write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "run")
    assert result.scores["hit"] > 0.9


def test_wrong_input_is_one_sentence(two: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no task 'summarisation'; did you mean summarization"):
        tune(str(two), "summarisation", data, tmp_path / "run")
    with pytest.raises(ConfigError, match="there is no setting learning_rate"):
        tune(str(two), "summarization", data, tmp_path / "run", learning_rate=1)
    with pytest.raises(ConfigError, match="no parameter is named like"):
        tune(str(two), "summarization", data, tmp_path / "run", freeze=("nothing.*",))
    rows = write_rows(tmp_path / "tags.jsonl", [{"tokens": ["a", tag], "tags": ["O", tag]} for tag in "xy"])
    with pytest.raises(ConfigError, match="expected an encoder"):
        tune(str(two), "token-classification", rows, tmp_path / "run2")
    with pytest.raises(DataError, match=r"200 of 200 rows|1\d\d of 1\d\d rows are longer than 4 tokens"):
        tune(str(two), "summarization", data, tmp_path / "run3", source_tokens=4)
    assert tune(str(two), "summarization", data, tmp_path / "run4", source_tokens=4, on_long="truncate", steps=2)
    with pytest.raises(ConfigError, match="another run"):
        tune(str(two), "summarization", data, tmp_path / "run4", on_long="truncate", steps=2, seed=5, source_tokens=4)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_peft_opens_the_adapter_of_a_run(two: Path, data: Path, tmp_path: Path) -> None:
    import peft
    import transformers

    settings: dict[str, Any] = {"steps": 20, "save": SaveConfig(), "lora": LoraConfig(rank=2, targets=("all",))}
    result = tune(str(two), "summarization", data, tmp_path / "run", **settings)
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(two)
    opened = peft.PeftModel.from_pretrained(theirs, tmp_path / "run/adapter").eval()
    merged = transformers.AutoModelForSeq2SeqLM.from_pretrained(result.folder).eval()
    plain = transformers.AutoModelForSeq2SeqLM.from_pretrained(two).eval()
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8]]), "decoder_input_ids": torch.tensor([[0, 5, 6]])}
    with torch.no_grad():
        found, expected, before = (model(**inputs).logits for model in (opened, merged, plain))
    assert float((found - expected).abs().max()) <= 1e-4 < float((found - before).abs().max())


def test_rows_of_which_nothing_would_be_learned_are_told(tmp_path: Path) -> None:
    say: list[str] = []
    answer = {"role": "assistant", "content": "red"}
    rows = [{"messages": [{"role": "user", "content": f"the {a} is {b}"}, answer]} for a in ANIMALS for b in COLOURS]
    rows += [{"messages": [{"role": "user", "content": f"the {a} is " * 90}, answer]} for a in ANIMALS[:3]]
    model = make_model(tmp_path / "model", "decoder", make_tokenizer())
    data = write_rows(tmp_path / "rows.jsonl", rows)
    settings: dict[str, Any] = {"source_tokens": 60, "on_long": "truncate", "valid_fraction": 0.2, "steps": 1}
    finetune(str(model), "chat", data, run=str(tmp_path / "run"), progress=say.append, quiet=True, **settings)
    (told,) = [each for each in say if "left out" in each]
    assert "too long to learn from" in told
    assert f"left_out&quot;: {told.split()[0]}" in (tmp_path / "run/report.html").read_text(encoding="utf-8")


def test_the_verb_maps_columns_and_takes_overrides(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from trivium.cli import main

    rows = [{"body": row["source"], "title": row["target"]} for row in pairs(60)]
    data, run = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "run"
    words = ["finetune", "summarization", str(two), str(data), "scored_rows=4", "--run", str(run), "--epochs", "1"]
    monkeypatch.setattr(sys, "argv", ["trivium", *words, "--map", "source=body", "--map", "target=title", "--json"])
    with contextlib.suppress(SystemExit):
        main()
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["examples"] < 60 and found["task"] == "summarization"
    assert load_model(found["folder"]).config.family == "encoder_decoder" and (run / "report.html").exists()
