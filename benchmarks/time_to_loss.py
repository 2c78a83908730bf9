"""How long trivium takes to the held-out loss that a rate-tuned nanoGPT-style recipe reaches in a given time.

Both read the same batches of the same prepared text (Python's documentation) and are scored on the same held-out
rows. The peer is the GPT-2 shape with AdamW, cosine decay and warm-up, trained for `--seconds` at each of several
rates; its best result is the mark. trivium runs its decoder recipe over the same time, and the first evaluation at or
below the mark counts; evaluation time is not counted for either. Prints every trial.

    python benchmarks/time_to_loss.py [--seconds 360] [--width 128] [--rates 5e-4 1e-3 2e-3 4e-3]
"""

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from trivium.evaluation.likelihood import evaluate_loss
from trivium.machine import inspect_machine
from trivium.model import ModelConfig, build_model
from trivium.training.loop import Materials, batch_loss
from trivium.training.monitor import read_metrics
from trivium.training.pretraining import gather_materials, pretrain
from trivium.training.recipe import LossConfig, load_recipe


def train_peer(materials: Materials, *, rate: float, seconds: float, width: int) -> tuple[float, int]:
    """The nanoGPT recipe for so many seconds; held-out loss and steps."""
    config = ModelConfig(
        family="decoder",
        vocab_size=materials.tokenizer.vocab_size,
        hidden_size=width,
        num_layers=max(2, round(width / 43)),
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


def main() -> None:
    """Tune the peer, run trivium, print both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=360.0)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rates", type=float, nargs="*", default=[5e-4, 1e-3, 2e-3, 4e-3])
    parser.add_argument("--data", default="")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    marks = [round(index / 40, 3) for index in range(1, 40)]
    recipe = load_recipe(
        None,
        [
            f"run={folder / 'run'}",
            f"data.prepared={arguments.data or folder / 'data'}",
            f"size.width={arguments.width}",
            f"budget.minutes={arguments.seconds / 60}",
            f"save.evaluate_at={marks}",
            "save.every_steps=0",
        ],
    )
    materials = gather_materials(recipe)
    machine = inspect_machine()
    print(f"{machine.machine_class}, {machine.cores} cores, {machine.float32_gflops} GFLOP/s float32")
    trials: dict[float, tuple[float, int]] = {}
    for rate in arguments.rates:
        trials[rate] = train_peer(materials, rate=rate, seconds=arguments.seconds, width=arguments.width)
        print(
            f"nanoGPT recipe, rate {rate:g}: held-out {trials[rate][0]:.3f} after {trials[rate][1]} steps", flush=True
        )
    mark = min(loss for loss, _ in trials.values())
    result = pretrain(recipe, quiet=True)
    seconds, reached = 0.0, None
    for entry in read_metrics(recipe.run):
        seconds += entry.get("seconds", 0.0)
        valid: dict[str, Any] = entry.get("valid", {})
        if reached is None and valid and valid["loss"] <= mark:
            reached = seconds
    print(f"trivium, {result.parameters:,} parameters: held-out {result.loss_after:.3f} after {result.steps} steps")
    text = "never" if reached is None else f"{reached:.1f} s, {reached / arguments.seconds:.3f} of the peer's time"
    print(f"trivium reached the peer's best, {mark:.3f}, after {text}")
    print(json.dumps({"mark": mark, "seconds": arguments.seconds, "reached_seconds": reached}))


if __name__ == "__main__":
    main()
