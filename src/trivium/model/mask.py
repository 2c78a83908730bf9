"""Who may look at whom: one rule for padding, packing, causality, windows and cross-attention.

A query sees a key if both belong to the same document (equal segments, not 0) and, in a causal stack, the key's
position is not later than the query's, and lies within the window if there is one. The rule stays a small value
until attention needs a tensor, and says when it hides nothing, so that attention can skip it.

Legend: B batch, T queries, S keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Side:
    """One sequence side of a batch: `ids`, `positions` and `segments`, each int64 `(batch, seq)`.

    Right-padded. `segments` is 0 for padding and numbers the packed documents of a row from 1; `positions`
    restart with each document.
    """

    ids: Tensor
    positions: Tensor
    segments: Tensor

    @classmethod
    def from_ids(cls, rows: Sequence[Sequence[int]], *, pad_id: int = 0, device: str = "cpu") -> "Side":
        """One document a row: pad rows of token ids on the right to `(batch, longest)`."""
        longest = max(len(row) for row in rows)
        ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
        segments = torch.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.as_tensor(row, dtype=torch.long)
            segments[index, : len(row)] = 1
        positions = torch.arange(longest).expand(len(rows), longest)
        return cls(ids, positions, segments).to(device)

    def to(self, device: str | torch.device) -> "Side":
        """The same side on another device."""
        return Side(self.ids.to(device), self.positions.to(device), self.segments.to(device))


@dataclass(frozen=True)
class Mask:
    """The visibility rule for queries `(B, T)` and keys `(B, S)`, with their segments and positions.

    `window` counts positions, the query's own included; 0 means no limit.
    """

    query_segments: Tensor
    key_segments: Tensor
    query_positions: Tensor
    key_positions: Tensor
    causal: bool
    window: int = 0

    @cached_property
    def kind(self) -> Literal["everything", "causal", "general"]:
        """Which shortcut is allowed: no mask at all, the plain lower triangle, or the rule in full."""
        T, S = self.query_segments.shape[1], self.key_segments.shape[1]
        if not bool((self.query_segments == 1).all() & (self.key_segments == 1).all()):
            return "general"
        if self.window and self.window < S:
            return "general"
        if not self.causal:
            return "everything"
        if T == 1 and bool((self.query_positions[:, -1] >= S - 1).all()):
            return "everything"
        return "causal" if T == S and T > 1 else "general"

    @cached_property
    def visible(self) -> Tensor:
        """The rule as a boolean tensor `(B, 1, T, S)`, made once and shared by every layer."""
        query, key = self.query_segments[:, :, None], self.key_segments[:, None, :]
        allowed = (query == key) & (query != 0)
        if self.causal or self.window:
            distance = self.query_positions[:, :, None] - self.key_positions[:, None, :]
            if self.causal:
                allowed = allowed & (distance >= 0)
            if self.window:
                allowed = allowed & (distance.abs() < self.window)
        return allowed[:, None]

    def hide(self, bias: Tensor) -> Tensor:
        """A bias `(1 or B, H, T, S)` with what may not be seen at the lowest number: rule and bias in one, made once.

        The lowest number and not −∞, so that a row that sees nothing stays finite.
        """
        return bias if self.kind == "everything" else bias.masked_fill(~self.visible, torch.finfo(bias.dtype).min)


def self_mask(side: Side, *, causal: bool, window: int = 0) -> Mask:
    """The rule of a sequence that attends to itself."""
    return Mask(side.segments, side.segments, side.positions, side.positions, causal, window)


def cross_mask(query_segments: Tensor, key_segments: Tensor) -> Mask:
    """The rule between a decoder's queries `(B, T)` and an encoder's keys `(B, S)`: same document, any position."""
    nowhere = query_segments.new_zeros(())
    return Mask(query_segments, key_segments, nowhere, nowhere, causal=False)
