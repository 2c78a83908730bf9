"""One `Block`, one `Stack`, three families: the whole Transformer.

An encoder is a stack that is not causal, a decoder one that is, an encoder–decoder both, the second with
cross-attention. Forward passes return hidden states; the head makes logits of them; losses are elsewhere.

Legend: B batch, T sequence, S context or key length, D hidden size, H heads, V vocabulary.
"""

from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trivium.errors import ConfigError
from trivium.model.attention import Attention, Rotation
from trivium.model.cache import Cache
from trivium.model.classifier import ClassifierHead
from trivium.model.config import ModelConfig
from trivium.model.head import LanguageHead
from trivium.model.layer import Embedding, FeedForward, drop, make_norm, make_table
from trivium.model.mask import Mask, Side, cross_mask, self_mask
from trivium.model.position import relative_buckets, rotary_tables


class Block(nn.Module):
    """Attention, cross-attention if there is a context, feed-forward; each with its norm and residual."""

    def __init__(self, config: ModelConfig, *, cross: bool) -> None:
        super().__init__()
        self.pre_norm, self.dropout = config.norm_placement == "pre", config.dropout
        self.attention, self.attention_norm = Attention(config), make_norm(config)
        self.cross_attention = Attention(config) if cross else None
        self.cross_norm = make_norm(config) if cross else None
        self.ffn, self.ffn_norm = FeedForward(config), make_norm(config)

    def forward(
        self,
        x_BTD: Tensor,
        mask: Mask,
        *,
        rotation: Rotation | None = None,
        bias: Tensor | None = None,
        context: tuple[Tensor, Tensor] | Tensor | None = None,
        context_mask: Mask | None = None,
        cache: Cache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """One block over `(B, T, D)`. `context` is the encoder's output `(B, S, D)` or its cached keys and values."""
        h_BTD = self._before(self.attention_norm, x_BTD)
        h_BTD = self.attention(h_BTD, mask, rotation=rotation, bias=bias, cache=cache, layer=layer)
        x_BTD = self._after(self.attention_norm, x_BTD, h_BTD)
        if self.cross_attention is not None and self.cross_norm is not None:
            assert context is not None and context_mask is not None
            if isinstance(context, Tensor):
                context = self.cross_attention.keys_values(context)
            # Rows that share a context are one row of more queries: they do not look at each other here.
            h_BTD = self._before(self.cross_norm, x_BTD).reshape(len(context[0]), -1, x_BTD.shape[2])
            h_BTD = self.cross_attention.cross(h_BTD, context, context_mask).view_as(x_BTD)
            x_BTD = self._after(self.cross_norm, x_BTD, h_BTD)
        h_BTD = self.ffn(self._before(self.ffn_norm, x_BTD))
        return self._after(self.ffn_norm, x_BTD, h_BTD)

    def _before(self, norm: nn.Module, x_BTD: Tensor) -> Tensor:
        return norm(x_BTD) if self.pre_norm else x_BTD

    def _after(self, norm: nn.Module, x_BTD: Tensor, h_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + drop(h_BTD, self.dropout if self.training else 0.0)
        return x_BTD if self.pre_norm else norm(x_BTD)


class Stack(nn.Module):
    """Blocks one after another, the last norm of a pre-norm stack, and T5's bias table, which its blocks share."""

    def __init__(self, config: ModelConfig, num_layers: int, *, causal: bool, cross: bool = False) -> None:
        super().__init__()
        self.config, self.causal = config, causal
        self.checkpoint_activations = False
        self.layers = nn.ModuleList(Block(config, cross=cross) for _ in range(num_layers))
        self.norm = make_norm(config) if config.norm_placement == "pre" else None
        relative = config.position == "relative"
        self.relative_bias = make_table(config.relative_buckets, config.num_heads) if relative else None

    def forward(
        self,
        x_BTD: Tensor,
        side: Side,
        *,
        memory_BSD: Tensor | None = None,
        memory_segments: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Hidden states `(B, T, D)` of embedded tokens; with a cache, of tokens that follow what it holds."""
        mask, key_positions = self._mask(side, cache)
        rotation, bias = None, None
        if self.config.position == "rope":
            rotation = Rotation(*rotary_tables(side.positions, self.config, x_BTD.dtype))
        if self.relative_bias is not None:
            bias = mask.hide(self._bias(side, cache, key_positions))
        context_mask = None
        if memory_segments is not None:
            context_mask = cross_mask(side.segments.reshape(len(memory_segments), -1), memory_segments)
        for layer, block in enumerate(self.layers):
            context: Tensor | tuple[Tensor, Tensor] | None = memory_BSD
            if cache is not None and cache.cross_keys is not None and cache.cross_values is not None:
                context = (cache.cross_keys[layer], cache.cross_values[layer])
            run = partial(
                block,
                rotation=rotation,
                bias=bias,
                context=context,
                context_mask=context_mask,
                cache=cache,
                layer=layer,
            )
            if self.checkpoint_activations and self.training:
                x_BTD = torch.as_tensor(checkpoint(run, x_BTD, mask, use_reentrant=False))
            else:
                x_BTD = run(x_BTD, mask)
        return x_BTD if self.norm is None else self.norm(x_BTD)

    def _mask(self, side: Side, cache: Cache | None) -> tuple[Mask, Tensor]:
        """The visibility rule of this call and the index of each key, `(S,)`."""
        device, steps = side.ids.device, side.ids.shape[1]
        if cache is None:
            return self_mask(side, causal=self.causal, window=self.config.window), torch.arange(steps, device=device)
        keys_S = torch.arange(cache.filled + steps, device=device)
        ends_B = cache.lengths + (side.segments != 0).sum(1)
        key_segments = (keys_S < ends_B[:, None]).long()
        mask = Mask(side.segments, key_segments, side.positions, keys_S[None], self.causal, self.config.window)
        return mask, keys_S

    def _bias(self, side: Side, cache: Cache | None, keys_S: Tensor) -> Tensor:
        """T5's learned bias `(1 or B, H, T, S)`: within a document, distance in the row is distance in the text."""
        assert self.relative_bias is not None
        if cache is None:
            queries = keys_S[None]
        else:
            queries = side.positions if cache.ragged else side.positions[:1]
        distance = keys_S[None, None, :] - queries[:, :, None]
        buckets = relative_buckets(
            distance,
            causal=self.causal,
            num_buckets=self.config.relative_buckets,
            max_distance=self.config.relative_max_distance,
        )
        return torch.as_tensor(self.relative_bias(buckets)).permute(0, 3, 1, 2)


class Transformer(nn.Module):
    """A language model of any family (Vaswani et al. 2017), as `ModelConfig` says.

    Raises `ConfigError` when an encoder–decoder is called without a context, or another family with one.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        two = config.family == "encoder_decoder"
        encoder_layers = config.num_encoder_layers if two else config.num_layers
        self.embedding = Embedding(config)
        self.encoder = Stack(config, encoder_layers, causal=False) if config.family != "decoder" else None
        self.decoder = Stack(config, config.num_layers, causal=True, cross=two) if config.family != "encoder" else None
        self.head = LanguageHead(config, self.embedding.tokens)
        self.classifier = None if config.head in ("language", "none") else ClassifierHead(config)

    def forward(self, inputs: Side, context: Side | None = None) -> Tensor:
        """Hidden states `(B, T, D)` of `inputs`, given what the encoder reads in `context` where there is one."""
        if (context is None) == (self.config.family == "encoder_decoder"):
            found = "no context" if context is None else "a context"
            raise ConfigError(
                f"a model of family {self.config.family} was called with {found}; only an encoder_decoder reads a "
                "context, and it always needs one; give Batch.context accordingly"
            )
        if self.decoder is None:
            return self.encode(inputs)
        if context is None:
            return self.decode(inputs)
        return self.decode(inputs, memory_BSD=self.encode(context), memory_segments=context.segments)

    def encode(self, side: Side, types_BT: Tensor | None = None) -> Tensor:
        """What the encoder makes of a side, `(B, S, D)`."""
        assert self.encoder is not None
        return torch.as_tensor(self.encoder(self.embedding(side, types_BT, is_context=True), side))

    def classify(self, inputs: Side, *, types_BT: Tensor | None = None) -> Tensor:
        """Scores of a task head: `(B, labels)` of texts, `(B, T, labels)` of tokens, `(B, T, 2)` of an answer's ends.

        Raises `ConfigError` for a model without such a head.
        """
        if self.classifier is None:
            raise ConfigError(
                f"a model with head {self.config.head} has no labels; expected head sequence, token or span; "
                "load one that was fine-tuned, or load_model(…, head=…) to begin with a fresh head"
            )
        if self.encoder is None:
            hidden_BTD = self.decode(inputs)
        elif self.decoder is None:
            hidden_BTD = self.encode(inputs, types_BT)
        else:
            hidden_BTD = self(self._delayed(inputs), inputs)
        return torch.as_tensor(self.classifier(hidden_BTD, inputs.segments))

    def _delayed(self, side: Side) -> Side:
        """One document a row as its decoder reads it to write it again: a start token, then all but the last."""
        ids_BT, start = side.ids.roll(1, dims=1), self.config.decoder_start_id
        ids_BT[:, 0] = self.config.pad_id if start is None else start
        return Side(ids_BT, side.positions, side.segments)

    def decode(
        self,
        inputs: Side,
        *,
        memory_BSD: Tensor | None = None,
        memory_segments: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """What the decoder makes of `inputs`, `(B, T, D)`; a cache is written to, the caller advances it."""
        assert self.decoder is not None
        if cache is not None and cache.context_segments is not None:
            memory_segments = cache.context_segments
        return torch.as_tensor(
            self.decoder(
                self.embedding(inputs),
                inputs,
                memory_BSD=memory_BSD,
                memory_segments=memory_segments,
                cache=cache,
            )
        )

    def remember(self, cache: Cache, context: Side) -> None:
        """Read `context` once and put the cross-attention's keys and values into the cache."""
        assert self.decoder is not None
        memory_BSD = self.encode(context)
        layers = [cast(Block, block).cross_attention for block in self.decoder.layers]
        pairs = [cross.keys_values(memory_BSD) for cross in layers if cross is not None]
        cache.cross_keys = torch.stack([keys for keys, _ in pairs])
        cache.cross_values = torch.stack([values for _, values in pairs])
        cache.context_segments = context.segments

    def set_checkpointing(self, on: bool) -> None:
        """Trade time for memory: recompute each block's activations in the backward pass (Chen et al. 2016)."""
        for stack in (self.encoder, self.decoder):
            if stack is not None:
                stack.checkpoint_activations = on
