"""From a model and a task's data to a model that does the task: read, encode, train, keep the best, save, report.

The same call on the same run folder resumes; a finished run gives its result at once. `final/` is an ordinary
Hugging Face folder, whatever was trained; with LoRA `adapter/` beside it is PEFT's.
"""

import fnmatch
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trivium.config import change_config, load_config, save_config, to_dict
from trivium.errors import CheckpointError, ConfigError
from trivium.folder import to_json
from trivium.hub.adapter import save_adapter
from trivium.hub.auto import load_model, save_model
from trivium.hub.resolve import resolve_folder
from trivium.machine import keep_freed_memory
from trivium.model.adapter import add_adapter, has_adapter, merge_adapter
from trivium.tasks import Task, find_task
from trivium.tokenizer import Tokenizer
from trivium.training.checkpoint import TrainState, list_checkpoints, load_best, lock_run, restore_latest
from trivium.training.loop import train
from trivium.training.monitor import Monitor, with_nan
from trivium.training.optim import build_optimizers
from trivium.training.recipe import BudgetConfig
from trivium.training.report import write_report
from trivium.training.storage import Storage, clear_unfinished, put_folder, put_text, start_over, unfinished_name
from trivium.training.tune_course import TuneCourse, gather_course, hash_weights
from trivium.training.tune_subject import Subject, open_subject
from trivium.training.tuning import TuneRecipe, find_tuning_change

Say = Callable[[str], None]

IN_MEMORY = "a model in memory"


@dataclass(frozen=True)
class TuneResult:
    """What a run came to. `folder` is an ordinary Hugging Face folder; `scores` are the held-out part's, of the kept
    checkpoint, `before` those of the model as it came."""

    folder: str
    task: str
    parameters: int
    trained_parameters: int
    steps: int
    best_step: int
    examples: int
    seconds: float
    before: dict[str, float]
    scores: dict[str, float]


def finetune(
    model: Any = None,
    what: Tokenizer | Task | str | None = None,
    data: str | Path | Iterable[Mapping[str, Any]] | Mapping[str, Iterable[Any]] | None = None,
    *,
    task: str | Task | None = None,
    recipe: TuneRecipe | None = None,
    restart: bool = False,
    progress: Say | None = None,
    quiet: bool = False,
    **settings: Any,
) -> TuneResult:
    """Adapt a model to a task: `finetune("t5-small", "summarization", "data.jsonl", epochs=3, run="runs/mine")`.

    `model` is a hub name, a folder, or a model in memory, which then learns in place and comes with its tokenizer:
    `finetune(model, tokenizer, task="summarization", data=…)`. `data` is a file, a folder, rows, or parts of rows by
    name (`train`, `valid`). `settings` are fields of `TuneRecipe`. The weights of the best held-out score are kept and
    saved to `run/final`. Raises `ConfigError`, `DataError`, `HubError` for what
    cannot be, `CheckpointError` as `pretrain` does; after a signal it saves and raises `SystemExit`.
    """
    recipe = _checked(recipe or TuneRecipe(), settings)
    chosen = find_task(task if task is not None else what if isinstance(what, str | Task) else recipe.task)
    tokenizer = what if isinstance(what, Tokenizer) else None
    rows = None if data is None or isinstance(data, str | Path) else data
    if data is not None:
        recipe = replace(recipe, data=str(data) if rows is None else "rows in memory")
    if isinstance(model, str | Path):
        recipe = replace(recipe, model=str(model))
    run = Path(recipe.run)
    with lock_run(run):
        if restart:
            start_over(run)
        clear_unfinished(run)
        subject = open_subject(chosen, recipe, model=model, tokenizer=tokenizer, rows=rows)
        recipe = replace(recipe, task=subject.task.name, model=recipe.model or IN_MEMORY)
        keep_freed_memory()
        course = gather_course(subject, recipe, progress or (lambda _: None))
        if _is_same(run, course.recipe) and (run / "result.json").is_file():
            return _remember(model, course, _finished(run, subject, course))
        (run / "result.json").unlink(missing_ok=True)
        Storage().sync(run)
        save_config(course.recipe, unfinished_name(run / "config.yaml"))
        unfinished_name(run / "config.yaml").replace(run / "config.yaml")
        training, device = subject.model.training, subject.model.embedding.tokens.weight.device
        try:
            state = _begin(subject, course)
            restore_latest(state, run, course.fingerprint)
            with Monitor(run, name=course.recipe.task, lines=state.counters.lines, quiet=quiet) as monitor:
                train(state, course, monitor, course.show)
            return _remember(model, course, _finish(state, course))
        finally:  # a model in memory is given back as it came, but for what it has learned
            subject.model.train(training).requires_grad_(True).to(device)


def _checked(recipe: TuneRecipe, settings: dict[str, Any]) -> TuneRecipe:
    """The recipe with the settings of a call, checked as a file's are; a budget may be named by its unit."""
    budget = {name: settings.pop(name) for name in BudgetConfig.__dataclass_fields__ if name in settings}
    return change_config(recipe, settings | ({"budget": budget} if budget else {}))


