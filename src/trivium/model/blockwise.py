"""Attention with dropout on its weights, block by block: what no fused CPU kernel of PyTorch does.

Equal to `attend_dense`, gradients included. The weights are made again on the way back instead of being kept (Dao et
al. 2022, without their tiles over keys), so that one byte of dropout a weight is all that stays; a causal block stops
at its own last key, which saves nearly half of the work of a long row.

Legend: B batch, H heads, T queries, S keys, K head size.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from trivium.model.layer import draw_keep

# Of 32, 64, 128 and 256 the fastest for rows of 256 and 512 tokens; shorter rows are one block.
BLOCK = 128


class Rule(NamedTuple):
    """`causal` means the plain lower triangle, over as many keys as queries."""

    scale: float
    dropout: float
    causal: bool


def attend_blockwise(
    q_BHTK: Tensor,
    k_BHSK: Tensor,
    v_BHSK: Tensor,
    rule: Rule,
    *,
    bias: Tensor | None = None,
    hidden: Tensor | None = None,
) -> Tensor:
    """dropout(softmax(scale · QKᵀ + bias))V, `(B, H, T, K)`; what is `hidden`, `(B, 1, T, S)`, is not seen.

    Every query must see a key.
    """
    # Under autocast rotation gives 32 bits and maps 16: here, as in torch's own attention, all three are of one kind.
    q_BHTK, k_BHSK = q_BHTK.to(v_BHSK.dtype), k_BHSK.to(v_BHSK.dtype)
    mixed = _Blockwise.apply(  # type: ignore[no-untyped-call]  # torch declares no types for functions of one's own
        q_BHTK, k_BHSK, v_BHSK, bias, hidden, rule
    )
    return cast(Tensor, mixed)


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q_BHTK: Tensor,
        k_BHSK: Tensor,
        v_BHSK: Tensor,
        bias: Tensor | None,
        hidden: Tensor | None,
        rule: Rule,
    ) -> Tensor:
        out_BHTK, kept = torch.empty_like(q_BHTK), []
        for rows, keys in _blocks(q_BHTK.shape[2], k_BHSK.shape[2], rule):
            weights = _weigh(
                q_BHTK[:, :, rows], k_BHSK[:, :, keys], _cut(bias, rows, keys), _cut(hidden, rows, keys), rule
            )
            keep, ctx.factor = draw_keep(weights, rule.dropout)
            kept.append(keep)
            out_BHTK[:, :, rows] = weights.mul_(keep).to(v_BHSK.dtype) @ v_BHSK[:, :, keys]
        out_BHTK *= ctx.factor
        ctx.rule = rule
        ctx.save_for_backward(q_BHTK, k_BHSK, v_BHSK, bias, hidden, out_BHTK, *kept)
        return out_BHTK

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        q_BHTK, k_BHSK, v_BHSK, bias, hidden, out_BHTK, *kept = ctx.saved_tensors
        (g_BHTK,), rule = gradients, ctx.rule
        dq, dk, dv = torch.empty_like(q_BHTK), torch.zeros_like(k_BHSK), torch.zeros_like(v_BHSK)
        dbias = torch.zeros_like(bias) if ctx.needs_input_grad[3] else None
        # Σ over keys of weight · its gradient is that of output · its gradient: one number a query.
        inner = (g_BHTK * out_BHTK).sum(-1, keepdim=True)
        g_BHTK = g_BHTK * ctx.factor
        blocks = _blocks(q_BHTK.shape[2], k_BHSK.shape[2], rule)
        for (rows, keys), keep in zip(blocks, kept, strict=True):
            q, g, k, v = q_BHTK[:, :, rows], g_BHTK[:, :, rows], k_BHSK[:, :, keys], v_BHSK[:, :, keys]
            weights = _weigh(q, k, _cut(bias, rows, keys), _cut(hidden, rows, keys), rule)
            slopes = (g @ v.transpose(-1, -2)).mul_(keep).sub_(inner[:, :, rows]).mul_(weights).to(q.dtype)
            dv[:, :, keys] += weights.mul_(keep).to(g.dtype).transpose(-1, -2) @ g
            if dbias is not None:
                dbias[:, :, rows, keys] += slopes.sum(0, keepdim=True) if len(dbias) == 1 else slopes
            dq[:, :, rows] = (slopes @ k) * rule.scale
            dk[:, :, keys] += (slopes.transpose(-1, -2) @ q) * rule.scale
        return dq, dk, dv, dbias, None, None


def _blocks(queries: int, keys: int, rule: Rule) -> Iterator[tuple[slice, slice]]:
    for start in range(0, queries, BLOCK):
        stop = min(start + BLOCK, queries)
        yield slice(start, stop), slice(0, stop if rule.causal else keys)


def _cut(table: Tensor | None, rows: slice, keys: slice) -> Tensor | None:
    return None if table is None else table[:, :, rows, keys]


def _weigh(q: Tensor, k: Tensor, bias: Tensor | None, hidden: Tensor | None, rule: Rule) -> Tensor:
    """The attention weights of one block of queries, in float32 at least."""
    scores = (q @ k.transpose(-1, -2)).mul_(rule.scale)
    if scores.dtype not in (torch.float32, torch.float64):
        scores = scores.float()
    if bias is not None:
        scores.add_(bias)
    if hidden is not None:
        scores.masked_fill_(hidden, -math.inf)
    elif rule.causal:
        size = q.shape[2]
        later = torch.ones(size, size, dtype=torch.bool, device=q.device).triu_(1)
        scores[..., -size:].masked_fill_(later, -math.inf)
    return scores.softmax(-1)
