"""`trivium starter …`: the models that come with trivium, shown and made."""

from pathlib import Path
from typing import Annotated

import typer

from trivium.cli.output import Json, print_values

app = typer.Typer(help="Show the models that come with trivium, or make one.", no_args_is_help=True)


@app.command("list")
def list_starters_command(as_json: Json = False) -> None:
    """Show each starter: the tasks that it serves, its size and its folder."""
    from trivium.hub.starters import list_starters, served_tasks, starters_folder
    from trivium.pipelines.task import TASKS

    found = {}
    for name, folder in list_starters().items():
        tasks = ", ".join(task for task in served_tasks(folder) if task in TASKS)
        found[name] = f"{tasks}; {sum(path.stat().st_size for path in folder.iterdir()) / 1e6:.1f} MB in {folder}"
    if found or as_json:
        print_values(found, as_json)
    else:
        typer.echo(f"there are no starters in {starters_folder()}; trivium starter make RECIPE makes one", err=True)


@app.command("make")
def make_starter_command(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, such as recipes/starter_poet_zh.yaml.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value …, as in the recipe.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Forget the runs and start over.")] = False,
) -> None:
    """Build the corpora, train, and pack the model as a starter: 16-bit weights, tokenizer and a card."""
    from dataclasses import replace

    from trivium.cli.output import say
    from trivium.config import load_config
    from trivium.training.starter import StarterRecipe, make_starter

    loaded = load_config(StarterRecipe, recipe, overrides or [])
    typed = replace(loaded, command=" ".join([loaded.command, *(overrides or [])]).strip())
    print(f"in {make_starter(typed, restart=restart, progress=say)}")
