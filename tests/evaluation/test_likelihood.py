"""The loss of a model on batches: equal to the plain formula, whatever the batching and the chunks."""

import dataclasses
import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from tests.data.rows import SIZE, VOCABULARY
from tests.families import TINY
from tests.training.test_golden import make_tokens
from trivium.data.batch import Batch
from trivium.data.loader import Loader
from trivium.data.objective import ObjectiveConfig
from trivium.errors import DataError
from trivium.evaluation import likelihood
from trivium.evaluation.likelihood import evaluate_loss
from trivium.model import Transformer, build_model

OBJECTIVES = {
    "qwen3": ObjectiveConfig("causal"),
    "bert": ObjectiveConfig("masked"),
    "t5": ObjectiveConfig("span_corruption"),
}


def make_model(name: str, *, dropout: float = 0.0) -> Transformer:
    return build_model(dataclasses.replace(TINY[name], vocab_size=SIZE, dropout=dropout), seed=1)


def batches_of(name: str, rows: int) -> Iterator[Batch]:
    loader = Loader(make_tokens(600), VOCABULARY, objective=OBJECTIVES[name], seq_len=32, rows_per_batch=rows)
    return loader.valid_batches()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_equal_to_the_plain_formula(name: str) -> None:
    model = make_model(name).eval()
    report = evaluate_loss(model, batches_of(name, 4), bytes_per_token=2.5)
    total, weight, right = 0.0, 0.0, 0.0
    with torch.no_grad():
        for batch in batches_of(name, 4):
            logits = model.head(model(batch.inputs, batch.context))
            losses = F.cross_entropy(logits.flatten(0, 1).double(), batch.targets.flatten(), reduction="none")
            total += float((losses * batch.weights.flatten()).sum())
            weight += float(batch.weights.sum())
            right += float(((logits.argmax(-1) == batch.targets) * batch.weights).sum())
    assert report.loss == pytest.approx(total / weight, rel=1e-5)
    assert report.accuracy == pytest.approx(right / weight)
    assert report.tokens == weight > 0
    assert report.perplexity == pytest.approx(math.exp(report.loss))
    assert report.bits_per_byte == pytest.approx(report.loss / math.log(2) / 2.5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_batching_and_chunks_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(name)
    alone = evaluate_loss(model, batches_of(name, 1), bytes_per_token=1.0)
    together = evaluate_loss(model, batches_of(name, 7), bytes_per_token=1.0)
    monkeypatch.setattr(likelihood, "CHUNK_LOGITS", 3 * SIZE)
    chunked = evaluate_loss(model, batches_of(name, 7), bytes_per_token=1.0)
    for other in (together, chunked):
        assert other.loss == pytest.approx(alone.loss, rel=1e-5)
        assert other.tokens == alone.tokens


def test_dropout_is_off_and_the_mode_comes_back() -> None:
    model = make_model("qwen3", dropout=0.5).train()
    one, other = (evaluate_loss(model, batches_of("qwen3", 4), bytes_per_token=1.0) for _ in range(2))
    assert one == other
    assert model.training
    evaluate_loss(model.eval(), batches_of("qwen3", 4), bytes_per_token=1.0)
    assert not model.training


def test_nothing_to_score_is_an_error() -> None:
    (batch, *_) = batches_of("qwen3", 2)
    empty = dataclasses.replace(batch, weights=torch.zeros_like(batch.weights))
    for given in ([], [empty]):
        with pytest.raises(DataError, match=r"no token to score; expected .*; give more text"):
            evaluate_loss(make_model("qwen3"), given, bytes_per_token=1.0)
