"""Training throughput and memory of one 14 M decoder: trivium beside transformers and a lean nanoGPT-style loop.

Every contender is a process of its own that waits for orders, so that peak memory is its own and rounds alternate
A B C A B C. Same shape (GPT-2: 6 layers, 384 wide, vocabulary 8192), same random tokens, 16 rows of 256, AdamW,
clipping. Prints tokens/s (median), the ratio to each peer round by round, and peak memory.

    python benchmarks/training.py [--rounds 5] [--steps 2] [--only NAME …]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

LAYERS, WIDTH, HEADS, VOCABULARY, ROWS, SEQ = 6, 384, 6, 8192, 16, 256
NAMES = {
    "trivium, dropout 0.1": ("trivium", 0.1, "float32", False),
    "trivium": ("trivium", 0.0, "float32", False),
    "trivium, compiled": ("trivium", 0.0, "float32", True),
    "transformers, default (dropout 0.1)": ("transformers", 0.1, "float32", False),
    "transformers, dropout 0": ("transformers", 0.0, "float32", False),
    "transformers, dropout 0, compiled": ("transformers", 0.0, "float32", True),
    "lean loop": ("lean", 0.0, "float32", False),
    "lean loop, compiled": ("lean", 0.0, "float32", True),
}
BFLOAT16 = {
    "trivium, bfloat16": ("trivium", 0.0, "bfloat16", False),
    "transformers, bfloat16": ("transformers", 0.0, "bfloat16", False),
    "transformers, bfloat16, compiled": ("transformers", 0.0, "bfloat16", True),
    "lean loop, bfloat16, compiled": ("lean", 0.0, "bfloat16", True),
}


def make_transformers(dropout: float, compiled: bool) -> tuple[Any, Callable[[Any, Any], Any], Any]:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=SEQ,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        use_cache=False,
    )
    model = GPT2LMHeadModel(config).train()
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    return model, lambda ids, targets: forward(input_ids=ids, labels=ids).loss, [optimizer]


def make_lean(dropout: float, compiled: bool) -> tuple[Any, Callable[[Any, Any], Any], Any]:
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.n1, self.n2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x: Any) -> Any:
            q, k, v = self.qkv(self.n1(x)).view(*x.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
            x = x + self.out(mixed)
            return x + self.down(F.gelu(self.up(self.n2(x)), approximate="tanh"))

    class Lean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(SEQ, WIDTH)
            self.layers, self.norm = nn.ModuleList(Layer() for _ in range(LAYERS)), nn.LayerNorm(WIDTH)

        def forward(self, ids: Any, targets: Any) -> Any:
            x = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
            for layer in self.layers:
                x = layer(x)
            logits = F.linear(self.norm(x), self.tokens.weight)
            return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    model = Lean()
    forward = torch.compile(model) if compiled else model
    return model, forward, [torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)]


def make_trivium(dropout: float, compiled: bool) -> tuple[Any, Callable[[Any, Any], Any], Any]:
    import torch

    from trivium.data.batch import Batch
    from trivium.machine import keep_freed_memory
    from trivium.model import ModelConfig, Side, build_model
    from trivium.training.loop import batch_loss
    from trivium.training.optim import OptimizerConfig, build_optimizers
    from trivium.training.recipe import LossConfig

    keep_freed_memory()
    config = ModelConfig(
        family="decoder",
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_layers=LAYERS,
        num_heads=HEADS,
        ffn_size=4 * WIDTH,
        position="learned",
        max_positions=SEQ,
        norm="layer",
        activation="gelu_tanh",
        gated_ffn=False,
        qkv_bias=True,
        bias=True,
        dropout=dropout,
    )
    model = build_model(config).train()
    if compiled:
        assert model.decoder is not None
        for block in model.decoder.layers:
            block.compile()
    weights, options = torch.ones(ROWS, SEQ), LossConfig()

    def loss(ids: Any, targets: Any) -> Any:
        side = Side(ids, torch.arange(SEQ).expand(ROWS, SEQ), torch.ones_like(ids))
        return batch_loss(model, Batch(side, None, targets, weights), options, ROWS * SEQ)

    return model, loss, build_optimizers(model, OptimizerConfig(rate=1e-4))


def serve(kind: str, dropout: float, dtype: str, compiled: bool) -> None:
    """Build one contender, then answer each line (a number of steps) with seconds, loss and peak memory."""
    import contextlib
    import resource

    import torch

    from trivium.machine import set_threads

    set_threads()
    torch.manual_seed(0)
    make = {"transformers": make_transformers, "lean": make_lean, "trivium": make_trivium}[kind]
    model, compute, optimizers = make(dropout, compiled)
    data = torch.randint(VOCABULARY, (8, ROWS, SEQ + 1), generator=torch.Generator().manual_seed(1))
    taken = 0
    print(json.dumps({"parameters": sum(parameter.numel() for parameter in model.parameters())}), flush=True)
    for line in sys.stdin:
        started, loss = time.perf_counter(), None
        for _ in range(int(line)):
            ids = data[taken % 8]
            mixed = torch.autocast("cpu", torch.bfloat16) if dtype == "bfloat16" else contextlib.nullcontext()
            with mixed:
                loss = compute(ids[:, :-1], ids[:, 1:])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
            model.zero_grad(set_to_none=True)
            taken += 1
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "loss": float(loss.detach()), "peak_mb": peak}), flush=True)


class Contender:
    """A child process that trains on demand."""

    def __init__(self, settings: tuple[str, float, str, bool]) -> None:
        command = [sys.executable, __file__, "--serve", json.dumps(settings)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.parameters = self._read()["parameters"]

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a contender ended early")
        return dict(json.loads(line))

    def train(self, steps: int) -> dict[str, Any]:
        """Take so many steps; seconds, loss and peak memory in MB."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return self._read()


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--serve")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(*json.loads(arguments.serve))
        return
    from trivium.machine import inspect_machine

    machine = inspect_machine()
    names = {**NAMES, **(BFLOAT16 if machine.compute_dtype == "bfloat16" else {})}
    if arguments.only:
        names = {name: names[name] for name in arguments.only}
    contenders = {name: Contender(settings) for name, settings in names.items()}
    print(f"{machine.machine_class}, {machine.cores} cores, {machine.float32_gflops} GFLOP/s float32, ", end="")
    print(f"{machine.bfloat16_gflops} bfloat16 (bfloat16 contenders {'in' if len(names) > 8 else 'left out'})")
    for contender in contenders.values():
        contender.train(2)  # warm up, compile
    seconds: dict[str, list[float]] = {name: [] for name in names}
    last: dict[str, dict[str, Any]] = {}
    for _ in range(arguments.rounds):
        for name, contender in contenders.items():
            last[name] = contender.train(arguments.steps)
            seconds[name].append(last[name]["seconds"])
    tokens = arguments.steps * ROWS * SEQ
    print(f"{'':<36} {'tokens/s':>9} {'peak MB':>8} {'loss':>7}  trivium ÷ this, round by round")
    for name in names:
        best = "trivium, dropout 0.1" if "0.1" in name else "trivium"
        ratios = " ".join(f"{a / b:.2f}" for a, b in zip(seconds[name], seconds.get(best, seconds[name]), strict=True))
        speed = tokens / statistics.median(seconds[name])
        print(f"{name:<36} {speed:>9,.0f} {last[name]['peak_mb']:>8,.0f} {last[name]['loss']:>7.3f}  {ratios}")


if __name__ == "__main__":
    main()
