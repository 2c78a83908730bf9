"""How the next token is chosen from scores: the settings, and pure functions on `logits_BV`.

Each function is one rule from the literature with the behaviour that Hugging Face's `generate` gives the same
argument name. Nothing here runs a model, knows text, or keeps state: random numbers come from generators that the
caller owns, one per row, so that a row's draw never depends on its neighbours.

Legend: B rows, V vocabulary, N candidates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from trivium.errors import ConfigError


@dataclass(frozen=True)
class SamplingConfig:
    """How to write: when to stop and how to choose each token, under Hugging Face's argument names.

    `do_sample=False` takes the best token (greedy, or beam search with `num_beams` > 1). `top_k=0`, `top_p=1`,
    `min_p=0`, `repetition_penalty=1` and `no_repeat_ngram_size=0` each mean “off”. `stop` are strings that end a
    text and are not part of it. Row i of a batch draws from `seed + i`. `logprobs` asks for the log-probability of
    every token under the model itself, before any rule. Raises `ConfigError` for values without a meaning.
    """

    max_new_tokens: int = 64
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    stop: tuple[str, ...] = ()
    seed: int = 0
    logprobs: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        object.__setattr__(self, "stop", tuple(self.stop))
        for name, low, high, what in _RANGES:
            value = getattr(self, name)
            if not (low <= value <= high) or math.isinf(value):
                raise ConfigError(f"{name} is {value}; expected {what}; set {name} accordingly")
        if "" in self.stop:
            raise ConfigError("stop holds an empty string; expected text to stop at; remove it")
        if self.early_stopping not in (True, False, "never"):
            raise ConfigError(
                f"early_stopping is {self.early_stopping!r}; expected true, false or 'never'; choose one of them"
            )
        if self.num_beams > 1 and self.do_sample:
            raise ConfigError(
                f"do_sample with num_beams={self.num_beams}; expected sampling or beam search, not both; "
                "set num_beams=1 to sample, or do_sample=false to search"
            )
        if self.num_beams > 1 and self.stop:
            raise ConfigError(
                f"stop strings with num_beams={self.num_beams}; expected beams to end by the end token alone; "
                "set num_beams=1 or leave stop out"
            )


_POSITIVE = math.ulp(0.0)
_RANGES: tuple[tuple[str, float, float, str], ...] = (
    ("max_new_tokens", 1, math.inf, "at least 1"),
    ("temperature", _POSITIVE, math.inf, "a number above 0 (do_sample=false is the limit at 0)"),
    ("top_k", 0, math.inf, "a count, or 0 for off"),
    ("top_p", _POSITIVE, 1, "a probability in (0, 1]"),
    ("min_p", 0, 1, "a probability in [0, 1]"),
    ("repetition_penalty", _POSITIVE, math.inf, "a factor above 0, 1 for off"),
    ("no_repeat_ngram_size", 0, math.inf, "a length, or 0 for off"),
    ("num_beams", 1, math.inf, "at least 1"),
    ("length_penalty", -math.inf, math.inf, "a finite exponent"),
    ("seed", 0, 2**63 - 1, "an integer from 0 to 2⁶³ − 1"),
)


def penalize_repetition(logits_BV: Tensor, histories: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Make tokens of each row's history less likely: scores above 0 divided, below 0 multiplied by `penalty`.

    CTRL (Keskar et al. 2019, §4.1). A penalty below 1 rewards repetition instead.
    """
    logits_BV = logits_BV.clone()
    for row, history in enumerate(histories):
        ids = torch.as_tensor(history, dtype=torch.long, device=logits_BV.device)
        scores = logits_BV[row, ids]
        logits_BV[row, ids] = torch.where(scores < 0, scores * penalty, scores / penalty)
    return logits_BV


def forbid_repeated_ngrams(logits_BV: Tensor, histories: Sequence[Sequence[int]], size: int) -> Tensor:
    """Rule out every token that would complete an n-gram of `size` already in the row (Paulus et al. 2017)."""
    logits_BV = logits_BV.clone()
    for row, history in enumerate(histories):
        start = len(history) + 1 - size
        if start < 0:
            continue
        prefix = tuple(history[start:])
        seen = [
            history[index + size - 1]
            for index in range(len(history) + 1 - size)
            if tuple(history[index : index + size - 1]) == prefix
        ]
        logits_BV[row, torch.as_tensor(seen, dtype=torch.long, device=logits_BV.device)] = -math.inf
    return logits_BV


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


def apply_history(logits_BV: Tensor, histories: Sequence[Sequence[int]], config: SamplingConfig) -> Tensor:
    """The rules that look back, in Hugging Face's order; they hold for greedy choice and beams too."""
    if config.repetition_penalty != 1.0:
        logits_BV = penalize_repetition(logits_BV, histories, config.repetition_penalty)
    if config.no_repeat_ngram_size:
        logits_BV = forbid_repeated_ngrams(logits_BV, histories, config.no_repeat_ngram_size)
    return logits_BV


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
    histories: Sequence[Sequence[int]],
    config: SamplingConfig,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """The next token of each row, int64 `(B,)`: the best one, or a draw from the row's own generator."""
    logits_BV = apply_history(logits_BV, histories, config)
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
