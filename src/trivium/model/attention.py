"""Attention: softmax(QKᵀ/√d_k)V (Vaswani et al. 2017, eq. 1), as a formula, as fast code, and as a layer.

Knows nothing of documents or families: it is given a `Mask`, perhaps a bias, perhaps rotations.

Legend: B batch, T queries, S keys, D hidden size, H heads, G key/value heads, K head size.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivium.model.blockwise import Rule, attend_blockwise
from trivium.model.cache import Cache
from trivium.model.config import ModelConfig
from trivium.model.layer import RMSNorm, drop, make_linear
from trivium.model.mask import Mask
from trivium.model.position import rotate

# In bfloat16 the CPU kernel's way back is slow: 6 heads of 32, both ways, formula and kernel, a Zen 5 core: 16 rows of
# 128 keys 10 and 31 ms, 64 of 16 2.5 and 22, 8 of 256 18 and 29; of 512 they are even. In float32 the kernel is first.
MOST_SHORT_KEYS = 256


def attend_dense(
    q_BHTK: Tensor,
    k_BHSK: Tensor,
    v_BHSK: Tensor,
    *,
    scale: float,
    visible: Tensor | None = None,
    bias: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """softmax(scale · QKᵀ + bias)V over the visible keys, `(B, H, T, K)`: the definition every faster form is held to.

    A query that sees nothing gets zeros, not NaN.
    """
    scores_BHTS = q_BHTK @ k_BHSK.transpose(-1, -2) * scale
    if bias is not None:
        scores_BHTS = scores_BHTS + bias
    if visible is None:
        return drop(scores_BHTS.softmax(-1), dropout) @ v_BHSK
    sees = visible.any(-1, keepdim=True)
    scores_BHTS = scores_BHTS.masked_fill(~visible & sees, -math.inf)
    return drop(scores_BHTS.softmax(-1), dropout) @ v_BHSK * sees


def attend(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    mask: Mask,
    *,
    scale: float,
    bias: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """`attend_dense` in its fastest equal form for this mask: fused where PyTorch has a kernel.

    A learned `bias` has gradients and dropout acts on the weights themselves: no fused CPU kernel knows either. The
    bias holds the mask already (`Mask.hide`), so that a stack makes both once.
    """
    groups = q_BHTK.shape[1] // k_BGSK.shape[1]
    if groups > 1 and q_BHTK.shape[2] == 1 and bias is None and not dropout:
        # One query: the heads that share keys stand in as queries of one head, and no key is repeated. Decoding over
        # a cache of 160 takes half the time, over one of 1,000 a tenth.
        grouped_BGTK = q_BHTK.reshape(len(q_BHTK), -1, groups, q_BHTK.shape[3])
        return attend(grouped_BGTK, k_BGSK, v_BGSK, mask, scale=scale).reshape(q_BHTK.shape)
    if groups > 1:
        k_BGSK, v_BGSK = k_BGSK.repeat_interleave(groups, 1), v_BGSK.repeat_interleave(groups, 1)
    if dropout:
        causal = mask.kind == "causal" and bias is None
        seen = None if bias is not None or mask.kind != "general" else mask.visible
        hidden = None if seen is None else ~(seen | ~seen.any(-1, keepdim=True))
        rule = Rule(scale, dropout, causal)
        return attend_blockwise(q_BHTK, k_BGSK, v_BGSK, rule, bias=bias, hidden=hidden)
    if bias is not None:
        return attend_dense(q_BHTK, k_BGSK, v_BGSK, scale=scale, bias=bias)
    trained_in_bfloat16 = v_BGSK.dtype == torch.bfloat16 and v_BGSK.device.type == "cpu" and torch.is_grad_enabled()
    is_short = trained_in_bfloat16 and v_BGSK.shape[2] <= MOST_SHORT_KEYS
    visible = mask.visible if mask.kind == "general" or (is_short and mask.kind == "causal") else None
    if visible is not None and mask.kind == "general":
        # Padding rows see nothing; the kernels answer NaN there on some builds, so they see everything instead:
        # nobody reads a padding row, and it must only stay finite.
        visible = visible | ~visible.any(-1, keepdim=True)
    if is_short:
        q_BHTK, k_BGSK = q_BHTK.to(v_BGSK.dtype), k_BGSK.to(v_BGSK.dtype)
        return attend_dense(q_BHTK, k_BGSK, v_BGSK, scale=scale, visible=visible)
    if mask.kind == "general":
        return F.scaled_dot_product_attention(q_BHTK, k_BGSK, v_BGSK, attn_mask=visible, scale=scale)
    return F.scaled_dot_product_attention(q_BHTK, k_BGSK, v_BGSK, is_causal=mask.kind == "causal", scale=scale)


@dataclass(frozen=True)
class Rotation:
    """RoPE's cosines and sines for the queries of one call, each `(B, T, 1, head_size / 2)`."""

    cosine: Tensor
    sine: Tensor


