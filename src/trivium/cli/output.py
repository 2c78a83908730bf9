"""What verbs print, and what they refuse before any work."""

import json
import math
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from trivium.folder import to_json

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def print_values(values: dict[str, Any], as_json: bool) -> None:
    """Values by name, a line each or as one JSON object."""
    if as_json:
        print(to_json(values))
        return
    width = max(map(len, values))
    for name, value in values.items():
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
        print(f"{name:<{width}}  {text}")


def refuse_file(out: Path) -> None:
    """A folder to write that is a file, is in one or is not ours would be found out only after the work."""
    from trivium.errors import ConfigError

    there = next(folder for folder in (out, *out.parents, Path("/")) if folder.exists())
    if not there.is_dir():
        raise ConfigError(f"{there} is a file; expected a folder to write to; name another")
    if not os.access(there, os.W_OK):
        raise ConfigError(f"{there} cannot be written to; expected a folder that can; name another")


def open_tokenizer(folder: str) -> None:
    """A wrong folder is found before any text is read."""
    from trivium.tokenizer.tokenizer import Tokenizer

    if folder:
        Tokenizer.load(folder)


def finite(amount: float, option: str = "--minutes") -> float:
    """Training that begins and ends."""
    from trivium.errors import ConfigError

    if not 0 < amount < math.inf:
        raise ConfigError(f"{option} is {amount}; expected a number above 0, such as 6; change it")
    return amount


def say(message: str) -> None:
    """A message of progress, to stderr."""
    print(f"{message} …", file=sys.stderr, flush=True)
