"""The training loop, in the open: evaluate? save? → batch → micro-steps → clip → step → log.

Each micro-step seeds the generator from (seed, step, micro-step), so dropout needs no stored state, and the order
of the data is a function of the step: a resumed run takes exactly the steps that the killed one would have taken.
"""

import hashlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from trivium.data.batch import Batch
from trivium.errors import CheckpointError, ConfigError
from trivium.evaluation.labels import label_loss
from trivium.model import Transformer
from trivium.training.checkpoint import Counters, TrainState, save_best, save_checkpoint
from trivium.training.course import Course
from trivium.training.loss import chunked_cross_entropy
from trivium.training.monitor import Monitor
from trivium.training.recipe import LossConfig, SaveConfig
from trivium.training.schedule import rate_factor

SKIPS_ALLOWED = 10
EXIT_CODES = {signal.SIGTERM: 143, signal.SIGUSR1: 75, signal.SIGINT: 130}
Samples = Callable[[Transformer, float], list[Any]]


@dataclass
class Interruption:
    """The exit code that a caught signal asks for, once the step is finished and saved."""

    code: int | None = None


def train(state: TrainState, course: Course, monitor: Monitor, on_evaluate: Samples | None = None) -> None:
    """Train `state` in place until the recipe's budget is spent; save and exit with its code on a signal.

    `on_evaluate(model, progress)` gives sample texts for the log at each evaluation: before the first step, where the
    recipe says, and at the end. Raises `CheckpointError` after ten updates in a row that were not finite; raises
    `SystemExit` with 143, 75 or 130 after SIGTERM, SIGUSR1 or Ctrl-C.
    """
    recipe, counters, model = course.recipe, state.counters, state.model
    saved_step = counters.step
    # Of a budget that has grown since, fewer marks have been passed.
    counters.marks_passed = min(counters.marks_passed, _count_marks(recipe.save, measure_progress(course, counters)))
    model.train()
    with catch_signals() as interruption:
        while True:
            progress = measure_progress(course, counters)
            if interruption.code is None and is_due(recipe.save, counters, progress):
                evaluate(state, course, monitor, progress=progress, on_evaluate=on_evaluate)
            over = progress >= 1.0 or is_stalled(recipe.save, counters)
            ends = interruption.code is not None or over
            if counters.step != saved_step and (ends or _divides(recipe.save.every_steps, counters.step)):
                _save(state, course, monitor)
                saved_step = counters.step
            if interruption.code is not None:
                raise SystemExit(interruption.code)
            if over:
                return
            started = time.perf_counter()
            factor = rate_factor(recipe.schedule, progress)
            for optimizer in state.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["peak_rate"] * factor
            loss = _accumulate(state, course)
            norm = clip_gradients(model, recipe.optimizer.clip)
            finite = math.isfinite(loss) and math.isfinite(norm)
            if finite:
                for optimizer in state.optimizers:
                    optimizer.step()
            model.zero_grad(set_to_none=True)
            seconds = time.perf_counter() - started
            counters.skipped_in_a_row = 0 if finite else counters.skipped_in_a_row + 1
            counters.step += 1
            counters.tokens += course.train.tokens_per_batch
            counters.elapsed_seconds += seconds
            entry = {
                "step": counters.step,
                "loss": loss if finite else None,
                "gradient_norm": norm if finite else None,
                "rate": recipe.optimizer.rate * factor,
                "seconds": seconds,
            }
            monitor.record(entry if finite else {**entry, "skipped": True})
            monitor.show(progress=progress, text=_describe(loss, course, counters))
            if counters.skipped_in_a_row >= SKIPS_ALLOWED:
                raise CheckpointError(
                    f"{SKIPS_ALLOWED} updates in a row were not finite, the last at step {counters.step}; the last "
                    "checkpoint is whole; lower optimizer.rate and run again"
                )


def measure_progress(course: Course, counters: Counters) -> float:
    """The share of the budget that is spent: of training seconds, steps, tokens or epochs."""
    budget = course.recipe.budget
    if budget.minutes:
        return counters.elapsed_seconds / (60 * budget.minutes)
    if budget.epochs:
        return counters.step / (budget.epochs * course.train.steps_per_epoch)
    return counters.step / budget.steps if budget.steps else counters.tokens / budget.tokens


def seed_step(seed: int, step: int, micro_step: int, rank: int = 0) -> None:
    """Seed torch for one micro-step, so that its dropout depends on nothing that came before."""
    digest = hashlib.blake2b(repr((seed, step, micro_step, rank)).encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "little") >> 1)


def clip_gradients(model: torch.nn.Module, largest: float) -> float:
    """The norm of all gradients together; scaled down to `largest` where it is more (0: never)."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    value = float(norm)
    if largest and math.isfinite(value) and value > largest:
        torch._foreach_mul_(gradients, largest / value)
    return value


def batch_loss(model: Transformer, batch: Batch, options: LossConfig, target_count: float) -> torch.Tensor:
    """This batch's share of the step's loss: its sum over targets, divided by the whole step's target count."""
    if model.classifier is not None:
        return label_loss(model, batch, label_smoothing=options.label_smoothing)[0] / target_count
    hidden = model(batch.inputs, batch.context).flatten(0, 1)
    targets, weights = batch.targets.flatten(), batch.weights.flatten()
    rows = weights.nonzero()[:, 0]
    if len(rows) < len(weights):  # of a masked batch, 85 % of the rows need no head
        hidden, targets, weights = (each.index_select(0, rows) for each in (hidden, targets, weights))
    total = chunked_cross_entropy(
        model.head.prepare(hidden),
        model.head.vocabulary,
        model.head.bias,
        targets,
        weights,
        label_smoothing=options.label_smoothing,
        z_loss=options.z_loss,
    )
    return total / target_count


