"""What a fine-tuning run learns from and is judged by: the model with the head of its task, samples, a score.

Knows where rows come from and how they become samples; the loop does the training.
"""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from trivium.data.examples import ExampleLoader
from trivium.data.parts import Values
from trivium.errors import ConfigError
from trivium.evaluation.answer import answer_samples
from trivium.evaluation.compare import Comparison, compare_outputs
from trivium.evaluation.labels import evaluate_labels
from trivium.evaluation.likelihood import evaluate_loss
from trivium.evaluation.metrics import METRICS
from trivium.hub.auto import load_model, load_model_config, load_tokenizer
from trivium.hub.resolve import resolve_folder
from trivium.machine import compute_fingerprint, inspect_machine
from trivium.model import Transformer
from trivium.tasks import Limits, Sample, Task, encode_rows, find_labels, find_task
from trivium.tasks.encode import check_family
from trivium.tasks.parts import find_source, find_task_prefix, hold_out_valid, read_task_parts
from trivium.tasks.sample import choose_limits
from trivium.tokenizer import Tokenizer
from trivium.training.tuning import MixConfig, TuneRecipe, resolve_tuning

SHOWN = 6
SHOWN_CHARACTERS = 600


@dataclass(frozen=True)
class Subject:
    """Who learns what: a model with the head of its task, its tokenizer, and the rows of the first data set."""

    task: Task
    model: Transformer
    tokenizer: Tokenizer
    parts: dict[str, list[Values]]
    labels: tuple[str, ...] = ()
    in_memory: bool = False


@dataclass(frozen=True)
class TuneCourse:
    """Fine-tuning's part of a `Course`: see course.py."""

    recipe: TuneRecipe
    task: Task
    train: ExampleLoader
    valid: ExampleLoader
    samples: list[Sample]
    tokenizer: Tokenizer
    fingerprint: dict[str, str]
    data: dict[str, Any] = field(default_factory=dict)
    compute_dtype: torch.dtype = torch.float32
    device: str = "cpu"

    @cached_property
    def decoding(self) -> dict[str, Any]:
        """The settings that texts are written with, which the folder will have too."""
        return dict(self.task.decoding) if self.task.writes else {}

    def score(self, model: Transformer) -> dict[str, Any]:
        """Loss and the task's metric on the held-out part."""
        batches = [batch.to(self.device) for batch in self.valid.valid_batches(self.recipe.valid_rows)]
        if model.classifier is not None:
            found: dict[str, Any] = {"loss": evaluate_labels(model, batches)}
        else:
            report = asdict(evaluate_loss(model, batches, bytes_per_token=1.0))
            found = {name: report[name] for name in ("loss", "perplexity", "accuracy")}
            found["token_accuracy"] = found.pop("accuracy")
        if self.task.kind == "text":
            return found
        answers, references = self.answer(model)
        metric = METRICS[self.task.metric] if isinstance(self.task.metric, str) else self.task.metric
        return found | {name: float(value) for name, value in metric(answers, references).items()}

    def answer(self, model: Transformer) -> tuple[list[Any], list[Any]]:
        """Answers and references of the samples that are judged."""
        return answer_samples(model, self.tokenizer, self.task, self.samples)

    def show(self, model: Transformer, _progress: float) -> list[dict[str, Any]]:
        """A few answers beside what was asked and expected, for the log and the report."""
        if self.task.kind == "text":
            return []
        first = self.samples[:SHOWN]
        answers, references = answer_samples(model, self.tokenizer, self.task, first)
        shown = zip(self._asked(first), references, answers, strict=True)
        return [{"source": _cut(asked), "target": target, "output": output} for asked, target, output in shown]

    def judge(self, model: Transformer) -> Comparison | None:
        """Every answer that is judged with its scores, as evaluation compares systems; nothing for plain text."""
        if self.task.kind == "text":
            return None
        answers, references = self.answer(model)
        asked, metric, best = self._asked(self.samples), self.task.metric, self.task.best
        return compare_outputs({"model": answers}, references, sources=asked, metric=metric, best=best, baselines=())

    def _asked(self, samples: Sequence[Sample]) -> list[str]:
        """What each answer answers: windows of one context are one question."""
        if self.task.kind == "answer":
            samples = list({sample.number: sample for sample in samples}.values())
        return [find_source(self.task, sample.row) for sample in samples]

    def describe(self, scores: Mapping[str, float], before: Mapping[str, float], seconds: float) -> str:
        """The sentence of a model card."""
        listed = ", ".join(f"{name} {value:.4g} (before {before.get(name, 0):.4g})" for name, value in scores.items())
        return (
            f"Fine-tuned from `{self.recipe.model}` for {self.task.name} on {self.train.num_examples:,} examples of "
            f"`{self.recipe.data}` in {seconds:,.0f} s. On {len(self.samples):,} held-out examples: {listed}."
        )


