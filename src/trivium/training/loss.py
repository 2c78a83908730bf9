"""Cross-entropy −Σ y log ŷ over a vocabulary, without ever holding all logits.

The matrix of (tokens × vocabulary) logits is the largest tensor of a small model's step. Here it exists a chunk of
rows at a time, and each chunk's gradients are made while its softmax is at hand: three matrix products in all,
nothing computed twice. Normalisation is the loop's business: this returns a sum.

Legend: N tokens, D hidden size, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_LOGITS = 2_000_000  # floats: what stays in a laptop's last-level cache was fastest


def chunked_cross_entropy(
    hidden_ND: Tensor,
    vocabulary_VD: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    weights_N: Tensor,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    chunk_rows: int = 0,
) -> Tensor:
    """Σ weight · (−log softmax(h Wᵀ + b)[target]) as a scalar of float32 (float64 for float64 input).

    `label_smoothing` spreads that share of the target evenly (Szegedy et al. 2016); `z_loss` adds that multiple of
    log² Z (PaLM, Chowdhery et al. 2022). Rows of weight 0 cost nothing. `chunk_rows` 0 chooses by the vocabulary.
    """
    rows = weights_N.nonzero()[:, 0]
    if len(rows) < len(weights_N):
        hidden_ND, targets_N, weights_N = (each.index_select(0, rows) for each in (hidden_ND, targets_N, weights_N))
    chunk_rows = chunk_rows or max(CHUNK_LOGITS // vocabulary_VD.shape[0], 1)
    # Function.apply runs its forward without recording gradients, so what the caller wants is asked here.
    learn = torch.is_grad_enabled()
    result = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]  # torch declares no types here
        hidden_ND, vocabulary_VD, bias_V, targets_N, weights_N, (label_smoothing, z_loss, chunk_rows, learn)
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
        options: tuple[float, float, int, bool],
    ) -> Tensor:
        smoothing, z_loss, chunk_rows, learn = options
        kinds = [None if each is None else each.dtype for each in (hidden_ND, vocabulary_VD, bias_V)]
        device = hidden_ND.device.type
        if torch.is_autocast_enabled(device):
            fast = torch.get_autocast_dtype(device)
            hidden_ND, vocabulary_VD = hidden_ND.to(fast), vocabulary_VD.to(fast)
            bias_V = None if bias_V is None else bias_V.to(fast)
        needed = ctx.needs_input_grad
        gradients = _Gradients(hidden_ND, vocabulary_VD, bias_V, needed) if learn and any(needed) else None
        precise = torch.float64 if hidden_ND.dtype == torch.float64 else torch.float32
        total = torch.zeros((), dtype=precise, device=hidden_ND.device)
        # What autocast would do is done above, once; inside, outputs are written in place.
        with torch.autocast(device, enabled=False):
            for begin in range(0, len(hidden_ND), chunk_rows):
                part = slice(begin, begin + chunk_rows)
                weights, targets = weights_N[part].to(precise)[:, None], targets_N[part][:, None]
                logits = F.linear(hidden_ND[part], vocabulary_VD, bias_V)
                # One fused pass; the likeliest token, of which p ≥ 1 / V, tells log Z without another exponential.
                slope = torch.softmax(logits, -1, dtype=precise)
                log_z = logits.amax(-1, keepdim=True).to(precise) - slope.amax(-1, keepdim=True).log()
                losses = log_z - (1 - smoothing) * logits.gather(1, targets).to(precise) + z_loss * log_z.square()
                if smoothing:
                    losses = losses - smoothing * logits.mean(-1, keepdim=True, dtype=precise)
                total = total + (losses * weights).sum()
                del logits
                if gradients is None:
                    continue
                # d loss / d logits = softmax · (1 + 2 z log Z) − smoothed target, in the same memory.
                if z_loss:
                    slope.mul_(1 + 2 * z_loss * log_z)
                if smoothing:
                    slope.sub_(smoothing / slope.shape[1])
                slope.scatter_add_(1, targets, slope.new_full(targets.shape, smoothing - 1.0))
                gradients.add(slope.to(hidden_ND.dtype), part, weights.to(hidden_ND.dtype))
        ctx.gradients, ctx.kinds = gradients, kinds
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> tuple[Tensor | None, ...]:
        scale, found = outputs[0], ctx.gradients
        assert found is not None
        # Not in place: a graph that is kept may be walked twice.
        scaled = [
            each * scale.to(each.dtype) if each is not None and needed else None
            for each, needed in zip(
                (found.hidden_ND, found.vocabulary_VD, found.bias_V), ctx.needs_input_grad[:3], strict=True
            )
        ]
        scaled = [None if each is None else each.to(kind) for each, kind in zip(scaled, ctx.kinds, strict=True)]
        return (*scaled, None, None, None)


class _Gradients:
    """Gradients of the loss's three inputs, filled chunk by chunk; those of the matrix in float32 or better."""

    def __init__(self, hidden_ND: Tensor, vocabulary_VD: Tensor, bias_V: Tensor | None, needed: Sequence[bool]) -> None:
        self._inputs = (hidden_ND, vocabulary_VD)
        self.hidden_ND = torch.empty_like(hidden_ND)
        self._mixed = hidden_ND.dtype in (torch.bfloat16, torch.float16)
        sums = torch.float32 if self._mixed else hidden_ND.dtype
        # Beside an adapter the matrix is frozen: a third of the work, and its memory, are saved.
        self.vocabulary_VD = torch.zeros_like(vocabulary_VD, dtype=sums) if needed[1] else None
        self.bias_V = torch.zeros_like(bias_V, dtype=sums) if bias_V is not None and needed[2] else None

    def add(self, slope: Tensor, part: slice, weights: Tensor) -> None:
        """Account for one chunk of rows, `slope` being the gradient of their logits `(rows, V)` before weighting.

        The weights `(rows, 1)` go to the narrow sides of the products, to save a pass over the logits.
        """
        hidden_ND, vocabulary_VD = self._inputs
        torch.mm(slope, vocabulary_VD, out=self.hidden_ND[part]).mul_(weights)
        if self.vocabulary_VD is not None:
            weighted = hidden_ND[part] * weights
            if self._mixed:
                self.vocabulary_VD.add_(slope.T @ weighted)
            else:
                self.vocabulary_VD.addmm_(slope.T, weighted)
        if self.bias_V is not None:
            self.bias_V.add_(slope.T.mv(weights[:, 0]))