def _begin(subject: Subject, course: TuneCourse) -> TrainState:
    """The model with what learns set, and its optimizers."""
    recipe, model = course.recipe, subject.model
    model.requires_grad_(True)
    if recipe.lora is not None:
        add_adapter(model, recipe.lora, seed=recipe.seed)
    for pattern in recipe.freeze:
        names = [name for name, _ in model.named_parameters() if fnmatch.fnmatchcase(name, pattern)]
        if not names:
            some = ", ".join([name for name, _ in model.named_parameters()][:3])
            raise ConfigError(f"freeze has {pattern}, which no parameter is named like; expected such as {some}")
        for name in names:
            model.get_parameter(name).requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("every parameter is frozen; expected some that learn; shorten freeze")
    model.to(course.device)
    return TrainState(model, build_optimizers(model, recipe.optimizer, compute_dtype=course.compute_dtype))


def _finish(state: TrainState, course: TuneCourse) -> TuneResult:
    """The best weights into `final/`, then report and, when all else is there, the result."""
    recipe, counters, model = course.recipe, state.counters, state.model
    run, storage = Path(recipe.run), Storage()
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    if recipe.save.best:
        load_best(state, run)
    if has_adapter(model):
        base = None if recipe.model == IN_MEMORY else recipe.model
        base = str(resolve_folder(base)) if base and base.startswith("starter:") else base  # which PEFT does not know
        _put(run / "adapter", lambda folder: save_adapter(model, folder, base=base))
        merge_adapter(model)
    scores = counters.best_evaluation if recipe.save.best else counters.evaluation
    result = TuneResult(
        folder=str(run / "final"),
        task=recipe.task,
        parameters=sum(each.numel() for each in model.parameters()),
        trained_parameters=trained,
        steps=counters.step,
        best_step=counters.best_step if recipe.save.best else counters.step,
        examples=course.train.num_examples,
        seconds=counters.elapsed_seconds,
        before=counters.evaluation_before,
        scores=scores,
    )
    card = {"title": run.name, "text": course.describe(result.scores, result.before, result.seconds)}
    _put(
        run / "final",
        lambda folder: save_model(
            model,
            folder,
            tokenizer=course.tokenizer,
            generation=course.decoding,
            tasks=course.signs(model.config),
            card=card,
        ),
    )
    shown = asdict(result) | {"tokens": counters.tokens}
    write_report(run, recipe=to_dict(recipe), manifest=course.data, result=shown, judged=course.judge(model))
    # Of what it was made and what it became: a model in memory may come as either.
    made = {
        "fingerprint": course.fingerprint["data"], "held_out": course.valid.fingerprint, "weights": hash_weights(model)
    }  # fmt: skip
    put_text(storage, run / "result.json", to_json(asdict(result) | made, indent=1) + "\n")
    return result


def _put(folder: Path, write: Callable[[Path], Any]) -> None:
    unfinished = unfinished_name(folder)
    write(unfinished)
    put_folder(Storage(), unfinished, folder)


def _finished(run: Path, subject: Subject, course: TuneCourse) -> TuneResult:
    """The result of a run that is over; a model in memory gets its weights, as if it had learned now.

    Raises `CheckpointError` if the run was made of other data or another model under the same names.
    """
    found = json.loads((run / "result.json").read_text(encoding="utf-8"))
    before, after = found.pop("fingerprint", ""), found.pop("weights", "")
    same = found.pop("held_out", course.valid.fingerprint) == course.valid.fingerprint
    data, _, weights = course.fingerprint["data"].partition(" ")
    if not same or before not in (
        course.fingerprint["data"],
        f"{data} {before.partition(' ')[2]}" if weights == after else "",
    ):
        raise CheckpointError(
            f"{run} was finished with other data or another model of the same name; expected the same; use --restart "
            "or another run"
        )
    if subject.in_memory:
        subject.model.load_state_dict(load_model(run / "final").state_dict())
    return TuneResult(**found | {name: with_nan(found[name]) for name in ("before", "scores")})


def _remember(model: Any, course: TuneCourse, result: TuneResult) -> TuneResult:
    """An opened model goes by the settings of its task from now on, as the folder does."""
    if isinstance(tasks := getattr(model, "tasks", None), dict):
        network = getattr(model, "transformer", model)
        tasks[course.recipe.task] = {**course.decoding, **course.signs(network.config).get(course.recipe.task, {})}
        if course.task.kind == "chat":  # what it is asked for later is text-generation
            model.generation = {**model.generation, **course.decoding}
    return result


def _is_same(run: Path, recipe: TuneRecipe) -> bool:
    """Whether the run was begun with exactly this recipe; raises `ConfigError` if it cannot be continued with it."""
    path = run / "config.yaml"
    if not path.is_file() or not (list_checkpoints(run) or (run / "result.json").is_file()):
        return False
    old = load_config(TuneRecipe, path)
    if change := find_tuning_change(to_dict(old), to_dict(recipe)):
        raise ConfigError(f"{run} holds another run ({change}); expected the same recipe; use --restart or another run")
    return old.budget == recipe.budget
