"""Verbs that train, and the one that looks at the machine first: pretrain, demo, doctor."""

from pathlib import Path
from typing import Annotated

import typer

from trivium.cli.output import Json, finite, open_tokenizer, print_values, refuse_file, say

app = typer.Typer()


@app.command("pretrain")
def pretrain_command(
    recipe: Annotated[str, typer.Argument(help="A YAML recipe.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.sub=value …")] = None,
    minutes: Annotated[float | None, typer.Option(help="Budget of training time, instead of the recipe's.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Forget the run and start over.")] = False,
    as_json: Json = False,
) -> None:
    """Train a model from nothing; the same command resumes."""
    from dataclasses import asdict

    from trivium.data.files import list_files
    from trivium.training.pretraining import pretrain
    from trivium.training.recipe import load_recipe

    budget = [] if minutes is None else [f"budget={{minutes: {finite(minutes)}}}"]
    loaded = load_recipe(recipe, [*budget, *(overrides or [])])
    refuse_file(Path(loaded.run))
    open_tokenizer(loaded.data.tokenizer.folder)
    if loaded.data.source != "python":
        list_files(Path(loaded.data.source))
    result = pretrain(loaded, restart=restart, progress=say)
    print_values({**asdict(result), "report": str(Path(loaded.run) / "report.html")}, as_json)


@app.command("finetune")
def finetune_command(
    task: Annotated[str, typer.Argument(help="summarization, text-classification, chat, …")],
    model: Annotated[str, typer.Argument(help="A hub name or a model folder.")],
    data: Annotated[str, typer.Argument(help="A table (jsonl, csv, parquet) or a folder with train.* and valid.*.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.sub=value …, as in a recipe.")] = None,
    recipe: Annotated[str, typer.Option(help="A YAML recipe to begin from.")] = "",
    run: Annotated[str, typer.Option(help="The run folder.")] = "",
    columns: Annotated[list[str] | None, typer.Option("--map", help="source=article: which column is which.")] = None,
    on_long: Annotated[str, typer.Option(help="refuse, truncate, drop or split rows that are too long.")] = "",
    epochs: Annotated[float | None, typer.Option(help="How often the data are read.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Training time, instead of epochs.")] = None,
    lora: Annotated[int, typer.Option(help="Rank of an adapter to train instead of all weights.")] = 0,
    restart: Annotated[bool, typer.Option("--restart", help="Forget the run and start over.")] = False,
    as_json: Json = False,
) -> None:
    """Adapt a model to a task; the same command resumes."""
    from dataclasses import asdict, replace

    from trivium.config import load_config
    from trivium.data.forms import read_mapping
    from trivium.training.finetuning import finetune
    from trivium.training.tuning import TuneRecipe

    given: list[str] = []
    given += [f"run={run}"] if run else [f"run=runs/{task}"] if not recipe else []
    given += [f"on_long={on_long}"] if on_long else []
    given += [f"budget={{epochs: {finite(epochs, '--epochs')}}}"] if epochs is not None else []
    given += [f"budget={{minutes: {finite(minutes)}}}"] if minutes is not None else []
    given += [f"lora.rank={lora}"] if lora else []
    loaded = load_config(TuneRecipe, recipe or None, [*given, *(overrides or [])])
    if columns:
        loaded = replace(loaded, columns=read_mapping(",".join(columns)))
    refuse_file(Path(loaded.run))
    result = finetune(model, task, data, recipe=loaded, restart=restart, progress=say)
    print_values({**asdict(result), "report": str(Path(loaded.run) / "report.html")}, as_json)


@app.command("doctor")
def doctor_command(as_json: Json = False) -> None:
    """Show what this machine is, what is missing, and what to do."""
    import platform
    from dataclasses import asdict
    from importlib.metadata import version

    from trivium import __version__
    from trivium.machine import describe_problems, inspect_machine

    machine, problems = inspect_machine(), describe_problems()
    versions = {"python": platform.python_version(), "torch": version("torch"), "trivium": __version__}
    if as_json:
        rows = [{"problem": problem, "remedy": remedy} for problem, remedy in problems]
        print_values({**asdict(machine), **versions, "problems": rows}, as_json)
        return
    rates = f"float32 {machine.float32_gflops} GFLOP/s, bfloat16 {machine.bfloat16_gflops}"
    shown = {
        "processor": f"{machine.processor} ({machine.machine_class})",
        "cores": machine.cores,
        "memory": f"{machine.memory_bytes / 2**30:.1f} GiB",
        "device": machine.device,
        "computes in": f"{machine.compute_dtype} (measured: {rates})",
        "C++ compiler": machine.compiler or "none",
        **versions,
    }
    print_values({**shown, "missing": "nothing" if not problems else f"{len(problems)}, see below"}, as_json)
    for problem, remedy in problems:
        print(f"\n{problem}\n    {remedy}")


@app.command("demo")
def demo_command(
    minutes: Annotated[float, typer.Option(help="Training time of all three models together.")] = 6.0,
    text: Annotated[str, typer.Option(help="Your own file or folder instead of Python's documentation.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for everything that is written.")] = Path("runs/demo"),
    restart: Annotated[bool, typer.Option("--restart", help="Forget an earlier demo in that folder.")] = False,
) -> None:
    """Train a writer, a reader and a rewriter on real text, and see what they do."""
    from trivium.demo import run_demo

    refuse_file(out)
    run_demo(text or None, minutes=finite(minutes), out=out, restart=restart)