def open_subject(
    task: str | Task, recipe: TuneRecipe, *, model: Any = None, tokenizer: Tokenizer | None = None
) -> Subject:
    """Read the data, then open the model with the head and labels that they call for; raises as `finetune` does."""
    found = find_task(task)
    if not recipe.data:
        raise ConfigError("no data to learn from; expected a file or a folder; pass data=")
    parts = read_tuning_parts(found, recipe.data, recipe)
    labels = find_labels(found, [*parts["train"], *parts.get("valid", [])])
    if isinstance(model, str | Path) or model is None:
        if not recipe.model:
            raise ConfigError("no model to fine-tune; expected a hub name, a folder or a model; pass one")
        folder = resolve_folder(recipe.model)
        check_family(found, load_model_config(folder))
        own, names = find_task_prefix(found, folder, recipe.prefix), labels if found.head != "language" else None
        head = None if found.head == "language" else found.head
        with warnings.catch_warnings():  # that a head begins at random is no news to who trains it
            warnings.filterwarnings("ignore", message="the file has no fitting weights")
            opened = load_model(folder, head=head, labels=names, problem=found.problem if head == "sequence" else None)
        return Subject(own, opened, load_tokenizer(folder), parts, labels)
    network = getattr(model, "transformer", model)
    if not isinstance(network, Transformer) or tokenizer is None:
        raise ConfigError(
            f"{type(model).__name__} to fine-tune, {'with' if tokenizer else 'without'} a tokenizer; expected a name, "
            "a folder, or a model and its tokenizer; call finetune(model, tokenizer, task=…, data=…)"
        )
    if network.config.head != found.head or (labels and set(labels) - set(network.config.labels)):
        raise ConfigError(
            f"a model with head {network.config.head} and labels {', '.join(network.config.labels) or 'none'} for "
            f"{found.name}; expected head {found.head} and {', '.join(labels) or 'no labels'}; pass its name instead, "
            "and it is opened so"
        )
    found = replace(found, prefix=found.prefix if recipe.prefix is None else recipe.prefix)
    return Subject(found, network, tokenizer, parts, network.config.labels, in_memory=True)


def read_tuning_parts(task: Task, path: str, recipe: TuneRecipe) -> dict[str, list[Values]]:
    """The rows of a data set for a task, with a held-out part; raises `DataError`."""
    parts = read_task_parts(task, path, columns=recipe.columns)
    if not parts.get("valid"):
        train, valid = hold_out_valid(task, parts["train"], fraction=recipe.valid_fraction, seed=recipe.seed)
        parts = {**parts, "train": train, "valid": valid}
    return parts


def gather_course(subject: Subject, recipe: TuneRecipe, say: Any) -> TuneCourse:
    """Encode every data set and lay out what the loop reads; raises as `finetune` does."""
    config, tokenizer, task = subject.model.config, subject.tokenizer, subject.task
    stated = Limits(recipe.source_tokens, recipe.target_tokens, recipe.on_long)
    limits = choose_limits(stated, config, tokenizer.model_max_length)
    say("encoding")
    encoded = {
        part: encode_rows(task, subject.parts[part], config, tokenizer, limits=limits, labels=subject.labels)
        for part in ("train", "valid")
    }
    sets = [encoded["train"].samples, *(_encode_mix(mix, subject, recipe, limits) for mix in recipe.mix)]
    weights = [recipe.weight, *(mix.weight for mix in recipe.mix)] if recipe.mix else None

    def lay_out(sets: list[list[Sample]], *, weights: list[float] | None, micro_rows: int) -> ExampleLoader:
        return ExampleLoader(
            [[sample.example for sample in samples] for samples in sets],
            pad_id=config.pad_id,
            rows_per_batch=recipe.rows_per_batch,
            micro_rows=micro_rows,
            pack=recipe.pack and task.kind not in ("label", "answer"),
            weights=weights,
            seed=recipe.seed,
        )

    loader = lay_out(sets, weights=weights, micro_rows=recipe.micro_rows)
    valid = lay_out([encoded["valid"].samples], weights=None, micro_rows=recipe.micro_rows)
    machine = inspect_machine()
    data = {
        "parts": {part: {"rows": each.rows, "examples": len(each.samples)} for part, each in encoded.items()},
        "too_long": encoded["train"].too_long,
        "fingerprint": loader.fingerprint,
    }
    return TuneCourse(
        recipe=resolve_tuning(recipe, config, best=task.best),
        task=task,
        train=loader,
        valid=valid,
        samples=_first_rows(encoded["valid"].samples, recipe.scored_rows),
        tokenizer=tokenizer,
        fingerprint={**compute_fingerprint(), "data": f"{loader.fingerprint} {_hash_weights(subject.model)}"},
        data=data,
        compute_dtype=getattr(torch, machine.compute_dtype),
        device=machine.device,
    )


def _encode_mix(mix: MixConfig, subject: Subject, recipe: TuneRecipe, limits: Limits) -> list[Sample]:
    """The training samples of one more data set, which must train the same head."""
    task = find_task(mix.task)
    if task.head != subject.task.head or task.head != "language":
        raise ConfigError(f"{task.name} in a mixture with {subject.task.name}; expected tasks that write; drop it")
    parts = read_tuning_parts(task, mix.data, replace(recipe, columns={}))
    return encode_rows(task, parts["train"], subject.model.config, subject.tokenizer, limits=limits).samples


def _first_rows(samples: list[Sample], most: int) -> list[Sample]:
    """The samples of the first rows: windows of one row stay together."""
    numbers = list(dict.fromkeys(sample.number for sample in samples))[:most]
    return [sample for sample in samples if sample.number <= (numbers or [0])[-1]]


def _hash_weights(model: Transformer) -> str:
    """What the run began from: another model under the same name must not continue it."""
    digest = hashlib.sha256(repr(model.config).encode())
    for parameter in model.parameters():
        digest.update(parameter.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " …"
