"""The small parts of a block: norms, the feed-forward network, embeddings, dropout.

Legend: B batch, T sequence, D hidden size, F feed-forward size.
"""

import math
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivium.model.config import Activation, ModelConfig
from trivium.model.mask import Side
from trivium.model.position import sinusoids

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


def drop(x: Tensor, probability: float) -> Tensor:
    """Dropout (Srivastava et al. 2014) of a tensor of any shape: zero with `probability`, scale the rest up.

    The probability is rounded to 1/65536 and four decisions are cut from one 64-bit draw, since drawing is serial
    on a CPU and one draw per number made it the slowest operation of a training step.
    """
    if probability == 0.0:
        return x
    keep, factor = draw_keep(x, probability)
    return x * (keep.to(x.dtype) * factor)


def draw_keep(like: Tensor, probability: float) -> tuple[Tensor, float]:
    """What dropout keeps, a boolean of the same shape, and the factor for the rest."""
    threshold = round(probability * 65536)
    draws = torch.empty((like.numel() + 3) // 4, dtype=torch.int64, device=like.device).random_(-(2**63), None)
    keep = draws.view(torch.int16)[: like.numel()].view(like.shape) >= threshold - 32768
    return keep, 65536 / (65536 - threshold)


class RMSNorm(nn.Module):
    """x / √(mean x² + ε) · weight over the last axis (Zhang and Sennrich 2019)."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `(…, size)`."""
        return F.rms_norm(x, self.weight.shape, self.weight, self.epsilon)


def make_norm(config: ModelConfig) -> nn.Module:
    """The norm that this architecture uses, over `hidden_size`."""
    if config.norm == "rms":
        return RMSNorm(config.hidden_size, config.norm_epsilon)
    return nn.LayerNorm(config.hidden_size, eps=config.norm_epsilon)


class FeedForward(nn.Module):
    """down(act(up x)), or down(act(gate x) · up x) when gated (Shazeer 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = make_linear(config.hidden_size, config.ffn_size, bias=config.bias)
        self.gate = make_linear(config.hidden_size, config.ffn_size, bias=config.bias) if config.gated_ffn else None
        self.down = make_linear(config.ffn_size, config.hidden_size, bias=config.bias)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Transform each position of `(B, T, D)` on its own."""
        up_BTF = self.up(x_BTD)
        if self.gate is None:
            hidden_BTF = self.activation(up_BTF)
        else:
            hidden_BTF = self.activation(self.gate(x_BTD)) * up_BTF
        return torch.as_tensor(self.down(hidden_BTF))


def make_linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """A linear map, not filled: initialisation is init.py's, and torch's own takes half of the time to open a model."""
    linear = nn.Linear.__new__(nn.Linear)
    nn.Module.__init__(linear)
    linear.in_features, linear.out_features = inputs, outputs
    linear.weight = nn.Parameter(torch.empty(outputs, inputs))
    linear.register_parameter("bias", nn.Parameter(torch.empty(outputs)) if bias else None)
    return linear


def make_table(rows: int, size: int) -> nn.Embedding:
    """A table of vectors, not filled: torch's own filling on the meta device imports its compiler, for seconds."""
    table = torch.empty(rows, size)
    made = nn.Embedding.from_pretrained(table, freeze=False)  # type: ignore[no-untyped-call]  # torch gives it no types
    return cast(nn.Embedding, made)


class Places(nn.Module):
    """What an encoder beside a decoder has of its own before its first block: BART's positions and norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.positions = make_table(config.max_positions, config.hidden_size)
        self.norm = make_norm(config) if config.embedding_norm else None


class Embedding(nn.Module):
    """Token ids to vectors: the token's, plus its position's and its type's where the architecture has them.

    Two stacks share the tokens; learned positions, and the norm after them, each has for itself.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = make_table(config.vocab_size, config.hidden_size)
        learned = config.position == "learned"
        self.positions = make_table(config.max_positions, config.hidden_size) if learned else None
        self.token_types = make_table(config.token_types, config.hidden_size) if config.token_types else None
        self.norm = make_norm(config) if config.embedding_norm else None
        self.context = Places(config) if learned and config.family == "encoder_decoder" else None

    def forward(self, side: Side, types_BT: Tensor | None = None, *, is_context: bool = False) -> Tensor:
        """Embed a side as `(B, T, D)`; `types_BT` are BERT's sentence A / B numbers, all 0 when absent.

        `is_context` marks what the encoder of two stacks reads.
        """
        places = self.context if is_context and self.context is not None else self
        x_BTD = self.tokens(side.ids)
        if self.config.embedding_scale:
            x_BTD = x_BTD * math.sqrt(self.config.hidden_size)
        if places.positions is not None:
            x_BTD = x_BTD + places.positions(side.positions)
        if self.config.position == "sinusoidal":
            x_BTD = x_BTD + sinusoids(side.positions, self.config.hidden_size, x_BTD.dtype)
        if self.token_types is not None:
            told = types_BT is not None and self.config.token_types > 1  # RoBERTa has one type for both sentences
            x_BTD = x_BTD + self.token_types(types_BT if told else torch.zeros_like(side.ids))
        if places.norm is not None:
            x_BTD = places.norm(x_BTD)
        return drop(x_BTD, self.config.dropout if self.training else 0.0)
