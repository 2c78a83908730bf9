"""Beam search: keep the few best beginnings instead of one, over the same `prefill` and `decode_step`.

Its rules are those of transformers' `generate`, which fine-tuned models were tuned with: 2 × beams candidates a
step, a finished text scored by log-probability / length^length_penalty, and its three ways of stopping early.
Knows nothing of sampling.

Legend: R rows (the beams of all prompts), V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trivium.generation.decode import decode_step, read_prompts
from trivium.generation.packed import prepare_decoding
from trivium.generation.row import FinishReason, Generation, Row, start_rows
from trivium.generation.rules import apply_rules
from trivium.generation.settings import SamplingConfig
from trivium.model import Cache, Transformer

if TYPE_CHECKING:
    from trivium.tokenizer import Tokenizer


@dataclass(frozen=True)
class Beam:
    """One beginning: new tokens, their own log-probabilities, and the score that ranks it."""

    ids: list[int]
    logprobs: list[float]
    score: float


@dataclass
class Search:
    """The state of one prompt: beams still growing, best first, and the best finished ones."""

    row: Row
    config: SamplingConfig
    tokenizer: "Tokenizer | None" = None
    beams: list[Beam] = field(default_factory=lambda: [Beam([], [], 0.0)])
    finished: list[Beam] = field(default_factory=list)
    over: bool = False

    def advance(self, ranked: list[tuple[int, Beam]]) -> list[int]:
        """Take candidates with their parents, best first; return the parents of the beams that go on."""
        width, going, ended = self.config.num_beams, list[tuple[int, Beam]](), list[Beam]()
        for rank, (parent, beam) in enumerate(ranked):
            length = len(beam.ids)
            if self._end_of(beam) is None:
                going.append((parent, beam))
            elif rank < width:
                ended.append(replace(beam, score=beam.score / length**self.config.length_penalty))
        if not (self.config.early_stopping is True and len(self.finished) == width):
            self.finished = sorted(self.finished + ended, key=lambda beam: -beam.score)[:width]
        # Where every next token is ruled out the beams stay as they are: they may be all that there is to show.
        self.beams = [beam for _, beam in going[:width]] or self.beams
        self.over = not going or self._cannot_improve()
        return [parent for parent, _ in going[:width]]

    def _end_of(self, beam: Beam) -> FinishReason | None:
        """Why a beam is over, if it is."""
        if beam.ids[-1] in self.row.past.eos_ids:
            return "eos"
        if self.config.stop and self.tokenizer is not None:
            text = self.tokenizer.decode(beam.ids, skip_special=True)
            if any(stop in text for stop in self.config.stop):
                return "stop"
        return "length" if len(beam.ids) >= self.row.past.limit else None

    def _cannot_improve(self) -> bool:
        if len(self.finished) < self.config.num_beams:
            return False
        if self.config.early_stopping is True:
            return True
        penalty, length = self.config.length_penalty, float(len(self.beams[0].ids))
        if self.config.early_stopping == "never" and penalty > 0:
            length = self.row.past.limit
        return bool(self.beams[0].score / length**penalty <= self.finished[-1].score)

    def results(self) -> list[Generation]:
        """The best texts, as many as were asked for; where fewer exist, the last of them again."""
        wanted = self.config.num_return_sequences
        best = (self.finished + self.beams)[:wanted] if len(self.finished) < wanted else self.finished[:wanted]
        best += best[-1:] * (wanted - len(best))
        return [self._show(beam) for beam in best]

    def _show(self, beam: Beam) -> Generation:
        text = None if self.tokenizer is None else self.tokenizer.decode(beam.ids, skip_special=True)
        for stop in self.config.stop:
            text = text and text.partition(stop)[0]
        logprobs = beam.logprobs if self.config.logprobs else None
        return Generation(beam.ids, self._end_of(beam) or "length", text, logprobs, beam.score)


@torch.inference_mode()
def search_beams(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig,
    *,
    tokenizer: "Tokenizer | None" = None,
) -> list[Generation]:
    """The best texts of `config.num_beams` beams after each prompt; arguments as in `generate`, which calls this.

    Raises what `generate` raises.
    """
    rows = start_rows(model.config, prompts, config, tokenizer=tokenizer)
    if not rows:
        return []
    searches = [Search(row, config, tokenizer) for row in rows]
    model = prepare_decoding(model, len(rows) * config.num_beams, new_tokens=max(row.past.limit for row in rows))
    cache, logits_RV = read_prompts(model, prompts, rows)
    live = searches
    while live:
        counts = [len(search.beams) for search in live]
        slots, before = _step(live, logits_RV), live
        live = [search for search in live if not search.over]
        if live:
            cache = _reorder(cache, slots, before, counts)
            ids_R = torch.tensor([beam.ids[-1] for search in live for beam in search.beams])
            logits_RV = decode_step(model, cache, ids_R.to(logits_RV.device))
    return [result for search in searches for result in search.results()]


def _step(live: list[Search], logits_RV: Tensor) -> list[int]:
    """Let every search take its best candidates; return the cache slots of the beams that go on."""
    own_RV = logits_RV.float().log_softmax(-1)
    config, vocab_size = live[0].config, logits_RV.shape[1]
    pasts = [
        replace(search.row.past, history=search.row.history + beam.ids) for search in live for beam in search.beams
    ]
    scores_RV = apply_rules(own_RV, pasts, config)
    running = torch.tensor([beam.score for search in live for beam in search.beams], device=own_RV.device)
    scores_RV = scores_RV + running[:, None]
    slots, first = list[int](), 0
    for search in live:
        beams, rows = search.beams, slice(first, first + len(search.beams))
        # As many again as beams for each end token, so that enough go on even if every best candidate is an end.
        count = config.num_beams * max(2, 1 + len(search.row.past.eos_ids))
        count = min(count, scores_RV[rows].numel())
        values, index = scores_RV[rows].flatten().topk(count)
        logprobs = own_RV[rows].flatten()[index]
        ranked = [
            (at // vocab_size, _grow(beams[at // vocab_size], at % vocab_size, logprob, score))
            for at, logprob, score in zip(index.tolist(), logprobs.tolist(), values.tolist(), strict=True)
            if score > -math.inf
        ]
        parents = search.advance(ranked)
        if not search.over:
            slots += [first + parent for parent in parents]
        first = rows.stop
    return slots


def _grow(beam: Beam, token: int, logprob: float, score: float) -> Beam:
    return Beam([*beam.ids, token], [*beam.logprobs, logprob], score)


def _reorder(cache: Cache, slots: list[int], before: list[Search], counts: list[int]) -> Cache:
    """The cache of the beams that go on; nothing is copied when each is its own parent.

    What a text's beams have in common, the context, is kept once while all texts have equally many (`counts` before).
    """
    index = torch.tensor(slots, device=cache.keys.device)
    going = [place for place, search in enumerate(before) if not search.over]
    now = [len(before[place].beams) for place in going]
    if now == counts:
        if slots != list(range(len(slots))):
            cache.exchange(index)
        return cache
    if cache.context_segments is None or len(cache.context_segments) != len(before):
        return cache.select(index)
    if len(set(now)) > 1:
        going = [place for place, count in zip(going, now, strict=True) for _ in range(count)]
    return cache.select(index, torch.tensor(going, device=index.device))
