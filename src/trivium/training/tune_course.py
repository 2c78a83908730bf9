"""What a fine-tuning run learns from and is judged by: the model with the head of its task, samples, a score.

Knows where rows come from and how they become samples; the loop does the training.
"""

import hashlib
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trivium.data.batch import Ints
from trivium.data.examples import ExampleLoader
from trivium.data.parts import Values
from trivium.data.swapping import Swapper
from trivium.errors import ConfigError, DataError
from trivium.evaluation.answer import answer_samples
from trivium.evaluation.compare import Comparison, compare_outputs
from trivium.evaluation.labels import evaluate_labels
from trivium.evaluation.likelihood import evaluate_loss
from trivium.evaluation.metrics import METRICS, load_sacrebleu
from trivium.generation.settings import BANS
from trivium.hub.auto import load_model, load_model_config, load_tokenizer
from trivium.hub.decoding import read_generation, read_tasks
from trivium.hub.resolve import resolve_folder
from trivium.machine import compute_fingerprint
from trivium.model import ModelConfig, Transformer
from trivium.model.adapter import has_adapter
from trivium.tasks import Limits, Sample, Task, encode_rows, find_labels, find_task
from trivium.tasks.encode import check_family
from trivium.tasks.parts import find_source, hold_out_valid, read_task_parts, with_signs
from trivium.tasks.sample import choose_limits
from trivium.tasks.task import Scorer
from trivium.tokenizer import Tokenizer
from trivium.tokenizer.chat_mask import set_chat_template, stop_ids
from trivium.training.checkpoint import keep_compute_dtype
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
    told: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # what the model's config says of each task
    generation: Mapping[str, Any] = field(default_factory=dict)


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
    limits: Limits = field(default_factory=Limits)
    bans: Mapping[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    compute_dtype: torch.dtype = torch.float32
    device: str = "cpu"

    @cached_property
    def decoding(self) -> dict[str, Any]:
        """The settings that texts are written with, which the folder will have too: as long as what was learned."""
        longest = self.limits.target if self.task.kind == "pair" else self.task.answer_tokens
        ends = {"eos_token_id": stop_ids(self.tokenizer)} if self.task.kind == "chat" else {}
        return {**self.bans, "max_new_tokens": longest, **self.task.decoding, **ends} if self.task.writes else {}

    def signs(self, config: ModelConfig) -> dict[str, dict[str, Any]]:
        """What the folder's config says of the task: what stands before a source, and what a decoder reads after it."""
        between = self.task.separator if self.task.kind == "pair" and config.family == "decoder" else ""
        told = {"prefix": self.task.prefix, "separator": between}
        told = {name: text for name, text in told.items() if text}
        return {self.recipe.task: told} if told else {}

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
        return found | {name: float(value) for name, value in find_metric(self.task)(answers, references).items()}

    def answer(self, model: Transformer) -> tuple[list[Any], list[Any]]:
        """Answers and references of the samples that are judged."""
        return answer_samples(model, self.tokenizer, self.task, self.samples, decoding=self.decoding)

    def show(self, model: Transformer, _progress: float) -> list[dict[str, Any]]:
        """A few answers beside what was asked and expected, for the log and the report."""
        if self.task.kind == "text":
            return []
        first = self.samples[:SHOWN]
        answers, references = answer_samples(model, self.tokenizer, self.task, first, decoding=self.decoding)
        shown = zip(self._asked(first), references, answers, strict=True)
        return [{"source": _cut(asked), "target": target, "output": output} for asked, target, output in shown]

    def judge(self, model: Transformer) -> Comparison | None:
        """Every answer that is judged with its scores, as evaluation compares systems; nothing for plain text."""
        if self.task.kind == "text":
            return None
        answers, references = self.answer(model)
        asked, metric, best = self._asked(self.samples), self.task.metric, self.task.best

        def compare() -> Comparison:
            return compare_outputs(
                {"model": answers}, references, sources=asked, metric=metric, best=best, baselines=()
            )

        if isinstance(metric, str):
            return compare()
        try:
            if best.lstrip("-") not in (given := metric(answers[:1], references[:1])):
                best = next(iter(given))  # what the run went by, such as the loss, is no score of an answer
            return compare()
        except Exception:  # one's own metric may be of several texts only, as a correlation is
            return None

    def _asked(self, samples: Sequence[Sample]) -> list[str]:
        """What each answer answers: windows of one row are one question."""
        return [find_source(self.task, row) for row in {sample.number: sample.row for sample in samples}.values()]

    def describe(self, scores: Mapping[str, float], before: Mapping[str, float], seconds: float) -> str:
        """The sentence of a model card."""
        listed = ", ".join(f"{name} {value:.4g} (before {before.get(name, 0):.4g})" for name, value in scores.items())
        return (
            f"Fine-tuned from `{self.recipe.model}` for {self.task.name} on {self.train.num_examples:,} examples of "
            f"`{self.recipe.data}` in {seconds:,.0f} s. On {len(self.samples):,} held-out examples: {listed}."
        )


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


def gather_course(subject: Subject, recipe: TuneRecipe, say: Any) -> TuneCourse:
    """Encode every data set and lay out what the loop reads; raises as `finetune` does."""
    config, tokenizer, task = subject.model.config, subject.tokenizer, subject.task
    if recipe.swap and not task.writes:
        raise ConfigError(f"swap {recipe.swap:g} for {task.name}; expected a task that writes; leave swap out")
    stated = Limits(recipe.source_tokens, recipe.target_tokens, recipe.on_long)
    limits = choose_limits(stated, config, tokenizer.model_max_length, task=task)
    say("encoding")
    encoded = {
        part: encode_rows(task, subject.parts[part], config, tokenizer, limits=limits, labels=subject.labels)
        for part in ("train", "valid")
    }
    sets = [encoded["train"].samples, *(_encode_mix(mix, subject, limits) for mix in recipe.mix)]
    weights = [recipe.weight, *(mix.weight for mix in recipe.mix)] if recipe.mix else None

    def lay_out(sets: list[list[Sample]], *, weights: list[float] | None = None, swap: float = 0.0) -> ExampleLoader:
        examples = [[sample.example for sample in samples] for samples in sets]
        return ExampleLoader(
            examples,
            pad_id=config.pad_id,
            rows_per_batch=recipe.rows_per_batch,
            micro_rows=recipe.micro_rows,
            pack=_packs(recipe, task, config),
            weights=weights,
            swapper=Swapper(examples, swap_kinds(tokenizer), share=swap) if swap else None,
            seed=recipe.seed,
        )

    judged = _first_rows([each for each in encoded["valid"].samples if each.is_asked(task)], recipe.scored_rows)
    if not judged and task.kind != "text":
        raise DataError(
            f"none of {encoded['valid'].rows:,} held-out rows has room for an answer within {limits.source} tokens; "
            "expected some to judge by; raise source_tokens"
        )
    loader = lay_out(sets, weights=weights, swap=recipe.swap)
    valid = lay_out([encoded["valid"].samples])
    fingerprint = keep_compute_dtype(Path(recipe.run), compute_fingerprint())
    if without := encoded["train"].without:
        say(f"{without:,} of {encoded['train'].rows:,} training rows are left out: too long to learn from")
    data = {
        "parts": {part: {"rows": each.rows, "examples": len(each.samples)} for part, each in encoded.items()},
        "too_long": encoded["train"].too_long,
        "left_out": without,
        "fingerprint": loader.fingerprint,
    }
    return TuneCourse(
        recipe=resolve_tuning(recipe, config, best=task.best),
        task=task,
        train=loader,
        valid=valid,
        samples=judged,
        tokenizer=tokenizer,
        fingerprint={**fingerprint, "data": f"{loader.fingerprint} {hash_weights(subject.model)}"},
        limits=limits,
        bans={name: subject.generation[name] for name in BANS if name in subject.generation},
        data=data,
        compute_dtype=getattr(torch, fingerprint["compute_dtype"]),
        device=fingerprint["device"],
    )


def swap_kinds(tokenizer: Tokenizer) -> Ints:
    """Which tokens may take each other's place, `(vocab_size,)`: 2 begins a word, 1 does not, 0 is no text of its own,
    such as a control token or a part of a character."""
    kinds = np.asarray(tokenizer.word_starts(), dtype=np.int64) + 1
    kinds[[token for token in range(len(kinds)) if "\ufffd" in tokenizer.decode([token])]] = 0
    kinds[list(tokenizer.control_ids)] = 0
    return kinds


def _packs(recipe: TuneRecipe, task: Task, config: ModelConfig) -> bool:
    """Whether examples share rows; a head for whole texts reads a row's first token, so there they cannot.

    T5's learned bias makes attention over long rows dear: 1.4 times the time of rows of similar length.
    """
    wanted = config.position != "relative" if recipe.pack is None else recipe.pack
    return wanted and task.kind not in ("label", "answer")


def _encode_mix(mix: MixConfig, subject: Subject, limits: Limits) -> list[Sample]:
    """The training samples of one more data set, which must train the same head."""
    task = find_task(mix.task)
    if task.head != subject.task.head or task.head != "language":
        raise ConfigError(f"{task.name} in a mixture with {subject.task.name}; expected tasks that write; drop it")
    # Whole: what is judged is the first data set's.
    parts = read_task_parts(task, mix.data, columns=mix.columns, wanted=("train",))
    task = with_signs(task, subject.told.get(task.name, {}), mix.prefix)
    return encode_rows(task, parts["train"], subject.model.config, subject.tokenizer, limits=limits).samples


def _first_rows(samples: list[Sample], most: int) -> list[Sample]:
    """The samples of the first rows: windows of one row stay together."""
    numbers = list(dict.fromkeys(sample.number for sample in samples))[:most]
    return [sample for sample in samples if sample.number <= (numbers or [0])[-1]]


def hash_weights(model: Transformer) -> str:
    """A hash of a model: another one under the same name must not continue a run."""
    digest = hashlib.sha256(repr(model.config).encode())
    for parameter in model.parameters():
        digest.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " …"
