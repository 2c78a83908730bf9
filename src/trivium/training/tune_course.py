"""What a fine-tuning run learns from and is judged by: samples of its rows, and a score.

Knows where rows come from and how they become samples; the loop does the training.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trivium.data.batch import Ints
from trivium.data.examples import ExampleLoader
from trivium.data.swapping import Swapper
from trivium.errors import ConfigError, DataError
from trivium.evaluation.answer import answer_samples
from trivium.evaluation.compare import Comparison, compare_outputs
from trivium.evaluation.labels import evaluate_labels
from trivium.evaluation.likelihood import evaluate_loss
from trivium.generation.settings import BANS
from trivium.machine import compute_fingerprint
from trivium.model import ModelConfig, Transformer
from trivium.tasks import Limits, Sample, Task, encode_rows, find_task
from trivium.tasks.parts import find_source, read_task_parts, with_signs
from trivium.tasks.sample import choose_limits
from trivium.tokenizer import Tokenizer
from trivium.tokenizer.chat_mask import stop_ids
from trivium.training.checkpoint import keep_compute_dtype
from trivium.training.tune_subject import Subject, find_metric
from trivium.training.tuning import MixConfig, TuneRecipe, resolve_tuning

SHOWN = 6
SHOWN_CHARACTERS = 600


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
