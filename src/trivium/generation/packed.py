"""The same model with its decoder's linear maps in the layout that a few rows at a time are fastest in.

One token for each of a few rows reads every weight and computes little, and PyTorch's ordinary matmul is bad at
it: for one row MKL uses one core, for up to sixteen it reaches a fifth of its rate. Nothing here changes what is
computed, only the order of the sums. Knows nothing of tokens or loops.

GB/s of weights read on 2 cores of a Zen 3 (AVX2, float32, 3072 × 768, medians of 12 turns in one run): one row
14 plain, 24 split, 23 packed; eight rows 8, 13 and 16.
"""

import copy
from collections.abc import Iterable
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivium.model.adapter import AdaptedLinear
from trivium.model.head import LanguageHead
from trivium.model.transformer import Block, Transformer

Module = TypeVar("Module", bound=nn.Module)

# Below these sizes, rows or tokens a fast form costs more than it saves: a call takes 25 µs by oneDNN, 3 plainly.
_SPLIT_FROM, _SPLIT_ROWS = 2**16, 16
_PACK_FROM, _PACK_TOKENS = 2**18, 16
# One row reads a matrix much higher than wide at 15–16 GB/s, turned at 18–20; turning GPT-2's head takes 84 ms. In nine
# pairs of 128 new tokens, turning included, 1.10 times the speed.
_TURN_SHAPE, _TURN_TOKENS = 4, 96


class PlainLinear(nn.Module):
    """x Wᵀ + b as PyTorch does it."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight_OI, bias_O

    def forward(self, x: Tensor) -> Tensor:
        """Map `(…, in)` to `(…, out)`."""
        return F.linear(x, self.weight, self.bias)


class SplitLinear(nn.Module):
    """x Wᵀ + b with the outputs split over the threads, as one batched product on the weight or a `turned` copy."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None, threads: int, *, turned: bool = False) -> None:
        super().__init__()
        weight_OI, bias_O = weight_OI.detach(), None if bias_O is None else bias_O.detach()
        self.weight, self.bias, self.threads = weight_OI, bias_O, threads
        whole = len(weight_OI) // threads * threads
        self.parts_PIO = weight_OI[:whole].view(threads, -1, weight_OI.shape[1]).transpose(1, 2)
        if turned and weight_OI.stride(0) != 1:  # GPT-2's matrices lie turned in its files
            parts_PIO = torch.empty(self.parts_PIO.shape, dtype=weight_OI.dtype)
            for own_IO, part_IO in zip(parts_PIO, self.parts_PIO, strict=True):  # twice as fast as all at once
                own_IO.copy_(part_IO)
            self.parts_PIO = parts_PIO
        self.bias_P1O = None if bias_O is None else bias_O[:whole].view(threads, 1, -1)
        # What does not divide evenly: at most one output less than there are threads.
        self.rest = None if whole == len(weight_OI) else (weight_OI[whole:], None if bias_O is None else bias_O[whole:])

    def forward(self, x: Tensor) -> Tensor:
        """Map `(…, in)` to `(…, out)`."""
        rows_RI = x.reshape(-1, x.shape[-1])
        if len(rows_RI) > _SPLIT_ROWS:
            return F.linear(x, self.weight, self.bias)
        rows_PRI = rows_RI.expand(self.threads, -1, -1)
        if self.bias_P1O is None:
            out_PRO = torch.bmm(rows_PRI, self.parts_PIO)
        else:
            out_PRO = torch.baddbmm(self.bias_P1O, rows_PRI, self.parts_PIO)
        out_RO = out_PRO.transpose(0, 1).flatten(1)
        if self.rest is not None:
            out_RO = torch.cat([out_RO, F.linear(rows_RI, *self.rest)], 1)
        return out_RO.view(*x.shape[:-1], -1)


class PackedLinear(nn.Module):
    """x Wᵀ + b by oneDNN on a copy of W in its own blocked layout."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        super().__init__()
        weight_OI = weight_OI.detach()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight_OI, None)
        self.bias = None if bias_O is None else bias_O.detach()
        self.call = torch.ops.mkldnn._linear_pointwise.default

    def forward(self, x: Tensor) -> Tensor:
        """Map `(…, in)` to `(…, out)`."""
        return torch.as_tensor(self.call(x, self.weight, self.bias, "none", [], ""))


class PackedHead(nn.Module):
    """A `LanguageHead` whose big matrix is one of the linear maps above."""

    def __init__(self, head: LanguageHead, linear: nn.Module) -> None:
        super().__init__()
        self.head, self.linear = head, linear

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        """Scores `(B, T, V)` before the softmax."""
        return torch.as_tensor(self.linear(self.head.prepare(hidden_BTD)))


def prepare_decoding(model: Transformer, rows: int, *, new_tokens: int = 64) -> Transformer:
    """The model in evaluation mode with fast linear maps for decoding `rows` sequences at once.

    Shares all parameters with `model`, which stays as it is. Some weights are copied once, unless too few `new_tokens`
    will be written to earn that: for several rows the decoder's (as much memory again, the time of eight steps), for
    one row those much higher than wide, such as the head (half as much, the time of four steps); adapters are merged
    into copies. Pass the result to `generate` to write again and again; the copies don't follow later training.
    """
    prepared = evaluation_copy(model)
    if isinstance(model.head, PackedHead) or prepared.decoder is None:
        return prepared
    for block in cast(Iterable[Block], prepared.decoder.layers):
        for part in filter(None, (block.attention, block.cross_attention, block.ffn)):
            for name, linear in part._modules.items():
                # A context's keys and values are made once per prompt: not worth a copy.
                once = part is block.cross_attention and name in ("key", "value")
                if isinstance(linear, nn.Linear | AdaptedLinear) and not once:
                    weight_OI = linear.merged() if isinstance(linear, AdaptedLinear) else linear.weight
                    part._modules[name] = _fast_linear(weight_OI, linear.bias, rows, new_tokens)
    head = prepared.head
    vocabulary = _fast_linear(head.vocabulary, head.bias, rows, new_tokens)
    prepared._modules["head"] = PackedHead(head, vocabulary)
    return prepared


def evaluation_copy(module: Module) -> Module:
    """Another tree of modules over the same parameters, in evaluation mode; the given one is left as it is."""
    clone = copy.copy(module)
    clone._modules = {
        name: None if child is None else evaluation_copy(child) for name, child in module._modules.items()
    }
    clone.training = False
    return clone


def _fast_linear(weight_OI: Tensor, bias_O: Tensor | None, rows: int, new_tokens: int) -> nn.Module:
    threads, size = torch.get_num_threads(), weight_OI.numel()
    if weight_OI.device.type == "cpu" and weight_OI.dtype in (torch.float32, torch.float64):
        packable = weight_OI.dtype == torch.float32 and bool(torch._C._has_mkldnn)
        if packable and rows > 1 and new_tokens > _PACK_TOKENS and size >= _PACK_FROM:
            return PackedLinear(weight_OI, bias_O)
        if threads > 1 and size >= _SPLIT_FROM:
            high = len(weight_OI) >= _TURN_SHAPE * weight_OI.shape[1] and size >= _PACK_FROM
            return SplitLinear(weight_OI, bias_O, threads, turned=high and rows == 1 and new_tokens >= _TURN_TOKENS)
    return PlainLinear(weight_OI, bias_O)
