"""Optimizers: AdamW for everything, or Muon for the matrices of the blocks and AdamW for the rest.

Knows which parameter belongs to which group; knows nothing of schedules (the loop scales `peak_rate`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trivium.errors import ConfigError


@dataclass(frozen=True)
class OptimizerConfig:
    """`rate` 0 lets the recipe choose by width; `clip` is the largest gradient norm, 0 for none."""

    name: Literal["adamw", "muon"] = "adamw"
    rate: float = 0.0
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    momentum: float = 0.95
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.rate < 0 or not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and 0 <= self.momentum < 1):
            raise ConfigError(
                f"rate {self.rate}, betas {self.beta1} and {self.beta2}, momentum {self.momentum}; expected a "
                "rate ≥ 0 and the others in [0, 1); change them"
            )


Group = dict[str, Any]


def group_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(matrices of blocks, everything else) that learn: only the former decay, and only they are Muon's.

    Embeddings, heads, bias tables, norms and biases are the rest.
    """
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        (matrices if parameter.dim() == 2 and ".layers." in name else rest).append(parameter)
    return matrices, rest


def build_optimizers(
    model: nn.Module, config: OptimizerConfig, *, compute_dtype: torch.dtype = torch.float32
) -> list[torch.optim.Optimizer]:
    """The optimizers of a model, each group with its `peak_rate`."""
    matrices, rest = group_parameters(model)
    plain: Group = {"params": rest, "weight_decay": 0.0}
    decayed: Group = {"params": matrices, "weight_decay": config.weight_decay}
    groups = [plain] if config.name == "muon" else [decayed, plain]
    betas = (config.beta1, config.beta2)
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=config.rate, betas=betas, fused=True)]
    if config.name == "muon":
        optimizers.append(
            Muon(
                matrices,
                rate=config.rate,
                momentum=config.momentum,
                weight_decay=config.weight_decay,
                compute_dtype=compute_dtype,
            )
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_rate"] = config.rate
    return optimizers


def orthogonalize(matrices: Tensor, *, dtype: torch.dtype = torch.float32, steps: int = 5) -> Tensor:
    """Nearly orthogonal matrices with the singular vectors of those given, `(count, rows, columns)`.

    Newton–Schulz iteration with the quintic whose slope at 0 is steep (Jordan et al. 2024): singular values end
    between about 0.7 and 1.2. Run in the machine's compute dtype, since bfloat16 is a hundred times slower on
    processors without the instruction.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised, for matrices (Jordan et al. 2024).

    Updates are scaled by 0.2 √max(rows, columns) so that AdamW's rates and decay carry over (Liu et al. 2025).
    Matrices of one shape are orthogonalised together.
    """

    def __init__(
        self,
        matrices: list[nn.Parameter],
        *,
        rate: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        compute_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(matrices, {"lr": rate, "momentum": momentum, "weight_decay": weight_decay})
        self.compute_dtype = compute_dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # torch overloads it
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for shape, same in shapes.items():
                moved = torch.stack([self._momentum(parameter, group["momentum"]) for parameter in same])
                updates = orthogonalize(moved, dtype=self.compute_dtype)
                scale = 0.2 * max(shape) ** 0.5 * group["lr"]
                for parameter, update in zip(same, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=scale)

    def _momentum(self, parameter: nn.Parameter, decay: float) -> Tensor:
        """Nesterov's: the gradient, moved on by the average that already holds it."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        average = state["momentum"].lerp_(parameter.grad, 1 - decay)
        return parameter.grad.lerp(average, decay)
