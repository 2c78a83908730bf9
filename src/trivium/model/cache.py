"""What a decoder remembers between steps: an explicit value that the decoding loop advances.

Contiguous per slot, so that a later engine can hand whole slots to native code. No module holds any of it, and
the cache knows nothing of tokens or sampling.

Legend: L layers, B slots, G key/value heads, C capacity, S context length, K head size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from trivium.model.config import ModelConfig


@dataclass
class Cache:
    """Keys and values of the self-attention, `(L, B, G, C, K)`, how many are filled, `(B,)`, and the context's.

    `filled` is the largest of `lengths` and `ragged` says that they differ: both live on the host, so that the
    usual case needs no synchronisation. `cross_keys`, `cross_values` are `(L, B, G, S, K)`, or have a slot for every
    few neighbours that share it, as the beams of one text do.
    """

    keys: Tensor
    values: Tensor
    lengths: Tensor
    filled: int = 0
    ragged: bool = False
    cross_keys: Tensor | None = None
    cross_values: Tensor | None = None
    context_segments: Tensor | None = None

    @classmethod
    def allocate(cls, config: ModelConfig, slots: int, capacity: int, *, like: Tensor) -> "Cache":
        """An empty cache for `slots` sequences of at most `capacity` tokens, in the dtype and device of `like`."""
        shape = (config.num_layers, slots, config.num_kv_heads, capacity, config.head_size)
        return cls(like.new_zeros(shape), like.new_zeros(shape), like.new_zeros(slots, dtype=torch.long))

    def write(self, layer: int, keys_BGTK: Tensor, values_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values behind each slot's length; return all that are filled, `(B, G, S, K)`.

        Padding behind a slot's last token is stored too; the next write covers it before anything can see it.
        """
        steps = keys_BGTK.shape[2]
        if self.ragged:
            # What a shorter slot does not fill is masked, yet must be a number: nothing times NaN is NaN.
            for store in (self.keys, self.values):
                store[layer, :, :, self.filled : self.filled + steps] = 0
            index = self.lengths[:, None] + torch.arange(steps, device=self.lengths.device)
            index = index[:, None, :, None].expand_as(keys_BGTK)
            self.keys[layer].scatter_(2, index, keys_BGTK)
            self.values[layer].scatter_(2, index, values_BGTK)
        else:
            self.keys[layer, :, :, self.filled : self.filled + steps] = keys_BGTK
            self.values[layer, :, :, self.filled : self.filled + steps] = values_BGTK
        end = self.filled + steps
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def allocate_context(self, length: int) -> None:
        """Room for the context's keys and values, nothing of it visible yet."""
        layers, slots, heads, _, size = self.keys.shape
        self.cross_keys, self.cross_values = (self.keys.new_zeros(layers, slots, heads, length, size) for _ in "kv")
        self.context_segments = self.lengths.new_zeros(slots, length)

    def put(self, part: "Cache", slots: Tensor) -> None:
        """Take over what another cache holds into some slots of this one, which must have room for it."""
        pairs = [(self.keys, part.keys), (self.values, part.values)]
        if part.cross_keys is not None and part.cross_values is not None:
            assert self.cross_keys is not None and self.cross_values is not None and self.context_segments is not None
            pairs += [(self.cross_keys, part.cross_keys), (self.cross_values, part.cross_values)]
            self.context_segments[slots, : part.cross_keys.shape[3]] = torch.as_tensor(part.context_segments)
        for whole, own in pairs:
            whole[:, slots, :, : own.shape[3]] = own
        self.lengths[slots] = part.lengths
        self.filled = int(self.lengths.max())
        self.ragged = bool((self.lengths != self.filled).any())

    def advance(self, counts_B: Tensor | int) -> None:
        """Move each slot's end by the number of real tokens just written, `(B,)` or one number for all."""
        self.lengths = self.lengths + counts_B
        if isinstance(counts_B, int):
            self.filled += counts_B
        else:
            self.filled = int(self.lengths.max())
            self.ragged = bool((self.lengths != self.filled).any())

    def select(self, slots: Tensor, contexts: Tensor | None = None) -> "Cache":
        """A cache of the given slots, in that order and with repeats: what beam search and finished rows need.

        `contexts` are the slots of the context to keep, where they are fewer: each then serves as many slots next to
        each other as there are for one. By default they are `slots` too.
        """
        lengths = self.lengths[slots]
        filled = int(lengths.max())
        kept = slots if contexts is None else contexts

        def pick(tensor: Tensor | None, dim: int) -> Tensor | None:
            whole = tensor is None or torch.equal(kept, torch.arange(tensor.shape[dim], device=kept.device))
            return tensor if whole or tensor is None else tensor.index_select(dim, kept)

        def copy(tensor: Tensor) -> Tensor:
            chosen = tensor.new_zeros(tensor.shape[0], len(slots), *tensor.shape[2:])
            torch.index_select(tensor[:, :, :, :filled], 1, slots, out=chosen[:, :, :, :filled])
            return chosen

        return Cache(
            copy(self.keys),
            copy(self.values),
            lengths,
            filled,
            bool((lengths != filled).any()),
            pick(self.cross_keys, 1),
            pick(self.cross_values, 1),
            pick(self.context_segments, 0),
        )

    def exchange(self, slots: Tensor) -> None:
        """Let every slot have what another of the same length holds, in place."""
        for tensor in (self.keys, self.values):
            filled = tensor[:, :, :, : self.filled]
            filled.copy_(filled.index_select(1, slots))
