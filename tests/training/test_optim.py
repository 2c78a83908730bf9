"""Groups, AdamW and Muon."""

import pytest
import torch
from torch import Tensor, nn

from tests.families import TINY
from trivium.errors import ConfigError
from trivium.model import build_model
from trivium.training.optim import Muon, OptimizerConfig, build_optimizers, group_parameters, orthogonalize


@pytest.mark.parametrize("name", TINY)
def test_only_matrices_of_blocks_decay(name: str) -> None:
    model = build_model(TINY[name])
    matrices, rest = group_parameters(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert len(matrices) + len(rest) == len(names)
    for parameter in matrices:
        assert names[id(parameter)].endswith(".weight")
        assert any(part in names[id(parameter)] for part in (".attention.", ".cross_attention.", ".ffn."))
    for parameter in rest:
        outside = names[id(parameter)].startswith(("embedding.", "head."))
        assert outside or "norm" in names[id(parameter)] or "bias" in names[id(parameter)]


@pytest.mark.parametrize("shape", [(16, 16), (8, 24), (24, 8)])
def test_orthogonalized_singular_values_are_near_one(shape: tuple[int, int]) -> None:
    given = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(given))
    assert float(values.min()) > 0.3
    assert float(values.max()) < 1.3


def test_orthogonalize_keeps_singular_vectors() -> None:
    left, _, right = torch.linalg.svd(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)).double())
    given = left @ torch.diag(torch.linspace(0.5, 2, 8).double()) @ right
    inside = left.T @ orthogonalize(given[None], dtype=torch.float64)[0] @ right.T
    assert float((inside - torch.diag(inside.diagonal())).abs().max()) < 1e-10


def plain_muon(parameter: Tensor, gradients: list[Tensor], *, rate: float, momentum: float, decay: float) -> Tensor:
    """Jordan et al. 2024 and Liu et al. 2025, one matrix at a time, as the papers write it."""
    value, average = parameter.clone(), torch.zeros_like(parameter)
    for gradient in gradients:
        average = momentum * average + (1 - momentum) * gradient
        nesterov = (1 - momentum) * gradient + momentum * average
        x = nesterov.T if nesterov.shape[0] > nesterov.shape[1] else nesterov
        x = x / (x.norm() + 1e-7)
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        update = x.T if nesterov.shape[0] > nesterov.shape[1] else x
        value = value * (1 - rate * decay) - rate * 0.2 * max(parameter.shape) ** 0.5 * update
    return value


def test_muon_is_the_papers() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(6, 4), (4, 6), (6, 4), (5, 5)]
    parameters = [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in shapes]
    gradients = [[torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes] for _ in range(4)]
    expected = [
        plain_muon(parameter.detach(), [step[place] for step in gradients], rate=0.02, momentum=0.9, decay=0.1)
        for place, parameter in enumerate(parameters)
    ]
    muon = Muon(parameters, rate=0.02, momentum=0.9, weight_decay=0.1, compute_dtype=torch.float64)
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.clone()
        muon.step()
    for parameter, value in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=1e-12, atol=1e-12)


def test_muon_leaves_the_rest_to_adamw() -> None:
    model = build_model(TINY["qwen3"])
    adamw, muon = build_optimizers(model, OptimizerConfig(name="muon", rate=0.01))
    matrices, rest = group_parameters(model)
    assert [id(each) for group in muon.param_groups for each in group["params"]] == [id(each) for each in matrices]
    assert [id(each) for group in adamw.param_groups for each in group["params"]] == [id(each) for each in rest]
    assert {group["peak_rate"] for each in (adamw, muon) for group in each.param_groups} == {0.01}


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected a rate"):
        OptimizerConfig(beta1=1.0)