@contextmanager
def catch_signals() -> Iterator[Interruption]:
    """Turn SIGTERM, SIGUSR1 and Ctrl-C into a note for the loop; outside the main thread, do nothing.

    A second Ctrl-C is a `KeyboardInterrupt` at once.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return

    def note(number: int, _frame: FrameType | None) -> None:
        if interruption.code is not None and number == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice: now, without saving
        interruption.code = EXIT_CODES[signal.Signals(number)]

    previous = {number: signal.signal(number, note) for number in EXIT_CODES}
    try:
        yield interruption
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _accumulate(state: TrainState, course: Course) -> float:
    """Gradients of one step, micro-batch by micro-batch; the mean loss over all of the step's targets."""
    recipe, loader, step = course.recipe, course.train, state.counters.step
    batches = [loader.batch_at(step, micro).to(course.device) for micro in range(loader.num_micro_steps)]
    # The one place where the loss is normalised: by the target tokens of the whole step.
    target_count = max(sum(float(batch.weights.sum()) for batch in batches), 1.0)
    mixed = course.compute_dtype != torch.float32
    total = 0.0
    for micro, batch in enumerate(batches):
        seed_step(recipe.seed, step, micro)
        with torch.autocast(course.device, course.compute_dtype) if mixed else nullcontext():
            loss = batch_loss(state.model, batch, recipe.loss, target_count)
        loss.backward()  # type: ignore[no-untyped-call]  # torch declares no types here
        total += float(loss.detach())
    return total


def is_due(save: SaveConfig, counters: Counters, progress: float) -> bool:
    """Whether to evaluate before the next step: at the start, at the end, past a mark, or after enough steps."""
    if counters.evaluated_step == counters.step:
        return False
    mark = _count_marks(save, progress) > counters.marks_passed
    return counters.step == 0 or progress >= 1.0 or mark or _divides(save.evaluate_every_steps, counters.step)


def evaluate(
    state: TrainState,
    course: Course,
    monitor: Monitor,
    *,
    progress: float,
    on_evaluate: Samples | None = None,
) -> None:
    """Score the held-out part, log it with sample texts, and remember in the state that it was done."""
    counters, found = state.counters, course.score(state.model)
    samples = on_evaluate(state.model, progress) if on_evaluate else []
    state.model.train()
    counters.marks_passed = _count_marks(course.recipe.save, progress)
    counters.evaluated_step, counters.evaluation = counters.step, found
    if counters.step == 0:
        counters.loss_before, counters.evaluation_before = found["loss"], found
    if course.recipe.save.best:
        _keep_best(state, course, found)
    monitor.record({"step": counters.step, "valid": found, "samples": samples, "progress": progress})


def is_stalled(save: SaveConfig, counters: Counters) -> bool:
    """Whether so many evaluations were no better than the best that training ends."""
    return 0 < save.patience <= counters.evaluations_since_best


def _keep_best(state: TrainState, course: Course, found: dict[str, Any]) -> None:
    """Put the weights aside as `run/best/step-…` if no earlier evaluation scored more, or as much with less loss."""
    counters, name = state.counters, course.recipe.save.best
    sign = -1.0 if name.startswith("-") else 1.0
    name = name.removeprefix("-")
    if name not in found:
        known = ", ".join(key for key, value in found.items() if isinstance(value, float))
        raise ConfigError(f"save.best is {name}, which is no score of this run; expected one of {known}; change it")
    before = counters.best_evaluation
    score = -math.inf if math.isnan(found[name]) else sign * found[name]
    record = sign * before[name] if before and not math.isnan(before[name]) else -math.inf
    counters.evaluations_since_best = 0 if score > record or not before else counters.evaluations_since_best + 1
    if score > record or not before or (score == record and found["loss"] < before["loss"]):
        save_best(state, Path(course.recipe.run), tokenizer=course.tokenizer, fingerprint=course.fingerprint)
        counters.best_step, counters.best_evaluation = counters.step, found


def _count_marks(save: SaveConfig, progress: float) -> int:
    return sum(progress >= mark for mark in save.evaluate_at)


def _divides(interval: int, step: int) -> bool:
    return interval > 0 and step > 0 and step % interval == 0


def _save(state: TrainState, course: Course, monitor: Monitor) -> None:
    state.counters.lines = monitor.sync()
    save_checkpoint(
        state,
        Path(course.recipe.run),
        tokenizer=course.tokenizer,
        fingerprint=course.fingerprint,
        keep_last=course.recipe.save.keep_last,
    )


def _describe(loss: float, course: Course, counters: Counters) -> str:
    speed = counters.tokens / max(counters.elapsed_seconds, 1e-9)
    spent = measure_progress(course, counters)
    left = counters.elapsed_seconds * (1 - spent) / max(spent, 1e-9)
    return f"step {counters.step}  loss {loss:.3f}  {speed:,.0f} tokens/s  {max(left, 0):,.0f} s left"
