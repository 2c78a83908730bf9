"""What a training step reads: one packed row as numpy arrays, many of them as one `Batch` of tensors.

Does not know where rows come from, nor which objective wrote their targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trivium.errors import ConfigError
from trivium.model.mask import Side

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Number = TypeVar("Number", np.int64, np.float32)

WIDTH_MULTIPLE = 8  # a batch wider than planned grows in such steps, so that few shapes occur


@dataclass(frozen=True, eq=False)
class Example:
    """One packed row after its objective, every array 1-D and unpadded.

    `input_ids`, `input_segments`, `targets`, `weights` have one length; `context_ids` and `context_segments`
    another, or are None where no encoder reads beside a decoder. Equal segment numbers mean the same
    document. `input_types` are BERT's token types; `label` is what a head for whole texts learns: a class, one number
    for each label, or the two ends of an answer.
    """

    input_ids: Ints
    input_segments: Ints
    targets: Ints
    weights: Floats
    context_ids: Ints | None = None
    context_segments: Ints | None = None
    input_types: Ints | None = None
    label: int | tuple[float, ...] | tuple[int, int] | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens of both sides."""
        return len(self.input_ids) + (0 if self.context_ids is None else len(self.context_ids))


@dataclass(frozen=True, eq=False)
class Batch:
    """The arrays of one forward pass, right-padded; a row may hold several documents, told apart by segments.

    `inputs` makes logits, `context` is what an encoder–decoder's encoder reads. `targets` (int64) and
    `weights` (float32), both `(batch, seq)` like `inputs`, are already shifted; weight 0 means that nothing
    is learned there. A head for whole texts learns `labels`, `(batch,)` or `(batch, numbers)`, and each row weighs
    what its first place does. `types` are BERT's token types, `(batch, seq)`. Raises `ConfigError` if the shapes
    disagree.
    """

    inputs: Side
    context: Side | None
    targets: Tensor
    weights: Tensor
    types: Tensor | None = None
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        shape = self.inputs.ids.shape
        sides = [("inputs", self.inputs, shape)]
        if self.context is not None:
            sides.append(("context", self.context, self.context.ids.shape))
            if self.context.ids.shape[:1] != shape[:1]:
                raise ConfigError(
                    f"context has {len(self.context.ids)} rows beside {len(self.inputs.ids)} rows of inputs; "
                    "expected one context row for each input row; build both sides from the same examples"
                )
        arrays = [("targets", self.targets, shape), ("weights", self.weights, shape)]
        for name, side, expected in sides:
            arrays += [(f"{name}.{part}", getattr(side, part), expected) for part in ("ids", "positions", "segments")]
        for name, array, expected in arrays:
            if array.dim() != 2 or array.shape != expected:
                raise ConfigError(
                    f"{name} has shape {tuple(array.shape)}; expected {tuple(expected)} as (batch, seq); "
                    "give every array of a side the same two dimensions"
                )

    @property
    def num_targets(self) -> float:
        """The sum of the weights: the number of tokens that are learned, by which the loss is divided."""
        return float(self.weights.sum(dtype=torch.float64))

    @property
    def num_rows(self) -> int:
        """Rows, padding rows included."""
        return self.inputs.ids.shape[0]

    def to(self, device: str | torch.device) -> "Batch":
        """The same batch on another device."""
        return Batch(
            self.inputs.to(device),
            None if self.context is None else self.context.to(device),
            self.targets.to(device),
            self.weights.to(device),
            None if self.types is None else self.types.to(device),
            None if self.labels is None else self.labels.to(device),
        )


def collate(examples: Sequence[Example], pad_id: int, *, width: int = 0, context_width: int = 0) -> Batch:
    """Pad examples on the right into one batch; positions restart with each segment and are 0 on padding.

    Each side is at least as wide as planned (`width`, `context_width`) and grows in steps of eight where a
    row needs more: nothing is ever cut. Raises `ConfigError` for no examples, or if only some of them have a
    context.
    """
    with_context = {example.context_ids is not None for example in examples}
    if len(with_context) != 1:
        found = "no examples" if not examples else "examples with and without a context"
        raise ConfigError(f"{found} in one batch; expected one or more of one kind; use one objective per batch")
    ids = [example.input_ids for example in examples]
    types = [example.input_types for example in examples]
    width = _widen(ids, width)
    contexts = [example.context_ids for example in examples if example.context_ids is not None]
    context = None
    if contexts:
        segments = [example.context_segments for example in examples if example.context_segments is not None]
        context = _make_side(contexts, segments, pad_id=pad_id, width=_widen(contexts, context_width))
    return Batch(
        _make_side(ids, [example.input_segments for example in examples], pad_id=pad_id, width=width),
        context,
        torch.from_numpy(_pad([example.targets for example in examples], width, pad_id)),
        torch.from_numpy(_pad([example.weights for example in examples], width, 0)),
        None if types[0] is None else torch.from_numpy(_pad([each for each in types if each is not None], width, 0)),
        None if examples[0].label is None else torch.tensor([example.label for example in examples]),
    )


def restart_positions(segments: Ints) -> Ints:
    """Positions `(rows, seq)` that count from 0 in each run of equal segments, and stay 0 on padding."""
    index = np.broadcast_to(np.arange(segments.shape[1]), segments.shape)
    begins = np.ones(segments.shape, dtype=bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    start = np.maximum.accumulate(np.where(begins, index, 0), axis=1)
    return np.where(segments == 0, 0, index - start)


def _widen(rows: Sequence[Ints], planned: int) -> int:
    longest = max(len(row) for row in rows)
    if planned and longest <= planned:
        return planned
    return max(-(-longest // WIDTH_MULTIPLE), 1) * WIDTH_MULTIPLE


def _make_side(ids: Sequence[Ints], segments: Sequence[Ints], *, pad_id: int, width: int) -> Side:
    padded = _pad(segments, width, 0)
    arrays = (_pad(ids, width, pad_id), restart_positions(padded), padded)
    return Side(*(torch.from_numpy(array) for array in arrays))


def _pad(rows: Sequence[NDArray[Number]], width: int, fill: int) -> NDArray[Number]:
    out = np.full((len(rows), width), fill, dtype=rows[0].dtype)
    for index, row in enumerate(rows):
        out[index, : len(row)] = row
    return out
