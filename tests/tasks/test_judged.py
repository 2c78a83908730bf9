"""What is judged of a data set: a fair sample, every word, and of a chat what the model can be asked."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.tuned import ANIMALS, make_model, make_tokenizer, pairs, write_rows
from trivium import Task, evaluate_task, finetune
from trivium.data.batch import Example
from trivium.data.examples import ExampleLoader
from trivium.errors import CheckpointError, ConfigError, DataError, HubError
from trivium.evaluation.answer import answer_samples
from trivium.evaluation.metrics import entities
from trivium.hub.auto import load
from trivium.tasks import Limits, encode_rows, find_task
from trivium.tasks.parts import find_reference, find_source, hold_out_valid
from trivium.tokenizer import Tokenizer
from trivium.tokenizer.chat_mask import set_chat_template
from trivium.training.tune_course import gather_course
from trivium.training.tune_subject import open_subject, read_tuning_parts
from trivium.training.tuning import MixConfig, TuneRecipe

SAYS = {"role": "assistant", "content": "red"}
ASKS = {"role": "user", "content": "the owl is"}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return make_tokenizer()


def test_the_rows_that_are_judged_are_of_all_labels(tmp_path: Path) -> None:
    rows = [{"text": f"{label} {n}", "label": label} for label in ("bad", "good") for n in range(400)]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    recipe = TuneRecipe(valid_fraction=0.5)
    valid = read_tuning_parts(find_task("text-classification"), data, recipe)["valid"]
    first = [row["label"] for row in valid[:100]]
    assert len(valid) == 400 and 30 < first.count("bad") < 70
    assert valid == read_tuning_parts(find_task("text-classification"), data, recipe)["valid"]


def test_tags_without_marks_are_told_apart() -> None:
    assert entities([["5", "O", "NN"]], [["3", "O", "VB"]])["f1"] == 0.0
    assert entities([["PER", "PER", "O"]], [["PER", "PER", "O"]])["f1"] == 1.0
    assert entities([["PER", "PER", "O"]], [["PER", "O", "O"]])["f1"] == 0.0
    assert entities([["B-x", "I-x", "L-x", "U-x"]], [["B-x", "I-x", "L-x", "U-x"]])["recall"] == 1.0


def test_a_word_without_a_token_moves_no_tag(tmp_path: Path, tokenizer: Tokenizer) -> None:
    words = ["cat", "dog", "red"]
    rows = [{"tokens": words, "tags": ["B-A", "O", "B-C"]}] * 2
    task, labels = find_task("token-classification"), ("B-A", "B-C", "O")
    model, opened = load(make_model(tmp_path / "model", "encoder", tokenizer))
    config = replace(model.config, head="token", labels=labels)
    samples = encode_rows(task, rows, config, opened, labels=labels).samples
    for sample in samples:  # a tokenizer that drops the second word, as some drop signs that they do not know
        assert sample.encoded is not None
        place = next(
            at for at, each in enumerate(sample.encoded.offsets) if each[0] == 1 and sample.encoded.sides[at] == 0
        )
        sample.example.weights[place] = 0.0
        assert sample.reference == ["B-A", "O", "B-C"]

    def classify(inputs: Any, types_BT: Any = None) -> torch.Tensor:
        found = torch.zeros(*inputs.ids.shape, 3)
        for row in range(len(found)):
            for place, (word, _) in enumerate(samples[row].encoded.offsets):  # type: ignore[union-attr]
                found[row, place, (0, 2, 1)[word]] = 1.0
        return found

    model.classify = classify  # type: ignore[method-assign, assignment]
    object.__setattr__(model, "config", config)
    answers, references = answer_samples(model, opened, task, samples)
    assert answers == references == [["B-A", "O", "B-C"]] * 2


def test_a_chat_is_asked_for_its_last_answer(tmp_path: Path, tokenizer: Tokenizer) -> None:
    task, row = find_task("chat"), {"messages": [ASKS, SAYS, {"role": "user", "content": "the cow is"}]}
    assert find_reference(task, row) == "red" and find_source(task, row) == "user: the owl is"
    model, opened = load(make_model(tmp_path / "model", "decoder", tokenizer))
    set_chat_template(opened)
    long = {"messages": [{"role": "user", "content": "the owl is " * 60}, SAYS, ASKS, SAYS]}
    limits = Limits(60, 16, "truncate")
    samples = encode_rows(task, [row, long], model.config, opened, limits=limits).samples
    assert samples[0].prompt and samples[0].reference == "red" and samples[0].is_asked(task)
    assert all(not sample.is_asked(task) for sample in samples[1:])
    with pytest.raises(ConfigError, match="on_long=split for chat"):
        encode_rows(task, [long], model.config, opened, limits=Limits(60, 16, "split"))


def test_a_run_of_chats_that_end_with_a_question(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"the {a} is {b}"}, SAYS, ASKS]} for a in ANIMALS for b in ANIMALS
    ]
    model = make_model(tmp_path / "model", "decoder", tokenizer)
    data = write_rows(tmp_path / "rows.jsonl", rows)
    result = finetune(str(model), "chat", data, run=str(tmp_path / "run"), steps=2, quiet=True)
    assert "rouge" in " ".join(result.scores).lower()
    assert evaluate_task("chat", data, models=[result.folder], part="valid").rows


def test_texts_may_be_as_long_as_what_was_learned(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = make_model(tmp_path / "model", "encoder_decoder", tokenizer)
    data = write_rows(tmp_path / "rows.jsonl", pairs(40))
    result = finetune(
        str(model), "summarization", data, run=str(tmp_path / "run"), steps=1, target_tokens=90, quiet=True
    )
    kept = json.loads((Path(result.folder) / "generation_config.json").read_text(encoding="utf-8"))
    assert kept["max_new_tokens"] == 90 and kept["num_beams"] == 4


def test_each_set_of_a_mixture_has_the_models_sign_for_its_task(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = make_model(tmp_path / "model", "encoder_decoder", tokenizer)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["task_specific_params"] = {"summarization": {"prefix": "what "}}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    data = write_rows(tmp_path / "rows.jsonl", pairs(40))
    signs = {None: "what ", "where ": "where ", "": "the "}
    for given, sign in signs.items():
        mix = (MixConfig("summarization", str(data), prefix=given),)
        recipe = TuneRecipe(data=str(data), model=str(model), run=str(tmp_path / "run"), mix=mix)
        subject = open_subject("summarization", recipe, model=str(model))
        course = gather_course(subject, recipe, lambda _: None)
        texts = [subject.tokenizer.decode(list(each.context_ids)) for each in course.train.sets[1]]
        assert all(text.startswith(sign) for text in texts) and subject.task.prefix == "what "


def test_what_a_baseline_lacks_is_found_before_a_model_answers(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(*_: Any) -> None:
        raise AssertionError("a model was asked")

    monkeypatch.setattr("trivium.evaluation.systems._answer", answer)
    data, model = write_rows(tmp_path / "rows.jsonl", pairs(10)), make_model(tmp_path / "model", "decoder", tokenizer)
    with pytest.raises(Exception, match="learns from training rows and there are none"):
        evaluate_task("summarization", data, models=[model], baselines=["nearest"])
    monkeypatch.setattr("trivium.evaluation.systems.answer_baseline", answer)
    with pytest.raises(HubError, match="no folder"):  # and a folder that is none before either
        evaluate_task("summarization", data, models=[tmp_path / "nothing"], baselines=["lead"])


@pytest.mark.parametrize("count", [3, 16, 40, 100, 300])
def test_every_example_is_read_once_before_any_is_read_again(count: int) -> None:
    """Unpacked, examples of like length share a batch; of a small set that must not be one example many times."""
    examples = [make_example(length) for length in range(2, count + 2)]
    loader = ExampleLoader([examples], pad_id=0, rows_per_batch=16, pack=False, seed=1)
    read = [place[2] for step in range(8) for place in loader.sample_ids(step)]
    first = read[: count // 16 * 16]
    assert len(set(first)) == len(first)
    assert max(read.count(each) for each in set(read)) <= -(-len(read) // count) + 1


def make_example(length: int) -> Example:
    ids = np.arange(length, dtype=np.int64)
    return Example(ids, np.ones_like(ids), ids, np.ones(length, dtype=np.float32))


def test_of_a_pair_the_side_that_has_something_to_lose_is_cut(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model, opened = load(make_model(tmp_path / "model", "encoder", tokenizer))
    rows = [{"text": "the cat saw a dog " * 9, "text_pair": "the owl", "label": "x"}]
    found = encode_rows(
        find_task("text-classification"),
        rows,
        model.config,
        opened,
        limits=Limits(20, 8, "truncate"),
        labels=("x", "y"),
    )
    (sample,) = found.samples
    assert sample.example.num_tokens == 20 and sample.encoded is not None and sample.encoded.sides.count(1) == 2


def test_ones_and_zeros_are_no_names(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model, opened = load(make_model(tmp_path / "model", "encoder", tokenizer))
    rows = [{"text": "the cat", "label": [0, 1, 0]}]
    with pytest.raises(DataError, match="the row of 'the cat' has the labels 0, 1, 0; expected the names"):
        encode_rows(find_task("multi-label-classification"), rows, model.config, opened, labels=("0", "1"))


def test_a_test_set_without_answers_stops_no_run(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model, data = make_model(tmp_path / "model", "encoder_decoder", tokenizer), tmp_path / "data"
    data.mkdir()
    write_rows(data / "train.jsonl", pairs(40))
    write_rows(data / "test.jsonl", [{"source": "the cat"}])
    result = finetune(str(model), "summarization", data, run=str(tmp_path / "run"), steps=1, quiet=True)
    with pytest.raises(DataError, match=r"test\.jsonl"):
        evaluate_task("summarization", data, models=[result.folder])
    assert len(evaluate_task("summarization", data, models=[result.folder], part="valid").references) == 2


def test_the_held_out_rows_of_a_file(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", pairs(200))
    valid = read_tuning_parts(find_task("summarization"), data, TuneRecipe())["valid"]
    found = evaluate_task("summarization", data, baselines=["lead", "nearest"], part="valid")
    assert sorted(map(str, found.sources or ())) == sorted(row["source"] for row in valid)
    only = tmp_path / "only"
    only.mkdir()
    write_rows(only / "valid.jsonl", pairs(5))
    assert len(evaluate_task("summarization", only, baselines=["lead"], part="valid").references) == 5


def test_corrected_held_out_rows_are_another_run(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model, data = make_model(tmp_path / "model", "encoder_decoder", tokenizer), tmp_path / "data"
    data.mkdir()
    write_rows(data / "train.jsonl", pairs(40))
    write_rows(data / "valid.jsonl", pairs(8, seed=3))
    settings: dict[str, Any] = {"run": str(tmp_path / "run"), "steps": 1, "quiet": True}
    result = finetune(str(model), "summarization", data, **settings)
    assert finetune(str(model), "summarization", data, **settings) == result
    write_rows(data / "valid.jsonl", pairs(8, seed=4))
    with pytest.raises(CheckpointError, match="finished with other data"):
        finetune(str(model), "summarization", data, **settings)


def test_what_a_model_must_never_write_stays_so(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = make_model(tmp_path / "model", "encoder_decoder", tokenizer)
    path = model / "generation_config.json"
    path.write_text(json.dumps({"bad_words_ids": [[7]], "do_sample": True, "max_length": 50}), encoding="utf-8")
    data = write_rows(tmp_path / "rows.jsonl", pairs(40))
    result = finetune(str(model), "summarization", data, run=str(tmp_path / "run"), steps=1, quiet=True)
    kept = json.loads((Path(result.folder) / "generation_config.json").read_text(encoding="utf-8"))
    assert kept["bad_words_ids"] == [[7]] and not kept.get("do_sample") and "max_length" not in kept


def test_a_task_of_ones_own_says_how_long_and_what_is_best(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = make_model(tmp_path / "model", "encoder_decoder", tokenizer)
    own = Task(
        "headline", "pair", metric=lambda outputs, _: {"words": float(sum(map(len, map(str.split, outputs))))},
        best="-loss", prefix="the ", decoding={"max_new_tokens": 9},
    )  # fmt: skip
    data = write_rows(tmp_path / "rows.jsonl", pairs(40))
    result = finetune(str(model), own, data, run=str(tmp_path / "run"), steps=1, quiet=True, prefix="what ")
    kept = json.loads((Path(result.folder) / "generation_config.json").read_text(encoding="utf-8"))
    assert kept["max_new_tokens"] == 9 and {"loss", "words"} <= set(result.scores)


def of_many(outputs: list[str], references: list[str]) -> dict[str, float]:
    """Scores that one text alone has not: a spread, a ratio, a number for each first word."""
    if len(outputs) < 2:
        raise ZeroDivisionError
    words = {f"first_{text.split()[0]}": 1.0 for text in outputs if text.split()}
    return {"correlation": math.nan, "spread": 1 / (len(outputs) - 1), **words}


@pytest.mark.parametrize("metric", [of_many, lambda outputs, _: {"spread": 1.0 if len(outputs) > 1 else math.nan}])
def test_a_metric_of_many_texts_ends_no_run(metric: Any, tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = make_model(tmp_path / "model", "encoder_decoder", tokenizer)
    own = Task("headline", "pair", metric=metric, best="spread")
    data = write_rows(tmp_path / "rows.jsonl", pairs(60))
    settings: dict[str, Any] = {"run": str(tmp_path / "run"), "steps": 4, "quiet": True}
    result = finetune(str(model), own, data, **settings)
    report = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "spread of held-out examples" in report and not re.search(r'points="[^"]*nan', report)
    assert "spread 0.5" in report or "spread 1" in report
    for line in (tmp_path / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    again = finetune(str(model), own, data, **settings)
    assert again.scores.keys() == result.scores.keys() and again.scores["spread"] == result.scores["spread"]
    assert math.isnan(again.scores.get("correlation", math.nan))


def test_held_out_chats_without_room_for_an_answer_are_told(tmp_path: Path, tokenizer: Tokenizer) -> None:
    long = [{"messages": [{"role": "user", "content": f"the {a} is " * 60}, SAYS, ASKS, SAYS]} for a in ANIMALS]
    model, settings = str(make_model(tmp_path / "model", "decoder", tokenizer)), {"steps": 1, "quiet": True}
    parts = {"train": long, "valid": long}
    with pytest.raises(DataError, match=r"none of \d+ held-out rows has room for an answer within 200 tokens"):
        finetune(model, "chat", parts, run=str(tmp_path / "run"), source_tokens=200, on_long="truncate", **settings)
    asked = [{"messages": [{"role": "user", "content": "who is it"}]}]
    with pytest.raises(DataError, match=r"the row of 'who is it': a chat has no assistant's turn"):
        finetune(model, "chat", {"train": asked, "valid": long}, run=str(tmp_path / "run"), **settings)


def test_prompts_that_are_alike_stand_in_one_part() -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": str(k)}]}
        for n in range(10)
        for k in range(4)
    ]
    train, valid = hold_out_valid(find_task("chat"), rows, fraction=0.3)
    asked = [{row["messages"][0]["content"] for row in part} for part in (train, valid)]
    assert len(asked[1]) == 3 and not asked[0] & asked[1]


def test_a_head_for_labels_does_not_write(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": f"the {a}", "label": a in ANIMALS[:4]} for a in ANIMALS * 3])
    model = make_model(tmp_path / "model", "decoder", tokenizer)
    labelled = finetune(str(model), "text-classification", rows, run=str(tmp_path / "labels"), steps=1, quiet=True)
    data = write_rows(tmp_path / "pairs.jsonl", pairs(40))
    with pytest.raises(ConfigError, match="has the head sequence for summarization; expected language"):
        finetune(labelled.folder, "summarization", data, run=str(tmp_path / "run"), steps=1, quiet=True)
