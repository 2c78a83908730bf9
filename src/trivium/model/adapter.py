"""Low-rank adapters (LoRA, Hu et al. 2021): the weights stay as they are, two thin matrices beside each are trained.

Knows the modules of a model, no files (hub/adapter.py) and no training loop: whoever trains takes the parameters that
require gradients.

Legend: I inputs, O outputs, R rank.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivium.errors import ConfigError
from trivium.model.layer import drop, make_linear
from trivium.model.mask import Side
from trivium.model.transformer import Transformer


@dataclass(frozen=True)
class LoraConfig:
    """Which linear maps get an adapter, and how large it is.

    A target is a module's name or the end of one: `query` is every query map of the blocks, `cross_attention.value`
    only those over a context, `decoder.layers.0.ffn.up` one map, `all` every map of the blocks. `alpha` / `rank` is
    the factor of what the adapter adds, `dropout` the probability for what it reads. Raises `ConfigError`.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("query", "value")

    def __post_init__(self) -> None:
        if self.rank < 1 or not 0.0 < self.alpha < math.inf or not 0.0 <= self.dropout < 1.0:
            raise ConfigError(
                f"rank {self.rank}, alpha {self.alpha}, dropout {self.dropout}; expected a positive count, a positive "
                "number, a probability in [0, 1); change them"
            )
        if isinstance(self.targets, str) or not self.targets:
            raise ConfigError(f"targets are {self.targets!r}; expected a tuple of names; as in targets=('query',)")


