"""What a run says while it runs: one JSON line a step in metrics.jsonl, and a line or a bar for the person.

Writes to stderr, never to stdout. Knows nothing of models.
"""

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Any

from trivium.folder import to_json

LINE_SECONDS = 10.0


class Monitor:
    """Appends to `metrics.jsonl` and shows progress: a rich bar on a terminal, else a line every ten seconds.

    `lines` is how many lines the resumed checkpoint had seen; later ones are dropped, their steps come again.
    """

    def __init__(self, run: Path, *, name: str, lines: int = 0, quiet: bool = False) -> None:
        self.path, self.name, self.quiet = run / "metrics.jsonl", name, quiet
        self.lines = self._keep(lines)
        self._file = self.path.open("a", encoding="utf-8")
        self._last_line, self._bar, self._task = 0.0, None, None
        if not quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(name, total=1.0, text="")
            self._bar.start()

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._bar is not None:
            self._bar.stop()

    def record(self, entry: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl."""
        self._file.write(to_json(entry) + "\n")
        self._file.flush()
        self.lines += 1

    def sync(self) -> int:
        """Wait until the lines are on the disk, and count them: what a checkpoint may rely on."""
        os.fsync(self._file.fileno())
        return self.lines

    def show(self, *, progress: float, text: str) -> None:
        """Move the bar; without a terminal print `text` if ten seconds have passed."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=progress, text=text)
        elif not self.quiet and time.monotonic() - self._last_line > LINE_SECONDS:
            self._last_line = time.monotonic()
            print(f"{self.name}: {progress:.0%} {text}", file=sys.stderr, flush=True)

    def _keep(self, lines: int) -> int:
        """Cut the file after so many whole lines, in place, so that a crash here loses none of them."""
        kept = read_lines(self.path)[:lines]
        if self.path.exists():
            os.truncate(self.path, sum(map(len, kept)))
        return len(kept)


def read_lines(path: Path) -> list[bytes]:
    """The whole lines of metrics.jsonl up to the first that a crash cut short."""
    if not path.exists():
        return []
    # Not splitlines(): a sample may hold a line separator of Unicode.
    lines = path.read_bytes().split(b"\n")[:-1]
    return [line + b"\n" for line in takewhile(lambda line: line.endswith(b"}"), lines)]


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """Every entry of a run's metrics.jsonl, in order; held-out scores without a number are NaN."""
    entries = [json.loads(line) for line in read_lines(Path(run) / "metrics.jsonl")]
    return [each | {"valid": with_nan(each["valid"])} if "valid" in each else each for each in entries]


def with_nan(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Scores as they were before JSON, which has null for a number that is none."""
    return {name: math.nan if value is None else value for name, value in scores.items()}
