"""What a model is asked to do with a row of text, and the ids that this needs.

A row is `ids` and `segments` (document pieces numbered from 1, see pack.py). Every document ends with one end
token, which data/shards.py writes; a piece that a row's edge cut off has none. What becomes of it:

| objective | who | a piece `a b c <end>` becomes | in |
|---|---|---|---|
| causal | decoder | each position belongs to its target's document, so an end token opens the next | continuation.py |
| prefix | decoder | causal, with weight 0 on a random prefix of each piece | continuation.py |
| prefix | encoder–decoder | context `a b <end>`, targets `c <end>` | rewriting.py |
| masked | encoder | `[CLS] a b c [SEP]`, as an encoder reads at inference | masking.py |
| span corruption | encoder–decoder | context `a <0> c <end>`, targets `<0> b <1> <end>` | rewriting.py |

Each is a pure function of token ids to one `Example`: all numpy, no loop over tokens; chance comes only from the
generator that is passed in, see example.py. Knows nothing of files, order or batches.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from trivium.data.batch import Ints
from trivium.data.runs import Bools
from trivium.errors import ConfigError

if TYPE_CHECKING:
    from trivium.tokenizer import Tokenizer


@dataclass(frozen=True)
class ObjectiveConfig:
    """Which objective, and its rates: BERT's 15 % masked, 80/10/10; T5's 15 % noise in spans of 3 on average.

    `with_context` sends prefix-LM's prefix to an encoder. Raises `ConfigError` for rates out of range.
    """

    name: Literal["causal", "masked", "span_corruption", "prefix"] = "causal"
    mask_rate: float = 0.15
    mask_replace: float = 0.8  # of the chosen tokens: become the mask token
    mask_random: float = 0.1  # become a random ordinary token; the rest stay
    whole_word: bool = False
    noise_density: float = 0.15
    mean_span: float = 3.0
    with_context: bool = False

    def __post_init__(self) -> None:
        for name in ("mask_rate", "noise_density"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected a rate between 0 and 1; change it")
        if self.mean_span < 1.0:
            raise ConfigError(f"mean_span is {self.mean_span}; expected at least 1 token; raise it")
        if min(self.mask_replace, self.mask_random) < 0 or self.mask_replace + self.mask_random > 1:
            raise ConfigError(
                f"mask_replace {self.mask_replace} and mask_random {self.mask_random} do not add up; "
                "expected two rates whose sum is at most 1; lower one"
            )

    @property
    def has_context(self) -> bool:
        """Whether examples carry a second side for an encoder beside a decoder."""
        return self.name == "span_corruption" or (self.name == "prefix" and self.with_context)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The ids that objectives need, and two tables over the vocabulary, each `(vocab_size,)` of bool.

    `end_id` closes every document in the shards. `ordinary` is False for special tokens, which are never
    masked and never drawn as a replacement. `word_starts` is True for tokens that begin a word. `start_id`
    begins every decoder sequence of an encoder–decoder (T5: the pad token).
    """

    pad_id: int
    end_id: int
    ordinary: Bools
    word_starts: Bools
    mask_id: int = -1
    cls_id: int = -1
    sep_id: int = -1
    sentinel_ids: tuple[int, ...] = ()
    start_id: int = -1  # -1: the pad token

    @classmethod
    def from_tokenizer(cls, tokenizer: "Tokenizer", *, start_id: int | None = None) -> "Vocabulary":
        """Read the ids off a tokenizer; a kind of token that it lacks is -1 until an objective asks for it.

        The end token is the tokenizer's eos, or its sep where it has none, as in data/shards.py.
        Raises `ConfigError` if it has neither.
        """
        roles = ("pad_id", "bos_id", "eos_id", "unk_id", "mask_id", "cls_id", "sep_id")
        ids = {role: -1 if (found := getattr(tokenizer, role)) is None else int(found) for role in roles}
        end_id = ids["eos_id"] if ids["eos_id"] >= 0 else ids["sep_id"]
        if end_id < 0:
            raise ConfigError("the tokenizer has neither an eos nor a sep token; expected one to end documents; add it")
        ordinary = np.ones(tokenizer.vocab_size, dtype=bool)
        special = [*ids.values(), *tokenizer.sentinel_ids, *tokenizer.control_ids]
        ordinary[[token for token in special if token >= 0]] = False
        return cls(
            pad_id=ids["pad_id"] if ids["pad_id"] >= 0 else end_id,
            end_id=end_id,
            ordinary=ordinary,
            word_starts=tokenizer.word_starts(),
            mask_id=ids["mask_id"],
            cls_id=ids["cls_id"],
            sep_id=ids["sep_id"],
            sentinel_ids=tuple(tokenizer.sentinel_ids),
            start_id=-1 if start_id is None else start_id,
        )

    @cached_property
    def ordinary_ids(self) -> Ints:
        """The ids that a random replacement is drawn from."""
        return np.flatnonzero(self.ordinary)

    def need(self, *roles: str) -> None:
        """Raise `ConfigError` if the tokenizer has no token for one of these roles."""
        for role in roles:
            if getattr(self, role) in (-1, ()):
                raise ConfigError(
                    f"the tokenizer has no token for {role}, which this objective needs; "
                    "train one for this family of model, or choose another objective"
                )
