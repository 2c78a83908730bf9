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
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from trivium.data.batch import Batch
from trivium.data.loader import Loader
from trivium.errors import CheckpointError
from trivium.evaluation.likelihood import evaluate_loss
from trivium.model import Transformer
from trivium.tokenizer import Tokenizer
from trivium.training.checkpoint import Counters, TrainState, save_checkpoint
from trivium.training.loss import chunked_cross_entropy
from trivium.training.monitor import Monitor
from trivium.training.recipe import BudgetConfig, LossConfig, Recipe, SaveConfig
from trivium.training.schedule import rate_factor

SKIPS_ALLOWED = 10
EXIT_CODES = {signal.SIGTERM: 143, signal.SIGUSR1: 75, signal.SIGINT: 130}
Samples = Callable[[Transformer, float], list[str]]


@dataclass(frozen=True)
class Materials:
    """What the loop needs beside the state: the recipe, the data of both parts, and what a checkpoint records."""

    recipe: Recipe
    train: Loader
    valid: Loader
    bytes_per_token: float
    tokenizer: Tokenizer
    fingerprint: dict[str, str]
    compute_dtype: torch.dtype = torch.float32
    device: str = "cpu"


@dataclass
class Interruption:
    """The exit code that a caught signal asks for, once the step is finished and saved."""

    code: int | None = None


def train(state: TrainState, materials: Materials, monitor: Monitor, on_evaluate: Samples | None = None) -> None:
    """Train `state` in place until the recipe's budget is spent; save and exit with its code on a signal.

    `on_evaluate(model, progress)` gives sample texts for the log at each evaluation: before the first step, where the
    recipe says, and at the end. Raises `CheckpointError` after ten updates in a row that were not finite; raises
    `SystemExit` with 143, 75 or 130 after SIGTERM, SIGUSR1 or Ctrl-C.
    """
    recipe, counters, model = materials.recipe, state.counters, state.model
    saved_step = counters.step
    model.train()
    with catch_signals() as interruption:
        while True:
            progress = measure_progress(recipe.budget, counters)
            if interruption.code is None and is_due(recipe.save, counters, progress):
                evaluate(state, materials, monitor, progress=progress, on_evaluate=on_evaluate)
            ends = interruption.code is not None or progress >= 1.0
            if counters.step != saved_step and (ends or _divides(recipe.save.every_steps, counters.step)):
                _save(state, materials, monitor)
                saved_step = counters.step
            if interruption.code is not None:
                raise SystemExit(interruption.code)
            if progress >= 1.0:
                return
            started = time.perf_counter()
            factor = rate_factor(recipe.schedule, progress)
            for optimizer in state.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["peak_rate"] * factor
            loss = _accumulate(state, materials)
            norm = clip_gradients(model, recipe.optimizer.clip)
            finite = math.isfinite(loss) and math.isfinite(norm)
            if finite:
                for optimizer in state.optimizers:
                    optimizer.step()
            model.zero_grad(set_to_none=True)
            seconds = time.perf_counter() - started
            counters.skipped_in_a_row = 0 if finite else counters.skipped_in_a_row + 1
            counters.step += 1
            counters.tokens += materials.train.tokens_per_batch
            counters.elapsed_seconds += seconds
            entry = {
                "step": counters.step,
                "loss": loss if finite else None,
                "gradient_norm": norm if finite else None,
                "rate": recipe.optimizer.rate * factor,
                "seconds": seconds,
            }
            monitor.record(entry if finite else {**entry, "skipped": True})
            monitor.show(progress=progress, text=_describe(loss, materials, counters, recipe.budget))
            if counters.skipped_in_a_row >= SKIPS_ALLOWED:
                raise CheckpointError(
                    f"{SKIPS_ALLOWED} updates in a row were not finite, the last at step {counters.step}; the last "
                    "checkpoint is whole; lower optimizer.rate and run again"
                )


def measure_progress(budget: BudgetConfig, counters: Counters) -> float:
    """The share of the budget that is spent: of training seconds, steps or tokens."""
    if budget.minutes:
        return counters.elapsed_seconds / (60 * budget.minutes)
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


def _accumulate(state: TrainState, materials: Materials) -> float:
    """Gradients of one step, micro-batch by micro-batch; the mean loss over all of the step's targets."""
    recipe, loader, step = materials.recipe, materials.train, state.counters.step
    batches = [loader.batch_at(step, micro).to(materials.device) for micro in range(loader.num_micro_steps)]
    # The one place where the loss is normalised: by the target tokens of the whole step.
    target_count = max(sum(float(batch.weights.sum()) for batch in batches), 1.0)
    mixed = materials.compute_dtype != torch.float32
    total = 0.0
    for micro, batch in enumerate(batches):
        seed_step(recipe.seed, step, micro)
        with torch.autocast(materials.device, materials.compute_dtype) if mixed else nullcontext():
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
    materials: Materials,
    monitor: Monitor,
    *,
    progress: float,
    on_evaluate: Samples | None = None,
) -> None:
    """Score the held-out part, log it with sample texts, and remember in the state that it was done."""
    counters, found = state.counters, evaluate_now(state.model, materials)
    samples = on_evaluate(state.model, progress) if on_evaluate else []
    state.model.train()
    counters.marks_passed = _count_marks(materials.recipe.save, progress)
    counters.evaluated_step, counters.evaluation = counters.step, found
    if counters.step == 0:
        counters.loss_before = found["loss"]
    monitor.record({"step": counters.step, "valid": found, "samples": samples, "progress": progress})


def _count_marks(save: SaveConfig, progress: float) -> int:
    return sum(progress >= mark for mark in save.evaluate_at)


def _divides(interval: int, step: int) -> bool:
    return interval > 0 and step > 0 and step % interval == 0


def evaluate_now(model: Transformer, materials: Materials) -> dict[str, Any]:
    """Loss, perplexity, bits per byte and accuracy on the held-out part, as a dictionary."""
    batches = materials.valid.valid_batches(materials.recipe.data.valid_rows)
    moved = (batch.to(materials.device) for batch in batches)
    return asdict(evaluate_loss(model, moved, bytes_per_token=materials.bytes_per_token))


def _save(state: TrainState, materials: Materials, monitor: Monitor) -> None:
    state.counters.lines = monitor.sync()
    save_checkpoint(
        state,
        Path(materials.recipe.run),
        tokenizer=materials.tokenizer,
        fingerprint=materials.fingerprint,
        keep_last=materials.recipe.save.keep_last,
    )


def _describe(loss: float, materials: Materials, counters: Counters, budget: BudgetConfig) -> str:
    speed = counters.tokens / max(counters.elapsed_seconds, 1e-9)
    spent = measure_progress(budget, counters)
    left = counters.elapsed_seconds * (1 - spent) / max(spent, 1e-9)
    return f"step {counters.step}  loss {loss:.3f}  {speed:,.0f} tokens/s  {max(left, 0):,.0f} s left"
