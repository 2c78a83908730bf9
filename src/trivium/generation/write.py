"""Text from a model: whole answers, batches of answers, or pieces while they are written.

Knows nothing of training or of files.

Legend: B rows, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from trivium.generation.beam import search_beams
from trivium.generation.decode import decode_step, read_prompts
from trivium.generation.packed import prepare_decoding
from trivium.generation.row import Generation, Row, finish, start_rows
from trivium.generation.sample import choose, token_logprobs
from trivium.generation.settings import SamplingConfig
from trivium.model import Transformer

if TYPE_CHECKING:
    from trivium.tokenizer import Tokenizer


def generate(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig | None = None,
    *,
    tokenizer: "Tokenizer | None" = None,
    seeds: Sequence[int] | None = None,
) -> list[Generation]:
    """Write after each prompt of token ids, of any lengths; an encoder–decoder reads them and writes its answer.

    `config.num_return_sequences` texts for each prompt stand next to each other. `tokenizer` turns tokens into text
    and is needed for stop strings; `seeds` are the texts' own, by default `config.seed + row`. Equal rows with equal
    seeds write the same whatever stands beside them. Raises `RequestError` for prompts that the model cannot read,
    `ConfigError` for a model that cannot write.
    """
    config = config or SamplingConfig()
    if config.num_beams > 1:
        return search_beams(model, prompts, config, tokenizer=tokenizer)
    copies = config.num_return_sequences
    rows = start_rows(model.config, prompts, config, tokenizer=tokenizer, seeds=seeds, copies=copies)
    for _ in write_rows(model, prompts, rows, config):
        pass
    return [finish(row, config, tokenizer) for row in rows]


@torch.inference_mode()
def write_rows(
    model: Transformer, prompts: Sequence[Sequence[int]], rows: list[Row], config: SamplingConfig
) -> Iterator[None]:
    """Write until every row has finished, pausing after each token; finished rows leave the batch at once."""
    if not rows:
        return
    model = prepare_decoding(model, len(rows), new_tokens=max(row.past.limit for row in rows))
    copies = len(rows) // len(prompts)
    cache, logits_BV = read_prompts(model, prompts, rows[::copies])
    if copies > 1:  # a prompt is read once, however many texts follow it
        slots = torch.arange(len(prompts), device=logits_BV.device).repeat_interleave(copies)
        cache, logits_BV = cache.select(slots), logits_BV[slots]
    live = rows
    while True:
        ids_B = choose(logits_BV, [row.past for row in live], config, [row.generator for row in live])
        for row, token in zip(live, ids_B.tolist(), strict=True):
            row.append(token)
        if config.logprobs:
            for row, value in zip(live, token_logprobs(logits_BV, ids_B).tolist(), strict=True):
                row.logprobs.append(value)
        yield
        keep = [index for index, row in enumerate(live) if row.finish_reason is None]
        if not keep:
            return
        if len(keep) < len(live):
            slots = torch.tensor(keep, device=ids_B.device)
            live, ids_B, cache = [live[index] for index in keep], ids_B[slots], cache.select(slots)
        logits_BV = decode_step(model, cache, ids_B)
