"""Labels of tokens: transformers' entities under every aggregation strategy, also where words lie across windows."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from tests.generation.spelling import TEXTS
from tests.pipelines.labelled import make_labelled
from trivium import pipeline
from trivium.errors import ConfigError, RequestError

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC")
STRATEGIES = ["none", "simple", "first", "average", "max"]


@pytest.fixture(scope="module", params=["wordpiece", "bpe"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_labelled(tmp_path_factory.mktemp("tokens"), "token", LABELS, kind=request.param)


def plain(found: Any) -> Any:
    """Their numpy numbers as rounded ones."""
    if isinstance(found, dict):
        return {name: plain(value) for name, value in found.items()}
    if isinstance(found, list):
        return [plain(each) for each in found]
    return round(float(found), 4) if isinstance(found, float) or hasattr(found, "dtype") else found


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_entities_equal_transformers(folder: Path, strategy: str) -> None:
    ours, reference = pipeline("ner", model=folder), transformers.pipeline("ner", model=str(folder), device="cpu")
    for options in ({}, {"ignore_labels": []}, {"ignore_labels": ["MISC", "B-PER", "PER"]}):
        for text in TEXTS[:3]:
            expected = reference(text, aggregation_strategy=strategy, **options)
            assert plain(ours(text, aggregation_strategy=strategy, **options)) == plain(expected)
    assert plain(ours(TEXTS[:3], batch_size=2)) == plain(reference(TEXTS[:3]))
    assert len({entity["entity"] for entity in ours(TEXTS[0], ignore_labels=[])}) > 2


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_windows_with_a_stride_equal_transformers(folder: Path, tmp_path: Path) -> None:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 24}))
    ours, reference = pipeline("ner", model=tmp_path), transformers.pipeline("ner", model=str(tmp_path), device="cpu")
    text = TEXTS[1] + " " + TEXTS[0]
    for strategy in ("simple", "first"):
        options = {"aggregation_strategy": strategy, "stride": 5}
        assert plain(ours(text, **options)) == plain(reference(text, **options))
    with pytest.raises(RequestError, match=r"the text has \d+ tokens; this model reads at most 24"):
        ours(text)
    assert plain(ours(text, truncation=True)) == plain(reference(text)), "transformers cuts in silence"


def test_what_it_cannot_do_is_said(folder: Path) -> None:
    ours = pipeline("ner", model=folder)
    with pytest.raises(ConfigError, match="aggregation_strategy is 'best'; expected one of none, simple, first"):
        ours(TEXTS[0], aggregation_strategy="best")
    with pytest.raises(ConfigError, match="stride without aggregation_strategy"):
        ours(TEXTS[0], stride=3)
