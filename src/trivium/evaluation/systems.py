"""Models and baselines on the held-out rows of a task, side by side: what `trivium evaluate TASK DATA` does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trivium.data.parts import Values
from trivium.data.rows import find_parts
from trivium.errors import ConfigError, DataError
from trivium.evaluation.answer import answer_samples
from trivium.evaluation.compare import Comparison, compare_outputs
from trivium.evaluation.fitting import answer_baseline, choose_baselines
from trivium.evaluation.page import write_page
from trivium.folder import to_json
from trivium.hub.auto import load_model, load_tokenizer
from trivium.hub.decoding import SIGNS, read_generation, read_task
from trivium.hub.resolve import resolve_folder
from trivium.tasks import Limits, Task, encode_rows, find_task
from trivium.tasks.encode import check_on_long
from trivium.tasks.parts import find_reference, find_source, hold_out_valid, read_task_parts, with_signs
from trivium.tasks.sample import choose_limits

Rows = list[Any]
Say = Callable[[str], None]


def evaluate_task(
    task: str | Task,
    data: str | Path,
    *,
    models: Sequence[str | Path] | Mapping[str, str | Path] = (),
    baselines: Sequence[str] = (),
    part: str = "test",
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    decoding: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    progress: Say | None = None,
) -> Comparison:
    """How good models and baselines are at a task on the same rows, with intervals and significance.

    `models` are hub names or folders, or a mapping from names to show to them. A folder's part `part` is read (its
    first `limit` rows), a file as a whole; baselines learn from the folder's training rows. Rows too long for a
    model follow `limits`, by default those of fine-tuning; one that a model drops is left out for every system, one
    that is split is judged once. `decoding` is laid over the task's settings and the folder's (generation_config.json,
    then what its config says of the task). With `out` the folder gets `comparison.json` and `comparison.html`.
    Raises `ConfigError`, `DataError`, `HubError`.
    """
    task, say = find_task(task), progress or (lambda _: None)
    names = choose_baselines(task, baselines)
    folders = dict(models) if isinstance(models, Mapping) else {str(each).rstrip("/"): each for each in models}
    _check(task, folders, names, limits)
    found_at = {name: resolve_folder(str(folder)) for name, folder in folders.items()}
    rows, training = _read(task, data, part, columns, learns=bool(names) or task.writes)
    rows = rows[:limit]
    answered: dict[str, dict[int, Any]] = {}
    told = {}
    for name in names:  # before the models, which take longer: what a baseline lacks is found at once
        say(f"{name}: {len(rows):,} rows")
        told[name] = answer_baseline(name, task, rows, training)
    for name, folder in found_at.items():
        say(f"{name}: {len(rows):,} rows")
        answered[name] = _answer(task, folders[name], folder, rows, limits or Limits(source=0), decoding or {})
    kept = [number for number in range(len(rows)) if all(number in found for found in answered.values())]
    if not kept:
        raise DataError(f"no row of {data} fits every model; expected some; raise the limits, or say on_long=truncate")
    systems = {name: [found[number] for number in kept] for name, found in answered.items()}
    shown = [rows[number] for number in kept]
    systems |= {name: [found[number] for number in kept] for name, found in told.items()}
    comparison = compare_outputs(
        systems,
        [find_reference(task, row) for row in shown],
        sources=[find_source(task, row) for row in shown],
        training_texts=[find_reference(task, row) for row in training] if task.writes else None,
        metric=task.metric,
        best=task.best,
        baselines=names,
        left_out=len(rows) - len(kept),
    )
    if out is not None:
        given = {"task": task.name, "data": str(data), "part": part, "models": {n: str(f) for n, f in folders.items()}}
        write_comparison(comparison, out, title=f"{task.name} on {Path(data).name}", given=given)
    return comparison


def write_comparison(comparison: Comparison, out: str | Path, *, title: str, given: Mapping[str, Any]) -> None:
    """Write `comparison.json`, which holds every text with its scores, and `comparison.html` into a folder."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    found = {**given, **comparison.to_dict(texts=True)}
    text = to_json(found, indent=1) + "\n"
    (folder / "comparison.json").write_bytes(text.encode("utf-8", errors="replace"))
    write_page(comparison, folder / "comparison.html", title=title)


def _check(task: Task, folders: Mapping[str, Any], names: Sequence[str], limits: Limits | None) -> None:
    """What can be refused before any work."""
    if task.kind == "text":
        raise ConfigError(f"{task.name} has no answers to compare; expected another task; use `trivium evaluate loss`")
    if not folders and not names:
        raise ConfigError("neither a model nor a baseline to evaluate; expected one or more; name some")
    if taken := set(folders) & set(names):
        raise ConfigError(f"a model and a baseline are both called {taken.pop()}; expected two names; write the path")
    if limits:
        check_on_long(task, limits.on_long)


def _read(
    task: Task, data: str | Path, part: str, columns: Mapping[str, str] | None, *, learns: bool
) -> tuple[Rows, Rows]:
    """The rows that are judged and, if something learns, those to learn from, both as `Task.prepare` gives them."""
    parts: dict[str, list[Values]]
    if Path(data).is_file() and part != "valid":
        return read_task_parts(task, data, columns=columns)["train"], []
    apart = part in find_parts(data)
    needed = part if apart or part != "valid" else "train"
    wanted = (part, "train") if learns or not apart else (part,)
    parts = read_task_parts(task, data, columns=columns, needed=needed, wanted=wanted)
    if needed != part:  # what fine-tuning held out of the same rows
        parts["train"], parts["valid"] = hold_out_valid(task, parts["train"])
    return parts[part], parts.get("train", [])


def _answer(
    task: Task, name: str | Path, folder: Path, rows: Rows, limits: Limits, decoding: Mapping[str, Any]
) -> dict[int, Any]:
    """A model's answers by the number of the row; rows that the limits drop have none. `name` is how it was given."""
    model, tokenizer = load_model(folder).eval(), load_tokenizer(folder)
    if model.config.head != task.head or (task.kind == "label" and model.config.problem != task.problem):
        found = f"{model.config.head}{f' ({model.config.problem})' if model.config.head == 'sequence' else ''}"
        wanted = f"{task.head}{f' ({task.problem})' if task.kind == 'label' else ''}"
        raise ConfigError(
            f"{name} has the head {found} for {task.name}; expected {wanted}; fine-tune it: trivium finetune "
            f"{task.name} {name} DATA"
        )
    told = read_task(folder, task.name)
    task = replace(with_signs(task, told, told.get("prefix")), prepare=None)  # the rows have been prepared
    own = {key: value for key, value in told.items() if key not in SIGNS}
    limits = choose_limits(limits, model.config, tokenizer.model_max_length, task=task)
    samples = encode_rows(task, rows, model.config, tokenizer, limits=limits, labels=model.config.labels).samples
    samples = [sample for sample in samples if sample.is_asked(task)]
    answers, _ = answer_samples(model, tokenizer, task, samples, decoding=(read_generation(folder), own, decoding))
    return dict(zip(dict.fromkeys(sample.number for sample in samples), answers, strict=True))
