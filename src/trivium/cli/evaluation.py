"""`trivium evaluate`: models and baselines on a task side by side, or the loss of a model on text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from trivium.cli.output import Json, print_values, say
from trivium.folder import to_json

app = typer.Typer()
MANY = "Repeat it for several."


@app.command("evaluate")
def evaluate_command(
    what: Annotated[str, typer.Argument(help="A task, such as summarization; or `loss`; or a model folder.")],
    data: Annotated[Path, typer.Argument(help="Rows: a file, or a folder with train.* and test.*. For loss: text.")],
    model: Annotated[list[str] | None, typer.Option(help=f"A model folder or hub name. {MANY}")] = None,
    baseline: Annotated[
        list[str] | None, typer.Option(help=f"lead, lead-cut, textrank, nearest, majority, logistic, mean; all. {MANY}")
    ] = None,
    part: Annotated[str, typer.Option(help="The part of a folder to evaluate on.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows, so many.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of comparison.json and .html; else runs/evaluation.")] = None,
    columns: Annotated[list[str] | None, typer.Option("--map", help="source=article: which column is which.")] = None,
    on_long: Annotated[
        str, typer.Option(help="refuse, truncate, drop or (labels, tags) split rows that are too long.")
    ] = "refuse",
    source_tokens: Annotated[int, typer.Option(help="Tokens of input (0: what the model reads, up to 512).")] = 0,
    target_tokens: Annotated[int, typer.Option(help="Tokens of target, as in fine-tuning.")] = 128,
    as_json: Json = False,
) -> None:
    """Compare models and baselines: evaluate TASK DATA --model A --baseline lead; or the loss: evaluate MODEL FILE."""
    from trivium.tasks.task import TASKS

    if what == "loss" or (what not in TASKS and not model and not baseline):
        _print_loss([what] if what != "loss" else model or [], data, as_json)
        return
    from trivium.cli.output import refuse_file
    from trivium.data.forms import read_mapping
    from trivium.evaluation.systems import evaluate_task
    from trivium.tasks import Limits

    out = out or Path("runs/evaluation") / what
    refuse_file(out)
    found = evaluate_task(
        what,
        data,
        models=model or [],
        baselines=baseline or [],
        part=part,
        limit=limit,
        columns=read_mapping(",".join(columns or [])),
        limits=Limits(source_tokens, target_tokens, on_long),  # type: ignore[arg-type]  # checked by evaluate_task
        out=out,
        progress=say,
    )
    print(to_json(found.to_dict()) if as_json else found.to_table())
    if not as_json:
        print(f"\ntexts side by side: {out / 'comparison.html'}")


def _print_loss(models: Sequence[str], file: Path, as_json: bool) -> None:
    """Loss, perplexity and bits per byte of each model on a text file."""
    from trivium.errors import ConfigError
    from trivium.evaluation.run import evaluate_file

    if not models:
        raise ConfigError("evaluate loss without a model; expected one or more; add --model FOLDER")
    names = ("loss", "perplexity", "bits_per_byte", "tokens")
    for folder in models:
        report = evaluate_file(folder, file)
        values = {name: getattr(report, name) for name in names}
        print_values(values if len(models) == 1 else {"model": folder, **values}, as_json)
