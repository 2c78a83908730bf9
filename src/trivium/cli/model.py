"""Verbs for a model that exists, or a size that might: plan, generate, convert, run, evaluate."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from trivium.cli.output import Json, print_values

app = typer.Typer()


@app.command("plan")
def plan_command(
    name: Annotated[str, typer.Argument(help="A published size such as gpt3-175b, or a model folder.")],
    seq_len: Annotated[int, typer.Option(help="Tokens in a sequence; 0: the longest that the model has.")] = 0,
    as_json: Json = False,
) -> None:
    """Show the parameters, operations per token and memory of a size, without building it."""
    from dataclasses import asdict

    from trivium.hub.starters import PREFIX
    from trivium.model.sizes import plan_model

    model: Any = name
    if Path(name).is_dir() or name.startswith(PREFIX):
        from trivium.hub.auto import load_model_config

        model = load_model_config(name)
    plan = plan_model(model, seq_len=seq_len)
    if as_json:
        print_values({**asdict(plan), "training_bytes": plan.training_bytes}, as_json)
        return
    giga = {"weights": plan.weight_bytes, "gradients": plan.gradient_bytes, "AdamW": plan.optimizer_bytes}
    memory = ", ".join(f"{part} {size / 2**30:,.1f}" for part, size in giga.items())
    shown = {
        "parameters": f"{plan.parameters:,}",
        "FLOPs per token": f"{plan.forward_flops_per_token:.3g} forward, {plan.training_flops_per_token:.3g} in "
        f"training (at {plan.seq_len} tokens)",
        "weights": f"{plan.weight_bytes / 2**30:,.1f} GiB in float32, {plan.weight_bytes / 2**31:,.1f} in bfloat16",
        "training": f"{plan.training_bytes / 2**30:,.1f} GiB without activations ({memory})",
    }
    print_values(shown, as_json)


@app.command("generate")
def generate_command(
    folder: Annotated[str, typer.Argument(help="A model folder or hub name.")],
    prompt: Annotated[str, typer.Argument(help="Text to continue, to rewrite, or with [MASK] to fill.")],
    greedy: Annotated[bool, typer.Option("--greedy", help="Always take the likeliest token.")] = False,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 64,
    temperature: Annotated[float, typer.Option(help="Below 1: safer.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Choose among the k likeliest; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Choose among the likeliest that hold this share.")] = 0.95,
    num_beams: Annotated[int, typer.Option(help="Beam search with so many beams.")] = 1,
    seed: Annotated[int, typer.Option(help="Equal seeds write equal texts.")] = 0,
    as_json: Json = False,
) -> None:
    """Write with a decoder, rewrite with an encoder-decoder, or fill an encoder's masks."""
    from trivium.generation.fill import fill_mask
    from trivium.generation.settings import SamplingConfig
    from trivium.generation.text import generate_text, stream_text
    from trivium.hub.auto import load

    plain = greedy or num_beams > 1
    config = SamplingConfig(
        max_new_tokens=max_new_tokens,
        do_sample=not plain,
        temperature=1.0 if plain else temperature,
        top_k=0 if plain else top_k,
        top_p=1.0 if plain else top_p,
        num_beams=num_beams,
        seed=seed,
    )
    model, tokenizer = load(folder)
    if model.config.family == "encoder":
        found = fill_mask(model, tokenizer, prompt, top_k=top_k or 5)
        rows = [[{"token": each.token_text, "probability": each.probability} for each in gap] for gap in found]
        if as_json:
            print_values({"fills": rows}, as_json)
        for number, gap in enumerate([] if as_json else rows, start=1):
            print(f"gap {number}: " + "  ".join(f"{each['token']!r} {each['probability']:.1%}" for each in gap))
    elif as_json:
        (answer,) = generate_text(model, tokenizer, [prompt], config)
        print_values({"prompt": prompt, "text": answer}, as_json)
    elif num_beams > 1:
        print(generate_text(model, tokenizer, [prompt], config)[0])
    else:
        for piece in stream_text(model, tokenizer, prompt, config):
            print(piece, end="", flush=True)
        print()


@app.command("convert")
def convert_command(
    source: Annotated[Path, typer.Argument(help="A folder with pytorch_model.bin, a GGUF file, or any model folder.")],
    out: Annotated[Path, typer.Option(help="Folder to write, or a file that ends in .gguf.")],
    storage: Annotated[str, typer.Option(help="In GGUF: float32, float16, bfloat16 or q8_0.")] = "float16",
    adapter: Annotated[str | None, typer.Option(help="A LoRA folder of PEFT's kind, to be merged into SOURCE.")] = None,
) -> None:
    """Turn pickled weights or GGUF into a safetensors folder, a folder into GGUF for llama.cpp; or merge an adapter."""
    from trivium.hub.auto import load, load_model
    from trivium.hub.gguf import export_gguf, import_gguf, load_gguf
    from trivium.hub.pickled import convert_pickle

    if adapter is not None:
        from trivium.hub.adapter import merge_folder

        difference = merge_folder(str(source), adapter, out)
        print(f"merged in {out}; largest difference of scores {difference:.1e} of the largest score")
        return
    if out.suffix == ".gguf":
        opened = load_gguf(source) if source.suffix == ".gguf" else load(source)
        export_gguf(*opened, out, storage=storage)
        print(f"{storage} in {out}")
        return
    (import_gguf if source.suffix == ".gguf" else convert_pickle)(source, out)
    print(f"{load_model(out, dtype='stored').config.family} in {out}")


@app.command("run")
def run_command(
    task: Annotated[str, typer.Argument(help="summarization, translation_en_to_zh, text-classification, …")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL] [NAME=VALUE]...", help="A model (without, a starter); then num_beams=4 …"),
    ] = None,
    lines: Annotated[bool, typer.Option("--lines", help="Each line is an input; one result a line.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each result as one line of JSON.")] = False,
) -> None:
    """Do a task with the text on standard input: trivium run TASK [MODEL] < file."""
    from trivium.pipelines.command import decode_input, read_options, run_task, show_result, take_model

    text = decode_input(sys.stdin.buffer.read())
    model, options = take_model(words or [])
    for result in run_task(task, model, text, lines=lines, options=read_options(options)):
        print(show_result(result, as_json=as_json, lines=lines), flush=True)
