"""All rows of a task to samples, with a count of what was too long; the kinds themselves are in kinds.py."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from trivium.errors import ConfigError, DataError
from trivium.model import ModelConfig
from trivium.tasks.kinds import ENCODERS, label_names
from trivium.tasks.sample import Limits, OnLong, Sample, Setting
from trivium.tasks.task import Kind, Row, Task
from trivium.tokenizer import Tokenizer

REFUSED_SHARE = 0.01
# The kind of task that a form of data is for (data/forms.py); nothing learns from preferences yet.
KINDS: dict[str, Kind] = {
    "pair": "pair", "completion": "pair", "chat": "chat", "text": "text", "labelled": "label", "tokens": "tags",
    "question": "answer",
}  # fmt: skip


@dataclass
class Encoding:
    """Samples, and of how many rows; how many of them were longer than the limits, the longest's tokens, and how many
    gave no sample, being too long to learn from."""

    samples: list[Sample] = field(default_factory=list)
    rows: int = 0
    without: int = 0
    too_long: int = 0
    longest: int = 0


def encode_rows(
    task: Task,
    rows: Iterable[Row],
    config: ModelConfig,
    tokenizer: Tokenizer,
    *,
    limits: Limits | None = None,
    labels: Sequence[str] = (),
) -> Encoding:
    """Every row as samples for a model of this config.

    `labels` are the names that may occur. Raises `DataError` for a row without the task's columns or with a label that
    is none of the names, and if more than 1 % of the rows would be cut; `ConfigError` for a family that cannot do the
    task.
    """
    limits, found = limits or Limits(), Encoding()
    check_family(task, config)
    check_on_long(task, limits.on_long)
    setting = Setting(task, config, tokenizer, limits, {name: place for place, name in enumerate(labels)})
    for row in prepare_rows(task, rows):
        samples, excess = ENCODERS[task.kind](setting, row, found.rows)
        found.rows += 1
        found.too_long += excess > 0
        found.without += not samples
        found.longest = max(found.longest, excess)
        found.samples += samples
    if limits.on_long == "refuse" and found.too_long > REFUSED_SHARE * max(found.rows, 1):
        raise DataError(
            f"{found.too_long:,} of {found.rows:,} rows are longer than {limits.source} tokens of input or "
            f"{limits.target} of target, the longest has {found.longest:,}; expected at most 1 % to be cut; raise the "
            f"limits, or say on_long={' or '.join(ways_out(task.kind))}"
        )
    if not found.samples:
        raise DataError(f"none of {found.rows:,} rows can be used for {task.name}; expected some; look at the data")
    return found


def ways_out(kind: Kind) -> tuple[OnLong, ...]:
    """What `on_long` can be for rows that are too long; none for questions, which are read in windows anyway."""
    if kind == "answer":
        return ()
    return ("drop", "truncate", "split") if kind in ("label", "tags", "text") else ("drop", "truncate")


def check_on_long(task: Task, on_long: str) -> None:
    """Raise `ConfigError` for what is no way to treat long rows, or cuts an answer from what it answers."""
    if on_long not in get_args(OnLong):
        raise ConfigError(f"on_long is {on_long!r}; expected one of {', '.join(get_args(OnLong))}; choose one")
    if on_long == "split" and task.writes:
        ways = " or ".join(ways_out(task.kind))
        raise ConfigError(f"on_long=split for {task.name}; a row has one text as answer; say {ways}")


def prepare_rows(task: Task, rows: Iterable[Row]) -> Iterable[Row]:
    """Each row with the columns of the task's kind, but those for which `Task.prepare` gives None.

    Raises `DataError` where a column is missing or `prepare` fails.
    """
    for number, given in enumerate(rows, start=1):
        row: Row | None = given
        if task.prepare is not None:
            try:
                row = task.prepare(given)
            except Exception as error:  # somebody's own function, of which anything can be expected
                what = f"{type(error).__name__}: {error}"
                raise DataError(
                    f"prepare of {task.name} failed with {what} for row {number}, {', '.join(map(str, given))}; "
                    f"expected {', '.join(task.columns)}, or None to leave the row out; mend the function"
                ) from error
        if row is None:
            continue
        missing = [name for name in task.columns if row.get(name) is None]
        if missing:
            raise DataError(
                f"row {number} has no {' and no '.join(missing)} but {', '.join(map(str, row)) or 'nothing'}; "
                f"{task.name} reads {', '.join(task.columns)}; say which column it is: --map {missing[0]}=…"
            )
        yield row


def find_labels(task: Task, rows: Iterable[Row]) -> tuple[str, ...]:
    """The names of the labels that occur in rows, sorted; for numbers one name each; none for other kinds of task."""
    if task.kind not in ("label", "tags"):
        return ()
    if task.problem == "regression":
        sizes = {len(label_names(row["label"])) for row in prepare_rows(task, rows)}
        if len(sizes) != 1 or 0 in sizes:
            found = " and ".join(map(str, sorted(sizes))) or "no"
            raise DataError(f"rows with {found} numbers as label; expected as many in each; correct them")
        return ("score",) if sizes == {1} else tuple(f"score_{place}" for place in range(max(sizes)))
    column = "label" if task.kind == "label" else "tags"
    names = {name for row in prepare_rows(task, rows) for name in label_names(row[column])}
    if task.problem == "single" and len(names) < 2:
        raise DataError(f"{len(names)} label in all rows ({', '.join(names)}); expected at least two; look at the data")
    return tuple(sorted(names, key=_natural))


def check_family(task: Task, config: ModelConfig) -> None:
    """Raise `ConfigError` for a model that cannot do the task, whatever it learns."""
    family, causal = config.family, task.kind in ("chat", "text")
    if (task.writes and family == "encoder") or (causal and family != "decoder"):
        expected = "a decoder" if causal else "a decoder or an encoder_decoder"
        raise ConfigError(f"{task.name} with a model of family {family}; expected {expected}; choose another model")
    if task.kind in ("tags", "answer") and family != "encoder":
        raise ConfigError(f"{task.name} with a model of family {family}; expected an encoder; choose another model")


def _natural(name: str) -> tuple[int, Any]:
    """Numbers in their order, then words in theirs."""
    return (0, int(name)) if name.isdecimal() else (1, name)
