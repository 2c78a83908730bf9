"""Opening a model folder: trivium beside transformers, each in fresh processes, from the same files, in turn.

The models have random weights, saved by transformers: a Llama of 135 M (SmolLM2's shape) in float32 and in bfloat16,
a GPT-2 of 124 M. Three figures, each from processes that do nothing else:

- load: seconds of the call that opens the model, imports done before, files in the page cache; and until every page
  of every weight has been read once, since a mapped file costs its time then.
- peak: the most memory that process ever had (VmHWM: pages of mapped files count) after that reading, less what it
  had before the call, over the bytes of the weights in the wanted type.
- first token: seconds of a whole process from its start: import, open model and tokenizer, encode a prompt, one
  token. transformers does it with a plain forward pass, which is quicker than its generate.

Both sides must give the same tokens. Prints one table.

    python benchmarks/loading.py [--rounds 5] [--only NAME …] [--folder DIR] [--record]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from table import in_rounds, make_parser, show_rows

PROMPT = "The library opens at nine and closes"
SIDES = ("trivium", "transformers")


@dataclass(frozen=True)
class Work:
    """One row: the folder, the type that both sides are asked for, its bytes, and whether whole processes count."""

    model: str
    dtype: str = "float32"
    bytes: int = 4
    first_token: bool = False


WORKS = {
    "Llama 135 M float32": Work("llama-float32"),
    "Llama 135 M bfloat16, as stored": Work("llama-bfloat16", "bfloat16", 2),
    "Llama 135 M bfloat16, to float32": Work("llama-bfloat16"),
    "GPT-2 124 M float32": Work("gpt2-float32"),
    "first token, Llama 135 M float32": Work("llama-float32", first_token=True),
    "first token, Llama 135 M bfloat16, to float32": Work("llama-bfloat16", first_token=True),
    "first token, GPT-2 124 M float32": Work("gpt2-float32", first_token=True),
}


def build(root: Path) -> None:
    """Write the three folders, unless they are there."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    from pipelines import make_tokenizer

    llama = LlamaConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rope_theta=100_000.0,
        tie_word_embeddings=True,
    )
    for name, make in (
        ("llama-float32", lambda: LlamaForCausalLM(llama)),
        ("llama-bfloat16", lambda: LlamaForCausalLM(llama).to(torch.bfloat16)),
        ("gpt2-float32", lambda: GPT2LMHeadModel(GPT2Config())),
    ):
        if not (root / name / "tokenizer_config.json").exists():
            torch.manual_seed(0)
            make().save_pretrained(root / name)
            make_tokenizer(root / name, 49_000, "")


def memory(name: str) -> int:
    """A figure of this process in bytes: VmRSS (now) or VmHWM (the most ever)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def read_all(model: Any) -> int:
    """Touch every page of every weight; the number of weights."""
    import torch

    weights = {weight.data_ptr(): weight.detach() for weight in model.parameters()}
    for weight in weights.values():
        memory = weight.untyped_storage()  # of which a weight may be a view
        torch.empty(0, dtype=torch.uint8).set_(memory)[::4096].sum()
    return sum(weight.numel() for weight in weights.values())


def load_here(side: str, work: Work, folder: Path) -> dict[str, Any]:
    """Open a model in this process: seconds to load, and to have read it too, and peak over the weights."""
    import torch

    dtype = getattr(torch, work.dtype)
    if side == "trivium":
        from trivium.hub.auto import load_model as opener
    elif work.model.startswith("llama"):
        from transformers import LlamaForCausalLM

        opener = LlamaForCausalLM.from_pretrained
    else:
        from transformers import GPT2LMHeadModel

        opener = GPT2LMHeadModel.from_pretrained
    before, start = memory("VmRSS"), time.perf_counter()
    model = opener(folder, dtype=dtype)
    loaded = time.perf_counter() - start
    count = read_all(model)
    return {
        "load": loaded,
        "read": time.perf_counter() - start,
        "peak": (memory("VmHWM") - before) / (count * work.bytes),
        "result": count,
    }


def write_here(side: str, work: Work, folder: Path) -> dict[str, Any]:
    """One token after the prompt."""
    if side == "trivium":
        import trivium

        model, tokenizer = trivium.load(folder)
        config = trivium.SamplingConfig(max_new_tokens=1)
        token = trivium.generate(model, [tokenizer.encode(PROMPT)], config)[0].ids[0]
    else:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokens = AutoTokenizer.from_pretrained(folder)
        network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.inference_mode():
            scores = network(**tokens(PROMPT, return_tensors="pt", return_token_type_ids=False)).logits
        token = int(scores[0, -1].argmax())
    return {"result": token}


def run(side: str, name: str, root: Path) -> dict[str, Any]:
    """What a process of its own found, and how long it took from start to end."""
    start = time.perf_counter()
    command = [sys.executable, __file__, "--folder", str(root), "--worker", side, name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{side}, {name}:\n{done.stderr}")
    return {**json.loads(done.stdout.splitlines()[-1]), "whole": seconds}


def compare(name: str, rounds: int, root: Path) -> list[str]:
    """The row's cells: ours, theirs, ratio with each round, peaks."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    run(SIDES[0], name, root), run(SIDES[1], name, root)  # files and libraries into the page cache
    for _ in range(rounds):
        for side in SIDES:
            found[side].append(run(side, name, root))
    results = {each["result"] for runs in found.values() for each in runs}
    if len(results) > 1:
        raise SystemExit(f"{name}: the sides differ: {results}")
    lines = []
    for key, label in (("whole", ""),) if WORKS[name].first_token else (("load", ""), ("read", ", and read once")):
        ours, theirs = ([each[key] for each in found[side]] for side in SIDES)
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        peaks = "– | –"
        if "peak" in found["trivium"][0]:
            peaks = " | ".join(f"{statistics.median(e['peak'] for e in found[s]):.2f}" for s in SIDES)
        lines.append(
            f"{name}{label} | {statistics.median(ours):.2f} s | {statistics.median(theirs):.2f} s "
            f"| {in_rounds(ratios)} | {peaks}"
        )
    return lines


def main() -> None:
    """Measure each row and print the table."""
    parser = make_parser(__doc__, WORKS)
    parser.add_argument("--folder", type=Path, help="where the models are kept; by default a temporary folder")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        side, name = options.worker
        work = WORKS[name]
        print(json.dumps((write_here if work.first_token else load_here)(side, work, options.folder / work.model)))
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as temporary:
        root = options.folder or Path(temporary)
        build(root)
        report([line for name in options.only for line in compare(name, options.rounds, root)], options.record)


def report(rows: list[str], record: bool) -> None:
    """Print the table, and append its rows where results are kept."""
    import safetensors
    import torch
    import transformers

    from trivium.machine import inspect_machine

    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{versions}, safetensors {safetensors.__version__}; load average {os.getloadavg()[0]:.1f}")
    columns = "work | trivium | transformers | ratio, median (each round) | peak ÷ weights | theirs"
    show_rows(columns, rows, machine_class=inspect_machine().machine_class, record=record)


if __name__ == "__main__":
    main()
