"""Rows of unequal length as one batch."""

import numpy as np
import pytest
import torch

from tests.data.rows import PAD, corrupt, make_row
from trivium.data.batch import Batch, collate
from trivium.data.continuation import causal
from trivium.errors import ConfigError
from trivium.model.mask import Side


def test_collate_pads_right_restarts_positions_and_never_cuts() -> None:
    examples = [corrupt(*make_row(9, 4)), corrupt(*make_row(35))]
    batch = collate(examples, PAD, width=8, context_width=16)
    assert batch.inputs.ids.shape == (2, 16) and batch.context is not None and batch.context.ids.shape == (2, 40)
    assert batch.inputs.segments[0].tolist() == [1] * 4 + [2] * 4 + [0] * 8
    assert batch.inputs.positions[0].tolist() == [0, 1, 2, 3] * 2 + [0] * 8
    assert batch.num_targets == len(examples[0].targets) + len(examples[1].targets)
    assert batch.weights.dtype == torch.float32 and batch.targets.dtype == torch.int64
    assert batch.to("cpu").num_rows == 2
    assert collate([causal(np.array([50]), np.array([1]))], PAD).inputs.ids.shape == (1, 8)
    with pytest.raises(ConfigError, match="with and without a context"):
        collate([examples[0], causal(*make_row(4))], PAD)


def test_a_batch_of_unequal_shapes_is_refused() -> None:
    side = Side.from_ids([[1, 2, 3]])
    good = torch.zeros(1, 3)
    with pytest.raises(ConfigError, match=r"weights has shape \(1, 2\); expected \(1, 3\)"):
        Batch(side, None, good.long(), good[:, :2])
    with pytest.raises(ConfigError, match="context has 2 rows beside 1"):
        Batch(side, Side.from_ids([[1], [2]]), good.long(), good)
    with pytest.raises(ConfigError, match=r"context.positions has shape"):
        Batch(side, Side(side.ids, side.positions[:, :1], side.segments), good.long(), good)
