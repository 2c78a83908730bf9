"""Who learns what in a fine-tuning run: the model with the head of its task, its tokenizer, and the rows.

Opens and checks; what becomes of the rows is tune_course.py's.
"""

import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trivium.data.parts import Values
from trivium.errors import ConfigError
from trivium.evaluation.metrics import METRICS, load_sacrebleu
from trivium.hub.auto import load_model, load_model_config, load_tokenizer
from trivium.hub.decoding import read_generation, read_tasks
from trivium.hub.resolve import resolve_folder
from trivium.model import Transformer
from trivium.model.adapter import has_adapter
from trivium.tasks import Task, find_labels, find_task
from trivium.tasks.encode import check_family
from trivium.tasks.parts import hold_out_valid, read_task_parts, with_signs
from trivium.tasks.task import Scorer
from trivium.tokenizer import Tokenizer
from trivium.tokenizer.chat_mask import set_chat_template
from trivium.training.tuning import TuneRecipe


@dataclass(frozen=True)
class Subject:
    """Who learns what: a model with the head of its task, its tokenizer, and the rows of the first data set."""

    task: Task
    model: Transformer
    tokenizer: Tokenizer
    parts: dict[str, list[Values]]
    labels: tuple[str, ...] = ()
    in_memory: bool = False
    told: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # what the model's config says of each task
    generation: Mapping[str, Any] = field(default_factory=dict)


def find_metric(task: Task) -> Scorer:
    """What scores the answers of a task; raises `ConfigError` for a name of none."""
    if not isinstance(task.metric, str):
        return task.metric
    if task.metric == "bleu":
        load_sacrebleu()
    if task.metric not in METRICS:
        known = ", ".join(METRICS)
        raise ConfigError(
            f"{task.name} has the metric {task.metric}; expected one of {known}, or a function; change it"
        )
    return METRICS[task.metric]


def open_subject(
    task: str | Task, recipe: TuneRecipe, *, model: Any = None, tokenizer: Tokenizer | None = None, rows: Any = None
) -> Subject:
    """Read the data, then open the model with the head and labels that they call for; raises as `finetune` does."""
    found = find_task(task)
    if found.kind != "text":
        find_metric(found)
    if not recipe.data:
        raise ConfigError("no data to learn from; expected a file or a folder; pass data=")
    parts = read_tuning_parts(found, recipe.data if rows is None else rows, recipe)
    found = replace(found, prepare=None)  # each row was prepared once
    labels = find_labels(found, [*parts["train"], *parts.get("valid", [])])
    if isinstance(model, str | Path) or model is None:
        if not recipe.model:
            raise ConfigError("no model to fine-tune; expected a hub name, a folder or a model; pass one")
        folder = resolve_folder(recipe.model)
        config = load_model_config(folder)
        check_family(found, config)
        labels = config.labels if set(config.labels) == set(labels) else labels  # a trained head keeps its order
        told, names = read_tasks(folder), labels if found.head != "language" else None
        own = with_signs(found, told.get(found.name, {}), recipe.prefix)
        head = None if found.head == "language" else found.head
        with warnings.catch_warnings():  # that a head begins at random is no news to who trains it
            warnings.filterwarnings("ignore", message="the file has no fitting weights")
            problem = found.problem if head == "sequence" else None
            opened = load_model(folder, head=head, labels=names, problem=problem, dropout=recipe.dropout)
        if opened.config.head != found.head:
            raise ConfigError(
                f"{recipe.model} has the head {opened.config.head} for {found.name}; expected {found.head}; choose "
                "another model"
            )
        tokenizer, generation = _ready(found, tokenizer or load_tokenizer(folder)), read_generation(folder)
        return Subject(own, opened, tokenizer, parts, labels, told=told, generation=generation)
    network = getattr(model, "transformer", model)
    if not isinstance(network, Transformer) or tokenizer is None:
        raise ConfigError(
            f"{type(model).__name__} to fine-tune, {'with' if tokenizer else 'without'} a tokenizer; expected a name, "
            "a folder, or a model and its tokenizer; call finetune(model, tokenizer, task=…, data=…)"
        )
    check_family(found, network.config)
    if recipe.dropout not in (None, network.config.dropout):
        raise ConfigError(
            f"dropout {recipe.dropout:g} for a model in memory that has {network.config.dropout:g}; expected its own; "
            "pass its name instead, and it is opened so"
        )
    _check_head(found, network, labels)
    tasks: Mapping[str, Any] = getattr(model, "tasks", {})
    found, labels = with_signs(found, tasks.get(found.name, {}), recipe.prefix), network.config.labels
    tokenizer, generation = _ready(found, tokenizer), getattr(model, "generation", {})
    return Subject(found, network, tokenizer, parts, labels, in_memory=True, told=tasks, generation=generation)


def _check_head(task: Task, network: Transformer, labels: tuple[str, ...]) -> None:
    """Raise `ConfigError` for a model in memory that cannot learn the task as it is."""
    config, regression = network.config, task.problem == "regression"
    wrong = config.head != task.head or (config.head == "sequence" and config.problem != task.problem)
    if wrong or (len(labels) != len(config.labels) if regression else set(labels) - set(config.labels)):
        raise ConfigError(
            f"a model with head {config.head} ({config.problem}) and labels {', '.join(config.labels) or 'none'} for "
            f"{task.name}; expected head {task.head} ({task.problem}) and {', '.join(labels) or 'no labels'}; pass its "
            "name instead, and it is opened so"
        )
    if has_adapter(network):
        raise ConfigError("the model has an adapter already; expected none; call merge_adapter first")


def _ready(task: Task, tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, which for a chat has a template: where it came without one, a plain one."""
    if task.kind == "chat" and not tokenizer.settings.get("chat_template"):
        set_chat_template(tokenizer)
    return tokenizer


def read_tuning_parts(task: Task, data: Any, recipe: TuneRecipe) -> dict[str, list[Values]]:
    """The rows of a data set as the task reads them, with a held-out part in an order that says nothing, because only
    the first of its rows are judged and files may be sorted by label; raises `DataError`."""
    parts = read_task_parts(task, data, columns=recipe.columns, wanted=("train", "valid"))
    if not parts.get("valid"):
        train, valid = hold_out_valid(task, parts["train"], fraction=recipe.valid_fraction, seed=recipe.seed)
        parts = {**parts, "train": train, "valid": valid}
    return {**parts, "valid": random.Random(0).sample(parts["valid"], len(parts["valid"]))}
