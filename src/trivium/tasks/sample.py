"""What tasks make of rows: one example with what is needed to ask a model and to judge its answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trivium.data.batch import Example
from trivium.model import ModelConfig
from trivium.tasks.task import Row, Task
from trivium.tokenizer import Encoded, Tokenizer

OnLong = Literal["refuse", "truncate", "drop", "split"]


@dataclass(frozen=True)
class Limits:
    """How many tokens the two sides of an example may have, and what to do with longer ones.

    “refuse” cuts when no more than 1 % of the rows are too long, and is an error otherwise.
    """

    source: int = 512
    target: int = 128
    on_long: OnLong = "refuse"


def choose_limits(limits: Limits, config: ModelConfig, stated: int, *, task: Task) -> Limits:
    """The limits within what the model reads (`stated` by its tokenizer); a source of 0 takes that, at most 512.

    Where learned positions end, a decoder's source and target share them.
    """
    source, target = limits.source or min(512, stated), limits.target
    if config.position == "learned":
        together = config.family == "decoder" and task.kind == "pair"
        target = min(target, config.max_positions // (2 if together else 1))
        source = min(source, config.max_positions - (target if together else 0))
    return Limits(source, target, limits.on_long)


@dataclass(frozen=True)
class Sample:
    """One example and its question.

    `prompt` is what generation reads, as it stood in training. `reference` is a text, the name of a label, names,
    numbers, tags, or the texts that answer. `row` is the row after `Task.prepare`, `number` counts rows; several
    samples may come from one. `encoded` says where tokens lie in the text, for heads that point at it.
    """

    example: Example
    reference: Any
    row: Row
    number: int
    prompt: tuple[int, ...] = ()
    encoded: Encoded | None = None

    def is_asked(self, task: Task) -> bool:
        """Whether the model can be asked: not for a text of its own, nor after more than it reads."""
        return bool(self.prompt) or not task.writes


@dataclass(frozen=True)
class Setting:
    """What a row is encoded for: the task, the model's shape, its tokenizer, limits and the numbers of labels."""

    task: Task
    config: ModelConfig
    tokenizer: Tokenizer
    limits: Limits
    label_ids: Mapping[str, int] = field(default_factory=dict)
