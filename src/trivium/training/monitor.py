"""What a run says while it runs: one JSON line a step in metrics.jsonl, and a line or a bar for the person.

Writes to stderr, never to stdout. Knows nothing of models.
"""

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

LINE_SECONDS = 10.0


class Monitor:
    """Appends to `metrics.jsonl` and shows progress: a rich bar on a terminal, else a line every ten seconds."""

    def __init__(self, run: Path, *, name: str, resume_step: int, quiet: bool = False) -> None:
        self.path, self.name, self.quiet = run / "metrics.jsonl", name, quiet
        self._keep_up_to(resume_step)
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
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._file.flush()

    def show(self, *, progress: float, text: str) -> None:
        """Move the bar; without a terminal print `text` if ten seconds have passed."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=progress, text=text)
        elif not self.quiet and time.monotonic() - self._last_line > LINE_SECONDS:
            self._last_line = time.monotonic()
            print(f"{self.name}: {progress:.0%} {text}", file=sys.stderr, flush=True)

    def _keep_up_to(self, step: int) -> None:
        """Drop lines of steps that a resumed run will take again."""
        kept = [line for line in read_lines(self.path) if json.loads(line)["step"] <= step] if step else []
        self.path.write_text("".join(kept), encoding="utf-8")


def read_lines(path: Path) -> list[str]:
    """The whole lines of metrics.jsonl; one that a crash cut short is left out."""
    if not path.exists():
        return []
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("}\n")]


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """Every entry of a run's metrics.jsonl, in order."""
    return [json.loads(line) for line in read_lines(Path(run) / "metrics.jsonl")]
