"""Labels of texts: transformers' labels, scores and shapes, for every way of asking."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.generation.spelling import TEXTS
from tests.pipelines.labelled import make_labelled
from trivium import load, pipeline
from trivium.errors import ConfigError, RequestError

THREE = ("sad", "calm", "happy")


def pair(task: str, folder: Path) -> tuple[Any, Any]:
    return pipeline(task, model=folder), transformers.pipeline(task, model=str(folder), device="cpu")


def same(ours: Any, theirs: Any) -> None:
    """Equal nests of lists and dicts, numbers to 1e-5."""
    assert type(ours) is type(theirs)
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        ours, theirs = list(ours.values()), list(theirs.values())
    if isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, abs=1e-5)
    else:
        assert ours == theirs


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_labelled(tmp_path_factory.mktemp("labels"), "sequence", THREE)


@pytest.mark.parametrize("options", [{}, {"top_k": 1}, {"top_k": 2}, {"top_k": None}, {"function_to_apply": "none"}])
def test_text_classification_equals_transformers(three: Path, options: dict[str, Any]) -> None:
    ours, reference = pair("text-classification", three)
    for inputs in (TEXTS[0], TEXTS[:1], TEXTS[:3]):
        same(ours(inputs, **options), reference(inputs, **options))
    two = {"text": TEXTS[0], "text_pair": TEXTS[1]}
    same(ours([two], **options), reference([two], **options))
    assert len({round(found["score"], 3) for found in ours(TEXTS)}) > 2, "all alike: this would prove little"


@pytest.mark.parametrize(
    ("labels", "problem", "name"),
    [
        (("one",), "multi", "bert"),
        (THREE, "multi", "bert"),
        (("mark",), "regression", "bert"),
        (THREE, "single", "gpt2"),
    ],
)
def test_every_kind_of_problem_equals_transformers(
    labels: tuple[str, ...], problem: str, name: str, tmp_path: Path
) -> None:
    kind = "bpe" if name == "gpt2" else "wordpiece"
    ours, reference = pair(
        "text-classification", make_labelled(tmp_path, "sequence", labels, problem=problem, name=name, kind=kind)
    )
    for text in TEXTS:
        same(ours(text, top_k=None), reference(text, top_k=None))
    alone = [ours(text)[0] for text in TEXTS]
    same(ours(TEXTS, batch_size=2), alone)
    same(list(ours(iter(TEXTS))), alone)


def test_a_model_with_one_token_type_reads_pairs(three: Path) -> None:
    """RoBERTa's kind: the tokenizer numbers the second text 1, and the model has one row for both."""
    model, tokenizer = load(three)
    table = model.embedding.token_types
    assert table is not None
    alike = table.weight.data[:1].clone()
    table.weight.data = torch.cat([alike, alike])
    two = pipeline("text-classification", model=model, tokenizer=tokenizer)
    item = {"text": TEXTS[0], "text_pair": TEXTS[1]}
    expected = two(item, top_k=None)
    model.config = replace(model.config, token_types=1)
    table.weight.data = alike
    same(two(item, top_k=None), expected)


def test_the_alias_is_the_task(three: Path) -> None:
    assert pipeline("sentiment-analysis", model=three)(TEXTS) == pipeline("text-classification", model=three)(TEXTS)


NLI = ("contradiction", "neutral", "entailment")


@pytest.fixture(scope="module", params=[("bert", NLI), ("bert", ("ENTAILMENT", "NOT")), ("bart", NLI)])
def inference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name, labels = request.param
    kind = "wordpiece" if name == "bert" else "bpe"
    return make_labelled(tmp_path_factory.mktemp("nli"), "sequence", labels, name=name, kind=kind)


@pytest.mark.parametrize("options", [{}, {"multi_label": True}, {"hypothesis_template": "About {}!"}])
def test_zero_shot_equals_transformers(inference: Path, options: dict[str, Any]) -> None:
    ours, reference = pair("zero-shot-classification", inference)
    labels = ["array", "poem about rain", "error"]
    for inputs in (TEXTS[0], TEXTS[:2]):
        same(ours(inputs, labels, **options), reference(inputs, labels, **options))
    same(ours(TEXTS[1], "array, rain", **options), reference(TEXTS[1], "array, rain", **options))
    same(ours(TEXTS[1], candidate_labels=["array"]), reference(TEXTS[1], candidate_labels=["array"]))
    same(ours(sequences=TEXTS[1], candidate_labels=labels), reference(TEXTS[1], candidate_labels=labels))


def test_long_texts_are_refused_or_cut_as_asked(three: Path, inference: Path) -> None:
    ours, reference = pair("text-classification", three)
    long = TEXTS[0] * 12
    with pytest.raises(RequestError, match=r"the text has \d+ tokens; this model reads at most 64; pass truncation"):
        ours(long)
    same(ours(long, truncation=True), reference(long, truncation=True, max_length=64))
    free = pipeline("zero-shot-classification", model=inference)
    with pytest.raises(RequestError, match="reads at most 64"):
        free(long, ["array", "rain"])
    assert free(long, ["array", "rain"], truncation=True)["sequence"] == long
    with pytest.raises(RequestError, match="reads at most 64"):
        free("short", [long, "rain"], truncation=True)


def test_what_it_cannot_do_is_said(three: Path, inference: Path, folders: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="head language; text-classification needs head sequence; fine-tune"):
        pipeline("text-classification", model=folders["bert"])
    with pytest.raises(ConfigError, match="head sequence; fill-mask needs head language"):
        pipeline("fill-mask", model=three)
    ours = pipeline("text-classification", model=three)
    with pytest.raises(ConfigError, match="function_to_apply is 'tanh'; expected one of none, sigmoid, softmax"):
        ours(TEXTS[0], function_to_apply="tanh")
    with pytest.raises(RequestError, match="a dict with text and text_pair"):
        ours({"words": "a"})
    free = pipeline("zero-shot-classification", model=inference)
    with pytest.raises(RequestError, match="no candidate_labels"):
        free(TEXTS[0])
    with pytest.raises(ConfigError, match=r"hypothesis_template is 'no place'"):
        free(TEXTS[0], ["a"], hypothesis_template="no place")
    with pytest.raises(ConfigError, match="expected one that begins with “entail”"):
        pipeline("zero-shot-classification", model=three)(TEXTS[0], ["a"])
