"""T25: a row's logits do not depend on how many and how long the rows beside it are."""

import dataclasses

import pytest
import torch

from tests.families import SIZES, TINY, context_for
from trivium.model import ModelConfig, Side, Transformer, build_model

CONFIGS = TINY | {"window": dataclasses.replace(TINY["llama"], window=3)}
Row = list[int]


def make_rows(count: int, *, longest: int, seed: int) -> list[Row]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(1, SIZES["vocab_size"], (n,), generator=generator).tolist() for n in lengths]


@torch.no_grad()
def logits_of(model: Transformer, inputs: list[Row], contexts: list[Row]) -> torch.Tensor:
    context = context_for(model.config, Side.from_ids(contexts))
    return torch.as_tensor(model.head(model(Side.from_ids(inputs), context)))


def make_model(config: ModelConfig) -> Transformer:
    return build_model(config, seed=2).eval()


@pytest.mark.parametrize("count", [1, 2, 5, 32])
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_in_a_batch_are_those_alone(name: str, count: int) -> None:
    model = make_model(CONFIGS[name])
    inputs = make_rows(count, longest=40, seed=count)
    contexts = make_rows(count, longest=50, seed=count + 100)  # another length than its inputs
    together = logits_of(model, inputs, contexts)
    assert together.isfinite().all()
    for index in range(count):
        alone = logits_of(model, [inputs[index]], [contexts[index]])[0]
        torch.testing.assert_close(together[index, : len(inputs[index])], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_stands_in_the_padding_changes_no_bit(name: str) -> None:
    model = make_model(CONFIGS[name])
    side = Side.from_ids(make_rows(6, longest=20, seed=0))
    noise = torch.where(side.segments == 0, torch.randint_like(side.ids, SIZES["vocab_size"]), side.ids)
    other = Side(noise, side.positions, side.segments)
    with torch.no_grad():
        a = model(side, context_for(model.config, side))
        b = model(other, context_for(model.config, other))
    assert torch.equal(a[side.segments != 0], b[side.segments != 0])
