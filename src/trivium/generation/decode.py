"""The contract with the model: read prompts into a cache once, then one step per token.

Greedy choice, sampling and streaming (write.py) and beam search (beam.py) are loops over these two functions.
Knows nothing of how tokens are chosen.

Legend: B rows, T prompt length, D hidden size, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from trivium.generation.row import Row
from trivium.model import Cache, Side, Transformer


@torch.inference_mode()
def prefill(
    model: Transformer,
    prompts: Side,
    *,
    context: Side | None = None,
    capacity: int,
    chunk_tokens: int = 512,
) -> tuple[Cache, Tensor]:
    """Read right-padded prompts into a new cache; return it with each row's next-token scores `(B, V)`.

    `capacity` is the number of tokens per row that the cache can hold in the end. Long prompts are read
    `chunk_tokens` at a time, which bounds memory and changes nothing else. An encoder–decoder reads `context`.
    """
    slots, longest = prompts.ids.shape
    assert capacity >= longest, (capacity, longest)
    weight = model.embedding.tokens.weight
    cache = Cache.allocate(model.config, slots, capacity, like=weight)
    if context is not None:
        model.remember(cache, context)
    last_BD = weight.new_zeros(slots, weight.shape[1])
    for start in range(0, longest, chunk_tokens):
        part = slice(start, start + chunk_tokens)
        side = Side(prompts.ids[:, part], prompts.positions[:, part], prompts.segments[:, part])
        hidden_BTD = model.decode(side, cache=cache)
        counts_B = (side.segments != 0).sum(1)
        full = bool((counts_B == side.ids.shape[1]).all())
        cache.advance(side.ids.shape[1] if full else counts_B)
        ends_B = (counts_B - 1).clamp(min=0)
        found_BD = hidden_BTD[torch.arange(slots, device=ends_B.device), ends_B]
        last_BD = torch.where((counts_B > 0)[:, None], found_BD, last_BD)
    return cache, model.head(last_BD[:, None])[:, 0]


@torch.inference_mode()
def decode_step(model: Transformer, cache: Cache, ids_B: Tensor) -> Tensor:
    """Append one token to every slot; return the scores `(B, V)` of what follows it."""
    ids_B1 = ids_B[:, None]
    side = Side(ids_B1, cache.lengths[:, None], torch.ones_like(ids_B1))
    hidden_B1D = model.decode(side, cache=cache)
    cache.advance(1)
    return torch.as_tensor(model.head(hidden_B1D)[:, 0])


def read_prompts(model: Transformer, prompts: Sequence[Sequence[int]], rows: Sequence[Row]) -> tuple[Cache, Tensor]:
    """`prefill` for rows that begin, with a cache of exactly the size that they can need."""
    device, pad_id = str(model.embedding.tokens.weight.device), model.config.pad_id
    two = model.config.family == "encoder_decoder"
    context = Side.from_ids(prompts, pad_id=pad_id, device=device) if two else None
    # The last new token is never read.
    capacity = max(len(row.history) + row.past.limit for row in rows) - 1
    side = Side.from_ids([row.history for row in rows], pad_id=pad_id, device=device)
    return prefill(model, side, context=context, capacity=capacity)
