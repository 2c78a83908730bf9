"""Rows of results: ratios in words, the table on the screen, and rows kept in RESULTS.md where that is asked for."""

import argparse
import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("RESULTS.md")


def make_parser(
    description: str | None, works: Iterable[str] = (), *, count: str = "rounds", most: int = 5
) -> argparse.ArgumentParser:
    """Options that the scripts share: `--rounds` (or another count), `--record`, and `--only` of several works."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(f"--{count}", type=int, default=most)
    parser.add_argument("--record", action="store_true", help=f"append the rows to {RESULTS.name}")
    if works := list(works):
        parser.add_argument("--only", nargs="+", choices=works, default=works, metavar="NAME")
    return parser


def in_rounds(ratios: Sequence[float]) -> str:
    """A median, and behind it each round."""
    return f"{statistics.median(ratios):.2f} ({' '.join(f'{ratio:.2f}' for ratio in ratios)})"


def show_rows(columns: str, rows: Sequence[str], *, machine_class: str, record: bool) -> None:
    """Print a table of rows, each under the day and the class of machine; append them to RESULTS.md if `record`."""
    lines = [f"| {date.today()} | {machine_class} | {row} |" for row in rows]
    head = [f"| day | class | {columns} |", "|---" * (columns.count("|") + 3) + "|"]
    print("\n".join([*head, *lines]))
    if record:
        written = RESULTS.read_text(encoding="utf-8").splitlines()
        heads = [line for line in written if line.startswith("| day | class |")]
        goes_on = written[-1:] and written[-1].startswith("|") and heads[-1:] == head[:1]
        with RESULTS.open("a", encoding="utf-8") as out:
            out.write("\n".join([*([] if goes_on else ["", *head]), *lines]) + "\n")


def show_works(parser: argparse.ArgumentParser, columns: str, measure: Callable[[str, Any], list[str]]) -> None:
    """Add what both scripts ask for to the command line, measure each work that it names, and print its table."""
    parser.add_argument("--text", type=Path, help="what is pretrained on")
    parser.add_argument("--minutes", type=float, default=30.0, help="of pretraining, for each model")
    parser.add_argument("--epochs", type=float, default=0.0, help="of fine-tuning; by the work if 0")
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--root", type=Path, default=Path())
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from trivium.machine import inspect_machine

    machine = inspect_machine()
    machine_class = f"{machine.machine_class}, {machine.cores} cores"
    for name in options.only:
        show_rows(columns, measure(name, options), machine_class=machine_class, record=options.record)
