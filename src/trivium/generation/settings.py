"""How to write: the one record of settings, under Hugging Face's argument names, and how defaults of a folder and
arguments of a call become one.

Knows no tensors. What each setting does to scores is in rules.py and sample.py.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal

from trivium.errors import ConfigError


@dataclass(frozen=True)
class SamplingConfig:
    """How to write: when to stop and how to choose each token, under Hugging Face's argument names.

    Lengths: `max_new_tokens` and `min_new_tokens` count what is written; `max_length` and `min_length` count what
    the decoder has read too (the prompt, or an encoder–decoder's one start token), and a `max_length` replaces
    `max_new_tokens`. `do_sample=False` takes the best token (greedy, or beam search with `num_beams` > 1). 0, 1, an
    empty tuple or None mean “off” as in Hugging Face. `eos_token_id` empty means the model's own; any of several ends
    a text. `stop` are strings that end a text and are not part of it. `num_return_sequences` texts are written for
    each prompt, next to each other: samples, or the best beams. `presence_penalty` and `frequency_penalty` are
    OpenAI's, over the new tokens. Row i of a batch draws from `seed + i`. `logprobs` asks for the log-probability
    of every token under the model itself, before any rule. Raises `ConfigError` for values without a meaning.
    """

    max_new_tokens: int = 64
    min_new_tokens: int = 0
    max_length: int = 0
    min_length: int = 0
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    encoder_no_repeat_ngram_size: int = 0
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    forced_bos_token_id: int | None = None
    forced_eos_token_id: tuple[int, ...] = ()
    eos_token_id: tuple[int, ...] = ()
    num_beams: int = 1
    num_return_sequences: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    stop: tuple[str, ...] = ()
    seed: int = 0
    logprobs: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", (self.stop,) if isinstance(self.stop, str) else tuple(self.stop))
        for name in _ID_LISTS:
            value: Any = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, int) else tuple(value or ()))
        object.__setattr__(self, "bad_words_ids", tuple(tuple(words) for words in self.bad_words_ids or ()))
        for name, low, high, what in _RANGES:
            number = getattr(self, name)
            if not isinstance(number, int | float) or not (low <= number <= high) or math.isinf(number):
                raise ConfigError(f"{name} is {number!r}; expected {what}; set {name} accordingly")
        self._check_words()
        self._check_together()

    def _check_words(self) -> None:
        if "" in self.stop:
            raise ConfigError("stop holds an empty string; expected text to stop at; remove it")
        if () in self.bad_words_ids:
            raise ConfigError("bad_words_ids holds an empty list; expected the tokens of a word; remove it")
        if self.early_stopping not in (True, False, "never"):
            raise ConfigError(
                f"early_stopping is {self.early_stopping!r}; expected true, false or 'never'; choose one of them"
            )
        for name, ids in self.named_ids().items():
            if any(not isinstance(each, int) or each < 0 for each in ids):
                raise ConfigError(f"{name} is {ids!r}; expected token ids; correct it")

    def _check_together(self) -> None:
        if self.num_beams > 1 and self.do_sample:
            raise ConfigError(
                f"do_sample with num_beams={self.num_beams}; expected sampling or beam search, not both; "
                "set num_beams=1 to sample, or do_sample=false to search"
            )
        most = self.num_beams if not self.do_sample else math.inf
        if self.num_return_sequences > most:
            raise ConfigError(
                f"num_return_sequences is {self.num_return_sequences} with num_beams={self.num_beams}; expected at "
                "most as many as beams, or sampling; raise num_beams or set do_sample=true"
            )

    def named_ids(self) -> dict[str, tuple[int, ...]]:
        """Every token id that a setting names, by setting: what must lie inside a vocabulary."""
        found = {name: getattr(self, name) for name in _ID_LISTS}
        found["bad_words_ids"] = tuple(each for words in self.bad_words_ids for each in words)
        found["forced_bos_token_id"] = () if self.forced_bos_token_id is None else (self.forced_bos_token_id,)
        return found


# Settings of a model's folder that hold for whatever it writes, such as the token that Marian must never write.
BANS = ("bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id")
_ID_LISTS = ("suppress_tokens", "begin_suppress_tokens", "forced_eos_token_id", "eos_token_id")
_POSITIVE = math.ulp(0.0)
_RANGES: tuple[tuple[str, float, float, str], ...] = (
    ("max_new_tokens", 1, math.inf, "at least 1"),
    ("min_new_tokens", 0, math.inf, "a count, or 0 for off"),
    ("max_length", 0, math.inf, "a count, or 0 for off"),
    ("min_length", 0, math.inf, "a count, or 0 for off"),
    ("temperature", _POSITIVE, math.inf, "a number above 0 (do_sample=false is the limit at 0)"),
    ("top_k", 0, math.inf, "a count, or 0 for off"),
    ("top_p", _POSITIVE, 1, "a probability in (0, 1]"),
    ("min_p", 0, 1, "a probability in [0, 1]"),
    ("typical_p", _POSITIVE, 1, "a probability in (0, 1]"),
    ("repetition_penalty", _POSITIVE, math.inf, "a factor above 0, 1 for off"),
    ("presence_penalty", -math.inf, math.inf, "a finite number, 0 for off"),
    ("frequency_penalty", -math.inf, math.inf, "a finite number, 0 for off"),
    ("no_repeat_ngram_size", 0, math.inf, "a length, or 0 for off"),
    ("encoder_no_repeat_ngram_size", 0, math.inf, "a length, or 0 for off"),
    ("num_beams", 1, math.inf, "at least 1"),
    ("num_return_sequences", 1, math.inf, "at least 1"),
    ("length_penalty", -math.inf, math.inf, "a finite exponent"),
    ("seed", 0, 2**63 - 1, "an integer from 0 to 2⁶³ − 1"),
)
SETTINGS = tuple(field.name for field in fields(SamplingConfig))
# Of two settings that rule each other out, the later source's wins: an argument over a folder's.
_RIVALS = {
    "max_new_tokens": ("max_length",),
    "max_length": ("max_new_tokens",),
    "min_new_tokens": ("min_length",),
    "min_length": ("min_new_tokens",),
}


def combine_settings(*sources: Mapping[str, Any]) -> SamplingConfig:
    """One config of several sources of settings, such as a folder's defaults and a call's arguments: later ones win.

    A length given one way replaces one given the other way, and beams asked for later end sampling asked for before,
    as the reverse; None means “not said”. Within one source `max_new_tokens` counts before `max_length`. Raises
    `ConfigError` for a name that is no setting.
    """
    merged: dict[str, Any] = {}
    for source in sources:
        given = {name: value for name, value in source.items() if value is not None}
        if "stop_strings" in given:
            given.setdefault("stop", given.pop("stop_strings"))
        check_names(given, SETTINGS, "generation")
        for name in given:
            for rival in _RIVALS.get(name, ()):
                merged.pop(rival, None)
        if "max_new_tokens" in given:
            given.pop("max_length", None)
        if given.get("num_beams", 1) != 1 and "do_sample" not in given:
            merged.pop("do_sample", None)
        if given.get("do_sample") and "num_beams" not in given:
            merged.pop("num_beams", None)
        merged |= given
    return SamplingConfig(**merged)


def check_names(given: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    """Raise `ConfigError` with the nearest known name for an option that is none."""
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.4) or sorted(known)
            raise ConfigError(f"{what} has no option {name}; expected for example {near[0]}; correct or drop it")
