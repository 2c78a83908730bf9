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


@torch.inference_mode()
def read_prompts(model: Transformer, prompts: Sequence[Sequence[int]], rows: Sequence[Row]) -> tuple[Cache, Tensor]:
    """`prefill` for rows that begin, with a cache of exactly the size that they can need.

    Prompts of different lengths are read in groups: padding costs as much as text.
    """
    # The last new token is never read.
    capacity = max(len(row.history) + row.past.limit for row in rows) - 1
    groups = group_lengths([len(prompt) for prompt in prompts])
    if len(groups) == 1:
        return _read_group(model, prompts, rows, capacity)
    weight, scores = model.embedding.tokens.weight, list[Tensor]()
    cache = Cache.allocate(model.config, len(rows), capacity, like=weight)
    if model.config.family == "encoder_decoder":
        cache.allocate_context(max(map(len, prompts)))
    for group in groups:
        own = [rows[index] for index in group]
        needed = max(len(row.history) for row in own)
        part, part_BV = _read_group(model, [prompts[index] for index in group], own, needed)
        cache.put(part, torch.tensor(group, device=weight.device))
        scores.append(part_BV)
    back = torch.tensor([index for group in groups for index in group], device=weight.device).argsort()
    return cache, torch.cat(scores)[back]


def group_lengths(lengths: Sequence[int], *, tokens: int = 128) -> list[list[int]]:
    """Indices of rows to be read together, the longest first: as many as there are without more waste than `tokens`.

    A group more reads all weights once more, which takes as long as some hundred tokens in a few rows do.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if groups:
            longest, count = lengths[groups[-1][0]], len(groups[-1])
            waste = longest * count - sum(lengths[each] for each in groups[-1]) + longest - lengths[index]
            if waste <= tokens:
                groups[-1].append(index)
                continue
        groups.append([index])
    return groups if len(groups) > 1 else [list(range(len(lengths)))]


def _read_group(
    model: Transformer, prompts: Sequence[Sequence[int]], rows: Sequence[Row], capacity: int
) -> tuple[Cache, Tensor]:
    device, pad_id = str(model.embedding.tokens.weight.device), model.config.pad_id
    two = model.config.family == "encoder_decoder"
    context = Side.from_ids(prompts, pad_id=pad_id, device=device) if two else None
    side = Side.from_ids([row.history for row in rows], pad_id=pad_id, device=device)
    return prefill(model, side, context=context, capacity=capacity)
