"""How a model knows where a token stands: sinusoids, rotations, relative buckets. Pure functions of positions.

Learned position tables are an ordinary embedding and live in layer.py. Nothing here is stored in a module, so a
model can be materialised from the meta device without tables to refill.

Legend: B batch, T queries, S keys, D hidden size, K head size, H heads.
"""

import math

import torch
from torch import Tensor

from trivium.model.config import ModelConfig, RopeScaling


def sinusoids(positions_BT: Tensor, hidden_size: int, dtype: torch.dtype) -> Tensor:
    """Fixed position vectors `(B, T, hidden_size)` (Vaswani et al. 2017, §3.5), sines first, then cosines.

    The paper interleaves the two; halves are the same function up to a fixed order of dimensions.
    """
    half = hidden_size // 2
    exponent = torch.arange(half, dtype=torch.float64, device=positions_BT.device) * 2 / hidden_size
    angle = positions_BT[..., None].double() / 10_000**exponent
    return torch.cat([angle.sin(), angle.cos()], dim=-1).to(dtype)


def rotary_frequencies(config: ModelConfig) -> tuple[Tensor, float]:
    """Angles per position `(head_size / 2,)` in float64, and the factor by which cos and sin are multiplied."""
    exponent = torch.arange(0, config.head_size, 2, dtype=torch.float64) / config.head_size
    frequencies = config.rope_theta**-exponent
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies, 1.0
    if scaling.kind == "linear":
        return frequencies / scaling.factor, 1.0
    if scaling.kind == "llama3":
        return _llama3(frequencies, scaling), 1.0
    return _yarn(frequencies, scaling, config), 0.1 * math.log(scaling.factor) + 1.0


def _llama3(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Slow waves are divided, fast ones kept, those between blended by how often they turn in the old length."""
    turns = scaling.original_positions * frequencies / (2 * math.pi)
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    keep = ((turns - low) / (high - low)).clamp(0, 1)
    return keep * frequencies + (1 - keep) * frequencies / scaling.factor


def _yarn(frequencies: Tensor, scaling: RopeScaling, config: ModelConfig) -> Tensor:
    """Ramp over dimension index between those that turn `beta_fast` and `beta_slow` times in the old length."""

    def dimension(turns: float) -> float:
        wavelength_ratio = scaling.original_positions / (turns * 2 * math.pi)
        return config.head_size * math.log(wavelength_ratio) / (2 * math.log(config.rope_theta))

    low = max(math.floor(dimension(scaling.beta_fast)), 0)
    high = min(math.ceil(dimension(scaling.beta_slow)), config.head_size - 1)
    index = torch.arange(len(frequencies), dtype=torch.float64)
    stretch = ((index - low) / max(high - low, 1e-3)).clamp(0, 1)
    return stretch * frequencies / scaling.factor + (1 - stretch) * frequencies


def rotary_tables(positions_BT: Tensor, config: ModelConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines `(B, T, 1, head_size / 2)` for RoPE (Su et al. 2021)."""
    frequencies, factor = rotary_frequencies(config)
    # Angles are rounded to float32 first because every published checkpoint was trained that way.
    precision = torch.float64 if dtype == torch.float64 else torch.float32
    angle = positions_BT[..., None].to(precision) * frequencies.to(positions_BT.device, precision)
    return (angle.cos() * factor).to(dtype)[:, :, None], (angle.sin() * factor).to(dtype)[:, :, None]


def rotate(x_BTHK: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn each pair (i, i + head_size / 2) of a head by its position's angle."""
    first, second = x_BTHK.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def relative_buckets(distance: Tensor, *, causal: bool, num_buckets: int, max_distance: int) -> Tensor:
    """T5's bucket of each distance key − query, same shape (Raffel et al. 2020, §2.1).

    Half of the buckets are single steps, the rest grow logarithmically up to `max_distance`; a bidirectional
    stack splits them between the two directions, a causal one folds the future into bucket 0.
    """
    start = torch.zeros_like(distance)
    if causal:
        steps = (-distance).clamp(min=0)
    else:
        num_buckets //= 2
        start = (distance > 0).long() * num_buckets
        steps = distance.abs()
    exact = num_buckets // 2
    # float32 as in the reference: a bucket edge that moves by one rounding changes a trained model's output.
    growth = torch.log(steps.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = (exact + (growth * (num_buckets - exact)).long()).clamp(max=num_buckets - 1)
    return start + torch.where(steps < exact, steps, far)
