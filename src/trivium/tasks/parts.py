"""The rows of a data set as a task reads them, what is asked and expected in a row, and the prefix a model wants."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from trivium.data.parts import Values, hold_out_rows, read_parts
from trivium.tasks.encode import prepare_rows
from trivium.tasks.kinds import find_last_answer, label_names
from trivium.tasks.task import Row, Task

# The column whose text must not stand in two parts.
TEXTS = {"pair": "source", "chat": "messages", "text": "text", "label": "text", "tags": "tokens", "answer": "context"}
ASKED = {"pair": ("source",), "text": ("text",), "label": ("text", "text_pair"), "answer": ("question", "context")}
VALID_FRACTION = 0.05


def read_task_parts(
    task: Task,
    data: Any,
    *,
    columns: Mapping[str, str] | None = None,
    needed: str = "train",
    wanted: Collection[str] | None = None,
) -> dict[str, list[Values]]:
    """The rows of a data set (a path, rows, or parts of rows) as the task reads them; raises as `read_parts` does."""
    found = read_parts(data, columns=columns, raw=task.prepare is not None, needed=needed, wanted=wanted)
    if task.kind == "pair" and task.prepare is None:
        found = {name: [_as_pair(row) for row in rows] for name, rows in found.items()}
    return {name: [dict(row) for row in prepare_rows(task, rows)] for name, rows in found.items()}


def hold_out_valid(
    task: Task, rows: Sequence[Values], *, fraction: float = VALID_FRACTION, seed: int = 0
) -> tuple[list[Values], list[Values]]:
    """(train, valid) of rows that come without a held-out part, split by what is asked; raises `DataError`."""
    column = TEXTS[task.kind]

    def asked(row: Values) -> Any:
        return row[column][: find_last_answer(row[column])] if task.kind == "chat" else row[column]

    return hold_out_rows(rows, fraction=fraction, seed=seed, key=asked)


def find_source(task: Task, row: Row) -> str:
    """What a row asks, as one text to show; of a chat all before the last answer."""
    if task.kind == "chat":
        before = row["messages"][: find_last_answer(row["messages"])]
        return "\n".join(f"{each.get('role')}: {each.get('content') or ''}" for each in before)
    if task.kind == "tags":
        return " ".join(row["tokens"])
    return "\n".join(row[name] for name in ASKED[task.kind] if row.get(name))


def find_reference(task: Task, row: Row) -> Any:
    """What a row expects, as `Sample.reference` has it where nothing was cut."""
    if task.kind == "pair":
        return row["target"]
    if task.kind == "chat":
        return row["messages"][find_last_answer(row["messages"])].get("content") or ""
    if task.kind == "tags":
        return label_names(row["tags"])
    if task.kind == "answer":
        return list(row["answers"]["text"]) or [""]
    names = label_names(row["label"])
    if task.problem == "regression":
        return float(names[0]) if len(names) == 1 else [float(each) for each in names]
    return names if task.problem == "multi" else names[0]


def with_signs(task: Task, settings: Mapping[str, Any], given: str | None = None) -> Task:
    """The task with the prefix that the caller, the task or the model's own settings want before a source, and the
    separator that the model was fine-tuned with."""
    wanted = settings.get("prefix", "") if task.writes else ""
    separator = settings.get("separator", task.separator)
    return replace(task, prefix=given if given is not None else task.prefix or wanted, separator=separator)


def _as_pair(row: Values) -> Values:
    return {"source": row["prompt"], "target": row["completion"]} if {"prompt", "completion"} <= row.keys() else row
