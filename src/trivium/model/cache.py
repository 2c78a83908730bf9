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
    usual case needs no synchronisation. `cross_keys`, `cross_values` are `(L, B, G, S, K)`.
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

    def advance(self, counts_B: Tensor | int) -> None:
        """Move each slot's end by the number of real tokens just written, `(B,)` or one number for all."""
        self.lengths = self.lengths + counts_B
        if isinstance(counts_B, int):
            self.filled += counts_B
        else:
            self.filled = int(self.lengths.max())
            self.ragged = bool((self.lengths != self.filled).any())

    def select(self, slots: Tensor) -> "Cache":
        """A cache of the given slots, in that order and with repeats: what beam search and finished rows need."""
        lengths = self.lengths[slots]
        filled = int(lengths.max())

        def pick(tensor: Tensor | None, dim: int) -> Tensor | None:
            return None if tensor is None else tensor.index_select(dim, slots)

        def pick_filled(tensor: Tensor) -> Tensor:
            """Only what is filled is copied: beams reorder at every step, and most of a cache is room to write."""
            layers, _, heads, capacity, size = tensor.shape
            picked = tensor.new_empty(layers, len(slots), heads, capacity, size)
            picked[:, :, :, :filled] = tensor[:, :, :, :filled].index_select(1, slots)
            return picked

        return Cache(
            pick_filled(self.keys),
            pick_filled(self.values),
            lengths,
            filled,
            bool((lengths != filled).any()),
            pick(self.cross_keys, 1),
            pick(self.cross_values, 1),
            pick(self.context_segments, 0),
        )
