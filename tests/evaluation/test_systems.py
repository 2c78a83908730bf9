"""Models and baselines on a task's rows: the numbers are those of fine-tuning and of the metrics' own functions."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.training.test_finetuning import asked, labelled, many, scored, tagged
from tests.training.tuned import make_model, make_tokenizer, pairs, write_rows
from trivium import evaluate_task, finetune
from trivium.data.batch import collate
from trivium.errors import ConfigError, DataError
from trivium.evaluation.answer import answer_samples
from trivium.evaluation.baselines import run_baseline
from trivium.evaluation.metrics import METRICS
from trivium.hub.auto import load
from trivium.tasks import Limits, Task, encode_rows, find_task
from trivium.tokenizer import Tokenizer
from trivium.training.recipe import SaveConfig


def chatted(draw: random.Random) -> dict[str, Any]:
    pair = pairs(1, draw.randrange(10**6))[0]
    asked, answer = ({"role": "user", "content": pair["source"]}, {"role": "assistant", "content": pair["target"]})
    return {"messages": [asked, answer]}


KINDS: list[tuple[str, str, Any]] = [
    ("summarization", "encoder_decoder", None),
    ("summarization", "decoder", None),
    ("translation", "encoder_decoder", None),
    ("chat", "decoder", chatted),
    ("text-classification", "encoder", labelled),
    ("multi-label-classification", "encoder", many),
    ("regression", "encoder", scored),
    ("token-classification", "encoder", tagged),
    ("question-answering", "encoder", asked),
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return make_tokenizer()


def rows_of(make: Any, count: int, seed: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    return pairs(count, seed) if make is None else [make(draw) for _ in range(count)]


def make_data(folder: Path, make: Any) -> Path:
    folder.mkdir()
    for seed, (part, count) in enumerate((("train", 60), ("valid", 20), ("test", 30))):
        write_rows(folder / f"{part}.jsonl", rows_of(make, count, seed))
    return folder


def tune(folder: Path, task: str, data: Path, run: Path, **settings: Any) -> Any:
    options = {"rows_per_batch": 8, "steps": 6, "save": SaveConfig(best="task", evaluate_at=())}
    return finetune(str(folder), task, data, run=str(run), quiet=True, **(options | settings))


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]} {kind[1]}")
def tuned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Any:
    """A task, its data, how rows are made, and what a short fine-tuning run came to."""
    task, family, make = request.param
    place = tmp_path_factory.mktemp("tuned")
    data = make_data(place / "data", make)
    return task, data, make, tune(make_model(place / "model", family, tokenizer), task, data, place / "run")


def test_every_task_is_compared(tuned: Any, tmp_path: Path) -> None:
    task, data, _, result = tuned
    found = evaluate_task(
        task, data, models={"tuned": result.folder}, baselines=["all"], part="valid", out=tmp_path / "out"
    )
    rows = {row.name: row for row in found.rows}
    assert {name: rows["tuned"].whole[name] for name in rows["tuned"].whole} == pytest.approx(
        {name: result.scores[name] for name in rows["tuned"].whole}
    )
    assert len(rows) > 1 and all(row.is_baseline for name, row in rows.items() if name != "tuned")
    for name, row in rows.items():
        assert row.whole == METRICS[found.metric](found.outputs[name], found.references)
    written = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert written["task"] == task and written["part"] == "valid" and len(written["rows"]) == 20
    assert {each["name"] for each in written["systems"]} == set(rows)
    assert written["rows"][3]["outputs"]["tuned"] == found.outputs["tuned"][3]
    page = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert found.legend() in page and "Worst by" in page and "<script" not in page
    assert ("true \\ found" in page) == (found.metric in ("accuracy", "multilabel", "entities"))


def test_neither_order_nor_batches_change_an_answer(tuned: Any) -> None:
    task, _, make, result = tuned
    model, opened = load(result.folder)
    rows = rows_of(make, 23, 7)
    if task == "question-answering":  # each of its windows, too
        rows[0]["context"] += " the cat is red" * 30
    order = random.Random(1).sample(range(23), 23)
    decodings: list[dict[str, Any]] = [{}]
    if find_task(task).writes:
        decodings.append({"num_beams": 1, "do_sample": True, "top_k": 5, "seed": 3})
    for decoding in decodings:
        answers = []
        for given, count in ((rows, 16), (rows, 1), ([rows[place] for place in order], 5)):
            limits = Limits(source=48, on_long="truncate")
            encoding = encode_rows(
                find_task(task), given, model.config, opened, limits=limits, labels=model.config.labels
            )
            answers.append(
                answer_samples(model, opened, find_task(task), encoding.samples, decoding=decoding, rows=count)[0]
            )
        shuffled = [answers[2][order.index(place)] for place in range(23)]
        if task == "regression":
            assert answers[1] == pytest.approx(answers[0], abs=1e-6) and shuffled == pytest.approx(answers[0], abs=1e-6)
        else:
            assert answers[1] == answers[0] and shuffled == answers[0]


def test_order_of_the_rows_changes_no_score(tmp_path: Path, tokenizer: Tokenizer) -> None:
    data, model = make_data(tmp_path / "data", None), make_model(tmp_path / "m", "encoder_decoder", tokenizer)
    found = evaluate_task("summarization", data, models=[str(model)], baselines=["all"])
    rows = pairs(30, 2)
    random.Random(4).shuffle(rows)
    write_rows(data / "test.jsonl", rows)
    shuffled = evaluate_task("summarization", data, models=[str(model)], baselines=["all"])
    assert shuffled.to_table() == found.to_table() and shuffled.to_dict() == found.to_dict()


def test_baselines_learn_from_the_training_rows(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", None)
    found = evaluate_task("summarization", data, baselines=["nearest", "all", "lead"], limit=10)
    assert list(found.outputs) == ["nearest", "lead", "lead-cut", "textrank"]
    training = [(row["source"], row["target"]) for row in pairs(60, 0)]
    sources = [row["source"] for row in pairs(30, 2)[:10]]
    assert found.outputs["nearest"] == run_baseline("nearest", sources, training)
    assert found.sources == sources and found.references == [row["target"] for row in pairs(30, 2)[:10]]


def test_baselines_of_tags_labels_and_numbers(tmp_path: Path) -> None:
    tags = tmp_path / "tags"
    tags.mkdir()
    write_rows(tags / "train.jsonl", [{"tokens": ["a", "b", "b"], "tags": ["O", "B-x", "O"]}] * 2)
    write_rows(tags / "test.jsonl", [{"tokens": ["b", "a", "new"], "tags": ["O", "O", "O"]}])
    assert evaluate_task("token-classification", tags, baselines=["all"]).outputs["majority"] == [["B-x", "O", "O"]]
    several = tmp_path / "several"
    several.mkdir()
    train = [
        {"text": "cat sun", "label": ["cat", "sun"]},
        {"text": "cat", "label": ["cat"]},
        {"text": "x", "label": []},
    ]
    write_rows(several / "train.jsonl", train * 5)
    write_rows(several / "test.jsonl", [{"text": "a cat in the sun", "label": ["cat", "sun"]}])
    outputs = evaluate_task("multi-label-classification", several, baselines=["all"]).outputs
    assert outputs == {"majority": [["cat"]], "nearest": [["cat", "sun"]], "logistic": [["cat", "sun"]]}
    numbers = tmp_path / "numbers"
    numbers.mkdir()
    write_rows(numbers / "train.jsonl", [{"text": "good", "label": 4.0}, {"text": "bad", "label": 1.0}])
    write_rows(numbers / "test.jsonl", [{"text": "so good", "label": 5.0}, {"text": "so bad", "label": 0.0}])
    found = evaluate_task("regression", numbers, baselines=["all"])
    assert found.outputs == {"mean": [2.5, 2.5], "nearest": [4.0, 1.0]}
    assert found.rows[0].scores["r2"].mean == pytest.approx(1 - 1 / 6.25) and found.rows[1].scores["r2"].mean == 0.0


def test_rows_of_several_numbers(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", [{"text": "a", "label": [1.0, 4.0]}, {"text": "b", "label": [3.0, 8.0]}])
    write_rows(tmp_path / "test.jsonl", [{"text": "a", "label": [1.0, 4.0]}, {"text": "b", "label": [3.0, 8.0]}])
    found = evaluate_task("regression", tmp_path, baselines=["all"], out=tmp_path / "out")
    assert found.outputs["mean"] == [[2.0, 6.0]] * 2 and found.rows[0].scores["r2"].mean == 1.0
    assert found.rows[1].scores["r2"].mean == pytest.approx(1 - (1 + 4) / 2 / 6.5)


def test_rows_that_are_too_long(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = pairs(10, 3)
    rows[4]["source"] = " ".join([rows[4]["source"]] * 20)
    data = write_rows(tmp_path / "rows.jsonl", rows)
    model = str(make_model(tmp_path / "model", "encoder_decoder", tokenizer))
    with pytest.raises(DataError, match="1 of 10 rows are longer than 32 tokens"):
        evaluate_task("summarization", data, models=[model], limits=Limits(source=32))
    cut = evaluate_task("summarization", data, models=[model], limits=Limits(source=32, on_long="truncate"))
    assert len(cut.references) == 10
    left = evaluate_task(
        "summarization", data, models=[model], baselines=["lead"], limits=Limits(source=32, on_long="drop")
    )
    assert left.left_out == 1 and [len(each) for each in left.outputs.values()] == [9, 9]
    assert left.references == [row["target"] for place, row in enumerate(rows) if place != 4]
    assert left.legend().startswith("9 texts (1 more too long for a model are left out)")


def test_a_word_that_was_cut_off_has_no_name(tmp_path: Path, tokenizer: Tokenizer) -> None:
    data = make_data(tmp_path / "data", tagged)
    folder = tune(make_model(tmp_path / "model", "encoder", tokenizer), "token-classification", data, tmp_path / "run")
    limits = Limits(source=5, on_long="truncate")
    found = evaluate_task("token-classification", data, models={"m": folder.folder}, limits=limits)
    assert all(len(ours) == 6 and ours[-1] == "O" for ours in found.outputs["m"])


@pytest.mark.parametrize(
    ("task", "make"), [("text-classification", labelled), ("regression", scored), ("token-classification", tagged)]
)
def test_a_row_in_windows_is_judged_once(task: str, make: Any, tmp_path: Path, tokenizer: Tokenizer) -> None:
    data = make_data(tmp_path / "data", make)
    rows = rows_of(make, 12, 2)
    for row in rows[::2]:
        for name in ("tokens", "tags"):
            if name in row:
                row[name] = row[name] * 4
        if "text" in row:
            row["text"] = " ".join([row["text"]] * 6)
    write_rows(data / "valid.jsonl", rows)
    limits = Limits(source=16, on_long="split")
    result = tune(
        make_model(tmp_path / "model", "encoder", tokenizer),
        *(task, data, tmp_path / "run"),
        source_tokens=16,
        on_long="split",
    )
    found = evaluate_task(task, data, models={"m": result.folder}, part="valid", limits=limits)
    assert len(found.references) == 12 and found.left_out == 0
    whole = {name: result.scores[name] for name in found.rows[0].whole}
    assert found.rows[0].whole == pytest.approx(whole, rel=1e-4)  # rows are batched in another order
    model, opened = load(result.folder)
    samples = encode_rows(
        find_task(task), rows, model.config, opened, limits=limits, labels=model.config.labels
    ).samples
    windows = [sample for sample in samples if sample.number == 0]
    assert len(windows) > 1
    answers, _ = answer_samples(model, opened, find_task(task), samples)
    alone = [answer_samples(model, opened, find_task(task), [window])[0][0] for window in windows]
    if task == "regression":
        assert answers[0] == pytest.approx(sum(alone) / len(alone), abs=1e-5)
    elif task == "token-classification":
        assert [len(each) for each in answers] == [len(row["tags"]) for row in rows]
        assert found.references == [row["tags"] for row in rows]
    else:
        scores = [model.classify(collate([window.example], model.config.pad_id).inputs)[0] for window in windows]
        assert answers[0] == model.config.labels[int(sum(scores).argmax())]  # type: ignore[attr-defined]


def test_what_a_folder_says_of_writing_is_done(tmp_path: Path, tokenizer: Tokenizer) -> None:
    data = write_rows(tmp_path / "rows.jsonl", pairs(6, 3))
    folder = make_model(tmp_path / "model", "encoder_decoder", tokenizer)
    plain = evaluate_task("summarization", data, models={"m": folder}).outputs["m"]
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"max_new_tokens": 2}), encoding="utf-8")
    told = evaluate_task("summarization", data, models={"m": folder}).outputs["m"]
    assert told != plain and max(len(tokenizer.encode(text)) for text in told) <= 3
    again = evaluate_task("summarization", data, models={"m": folder}, decoding={"max_new_tokens": 64}).outputs["m"]
    assert again == plain
    words = [len(tokenizer.encode(text)) for text in plain]
    path.write_text(json.dumps({"max_new_tokens": 64, "do_sample": True, "temperature": 2.0}), encoding="utf-8")
    asked = {"max_length": 3, "num_beams": 2}  # each ends what the folder says instead of standing beside it
    short = evaluate_task("summarization", data, models={"m": folder}, decoding=asked).outputs["m"]
    assert max(words) > 3 >= max(len(tokenizer.encode(text)) for text in short)


def test_what_a_folder_says_of_its_task_is_done(tmp_path: Path, tokenizer: Tokenizer) -> None:
    data = write_rows(tmp_path / "rows.jsonl", pairs(6, 3))
    folder = make_model(tmp_path / "model", "encoder_decoder", tokenizer)
    plain = evaluate_task("text2text-generation", data, models={"m": folder}).outputs["m"]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["task_specific_params"] = {"text2text-generation": {"prefix": "what colour ? ", "max_new_tokens": 3}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    told = evaluate_task("text2text-generation", data, models={"m": folder}).outputs["m"]
    assert told != plain and max(len(tokenizer.encode(text)) for text in told) <= 4
    longer = evaluate_task("text2text-generation", data, models={"m": folder}, decoding={"max_new_tokens": 9})
    assert longer.outputs["m"] != told


def test_a_task_of_ones_own(tmp_path: Path, tokenizer: Tokenizer) -> None:
    def error(outputs: Any, references: Any) -> dict[str, float]:
        return {"error": sum(abs(len(a) - len(b)) for a, b in zip(outputs, references, strict=True)) / len(outputs)}

    task = Task("headline", "pair", error, "-error", prepare=lambda row: {"source": row["b"], "target": row["t"]})
    data = write_rows(tmp_path / "rows.jsonl", [{"b": row["source"], "t": row["target"]} for row in pairs(6, 3)])
    model = make_model(tmp_path / "model", "decoder", tokenizer)
    found = evaluate_task(task, data, models={"m": model}, baselines=["lead"])
    assert found.primary == "-error" and [row.name for row in found.rows][-1] == "m"
    assert found.rows[0].scores["-error"].mean == -found.rows[0].whole["error"]
    assert "-error [95 %]" in found.to_table()


def test_wrong_input_is_one_sentence(tmp_path: Path, tokenizer: Tokenizer) -> None:
    data = write_rows(tmp_path / "rows.jsonl", pairs(6, 3))
    folder = tmp_path / "folder"
    folder.mkdir()
    write_rows(folder / "train.jsonl", pairs(6, 3))
    model = str(make_model(tmp_path / "model", "encoder_decoder", tokenizer))
    encoder = str(make_model(tmp_path / "encoder", "encoder", tokenizer))
    labels = write_rows(tmp_path / "labels.jsonl", [{"text": "the cat", "label": "x"}])
    cases: list[tuple[Any, str]] = [
        (lambda: evaluate_task("summarization", data), "neither a model nor a baseline"),
        (lambda: evaluate_task("text-generation", data, models=[model]), "use `trivium evaluate loss`"),
        (lambda: evaluate_task("summarization", data, baselines=["majority"]), "expected one of lead, lead-cut"),
        (lambda: evaluate_task("text-classification", labels, models=[encoder]), "head language for text-class"),
        (lambda: evaluate_task("summarization", data, models=[encoder]), "expected a decoder or an encoder_decoder"),
        (
            lambda: evaluate_task("summarization", data, models=[model], limits=Limits(on_long="split")),
            "a row has one text as answer",
        ),
        (
            lambda: evaluate_task("summarization", data, models=[model], limits=Limits(on_long="cut")),  # type: ignore[arg-type]
            "on_long is 'cut'",
        ),
        (lambda: evaluate_task("summarization", data, models={"lead": model}, baselines=["lead"]), "both called lead"),
    ]
    for call, message in cases:
        with pytest.raises(ConfigError, match=message):
            call()
    with pytest.raises(DataError, match=r"no rows of the part test; expected a table or a folder with test\.\*"):
        evaluate_task("summarization", folder, models=[model])
    with pytest.raises(DataError, match="learns from training rows and there are none"):
        evaluate_task("summarization", data, baselines=["nearest"])
