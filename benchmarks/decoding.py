"""Decoding speed of a 124 M GPT-2 shape: trivium beside transformers' generate, equal weights, float32, greedy.

transformers takes the best of its settings in a trial on this machine (attention form, static cache, compiled,
compiled and frozen); trivium has no settings. Then both write in turn, A B A B. Their tokens are compared first.
Prints tokens/s (median), the ratio round by round, and what the machine could do in the same run.

    python benchmarks/decoding.py [--rounds 5] [--batches 1 8] [--new-tokens 128] [--no-compile] [--record]
"""

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

from table import in_rounds, make_parser, show_rows

PROMPT, TRIAL_TOKENS = 32, 16
Write = Callable[[int], list[list[int]]]


def read_rate() -> float:
    """GB/s at which all threads read 500 MB, the best of five."""
    import torch

    numbers, best = torch.ones(125_000_000), 0.0
    for _ in range(5):
        start = time.perf_counter()
        numbers.sum()
        best = max(best, numbers.numel() * 4 / (time.perf_counter() - start) / 1e9)
    return best


def make_prompts(rows: int) -> Any:
    """Random prompts `(rows, PROMPT)` that are the same every time."""
    import torch

    return torch.randint(0, 50_000, (rows, PROMPT), generator=torch.Generator().manual_seed(0))


def make_theirs(model: Any, rows: int, **options: Any) -> Write:
    """transformers' generate under some options, as a function from a number of tokens to new ids."""
    import torch

    ids = make_prompts(rows)

    def write(new_tokens: int) -> list[list[int]]:
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            **options,
        )
        return list(found[:, PROMPT:].tolist())

    return write


def make_ours(model: Any, rows: int) -> Write:
    """trivium's generate; preparing the weights is part of every call."""
    from trivium.generation import SamplingConfig, generate

    prompts = make_prompts(rows).tolist()
    return lambda new_tokens: [row.ids for row in generate(model, prompts, SamplingConfig(max_new_tokens=new_tokens))]


def contenders(model: Any, rows: int, *, compiled: bool) -> dict[str, Callable[[], Write]]:
    """The settings of transformers that are tried, each made when its turn comes."""
    import torch
    import torch._inductor.config as inductor

    def attention(name: str, **options: Any) -> Callable[[], Write]:
        def make() -> Write:
            model.set_attn_implementation(name)
            return make_theirs(model, rows, **options)

        return make

    def compile_forward(frozen: bool) -> Callable[[], Write]:
        def make() -> Write:
            torch.compiler.reset()
            model.set_attn_implementation("sdpa")
            inductor.freezing = frozen
            eager = type(model).forward.__get__(model)
            model.forward = torch.compile(eager)
            inner = make_theirs(model, rows, cache_implementation="static")

            def write(new_tokens: int) -> list[list[int]]:
                with torch.no_grad():
                    return inner(new_tokens)

            return write

        return make

    settings = {
        "default (sdpa)": attention("sdpa"),
        "eager attention": attention("eager"),
        "sdpa, static cache": attention("sdpa", cache_implementation="static", disable_compile=True),
    }
    if compiled:
        settings["compiled, static cache"] = compile_forward(frozen=False)
        settings["compiled and frozen, static cache"] = compile_forward(frozen=True)
    return settings


def best_of_theirs(model: Any, rows: int, *, compiled: bool) -> tuple[str, Write]:
    """Try every setting on a few tokens, print what each reached, and make the best one again."""
    speeds: dict[str, float] = {}
    settings = contenders(model, rows, compiled=compiled)
    for name, make in settings.items():
        try:
            write = make()
            start = time.perf_counter()
            write(TRIAL_TOKENS)
            first = time.perf_counter() - start
            seconds = min(_timed(write, TRIAL_TOKENS) for _ in range(3))
        except Exception as error:  # a setting that this machine cannot run is no contender
            print(f"  transformers, {name}: fails ({type(error).__name__})")
            continue
        finally:
            model.__dict__.pop("forward", None)
        speeds[name] = rows * TRIAL_TOKENS / seconds
        print(f"  transformers, {name}: {speeds[name]:.1f} tokens/s in the trial, {first:.0f} s for the first call")
    best = max(speeds, key=lambda name: speeds[name])
    write = settings[best]()
    write(TRIAL_TOKENS)
    return best, write


def _timed(write: Write, new_tokens: int) -> float:
    start = time.perf_counter()
    write(new_tokens)
    return time.perf_counter() - start


def first_difference(ours: list[list[int]], theirs: list[list[int]]) -> str:
    """How far the two agree, in words."""
    if ours == theirs:
        return "same tokens"
    equal = [sum(1 for a, b in zip(x, y, strict=True) if a == b) for x, y in zip(ours, theirs, strict=True)]
    return f"equal tokens per row {equal} of {len(ours[0])}"


def compare(rows: int, options: argparse.Namespace) -> tuple[float, float, list[float], str]:
    """Medians of tokens/s (ours, theirs), the ratio of each round, and the setting that theirs ran with."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from trivium.hub.auto import assemble

    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(GPT2Config()).eval()
    # Deeper weights than the initial ones: else every text is one token repeated, and equal tokens prove nothing.
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if parameter.dim() == 2 and ".h." in name:
                parameter.mul_(4)
    ours = make_ours(assemble(theirs.config.to_dict(), theirs.state_dict()), rows)
    setting, peer = best_of_theirs(theirs, rows, compiled=options.compile)
    print(f"  batch {rows}: {first_difference(ours(options.new_tokens), peer(options.new_tokens))}")
    speeds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(options.rounds):
        for name, write in (("ours", ours), ("theirs", peer)):
            speeds[name].append(rows * options.new_tokens / _timed(write, options.new_tokens))
    ratios = [a / b for a, b in zip(speeds["ours"], speeds["theirs"], strict=True)]
    return statistics.median(speeds["ours"]), statistics.median(speeds["theirs"]), ratios, setting


def main() -> None:
    """Measure each batch size and print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    import torch
    import transformers

    from trivium.machine import inspect_machine

    machine, lines = inspect_machine(), []
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    limits = f"{machine.float32_gflops:.0f} GFLOP/s, {read_rate():.0f} GB/s"
    print(f"{machine.machine_class}, {torch.get_num_threads()} threads, {limits}; {versions}")
    print(f"load average {os.getloadavg()[0]:.1f} (others' work disturbs: only ratios count)")
    for rows in options.batches:
        ours, theirs, ratios, setting = compare(rows, options)
        lines.append(
            f"{limits} | decode 124 M float32, batch {rows} | {ours:.1f} "
            f"| transformers, {setting}: {theirs:.1f} | {in_rounds(ratios)}"
        )
    columns = "limits | work | tokens/s | peer | ratio, median (each round)"
    show_rows(columns, lines, machine_class=machine.machine_class, record=options.record)


if __name__ == "__main__":
    main()