class Attention(nn.Module):
    """Multi-head attention with shared key/value heads (Shazeer 2019, Ainslie et al. 2023) where configured."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
        self.head_size, self.dropout = config.head_size, config.dropout
        self.scale = config.head_size**-0.5 if config.attention_scale else 1.0
        wide, narrow = config.num_heads * config.head_size, config.num_kv_heads * config.head_size
        self.query = make_linear(config.hidden_size, wide, bias=config.qkv_bias)
        self.key = make_linear(config.hidden_size, narrow, bias=config.qkv_bias)
        self.value = make_linear(config.hidden_size, narrow, bias=config.qkv_bias)
        self.output = make_linear(wide, config.hidden_size, bias=config.bias)
        self.query_norm = RMSNorm(config.head_size, config.norm_epsilon) if config.qk_norm else None
        self.key_norm = RMSNorm(config.head_size, config.norm_epsilon) if config.qk_norm else None

    def forward(
        self,
        x_BTD: Tensor,
        mask: Mask,
        *,
        rotation: Rotation | None = None,
        bias: Tensor | None = None,
        cache: Cache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """Self-attention of `(B, T, D)`; with a cache, over everything the slot holds, the new tokens included."""
        k_BTGK, v_BGSK = self._split(self.key(x_BTD)), self._split(self.value(x_BTD)).transpose(1, 2)
        k_BGSK = self._place(k_BTGK, self.key_norm, rotation).transpose(1, 2)
        if cache is not None:
            k_BGSK, v_BGSK = cache.write(layer, k_BGSK, v_BGSK)
        return self._finish(x_BTD, k_BGSK, v_BGSK, mask, rotation=rotation, bias=bias)

    def keys_values(self, memory_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values `(B, G, S, K)` of an encoder's output, for `cross`."""
        k_BTGK = self._place(self._split(self.key(memory_BSD)), self.key_norm, None)
        return k_BTGK.transpose(1, 2), self._split(self.value(memory_BSD)).transpose(1, 2)

    def cross(self, x_BTD: Tensor, keys_values: tuple[Tensor, Tensor], mask: Mask) -> Tensor:
        """Cross-attention of `(B, T, D)` over `keys_values` of the context."""
        return self._finish(x_BTD, *keys_values, mask)

    def _split(self, x_BTF: Tensor) -> Tensor:
        return x_BTF.view(*x_BTF.shape[:-1], -1, self.head_size)

    def _place(self, x_BTHK: Tensor, norm: RMSNorm | None, rotation: Rotation | None) -> Tensor:
        if norm is not None:  # under autocast maps give 16 bits and norms 32: values stay 16, so must these
            x_BTHK = norm(x_BTHK.to(norm.weight.dtype)).to(x_BTHK.dtype)
        return x_BTHK if rotation is None else rotate(x_BTHK, rotation.cosine, rotation.sine)

    def _finish(
        self,
        x_BTD: Tensor,
        k_BGSK: Tensor,
        v_BGSK: Tensor,
        mask: Mask,
        *,
        rotation: Rotation | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        q_BHTK = self._place(self._split(self.query(x_BTD)), self.query_norm, rotation).transpose(1, 2)
        dropout = self.dropout if self.training else 0.0
        out_BHTK = attend(q_BHTK, k_BGSK, v_BGSK, mask, scale=self.scale, bias=bias, dropout=dropout)
        return torch.as_tensor(self.output(out_BHTK.transpose(1, 2).flatten(2)))
