"""Positions against the papers' formulas."""

import math

import pytest
import torch

from trivium.model.config import ModelConfig, RopeScaling
from trivium.model.position import relative_buckets, rotary_frequencies, rotary_tables, rotate, sinusoids


def rope_config(**changes: object) -> ModelConfig:
    sizes = {"vocab_size": 10, "hidden_size": 16, "num_layers": 1, "num_heads": 2, "ffn_size": 16}
    return ModelConfig(family="decoder", **sizes, **changes)  # type: ignore[arg-type]


def test_sinusoids_are_the_paper_s() -> None:
    table = sinusoids(torch.arange(20)[None], 8, torch.float64)[0]
    for position in (0, 3, 19):
        for i in range(4):
            angle = position / 10_000 ** (2 * i / 8)
            assert table[position, i] == pytest.approx(math.sin(angle), abs=1e-12)
            assert table[position, 4 + i] == pytest.approx(math.cos(angle), abs=1e-12)


def test_rotation_makes_scores_depend_on_distance_alone() -> None:
    config, generator = rope_config(), torch.Generator().manual_seed(0)
    q, k = (torch.randn(8, generator=generator, dtype=torch.float64) for _ in range(2))

    def score(query_position: int, key_position: int) -> float:
        cosine, sine = rotary_tables(torch.tensor([[query_position, key_position]]), config, torch.float64)
        turned = rotate(torch.stack([q, k])[None, :, None], cosine, sine)
        return float(turned[0, 0, 0] @ turned[0, 1, 0])

    assert score(9, 4) == pytest.approx(score(105, 100), rel=1e-9)
    assert score(9, 4) != pytest.approx(score(9, 5), rel=1e-3)


def test_scaling_keeps_fast_waves_and_stretches_slow_ones() -> None:
    plain, _ = rotary_frequencies(rope_config(rope_theta=500_000.0))
    for kind in ("llama3", "yarn"):
        scaling = RopeScaling(kind, factor=8.0, original_positions=64)  # type: ignore[arg-type]
        scaled, _ = rotary_frequencies(rope_config(rope_theta=500_000.0, rope_scaling=scaling))
        assert scaled[0] == pytest.approx(float(plain[0]))
        assert scaled[-1] == pytest.approx(float(plain[-1]) / 8)
    linear, _ = rotary_frequencies(rope_config(rope_theta=500_000.0, rope_scaling=RopeScaling("linear", factor=4.0)))
    assert torch.allclose(linear, plain / 4)


def test_buckets_are_exact_near_and_shared_far() -> None:
    distance = torch.arange(-200, 201)
    causal = relative_buckets(distance, causal=True, num_buckets=32, max_distance=128)
    assert causal[200:].tolist() == [0] * 201
    assert causal[185:200].flip(0).tolist() == list(range(1, 16))
    assert causal[0] == 31 and causal.max() == 31
    both = relative_buckets(distance, causal=False, num_buckets=32, max_distance=128)
    assert both[200] == 0 and both[201] == 17 and both[199] == 1
    assert both[:200].max() == 15 and both[201:].min() == 17
