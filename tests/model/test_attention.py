"""Attention's faster forms against the formula in float64, on every kind of mask."""

import pytest
import torch

from trivium.model import blockwise
from trivium.model.attention import attend, attend_dense
from trivium.model.mask import Mask, Side, cross_mask, self_mask


def packed_side() -> Side:
    segments = torch.tensor([[1, 1, 1, 2, 2, 3, 3, 0], [1, 1, 1, 1, 1, 1, 0, 0]])
    positions = torch.tensor([[0, 1, 2, 0, 1, 0, 1, 0], [0, 1, 2, 3, 4, 5, 0, 0]])
    return Side(torch.zeros_like(segments), positions, segments)


def full_side() -> Side:
    return Side.from_ids([[0] * 8, [0] * 8])


def written_out(q, k, v, mask: Mask, scale: float, bias=None) -> torch.Tensor:
    """The rule and the formula, one number at a time."""
    out = torch.zeros_like(q)
    for b, h, t in torch.cartesian_prod(*(torch.arange(n) for n in q.shape[:3])):
        scores, values = [], []
        for s in range(k.shape[2]):
            same = mask.query_segments[b, t] == mask.key_segments[b, s] != 0
            distance = mask.query_positions[b, t] - mask.key_positions[b, s] if mask.causal or mask.window else 0
            if same and not (mask.causal and distance < 0) and not (mask.window and abs(distance) >= mask.window):
                extra = 0.0 if bias is None else bias[0, h, t, s]
                scores.append(scale * (q[b, h, t] @ k[b, h, s]) + extra)
                values.append(v[b, h, s])
        if scores:
            out[b, h, t] = torch.stack(scores).softmax(0) @ torch.stack(values)
    return out