class AdaptedLinear(nn.Module):
    """x Wᵀ + b + (α/r) · x Aᵀ Bᵀ (Hu et al. 2021, eq. 3): a linear map, frozen, with an adapter that is not.

    `weight` and `bias` are the map's own and keep their names; `lora_a` is `(R, I)`, `lora_b` `(O, R)`, and `scale`
    is α/r. Several maps of one input may share one `lora_a`, as those do that GPT-2's files hold as one.
    """

    def __init__(self, linear: nn.Linear, lora_a: Tensor, lora_b: Tensor, *, scale: float, dropout: float) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.lora_a, self.lora_b = _as_parameter(lora_a), _as_parameter(lora_b)
        self.scale, self.dropout, self.training = scale, dropout, linear.training

    @property
    def rank(self) -> int:
        """R."""
        return len(self.lora_a)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(…, I)` to `(…, O)`."""
        out = F.linear(x, self.weight, self.bias)
        read = drop(x, self.dropout if self.training else 0.0).flatten(0, -2)
        inner = F.linear(read, self.lora_a.to(x.dtype))
        # Scaled and added in one pass: 5 % of a T5's training step.
        return torch.addmm(out.flatten(0, -2), inner, self.lora_b.to(out.dtype).T, alpha=self.scale).view_as(out)

    @torch.no_grad()
    def merged(self) -> Tensor:
        """W + (α/r) B A, `(O, I)`: the matrix of the ordinary linear map that computes the same."""
        added_OI = (self.scale * self.lora_b) @ self.lora_a
        return (self.weight.to(added_OI.dtype) + added_OI).to(self.weight.dtype)


def add_adapter(model: Transformer, config: LoraConfig, *, seed: int = 0) -> None:
    """Put a fresh adapter beside each target, in place, and freeze all else but a task head, which begins untrained.

    The model computes what it did before: B is 0, A uniform in ±I^-½ (fan-in, as the peers have it). Raises
    `ConfigError` for a target that names no linear map, and for a model that has an adapter already.
    """
    targets = find_targets(model, config.targets)
    model.requires_grad_(False)
    if model.classifier is not None:
        model.classifier.requires_grad_(True)
    generator = torch.Generator().manual_seed(seed)
    for name in targets:
        outputs, inputs = cast(nn.Linear, model.get_submodule(name)).weight.shape
        lora_a = torch.empty(config.rank, inputs).uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
        lora_b = torch.zeros(outputs, config.rank)
        adapt_linear(model, name, lora_a, lora_b, scale=config.alpha / config.rank, dropout=config.dropout)


def find_targets(model: Transformer, targets: tuple[str, ...]) -> list[str]:
    """The names of the linear maps that `targets` mean, in the model's order; raises like `add_adapter`."""
    if has_adapter(model):
        raise ConfigError("the model has an adapter already; expected none; call merge_adapter first")
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    inner = [name for name in linears if ".layers." in name]
    found: set[str] = set()
    for target in targets:
        named = [name for name in inner if target == "all" or name.endswith(f".{target}")]
        named += [target] if target in linears else []
        if not named:
            known = ", ".join(sorted({name.rpartition(".")[2] for name in inner}))
            raise ConfigError(f"no linear map is named {target!r}; expected one of {known} or all; correct targets")
        found.update(named)
    return [name for name in linears if name in found]


def adapt_linear(
    model: Transformer, name: str, lora_a: Tensor, lora_b: Tensor, *, scale: float, dropout: float = 0.0
) -> None:
    """Put one adapter, `(R, I)` and `(O, R)`, beside the linear map of that name, in place.

    A `Parameter` is taken as it is, so that several maps can share it; a tensor is copied, to the map's device and
    its type, but at least float32: steps of training are lost in 16 bits.
    """
    linear = cast(nn.Linear, model.get_submodule(name)).requires_grad_(False)
    dtype = torch.promote_types(linear.weight.dtype, torch.float32)
    parts = [
        each if isinstance(each, nn.Parameter) else each.to(linear.weight.device, dtype, copy=True)
        for each in (lora_a, lora_b)
    ]
    _replace(model, name, AdaptedLinear(linear, parts[0], parts[1], scale=scale, dropout=dropout))


@torch.no_grad()
def merge_adapter(model: Transformer) -> float:
    """Add each adapter to the weights beside it, in place: an ordinary model again, with equal scores.

    Scores of random tokens are computed before and after, and their largest difference, as a part of the largest score,
    is given back. All parameters require gradients then. The weights are replaced, not written to: copies that share
    them stay as they are. Raises `ConfigError` for a model without an adapter, and, with the adapter still beside the
    weights, when the two scores are not equal to what the weights' type can hold.
    """
    adapted = adapted_linears(model)
    expected = _probe(model)
    for name, part in adapted.items():
        linear = make_linear(part.weight.shape[1], part.weight.shape[0], bias=False)
        linear.weight, linear.training = nn.Parameter(part.merged()), part.training
        linear.register_parameter("bias", part.bias)
        _replace(model, name, linear)
    # Rounding alone gives 2e-6 in float32 and 0.03 to 0.08 in bfloat16 (32 layers, every map adapted).
    allowed = min(1000 * torch.finfo(expected.dtype).eps, 0.2)
    difference = float(((_probe(model) - expected).abs().max() / expected.abs().max()).double())
    if not difference <= allowed:
        for name, part in adapted.items():
            _replace(model, name, part)
        found = f"scores of the merged model differ by {difference:.1e} of the largest one"
        raise ConfigError(f"{found}; expected at most {allowed:.1e}; keep the adapter, or load the base as float32")
    model.requires_grad_(True)
    return difference


def has_adapter(model: nn.Module) -> bool:
    """Whether any linear map of the model has an adapter."""
    return any(isinstance(module, AdaptedLinear) for module in model.modules())


def adapted_linears(model: Transformer) -> dict[str, AdaptedLinear]:
    """The maps that have an adapter, by name; raises `ConfigError` when none has."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, AdaptedLinear)}
    if not found:
        raise ConfigError("the model has no adapter; expected one; call add_adapter or load_adapter first")
    return found


def adapter_parameters(model: Transformer) -> dict[str, Tensor]:
    """What is trained, by name: the adapters' matrices and a task head; a shared matrix once.

    Raises `ConfigError` for a model without an adapter.
    """
    adapted_linears(model)
    return {name: each for name, each in model.named_parameters() if each.requires_grad or ".lora_" in name}


def _probe(model: Transformer) -> Tensor:
    """What the model says of some random tokens, in evaluation mode: scores, or hidden states without a head."""
    config, device = model.config, model.embedding.tokens.weight.device
    generator = torch.Generator().manual_seed(0)
    steps = min(16, config.max_positions or 16)
    ids = torch.randint(config.vocab_size, (2, steps), generator=generator).tolist()
    side, training = Side.from_ids(ids, pad_id=config.pad_id).to(device), model.training
    model.eval()
    try:
        if model.classifier is not None:
            return model.classify(side)
        hidden_BTD = model(side, side if config.family == "encoder_decoder" else None)
        return torch.as_tensor(model.head(hidden_BTD) if config.head == "language" else hidden_BTD)
    finally:
        model.train(training)


def _as_parameter(tensor: Tensor) -> nn.Parameter:
    return tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    model.get_submodule(parent)._modules[last] = module
