"""How the next token is chosen from scores: pure functions on `logits_BV`.

Each function is one rule from the literature with the behaviour that Hugging Face's `generate` gives the same
argument name. Nothing here runs a model, knows text, or keeps state: random numbers come from generators that the
caller owns, one per row, so that a row's draw never depends on its neighbours.

Legend: B rows, V vocabulary, N candidates.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from trivium.generation.rules import Past, apply_rules
from trivium.generation.settings import SamplingConfig


def keep_top_k(logits_BV: Tensor, top_k: int) -> Tensor:
    """Rule out all but the `top_k` best tokens (Fan et al. 2018); ties with the last of them stay."""
    worst_B1 = logits_BV.topk(min(top_k, logits_BV.shape[-1]), dim=-1).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < worst_B1, -math.inf)


def keep_top_p(logits_BV: Tensor, top_p: float) -> Tensor:
    """Rule out the tail that lies outside the smallest set with probability ≥ `top_p` (Holtzman et al. 2020)."""
    sorted_BV, order_BV = logits_BV.sort(dim=-1)
    tail_BV = sorted_BV.softmax(-1).cumsum(-1) <= 1 - top_p
    tail_BV[:, -1] = False
    return logits_BV.masked_fill(tail_BV.scatter(-1, order_BV, tail_BV), -math.inf)


def keep_min_p(logits_BV: Tensor, min_p: float) -> Tensor:
    """Rule out tokens less than `min_p` times as likely as the best one (Nguyen et al. 2024)."""
    return logits_BV.masked_fill(logits_BV < logits_BV.amax(-1, keepdim=True) + math.log(min_p), -math.inf)


def keep_typical(logits_BV: Tensor, mass: float) -> Tensor:
    """Keep the tokens whose surprise is nearest the expected one, up to probability `mass` (Meister et al. 2023)."""
    logprobs_BV = logits_BV.log_softmax(-1)
    entropy_B1 = -(logprobs_BV * logprobs_BV.exp()).nansum(-1, keepdim=True)
    oddness_BV, order_BV = (-logprobs_BV - entropy_B1).abs().sort(dim=-1)
    within_B = (logits_BV.gather(-1, order_BV).softmax(-1).cumsum(-1) < mass).sum(1)
    last_B1 = within_B.clamp(max=logits_BV.shape[-1] - 1)[:, None]
    odd_BV = oddness_BV > oddness_BV.gather(1, last_B1)
    odd_BV[:, 0] = False
    return logits_BV.masked_fill(odd_BV.scatter(-1, order_BV, odd_BV), -math.inf)


def restrict(logits_BV: Tensor, config: SamplingConfig) -> Tensor:
    """The rules that shape a distribution before a draw, in Hugging Face's order; ruled out tokens are −inf."""
    if config.temperature != 1.0:
        logits_BV = logits_BV / config.temperature
    if config.top_k:
        logits_BV = keep_top_k(logits_BV, config.top_k)
    if config.top_p < 1.0:
        logits_BV = keep_top_p(logits_BV, config.top_p)
    if config.min_p > 0.0:
        logits_BV = keep_min_p(logits_BV, config.min_p)
    if config.typical_p < 1.0:
        logits_BV = keep_typical(logits_BV, config.typical_p)
    return logits_BV


def draw(logits_BN: Tensor, uniforms_B: Tensor) -> Tensor:
    """One index per row, `(B,)`, from softmax(logits): its cumulative distribution inverted at `uniforms_B`."""
    cumulative_BN = logits_BN.double().softmax(-1).cumsum(-1)
    # The sum ends near 1, not at it: a uniform is scaled to it and kept below, or the last step could be missed.
    total_B1 = cumulative_BN[:, -1:]
    point_B1 = torch.minimum(uniforms_B.double()[:, None] * total_B1, total_B1.nextafter(total_B1.new_zeros(())))
    return torch.searchsorted(cumulative_BN, point_B1, right=True)[:, 0]


def choose(
    logits_BV: Tensor,
    pasts: Sequence[Past],
    config: SamplingConfig,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """The next token of each row, int64 `(B,)`: the best one, or a draw from the row's own generator."""
    logits_BV = apply_rules(logits_BV, pasts, config)
    if not config.do_sample:
        return logits_BV.argmax(-1)
    uniforms_B = torch.cat([torch.rand(1, generator=generator, dtype=torch.float64) for generator in generators])
    uniforms_B = uniforms_B.to(logits_BV.device)
    if not config.top_k:
        return draw(restrict(logits_BV, config), uniforms_B)
    # Sorting k candidates instead of the vocabulary: top-p over 50 k scores costs as much as a small model's step.
    best_BN, ids_BN = logits_BV.topk(min(config.top_k, logits_BV.shape[-1]), dim=-1)
    picks_B = draw(restrict(best_BN, replace(config, top_k=0)), uniforms_B)
    return ids_BN.gather(1, picks_B[:, None])[:, 0]


def token_logprobs(logits_BV: Tensor, ids_B: Tensor) -> Tensor:
    """Log-probability of each row's token under softmax(logits), float32 `(B,)`."""
    return logits_BV.float().log_softmax(-1).gather(1, ids_B[:, None])[:, 0]
