"""Which baselines a task can be held against, and what they answer to its rows; baselines.py knows texts only."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from trivium.errors import ConfigError, DataError
from trivium.evaluation.baselines import run_baseline
from trivium.tasks import Task
from trivium.tasks.parts import find_reference, find_source
from trivium.tasks.task import Row

_TEXTS = ("lead", "lead-cut", "textrank", "nearest")
_FITTING: dict[str, tuple[str, ...]] = {
    "pair": _TEXTS,
    "answer": _TEXTS,
    "chat": ("nearest",),
    "tags": ("majority",),
    "single": ("majority", "nearest", "logistic"),
    "multi": ("majority", "nearest", "logistic"),
    "regression": ("mean", "nearest"),
}


def choose_baselines(task: Task, names: Sequence[str]) -> list[str]:
    """The baselines of these names, each once, `all` standing for every one that fits; raises `ConfigError`."""
    fitting = _FITTING.get(task.problem if task.kind == "label" else task.kind, ())
    chosen = dict.fromkeys(each for name in names for each in (fitting if name == "all" else (name,)))
    for name in chosen:
        if name not in fitting:
            raise ConfigError(
                f"baseline {name!r} for {task.name}; expected one of {', '.join(fitting)}, or all; choose one of these"
            )
    return list(chosen)


def answer_baseline(name: str, task: Task, rows: Sequence[Row], training: Sequence[Row]) -> list[Any]:
    """The answers of a baseline to rows, in the form of a model's; raises `DataError` where it has nothing to learn
    from."""
    if not training and name not in ("lead", "textrank"):
        raise DataError(
            f"baseline {name!r} learns from training rows and there are none; expected a folder with train.* beside "
            "what is evaluated; give the folder"
        )
    if task.kind == "tags":
        return _commonest_tags(rows, training)
    sources = [_text(task, row) for row in rows]
    pairs = [(_text(task, row), find_reference(task, row)) for row in training]
    if task.kind == "answer":
        pairs = [(text, answers[0]) for text, answers in pairs]
    if name == "mean" and isinstance(pairs[0][1], list):  # each of several numbers by itself
        places = range(len(pairs[0][1]))
        columns = [run_baseline(name, sources, [(text, found[at]) for text, found in pairs]) for at in places]
        return [list(row) for row in zip(*columns, strict=True)]
    if task.problem == "multi" and name != "nearest":
        return _label_by_label(name, sources, pairs)
    return run_baseline(name, sources, pairs)


def _text(task: Task, row: Row) -> str:
    """What a baseline reads: of a question its context, where the answer is."""
    return str(row["context"]) if task.kind == "answer" else find_source(task, row)


def _label_by_label(name: str, sources: Sequence[str], pairs: Sequence[tuple[str, Any]]) -> list[list[str]]:
    """For each source the labels that the baseline, asked for each by itself, says it has."""
    found: list[list[str]] = [[] for _ in sources]
    for label in sorted({each for _, labels in pairs for each in labels}):
        answers = run_baseline(name, sources, [(text, label in labels) for text, labels in pairs])
        for row, answer in zip(found, answers, strict=True):
            row += [label] * bool(answer)
    return found


def _commonest_tags(rows: Sequence[Row], training: Sequence[Row]) -> list[list[str]]:
    """Each word's commonest training tag; a word that was never seen gets the commonest of all."""
    counts: dict[str, Counter[str]] = {}
    for row in training:
        for word, tag in zip(row["tokens"], row["tags"], strict=False):
            counts.setdefault(word, Counter())[str(tag)] += 1
    best = {word: min(each, key=lambda tag: (-each[tag], tag)) for word, each in counts.items()}
    whole = sum(counts.values(), Counter())
    other = min(whole, key=lambda tag: (-whole[tag], tag))
    return [[best.get(word, other) for word in row["tokens"]] for row in rows]
