"""How long trivium takes to the held-out loss that a rate-tuned nanoGPT-style recipe reaches in a given time.

Both read the same batches of the same prepared text (Python's documentation) and are scored on the same held-out
rows. The peer is the GPT-2 shape with AdamW, cosine decay and warm-up, trained for `--seconds` at each of several
rates; its best result is the mark. trivium's decoder recipe, untuned, gets a third of that time at the same width, and
a fifth at a width of its own; evaluation time is not counted for either. Prints every trial.

    python benchmarks/time_to_loss.py [--seconds 360] [--width 192] [--free-width 128] [--rates 7e-4 1e-3 …]
"""

import argparse
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from trivium.evaluation.likelihood import evaluate_loss
from trivium.machine import inspect_machine
from trivium.model import ModelConfig, build_model
from trivium.training.course import Materials
from trivium.training.loop import batch_loss
from trivium.training.monitor import read_metrics
from trivium.training.pretraining import gather_materials, pretrain
from trivium.training.recipe import LossConfig, Recipe, load_recipe


def train_peer(materials: Materials, *, rate: float, seconds: float, width: int) -> tuple[float, int]:
    """The nanoGPT recipe for so many seconds; held-out loss and steps."""
    config = ModelConfig(
        family="decoder",
        vocab_size=materials.tokenizer.vocab_size,
        hidden_size=width,
        num_layers=materials.recipe.size.num_layers,
        num_heads=width // 32,
        ffn_size=4 * width,
        position="learned",
        max_positions=materials.recipe.data.seq_len,
        norm="layer",
        activation="gelu_tanh",
        gated_ffn=False,
    )
    model = build_model(config).train()
    decayed = [each for each in model.parameters() if each.dim() == 2]
    rest = [each for each in model.parameters() if each.dim() != 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)
    elapsed, step = 0.0, 0
    while elapsed < seconds:
        started, progress = time.perf_counter(), elapsed / seconds
        decay = 0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate * min(progress / 0.05 + 0.01, 1.0) * decay
        batch = materials.train.batch_at(step)
        loss = batch_loss(model, batch, LossConfig(), float(batch.weights.sum()))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        model.zero_grad(set_to_none=True)
        step += 1
        elapsed += time.perf_counter() - started
    batches = materials.valid.valid_batches(materials.recipe.data.valid_rows)
    return evaluate_loss(model, batches, bytes_per_token=materials.bytes_per_token).loss, step


def time_trivium(options: argparse.Namespace, folder: Path, *, width: int, seconds: float, mark: float) -> str:
    """trivium's decoder recipe laid over so many seconds: what it reached, and when it passed the mark."""
    recipe = plan(options, folder / f"run-{width}", width, seconds)
    result = pretrain(recipe, quiet=True)
    spent, reached = 0.0, None
    for entry in read_metrics(recipe.run):
        spent += entry.get("seconds", 0.0)
        valid: dict[str, Any] = entry.get("valid", {})
        if reached is None and valid and valid["loss"] <= mark:
            reached = spent
    text = "not reached" if reached is None else f"reached after {reached:.0f} s"
    return (
        f"trivium, width {width}, {result.parameters:,} parameters, {seconds:.0f} s "
        f"({seconds / options.seconds:.2f} of the peer's time): held-out {result.loss_after:.3f} after {result.steps} "
        f"steps; the mark of {mark:.3f} {text}"
    )


def plan(options: argparse.Namespace, run: Path, width: int, seconds: float) -> Recipe:
    """trivium's recipe, evaluated forty times on the way; the prepared text is shared."""
    marks = [round(index / 40, 3) for index in range(1, 40)]
    return load_recipe(
        None,
        [
            f"run={run}",
            f"data.prepared={options.data or run.parent / 'data'}",
            f"size.width={width}",
            f"budget.minutes={seconds / 60}",
            f"save.evaluate_at={marks}",
            "save.every_steps=0",
        ],
    )


def main() -> None:
    """Tune the peer, run trivium, print both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=360.0)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--free-width", type=int, default=128)
    parser.add_argument("--rates", type=float, nargs="*", default=[7e-4, 1e-3, 1.5e-3, 2e-3])
    parser.add_argument("--data", default="")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    materials = gather_materials(plan(options, folder / "peer", options.width, options.seconds))
    machine = inspect_machine()
    print(f"{machine.machine_class}, {machine.cores} cores, {machine.float32_gflops} GFLOP/s float32", flush=True)
    marks = []
    for rate in options.rates:
        loss, steps = train_peer(materials, rate=rate, seconds=options.seconds, width=options.width)
        marks.append(loss)
        print(f"nanoGPT recipe, width {options.width}, rate {rate:g}: held-out {loss:.3f}, {steps} steps", flush=True)
    for width, share in ((options.width, 3), (options.free_width, 5)):
        seconds = options.seconds / share
        print(time_trivium(options, folder, width=width, seconds=seconds, mark=min(marks)), flush=True)


if __name__ == "__main__":
    main()
