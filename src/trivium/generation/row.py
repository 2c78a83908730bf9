"""One sequence being written, from the prompt that is checked to the result that is handed back.

Knows what a prompt may hold and when a text is over; runs no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch

from trivium.errors import ConfigError, RequestError
from trivium.generation.rules import Past
from trivium.generation.settings import SamplingConfig
from trivium.generation.stream import TextStream
from trivium.model import ModelConfig

if TYPE_CHECKING:
    from trivium.tokenizer import Tokenizer

FinishReason = Literal["eos", "stop", "length"]


@dataclass(frozen=True)
class Generation:
    """What was written after one prompt.

    `ids` are the new tokens, an end token included; `text` (with a tokenizer) ends before a stop string;
    `logprobs` (if asked for) are natural logarithms under the model itself, one per token. `score` is what beam
    search ranked by.
    """

    ids: list[int]
    finish_reason: FinishReason
    text: str | None = None
    logprobs: list[float] | None = None
    score: float | None = None


@dataclass
class Row:
    """One sequence being written: `history` is all that the decoder has seen, and `past` looks at that same list."""

    history: list[int]
    past: Past
    generator: torch.Generator
    stream: TextStream | None = None
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def append(self, token: int) -> None:
        """Take one more token and notice the end."""
        self.history.append(token)
        ended = token in self.past.eos_ids
        if self.stream is not None and not ended:
            self.stream.push(token)
        if ended:
            self.finish_reason = "eos"
        elif self.stream is not None and self.stream.stopped:
            self.finish_reason = "stop"
        elif self.past.count >= self.past.limit:
            self.finish_reason = "length"


def start_rows(
    model: ModelConfig,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig,
    *,
    tokenizer: "Tokenizer | None" = None,
    seeds: Sequence[int] | None = None,
    copies: int = 1,
) -> list[Row]:
    """`copies` rows next to each other for each prompt, checked against what the model can read."""
    wanted = len(prompts) * copies
    seeds = [config.seed + index for index in range(wanted)] if seeds is None else seeds
    if len(seeds) != wanted:
        found = f"{len(seeds)} seeds for {len(prompts)} prompts" + f" of {copies} texts each" * (copies > 1)
        raise RequestError(f"{found}; expected one each; give as many")
    if config.stop and tokenizer is None:
        raise ConfigError("stop strings without a tokenizer; expected one to know the text; pass tokenizer=")
    for name, ids in config.named_ids().items():
        if ids and max(ids) >= model.vocab_size:
            expected = f"expected ids below {model.vocab_size}"
            raise ConfigError(f"{name} holds {max(ids)}; {expected}; use ids of this model's tokenizer")
    eos_ids = config.eos_token_id or (() if model.eos_id is None else (model.eos_id,))
    rows = []
    for index, seed in enumerate(seeds):
        prompt = prompts[index // copies]
        limit, history = check_prompt(model, prompt, config), decoder_prompt(model, prompt)
        source = prompt if model.family == "encoder_decoder" else ()
        past = Past(history, len(history), limit, eos_ids, source)
        stream = TextStream(tokenizer, config.stop) if config.stop and tokenizer is not None else None
        rows.append(Row(history, past, torch.Generator().manual_seed(seed), stream))
    return rows


def decoder_prompt(model: ModelConfig, prompt: Sequence[int]) -> list[int]:
    """What the decoder reads first: the prompt, or an encoder–decoder's start token."""
    if model.family == "encoder_decoder":
        start = model.pad_id if model.decoder_start_id is None else model.decoder_start_id
        return [start]
    return list(prompt)


def check_prompt(model: ModelConfig, prompt: Sequence[int], config: SamplingConfig) -> int:
    """How many tokens may be written after this prompt; raises for one that cannot be read.

    Learned positions end: a prompt beyond them is refused, an answer is cut there (`finish_reason` "length").
    """
    if model.family == "encoder":
        raise ConfigError(
            "an encoder was asked to write; expected a decoder or encoder_decoder; use fill_mask with this model"
        )
    if not prompt:
        raise RequestError("the prompt is empty; expected at least one token; start with some text")
    if min(prompt) < 0 or max(prompt) >= model.vocab_size:
        raise RequestError(
            f"token ids from {min(prompt)} to {max(prompt)} in a prompt; expected 0 to {model.vocab_size - 1}; "
            "encode the text with this model's own tokenizer"
        )
    read = 1 if model.family == "encoder_decoder" else len(prompt)
    wanted = config.max_length - read if config.max_length else config.max_new_tokens
    if wanted < 1:
        raise RequestError(
            f"the prompt has {read} tokens and max_length={config.max_length} counts them too, which leaves none to "
            "write; expected a prompt shorter than that; shorten it or set max_new_tokens instead"
        )
    if model.position != "learned":
        return wanted
    if len(prompt) > model.max_positions:
        raise RequestError(
            f"the prompt has {len(prompt)} tokens; this model's positions end at {model.max_positions}; "
            "shorten the prompt"
        )
    # The last new token is never read, so it needs no position.
    return min(wanted, model.max_positions - read + 1)


def finish(row: Row, config: SamplingConfig, tokenizer: "Tokenizer | None") -> Generation:
    """A finished row as its caller sees it."""
    assert row.finish_reason is not None
    ids = row.history[row.past.start :]
    text = None
    if row.stream is not None:
        text = row.stream.flush()
    elif tokenizer is not None:
        text = tokenizer.decode(ids, skip_special=True)
    return Generation(ids, row.finish_reason, text, row.logprobs if config.logprobs else None)
