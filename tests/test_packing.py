"""T24: documents that share a row do not know of each other: every family, forwards and backwards."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.data.rows import SIZE, VOCABULARY, make_row
from tests.families import TINY
from trivium.data.batch import Batch, Example, collate
from trivium.data.example import example_rng, make_example
from trivium.data.objective import ObjectiveConfig
from trivium.model import ModelConfig, Side, Transformer, build_model

OBJECTIVES = {"decoder": "causal", "encoder": "masked", "encoder_decoder": "span_corruption"}
CONFIGS = TINY | {"window": dataclasses.replace(TINY["llama"], window=3)}
LENGTHS = (9, 14, 6)


def make_model(name: str, **changes: int) -> Transformer:
    config = dataclasses.replace(CONFIGS[name], vocab_size=SIZE, **changes)
    return build_model(config, seed=1).eval()


def make_packed(config: ModelConfig) -> Example:
    """Three documents in one row under the family's objective, everything learned so that nothing hides."""
    objective = ObjectiveConfig(OBJECTIVES[config.family], mask_rate=0.5)
    ids, segments = make_row(*LENGTHS, seed=3)
    return make_example(ids, segments, config=objective, vocabulary=VOCABULARY, rng=example_rng(0, 0, 0))


def take(example: Example, number: int) -> Example:
    """One document of a packed row, alone in a row of its own."""
    mine = example.input_segments == number
    context_ids = context_segments = None
    if example.context_ids is not None and example.context_segments is not None:
        theirs = example.context_segments == number
        context_ids, context_segments = example.context_ids[theirs], np.ones(theirs.sum(), dtype=np.int64)
    ones = np.ones(mine.sum(), dtype=np.int64)
    return Example(
        example.input_ids[mine],
        ones,
        example.targets[mine],
        example.weights[mine],
        context_ids,
        context_segments,
    )


def scramble(side: Side, number: int) -> Side:
    """Another document in the place of one: every id of it changed."""
    ids = torch.where(side.segments == number, (side.ids + 17) % SIZE, side.ids)
    return Side(ids, side.positions, side.segments)


def losses(model: Transformer, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, logits, and each position's weighted loss."""
    hidden = model(batch.inputs, batch.context)
    logits = model.head(hidden)
    each = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none")
    return hidden, logits, each.view_as(batch.weights) * batch.weights


def embedding_gradients(model: Transformer, batch: Batch, number: int) -> list[tuple[Tensor, Tensor]]:
    """Each side's segments, and the gradient of document `number`'s loss with respect to its embeddings."""
    embedded: list[Tensor] = []
    hook = model.embedding.register_forward_hook(lambda module, inputs, output: embedded.append(output))
    _, _, each = losses(model, batch)
    hook.remove()
    gradients = torch.autograd.grad(each[batch.inputs.segments == number].sum(), embedded)
    sides = [batch.inputs] if batch.context is None else [batch.context, batch.inputs]
    return [(side.segments, gradient) for side, gradient in zip(sides, gradients, strict=True)]


@pytest.mark.parametrize("changed", [1, 2, 3])
@pytest.mark.parametrize("name", CONFIGS)
def test_changing_one_document_changes_no_bit_of_another(name: str, changed: int) -> None:
    model = make_model(name)
    batch = collate([make_packed(model.config)], 0, width=40, context_width=40)
    context = None if batch.context is None else scramble(batch.context, changed)
    other = Batch(scramble(batch.inputs, changed), context, batch.targets, batch.weights)
    with torch.no_grad():
        before, after = losses(model, batch), losses(model, other)
    kept = (batch.inputs.segments != changed) & (batch.inputs.segments != 0)
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a[kept], b[kept])
        assert not torch.equal(a[batch.inputs.segments == changed], b[batch.inputs.segments == changed])


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_gradient_that_reaches_another_document_is_exactly_zero(name: str, number: int) -> None:
    model = make_model(name)
    batch = collate([make_packed(model.config)], 0, width=40, context_width=40)
    for segments, gradient in embedding_gradients(model, batch, number):
        assert bool((gradient[segments != number] == 0).all())
        assert bool((gradient[segments == number] != 0).any())


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_loss_and_gradient_are_the_sums_of_the_separate_ones(name: str) -> None:
    model = make_model(name)
    packed = make_packed(model.config)
    total = torch.zeros(())
    for number in range(1, len(LENGTHS) + 1):
        total = total + losses(model, collate([take(packed, number)], 0))[2].sum()
    separate = torch.autograd.grad(total, list(model.parameters()), allow_unused=True)
    together = losses(model, collate([packed], 0))[2].sum()
    gradients = torch.autograd.grad(together, list(model.parameters()), allow_unused=True)
    assert together.item() == pytest.approx(total.item(), rel=1e-5)
    for one, other in zip(gradients, separate, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()) + 1e-6)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # Dynamo's own doing
@pytest.mark.parametrize("name", ["llama", *(pytest.param(each, marks=pytest.mark.torture) for each in ("bert", "t5"))])
def test_compiled_packing_keeps_documents_apart(name: str) -> None:
    """The traced graph, forwards and backwards, without the minutes that generating code for it takes."""
    layers = {"num_layers": 1} | ({"num_encoder_layers": 1} if name == "t5" else {})
    model = make_model(name, **layers)
    batch = collate([make_packed(model.config)], 0, width=32, context_width=32)
    eager = losses(model, batch)[2]
    compiled = torch.compile(model, backend="aot_eager")
    hidden = compiled(batch.inputs, batch.context)
    torch.testing.assert_close(hidden, model(batch.inputs, batch.context), rtol=1e-5, atol=1e-5)
    context = None if batch.context is None else scramble(batch.context, 1)
    other = compiled(scramble(batch.inputs, 1), context)
    kept = batch.inputs.segments > 1
    assert torch.equal(hidden[kept], other[kept]) and eager.isfinite().all()
