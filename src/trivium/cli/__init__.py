"""The command line: one thin function a verb, imports inside, results to stdout, messages to stderr.

Exit codes: 0, 1 the run failed, 2 usage or bad input, 75, 130 and 143 after a signal, with everything saved.
"""

import sys
from typing import Annotated

import typer

from trivium.cli import evaluation, model, starter, text, training

app = typer.Typer(
    help="trivium: the encoder reads, the decoder writes, the encoder-decoder rewrites.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(text.tokenizer_app, name="tokenizer")
app.add_typer(text.data_app, name="data")
app.add_typer(starter.app, name="starter")
app.add_typer(model.app)
app.add_typer(evaluation.app)
app.add_typer(training.app)


def main() -> None:
    """Run the command line; every error that a user can cause is one sentence on stderr."""
    from trivium.errors import CheckpointError, TriviumError
    from trivium.machine import share_cores

    share_cores()
    debug = _take_debug(sys.argv)
    try:
        app()
    except TriviumError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, CheckpointError) else 2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # the last place that can turn a traceback into a sentence
        if debug:
            raise
        print(f"error: {type(error).__name__}: {error} (run again with --debug for the traceback)", file=sys.stderr)
        sys.exit(1)


def _take_debug(words: list[str]) -> bool:
    """Remove `--debug` wherever it stands among the options; what follows `--` is the user's own text."""
    options = words[: words.index("--")] if "--" in words else words
    if "--debug" not in options:
        return False
    words.remove("--debug")
    return True


def _show_version(wanted: bool) -> None:
    if wanted:
        from trivium import __version__

        print(f"trivium {__version__}")
        raise typer.Exit


@app.callback()
def describe_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """The options of all verbs: `--debug` is taken by `main`, `--version` by its callback."""
