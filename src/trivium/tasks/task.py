"""What a task is: columns, head, objective, metric and decoding defaults, in one small frozen value. No loops.

A task of one's own is one more `Task`: usually a `kind` that exists, and `prepare` to say which columns mean what.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from trivium.errors import ConfigError
from trivium.model.config import Head, Problem

Kind = Literal["pair", "chat", "text", "label", "tags", "answer"]
Row = Mapping[str, Any]
Scorer = Callable[[Sequence[Any], Sequence[Any]], dict[str, float]]
# The head that each kind of task trains, and the columns that it reads.
HEADS: dict[Kind, Head] = {"label": "sequence", "tags": "token", "answer": "span"}
COLUMNS: dict[Kind, tuple[str, ...]] = {
    "pair": ("source", "target"),
    "chat": ("messages",),
    "text": ("text",),
    "label": ("text", "label"),
    "tags": ("tokens", "tags"),
    "answer": ("question", "context", "answers"),
}


@dataclass(frozen=True)
class Task:
    """One task.

    `kind` says how a row becomes an example: a `pair` of source and target, a `chat`, plain `text`, a `label` of a
    text, `tags` of its words, or an `answer` within a context. `prepare` turns a row of the user's columns into the
    kind's (`COLUMNS`), or into None to leave it out. `metric` names the scores (evaluation/metrics.py), or is a
    function from outputs and references to named numbers; `best` is the number that chooses a checkpoint, with a minus
    where less is better. `prefix` stands before a source; a decoder without an encoder reads `separator` between source
    and target. `answer_tokens` end an answer where neither `decoding`, nor the model's folder, nor fine-tuning says how
    long one may be. Raises `ConfigError` for a kind or problem that there is not.
    """

    name: str
    kind: Kind
    metric: str | Scorer
    best: str
    prepare: Callable[[Row], Row | None] | None = None
    prefix: str = ""
    separator: str = "\n=>\n"
    problem: Problem = "single"
    decoding: Mapping[str, Any] = field(default_factory=dict)
    answer_tokens: int = 128

    def __post_init__(self) -> None:
        for name, known in (("kind", tuple(COLUMNS)), ("problem", get_args(Problem))):
            if (given := getattr(self, name)) not in known:
                expected = ", ".join(known)
                raise ConfigError(f"task {self.name} has the {name} {given!r}; expected one of {expected}; choose one")

    @property
    def head(self) -> Head:
        """What is made of hidden states."""
        return HEADS.get(self.kind, "language")

    @property
    def columns(self) -> tuple[str, ...]:
        """What a row must have, after `prepare`."""
        return COLUMNS[self.kind]

    @property
    def writes(self) -> bool:
        """Whether its answers are texts that a model writes."""
        return self.kind in ("pair", "chat")


_SUMMARY = {"num_beams": 4, "no_repeat_ngram_size": 3}
TASKS = {
    task.name: task
    for task in (
        Task("summarization", "pair", "rouge", "rougeL", separator="\nTL;DR: ", decoding=_SUMMARY, answer_tokens=64),
        Task("translation", "pair", "bleu", "chrf", decoding={"num_beams": 4}),
        Task("text2text-generation", "pair", "rouge", "rougeL"),
        Task("text-generation", "text", "none", "-loss"),
        Task("chat", "chat", "rouge", "-loss", answer_tokens=256),
        Task("text-classification", "label", "accuracy", "accuracy"),
        Task("multi-label-classification", "label", "multilabel", "f1_micro", problem="multi"),
        Task("regression", "label", "regression", "spearman", problem="regression"),
        Task("token-classification", "tags", "entities", "f1"),
        Task("question-answering", "answer", "squad", "f1"),
    )
}


def find_task(task: str | Task) -> Task:
    """A task by its name; raises `ConfigError` with the nearest name."""
    if isinstance(task, Task):
        return task
    if task in TASKS:
        return TASKS[task]
    near = difflib.get_close_matches(str(task), TASKS, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(TASKS)}"
    raise ConfigError(f"there is no task {task!r}; {hint}")
