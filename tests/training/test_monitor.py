"""metrics.jsonl, the line on stderr, and report.html."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from trivium.training.monitor import Monitor, read_metrics
from trivium.training.report import draw_lines, smooth, write_report


def fill(run: Path, count: int, *, lines: int = 0) -> int:
    run.mkdir(exist_ok=True)
    with Monitor(run, name="run", lines=lines, quiet=True) as monitor:
        for number in range(lines + 1, lines + count + 1):
            monitor.record({"step": number, "text": "a\u2028b\x85c"})
        return monitor.sync()


def test_a_resumed_log_has_each_line_once(tmp_path: Path) -> None:
    assert fill(tmp_path, 5) == 5
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # as a crash leaves it
    assert fill(tmp_path, 2, lines=3) == 5
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
    assert fill(tmp_path, 1, lines=0) == 1


def test_a_torn_line_in_the_middle_cuts_no_whole_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n{"step": 2, "lo\n{"step": 3}\n{"step": 4}\n')
    assert fill(tmp_path, 0, lines=3) == 1
    assert (tmp_path / "metrics.jsonl").read_bytes() == b'{"step": 1}\n'


def test_a_line_on_stderr_without_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Monitor(tmp_path, name="decoder") as monitor:
        monitor.show(progress=0.25, text="step 5")
        monitor.show(progress=0.50, text="step 10")  # too soon for another
    captured = capsys.readouterr()
    assert captured.err == "decoder: 25% step 5\n"
    assert captured.out == ""


class Structure(HTMLParser):
    """Checks that tags close, and collects every address."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "br", "img", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_report_is_whole_and_alone(tmp_path: Path) -> None:
    entry = {"loss": 2.5, "bits_per_byte": 1.2, "accuracy": 0.1, "perplexity": 12.0, "tokens": 9}
    with Monitor(tmp_path, name="run", quiet=True) as monitor:
        monitor.record({"step": 0, "valid": entry, "samples": [], "progress": 0.0})
        for step in range(1, 400):
            monitor.record({"step": step, "loss": 3.0 - step / 200, "rate": 1.0, "seconds": 0.01})
        monitor.record({"step": 400, "loss": None, "rate": 1.0, "seconds": 0.01, "skipped": True})
        monitor.record({"step": 400, "valid": entry, "samples": ["<script>alert(1)</script> &"], "progress": 0.5})
    manifest = {"parts": {"train": {"tokens": 10}}, "sources": {"<b>": 1}}
    result = {"tokens": 4000, "steps": 400, "folder": "final"}
    path = write_report(tmp_path, recipe={"run": "http://x"}, manifest=manifest, result=result)
    page = path.read_text(encoding="utf-8")
    structure = Structure()
    structure.feed(page)
    assert structure.open == []
    assert structure.addresses == []
    assert not re.search(r"<script|@import|url\(", page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp;" in page
    assert page.count("<polyline") == 5
    assert len(page) < 60_000


def test_curves_of_one_point_or_none() -> None:
    assert draw_lines({"loss": []}, "nothing") == ""
    assert "nan" not in draw_lines({"loss": [(1, 2.0)]}, "a point")


def test_smoothing_keeps_the_mean() -> None:
    series = [(step, float(step)) for step in range(1000)]
    short = smooth(series, 100)
    assert len(short) == 100
    assert short[0] == (9, 4.5)


def test_metrics_are_plain_json(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    (line,) = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    assert json.loads(line)["step"] == 1
