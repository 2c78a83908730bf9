"""What a fine-tuning run keeps straight: one call after another, models in memory, chats, data of one's own."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.tuned import ANIMALS, COLOURS, make_model, make_tokenizer, pairs, write_rows
from trivium import AutoModelForSeq2SeqLM, AutoTokenizer, Task, pipeline
from trivium.errors import CheckpointError, ConfigError, DataError
from trivium.hub.auto import load, load_model, load_model_config, load_tokenizer
from trivium.hub.decoding import read_generation
from trivium.model import ModelConfig
from trivium.model.adapter import LoraConfig, add_adapter
from trivium.tasks.sample import Limits, choose_limits
from trivium.tasks.task import TASKS
from trivium.tokenizer import Tokenizer
from trivium.tokenizer.chat_mask import stop_ids
from trivium.training import loop
from trivium.training.finetuning import finetune
from trivium.training.recipe import SaveConfig

LEARNED: dict[str, Any] = {
    "position": "learned",
    "max_positions": 64,
    "norm": "layer",
    "activation": "gelu_tanh",
    "gated_ffn": False,
    "qkv_bias": True,
    "bias": True,
    "tie_embeddings": True,
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return make_tokenizer()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    return make_model(tmp_path_factory.mktemp("two"), "encoder_decoder", tokenizer)


def short(run: Path, **settings: Any) -> dict[str, Any]:
    return {"run": str(run), "quiet": True, "rows_per_batch": 4, "steps": 2, "scored_rows": 4} | settings


def test_an_opened_model_is_given_back_as_it_came(two: Path, tmp_path: Path) -> None:
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(two), AutoTokenizer.from_pretrained(two)
    lora = {"rank": 2, "targets": ["all"]}
    settings = short(tmp_path / "run", steps=150, lora=lora, valid_fraction=0.1, rows_per_batch=8)
    result = finetune(model, tokenizer, task="summarization", data=pairs(200), **settings)
    assert not model.transformer.training and all(each.requires_grad for each in model.parameters())
    assert "lora_a" not in dict(model.named_parameters())
    text = pairs(3, seed=5)[0]["source"]
    inputs = tokenizer(text, return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=5)
    opened = pipeline("summarization", model=model, tokenizer=tokenizer)(text)
    assert opened == pipeline("summarization", model=result.folder)(text)
    greedy = pipeline("summarization", model=model, tokenizer=tokenizer)(text, num_beams=1, max_new_tokens=5)
    assert tokenizer.decode(ids[0], skip_special_tokens=True).strip() == greedy[0]["summary_text"]


def test_a_finished_run_is_not_another_ones(two: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", pairs(40))
    model, tokenizer = load(two)
    settings = short(tmp_path / "run", save=SaveConfig())
    first = finetune(model, tokenizer, task="summarization", data=rows, **settings)
    assert finetune(model, tokenizer, task="summarization", data=rows, **settings) == first, "what it became"
    fresh, _ = load(two)
    assert finetune(fresh, tokenizer, task="summarization", data=rows, **settings) == first, "what it was"
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), model.parameters(), strict=True))
    other, _ = load(two)
    with torch.no_grad():
        other.embedding.tokens.weight += 1
    with pytest.raises(CheckpointError, match="another model of the same name"):
        finetune(other, tokenizer, task="summarization", data=rows, **settings)
    write_rows(rows, pairs(40, seed=7))
    with pytest.raises(CheckpointError, match="other data"):
        finetune(fresh, tokenizer, task="summarization", data=rows, **settings)
    again = finetune(fresh, tokenizer, task="summarization", data=rows, restart=True, **settings)
    assert again.examples != 0 and again.scores != first.scores


def test_the_best_weights_are_those_of_the_checkpoint_that_a_run_goes_on_from(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill after a better evaluation, before its checkpoint; what comes after it is worse this time."""
    scores = iter([0.1, 0.5, 0.2, 0.9])
    course = "trivium.training.tune_course.TuneCourse"
    monkeypatch.setattr(f"{course}.score", lambda self, model: {"loss": 1.0, "hit": next(scores, None) or _stop()})
    monkeypatch.setattr(f"{course}.show", lambda self, model, progress: [])
    save = SaveConfig(every_steps=2, best="hit", evaluate_every_steps=1, evaluate_at=())
    settings = short(tmp_path / "run", steps=5, save=save)
    with pytest.raises(RuntimeError, match="the power goes"):
        finetune(str(two), "summarization", pairs(40), **settings)
    best = tmp_path / "run" / "best"
    assert sorted(each.name for each in best.iterdir()) == ["step-00000001", "step-00000003"]
    weights = dict(load_model(best / "step-00000001").named_parameters())
    scores = iter([0.2, 0.2, 0.2])
    result = finetune(str(two), "summarization", pairs(40), **settings)
    found = dict(load_model(result.folder).named_parameters())
    assert result.best_step == 1 and result.scores["hit"] == 0.5
    assert all(torch.equal(found[name], value) for name, value in weights.items())
    assert [each.name for each in best.iterdir()] == ["step-00000001"]


