"""Rows of results: ratios in words, the table on the screen, and rows kept in RESULTS.md where that is asked for."""

import argparse
import statistics
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

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