MASKS = {
    "everything": self_mask(full_side(), causal=False),
    "causal": self_mask(full_side(), causal=True),
    "window": self_mask(full_side(), causal=True, window=3),
    "window both ways": self_mask(full_side(), causal=False, window=3),
    "packed": self_mask(packed_side(), causal=False),
    "packed causal": self_mask(packed_side(), causal=True),
    "packed window": self_mask(packed_side(), causal=True, window=2),
    "cross": cross_mask(packed_side().segments, packed_side().segments),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("with_bias", [False, True])
def test_every_form_equals_the_formula(name: str, with_bias: bool) -> None:
    mask, generator = MASKS[name], torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 8, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    bias = torch.randn(1, 3, 8, 8, generator=generator, dtype=torch.float64) if with_bias else None
    expected = written_out(q, k, v, mask, 0.5, bias)
    dense = attend_dense(q, k, v, scale=0.5, visible=mask.visible, bias=bias)
    fast = attend(q, k, v, mask, scale=0.5, bias=None if bias is None else mask.hide(bias))
    real = (mask.query_segments != 0)[:, None, :, None]
    assert torch.allclose(dense, expected, atol=1e-12)
    assert torch.allclose(fast * real, expected, atol=1e-12)
    assert fast.isfinite().all()


def test_kinds_are_recognised() -> None:
    assert MASKS["everything"].kind == "everything"
    assert MASKS["causal"].kind == "causal"
    assert {MASKS[name].kind for name in ("window", "packed", "packed causal", "cross")} == {"general"}


def test_shared_heads_equal_repeated_heads() -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, 8, 4, generator=generator, dtype=torch.float64)
    k, v = (torch.randn(2, 2, 8, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    shared = attend(q, k, v, MASKS["causal"], scale=0.5)
    expected = written_out(q, k[:, [0, 0, 1, 1]], v[:, [0, 0, 1, 1]], MASKS["causal"], 0.5)
    assert torch.allclose(shared, expected, atol=1e-12)


def test_a_learned_bias_has_gradients() -> None:
    q = torch.randn(1, 2, 8, 4)
    bias = torch.zeros(1, 2, 8, 8, requires_grad=True)
    mask = self_mask(Side.from_ids([[0] * 8]), causal=True)
    attend(q, q, q, mask, scale=1.0, bias=mask.hide(bias)).sum().backward()
    assert bias.grad is not None and bias.grad.abs().sum() > 0
    assert torch.equal(bias.grad, bias.grad.tril())


@pytest.mark.parametrize("block", [3, 64])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("name", MASKS)
def test_dropout_by_blocks_equals_the_formula(
    name: str, with_bias: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blockwise, "BLOCK", block)
    mask, generator = MASKS[name], torch.Generator().manual_seed(0)
    tensors = [torch.randn(2, 3, 8, 4, generator=generator, dtype=torch.float64) for _ in range(3)]
    tensors += [torch.randn(1, 3, 8, 8, generator=generator, dtype=torch.float64)] if with_bias else []
    upward = torch.randn(2, 3, 8, 4, generator=generator, dtype=torch.float64)
    upward *= (mask.query_segments != 0)[:, None, :, None]  # what comes of padding is read by nobody
    plain, ours = ([tensor.clone().requires_grad_() for tensor in tensors] for _ in range(2))

    def by_formula(q, k, v, bias=None) -> torch.Tensor:
        pieces = []
        for start in range(0, 8, block):
            rows = slice(start, min(start + block, 8))
            # A causal block draws for the keys up to its own last one.
            keys = slice(0, rows.stop if mask.kind == "causal" and bias is None else 8)
            extra = None if bias is None else bias[:, :, rows, keys]
            seen = mask.visible.expand(2, 1, 8, 8)[:, :, rows, keys]
            pieces.append(
                attend_dense(
                    q[:, :, rows], k[:, :, keys], v[:, :, keys], scale=0.5, visible=seen, bias=extra, dropout=0.3
                )
            )
        return torch.cat(pieces, dim=2)

    torch.manual_seed(1)
    expected = by_formula(*plain)
    expected.backward(upward)
    torch.manual_seed(1)
    bias = mask.hide(ours[3]) if with_bias else None
    found = attend(*ours[:3], mask, scale=0.5, bias=bias, dropout=0.3)
    found.backward(upward)
    real = (mask.query_segments != 0)[:, None, :, None]
    assert torch.allclose(found * real, expected * real, atol=1e-12)
    for one, other in zip(plain, ours, strict=True):
        assert one.grad is not None
        assert torch.allclose(one.grad, other.grad, atol=1e-12)
        assert one.grad.abs().sum() > 0


@pytest.mark.parametrize("name", MASKS)
def test_trained_in_16_bits_short_rows_stay_near_and_padding_finite(name: str) -> None:
    mask, generator = MASKS[name], torch.Generator().manual_seed(0)
    exact = [torch.randn(2, 3, 8, 16, generator=generator).bfloat16().double().requires_grad_() for _ in range(3)]
    half = [each.detach().bfloat16().requires_grad_() for each in exact]
    real = (mask.query_segments != 0)[:, None, :, None]
    slopes = torch.randn(2, 3, 8, 16, generator=generator).bfloat16()
    expected = attend_dense(*exact, scale=0.25, visible=mask.visible)
    # Under autocast rotated queries and keys have 32 bits and values 16.
    found = attend(half[0].float(), half[1].float(), half[2], mask, scale=0.25)
    assert found.dtype == torch.bfloat16
    (expected * real).backward(slopes.double())
    (found * real).backward(slopes)
    torch.testing.assert_close((found * real).double(), expected * real, atol=0.03, rtol=0.03)
    for ours, theirs in zip(half, exact, strict=True):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, atol=0.06, rtol=0.03)
    with torch.no_grad():
        kernel = attend(*half, mask, scale=0.25)
    torch.testing.assert_close((kernel * real).double(), expected * real, atol=0.03, rtol=0.03)


def test_float16_with_large_scores_is_finite() -> None:
    q = torch.full((1, 1, 4, 64), 35.0, dtype=torch.float16, requires_grad=True)
    assert attend(q, q, q, self_mask(Side.from_ids([[0] * 4]), causal=True), scale=0.125).isfinite().all()


def test_dropout_by_blocks_in_half_precision_stays_near() -> None:
    """In bfloat16 too, weights are made in float32: only the products round."""
    generator = torch.Generator().manual_seed(0)
    exact = [torch.randn(2, 3, 8, 4, generator=generator).requires_grad_() for _ in range(3)]
    rough = [tensor.detach().bfloat16().requires_grad_() for tensor in exact]
    for tensors in (exact, rough):
        torch.manual_seed(1)
        attend(*tensors, MASKS["causal"], scale=0.5, dropout=0.3).float().sum().backward()
    for one, other in zip(exact, rough, strict=True):
        assert other.grad is not None and other.grad.dtype == torch.bfloat16
        assert torch.allclose(one.grad, other.grad.float(), atol=0.1)
