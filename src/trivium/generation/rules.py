"""What may come next, given what was written: penalties, bans, forced tokens. They hold for every way of choosing.

Each function is one rule with the behaviour that Hugging Face's `generate` gives the same argument name (the two
additive penalties have OpenAI's). A rule never changes the scores that it is given.

Legend: B rows, V vocabulary.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trivium.generation.settings import SamplingConfig


@dataclass(frozen=True)
class Past:
    """What rules may look at for one row: all that the decoder has seen, of which new tokens begin at `start`.

    `limit` is how many tokens may be written at most, `eos_ids` end the text, `source` is what an encoder read.
    """

    history: Sequence[int]
    start: int = 0
    limit: int = 0
    eos_ids: tuple[int, ...] = ()
    source: Sequence[int] = ()

    @property
    def count(self) -> int:
        """How many tokens have been written."""
        return len(self.history) - self.start


def penalize_repetition(logits_BV: Tensor, histories: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Make tokens of each row's history less likely: scores above 0 divided, below 0 multiplied by `penalty`.

    CTRL (Keskar et al. 2019, §4.1). A penalty below 1 rewards repetition instead.
    """
    logits_BV = logits_BV.clone()
    for row, history in enumerate(histories):
        ids = _index(history, logits_BV)
        scores = logits_BV[row, ids]
        logits_BV[row, ids] = torch.where(scores < 0, scores * penalty, scores / penalty)
    return logits_BV


def penalize_presence(logits_BV: Tensor, written: Sequence[Sequence[int]], presence: float, frequency: float) -> Tensor:
    """Subtract `presence` from each token that a row has written, and `frequency` for every time it has.

    The rule of OpenAI's completions API; only new tokens count, not the prompt.
    """
    logits_BV = logits_BV.clone()
    for row, tokens in enumerate(written):
        counts = Counter(tokens)
        amounts = torch.tensor([presence + frequency * count for count in counts.values()], dtype=logits_BV.dtype)
        logits_BV[row, _index(counts, logits_BV)] -= amounts.to(logits_BV.device)
    return logits_BV


def forbid_repeated_ngrams(
    logits_BV: Tensor,
    histories: Sequence[Sequence[int]],
    size: int,
    *,
    sources: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    """Rule out every token that would complete an n-gram of `size` already in the row (Paulus et al. 2017).

    With `sources`, in the row's source instead: what an encoder read.
    """
    logits_BV = logits_BV.clone()
    for row, (history, source) in enumerate(zip(histories, sources or histories, strict=True)):
        start = len(history) + 1 - size
        if start < 0:
            continue
        prefix = tuple(history[start:])
        seen = [
            source[index + size - 1]
            for index in range(len(source) + 1 - size)
            if tuple(source[index : index + size - 1]) == prefix
        ]
        logits_BV[row, _index(seen, logits_BV)] = -math.inf
    return logits_BV


def forbid_words(logits_BV: Tensor, pasts: Sequence[Past], words: Sequence[Sequence[int]]) -> Tensor:
    """Rule out the last token of every word (a list of tokens) whose others the row ends with; never an end token."""
    logits_BV = logits_BV.clone()
    for row, past in enumerate(pasts):
        history = tuple(past.history)
        banned = [
            word[-1]
            for word in words
            if history[max(len(history) - len(word) + 1, 0) :] == tuple(word[:-1])
            and not (len(word) == 1 and word[0] in past.eos_ids)
        ]
        logits_BV[row, _index(banned, logits_BV)] = -math.inf
    return logits_BV


def forbid_early_end(logits_BV: Tensor, pasts: Sequence[Past], config: SamplingConfig) -> Tensor:
    """Rule out end tokens while a row is shorter than `min_length` in all, or has fewer than `min_new_tokens`."""
    logits_BV = logits_BV.clone()
    for row, past in enumerate(pasts):
        if len(past.history) < config.min_length or past.count < config.min_new_tokens:
            logits_BV[row, _index(past.eos_ids, logits_BV)] = -math.inf
    return logits_BV


def force_ends(logits_BV: Tensor, pasts: Sequence[Past], config: SamplingConfig) -> Tensor:
    """Leave only `forced_bos_token_id` after a decoder's first token, and `forced_eos_token_id` for the last."""
    logits_BV = logits_BV.clone()
    for row, past in enumerate(pasts):
        forced: tuple[int, ...] = ()
        if config.forced_bos_token_id is not None and len(past.history) == 1:
            forced = (config.forced_bos_token_id,)
        if config.forced_eos_token_id and past.count == past.limit - 1:
            forced = config.forced_eos_token_id
        if forced:
            logits_BV[row] = -math.inf
            logits_BV[row, _index(forced, logits_BV)] = 0.0
    return logits_BV


def suppress(logits_BV: Tensor, pasts: Sequence[Past], config: SamplingConfig) -> Tensor:
    """Rule out `suppress_tokens` always, `begin_suppress_tokens` for the first token that is not forced."""
    logits_BV = logits_BV.clone()
    logits_BV[:, _index(config.suppress_tokens, logits_BV)] = -math.inf
    for row, past in enumerate(pasts):
        forced = config.forced_bos_token_id is not None and past.start == 1
        if past.count == int(forced):
            logits_BV[row, _index(config.begin_suppress_tokens, logits_BV)] = -math.inf
    return logits_BV


def apply_rules(logits_BV: Tensor, pasts: Sequence[Past], config: SamplingConfig) -> Tensor:
    """All rules of a config that look back, in Hugging Face's order; one that is off costs nothing."""
    histories = [past.history for past in pasts]
    if config.repetition_penalty != 1.0:
        logits_BV = penalize_repetition(logits_BV, histories, config.repetition_penalty)
    if config.presence_penalty or config.frequency_penalty:
        written = [past.history[past.start :] for past in pasts]
        logits_BV = penalize_presence(logits_BV, written, config.presence_penalty, config.frequency_penalty)
    if config.no_repeat_ngram_size:
        logits_BV = forbid_repeated_ngrams(logits_BV, histories, config.no_repeat_ngram_size)
    if config.encoder_no_repeat_ngram_size:
        sources = [past.source for past in pasts]
        logits_BV = forbid_repeated_ngrams(logits_BV, histories, config.encoder_no_repeat_ngram_size, sources=sources)
    if config.bad_words_ids:
        logits_BV = forbid_words(logits_BV, pasts, config.bad_words_ids)
    if config.min_length or config.min_new_tokens:
        logits_BV = forbid_early_end(logits_BV, pasts, config)
    if config.forced_bos_token_id is not None or config.forced_eos_token_id:
        logits_BV = force_ends(logits_BV, pasts, config)
    if config.suppress_tokens or config.begin_suppress_tokens:
        logits_BV = suppress(logits_BV, pasts, config)
    return logits_BV


def _index(ids: Iterable[int], like: Tensor) -> Tensor:
    return torch.tensor(list(ids), dtype=torch.long, device=like.device)
