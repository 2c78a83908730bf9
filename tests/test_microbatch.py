"""T4: how a batch is split into micro-batches changes neither the gradient nor the logged loss."""

import dataclasses

import pytest
import torch
from torch import Tensor

from tests.data.rows import SIZE, VOCABULARY, make_row
from tests.families import TINY
from trivium.data.batch import Example, collate
from trivium.data.example import example_rng, make_example
from trivium.data.objective import ObjectiveConfig
from trivium.model import Transformer, build_model
from trivium.training.loop import batch_loss
from trivium.training.recipe import LossConfig

OBJECTIVES = {"decoder": "causal", "encoder": "masked", "encoder_decoder": "span_corruption"}
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
SPLITS = {"2x32": [32] * 2, "8x8": [8] * 8, "64x1": [1] * 64, "uneven": [30, 30, 4]}


def make_examples(objective: str) -> list[Example]:
    """64 sequences from 2 to 60 tokens, most of them short."""
    lengths = (2 + 58 * torch.rand(64, generator=torch.Generator().manual_seed(0)) ** 3).int().tolist()
    config = ObjectiveConfig(objective)  # type: ignore[arg-type]
    return [
        make_example(*make_row(length, seed=index), config=config, vocabulary=VOCABULARY, rng=example_rng(0, 0, index))
        for index, length in enumerate(lengths)
    ]


def accumulate(model: Transformer, examples: list[Example], sizes: list[int]) -> tuple[float, Tensor]:
    """The step's loss and its gradient as one vector: sums over micro-batches, divided by all targets."""
    model.zero_grad()
    total_targets = sum(float(example.weights.sum()) for example in examples)
    total, begin = 0.0, 0
    for size in sizes:
        batch = collate(examples[begin : begin + size], 0)
        loss = batch_loss(model, batch, LossConfig(label_smoothing=0.1, z_loss=1e-3), total_targets)
        loss.backward()
        total, begin = total + loss.item(), begin + size
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return total, torch.cat(gradients)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ["qwen3", "bert", "t5"])
def test_any_split_of_a_batch_gives_the_same_step(name: str, dtype: torch.dtype) -> None:
    model = build_model(dataclasses.replace(TINY[name], vocab_size=SIZE), seed=1, dtype=dtype).train()
    examples = make_examples(OBJECTIVES[model.config.family])
    whole_loss, whole = accumulate(model, examples, [64])
    for split, sizes in SPLITS.items():
        loss, gradient = accumulate(model, examples, sizes)
        assert loss == pytest.approx(whole_loss, rel=TOLERANCE[dtype]), split
        assert (gradient - whole).norm() <= TOLERANCE[dtype] * whole.norm(), split
