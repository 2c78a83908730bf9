"""Cross-entropy −Σ y log ŷ over a vocabulary, without ever holding all logits.

The matrix of (tokens × vocabulary) logits is the largest tensor of a small model's step. Here it exists a chunk of
rows at a time, and each chunk's gradients are made while its softmax is at hand: three matrix products in all,
nothing computed twice. Normalisation is the loop's business: this returns a sum.

Legend: N tokens, D hidden size, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_LOGITS = 2_000_000  # floats: what stays in a laptop's last-level cache was fastest


def sum_cross_entropy(
    hidden_ND: Tensor,
    vocabulary_VD: Tensor,
    targets_N: Tensor,
    weights_N: Tensor,
    *,
    bias_V: Tensor | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Tensor:
    """Σ weight · (−log softmax(h Wᵀ + b)[target]) as a scalar of float32 (float64 for float64 input).

    `label_smoothing` spreads that share of the target evenly (Szegedy et al. 2016); `z_loss` adds that multiple of
    log² Z (PaLM, Chowdhery et al. 2022). Rows of weight 0 cost nothing.
    """
    rows = weights_N.nonzero()[:, 0]
    if len(rows) < len(weights_N):
        hidden_ND, targets_N, weights_N = hidden_ND[rows], targets_N[rows], weights_N[rows]
    result = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_ND, vocabulary_VD, bias_V, targets_N, weights_N, label_smoothing, z_loss
    )
    return torch.as_tensor(result)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Forward makes the gradients too; backward scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        vocabulary_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        weights_N: Tensor,
        smoothing: float,
        z_loss: float,
    ) -> Tensor:
        learn = any(ctx.needs_input_grad)
        ctx.gradients = (None, None, None)
        if learn:
            grad_hidden, grad_vocabulary = torch.empty_like(hidden_ND), torch.zeros_like(vocabulary_VD)
            grad_bias = None if bias_V is None else torch.zeros_like(bias_V)
            ctx.gradients = (grad_hidden, grad_vocabulary, grad_bias)
        precise = torch.float64 if hidden_ND.dtype == torch.float64 else torch.float32
        total = hidden_ND.new_zeros((), dtype=precise)
        rows = max(CHUNK_LOGITS // vocabulary_VD.shape[0], 1)
        for begin in range(0, len(hidden_ND), rows):
            part = slice(begin, begin + rows)
            logits = F.linear(hidden_ND[part], vocabulary_VD, bias_V).to(precise)
            weights, targets = weights_N[part].to(precise)[:, None], targets_N[part][:, None]
            log_z = logits.logsumexp(-1, keepdim=True)
            losses = log_z - (1 - smoothing) * logits.gather(1, targets) + z_loss * log_z.square()
            if smoothing:
                losses = losses - smoothing * logits.mean(-1, keepdim=True)
            total = total + (losses * weights).sum()
            if not learn:
                continue
            # d loss / d logits = softmax · (1 + 2 z log Z) − smoothed target, in the logits' own memory.
            slope = logits.sub_(log_z).exp_()
            if z_loss:
                slope.mul_(1 + 2 * z_loss * log_z)
            if smoothing:
                slope.sub_(smoothing / logits.shape[1])
            slope.scatter_add_(1, targets, slope.new_full(targets.shape, smoothing - 1.0))
            slope = slope.mul_(weights).to(hidden_ND.dtype)
            torch.mm(slope, vocabulary_VD, out=grad_hidden[part])
            grad_vocabulary.addmm_(slope.T, hidden_ND[part])
            if grad_bias is not None:
                grad_bias.add_(slope.sum(0))
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> tuple[Tensor | None, ...]:
        scale = outputs[0]
        scaled = (None if each is None else each.mul_(scale.to(each.dtype)) for each in ctx.gradients)
        return (*scaled, None, None, None, None)