def _stop() -> float:
    raise RuntimeError("the power goes")


def test_damaged_best_weights_are_no_result(two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = loop.save_best

    def damage(*given: Any, **named: Any) -> Path:
        folder = original(*given, **named)
        with (folder / "model.safetensors").open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"\x7f")
        return folder

    monkeypatch.setattr(loop, "save_best", damage)
    with pytest.raises(CheckpointError, match=r"model\.safetensors has changed"):
        finetune(str(two), "summarization", pairs(40), **short(tmp_path / "run"))


def test_a_score_that_is_no_number_is_the_worst(two: Path, tmp_path: Path) -> None:
    scores = iter([float("nan"), 0.5, float("nan")])
    task = Task("odd", "pair", lambda outputs, references: {"hit": next(scores, 0.5)}, best="hit")
    save = {"best": "hit", "evaluate_at": [0.5]}
    result = finetune(str(two), task, pairs(40), **short(tmp_path / "run", save=save))
    assert result.best_step == 1 and result.scores["hit"] == 0.5


def test_a_chat_without_a_template_gets_one_and_stops_where_it_learned_to(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = make_model(tmp_path / "decoder", "decoder", tokenizer)
    rows = [
        {"messages": [{"role": "user", "content": f"the {animal} is {c}"}, {"role": "assistant", "content": animal}]}
        for animal in ANIMALS
        for c in COLOURS
    ]
    settings = short(tmp_path / "run", epochs=12, optimizer={"rate": 5e-3}, valid_fraction=0.1, save={"best": "rougeL"})
    del settings["steps"]
    result = finetune(str(folder), "chat", rows, **settings)
    saved = load_tokenizer(result.folder)
    assert saved.settings["chat_template"] and result.scores["rougeL"] > 0.8
    assert read_generation(Path(result.folder))["eos_token_id"] == tuple(stop_ids(saved))
    write = pipeline("text-generation", model=result.folder)
    answer = write([{"role": "user", "content": "the owl is red"}], max_new_tokens=8)[0]["generated_text"][-1]
    assert answer["content"].strip() in ANIMALS


def test_a_trained_head_keeps_the_order_of_its_labels(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = make_model(tmp_path / "m", "encoder", tokenizer, head="sequence", labels=("small", "large", "odd"))
    rows = [
        {"text": f"the {animal}", "label": ("large", "odd", "small")[n % 3]} for n, animal in enumerate(ANIMALS * 4)
    ]
    settings = short(tmp_path / "run", valid_fraction=0.3, optimizer={"rate": 0.0001}, save={})
    result = finetune(str(folder), "text-classification", rows, **settings)
    before, after = load_model(folder), load_model(result.folder)
    assert after.config.labels == ("small", "large", "odd")
    assert before.classifier is not None and after.classifier is not None
    for one, other in zip(before.classifier.parameters(), after.classifier.parameters(), strict=True):
        assert (one - other).abs().max() < 1e-3, "a head that fits is not begun anew"


def test_rows_are_prepared_once_and_held_out_by_what_is_read(two: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    def prepare(row: Any) -> dict[str, str] | None:
        seen.append(row["number"])
        return None if row["number"] == "0" else {"source": row["body"], "target": row["title"]}

    rows = [{"number": str(n), "body": pairs(40)[n % 20]["source"], "title": "cat"} for n in range(40)]
    task = Task("headline", "pair", "rouge", "rougeL", prepare=prepare)
    result = finetune(str(two), task, rows, **short(tmp_path / "run", valid_fraction=0.5))
    assert seen == [row["number"] for row in rows] and 0 < result.examples < 39
    assert load_model(result.folder).config.family == "encoder_decoder"

    def fail(row: Any) -> dict[str, str]:
        return {"source": row["text"], "target": "x"}

    with pytest.raises(DataError, match="prepare of broken failed with KeyError: 'text' for row 1"):
        finetune(str(two), Task("broken", "pair", "rouge", "rougeL", prepare=fail), rows, **short(tmp_path / "r"))


def test_parts_in_memory_may_have_their_names(two: Path, tmp_path: Path) -> None:
    data = {"train": pairs(30), "validation": pairs(10, seed=3)}
    assert finetune(str(two), "summarization", data, **short(tmp_path / "run")).examples == 30
    with pytest.raises(DataError, match="holds no rows"):
        finetune(str(two), "summarization", ["text"], **short(tmp_path / "other"))


def test_source_and_target_share_the_positions_of_a_decoder(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = make_model(tmp_path / "gpt2", "decoder", tokenizer, **LEARNED)
    rows = [*pairs(30), *({"source": f"{n} the cat is red " * 20, "target": "cat dog owl " * 20} for n in range(20))]
    result = finetune(str(folder), "summarization", rows, **short(tmp_path / "run", on_long="truncate"))
    assert result.steps == 2
    config = ModelConfig(
        family="decoder", vocab_size=8, hidden_size=8, num_layers=1, num_heads=1, ffn_size=8, **LEARNED
    )
    limits = choose_limits(Limits(source=0), config, 1000, task=TASKS["summarization"])
    assert limits.source + limits.target == 64


def test_dropout_and_swap_are_the_runs_own(two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed without either learns otherwise, and the folder says with what it was trained."""
    monkeypatch.setattr("trivium.data.swapping.COMMON", 1.0)  # a few words, which all occur in every tenth row
    rows = [{"source": row["source"], "target": f"a {row['target']}"} for row in pairs(40)]
    losses = {}
    for name, more in {"plain": {}, "dropout": {"dropout": 0.25}, "swap": {"swap": 1.0}}.items():
        result = finetune(str(two), "summarization", rows, **short(tmp_path / name, **more))
        losses[name] = result.scores["loss"]
        assert load_model_config(result.folder).dropout == (0.25 if name == "dropout" else 0.0)
    assert len(set(losses.values())) == 3


def test_what_cannot_be_is_one_sentence(two: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    run = short(tmp_path / "run")
    with pytest.raises(ConfigError, match="freeze is 'encoder"):
        finetune(str(two), "summarization", pairs(20), **run | {"freeze": "encoder.*"})
    with pytest.raises(ConfigError, match="weight inf"):
        finetune(str(two), "summarization", pairs(20), **run | {"weight": float("inf")})
    with pytest.raises(ConfigError, match="target_tokens 0, weight -1"):
        finetune(str(two), "summarization", pairs(20), **run | {"target_tokens": 0, "weight": -1.0})
    with pytest.raises(ConfigError, match="exactly one of them"):
        finetune(str(two), "summarization", pairs(20), **run | {"epochs": 3})
    with pytest.raises(ConfigError, match="has the metric rogue"):
        finetune(str(two), Task("x", "pair", "rogue", "rougeL"), pairs(20), **run)
    with pytest.raises(ConfigError, match="has the kind 'pairs'"):
        Task("x", "pairs", "rouge", "rougeL")  # type: ignore[arg-type]  # what is tested
    encoder = make_model(tmp_path / "encoder", "encoder", tokenizer)
    rows = [{"text": f"the cat {label}", "label": label} for label in ("1.5", "many", "2", "3")]
    with pytest.raises(DataError, match="'many'; expected a number"):
        finetune(str(encoder), "regression", rows, **run | {"valid_fraction": 0.5})
    both = [{"text": f"the cat {n}", "label": ["x", "y"]} for n in range(9)]
    with pytest.raises(DataError, match="2 labels for text-classification"):
        finetune(str(encoder), "text-classification", both, **run)
    one = [{"text": f"the {animal}", "label": "xy"[n % 2]} for n, animal in enumerate(ANIMALS)]
    with pytest.raises(ConfigError, match="swap 1 for text-classification; expected a task that writes"):
        finetune(str(encoder), "text-classification", one, **run | {"swap": 1.0})
    with pytest.raises(ConfigError, match=r"with swap 2\.0; expected"):
        finetune(str(two), "summarization", pairs(20), **run | {"swap": 2.0})
    model, own = load(two)
    with pytest.raises(ConfigError, match=r"dropout 0.5 for a model in memory that has 0; expected its own"):
        finetune(model, own, task="summarization", data=pairs(20), **run | {"dropout": 0.5})
    add_adapter(model, LoraConfig(rank=2))
    with pytest.raises(ConfigError, match="has an adapter already"):
        finetune(model, own, task="summarization", data=pairs(20), **run)
    with pytest.warns(UserWarning, match="begin at random"):
        labelled = load_model(encoder, head="sequence", labels=["x", "y"], problem="multi")
    with pytest.raises(ConfigError, match=r"sequence \(multi\) .* expected head sequence \(single\)"):
        finetune(labelled, tokenizer, task="text-classification", data=one, **run)
