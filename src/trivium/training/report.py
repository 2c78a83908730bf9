"""One HTML file that shows a run: curves, throughput, samples over time, the data and the recipe.

Self-contained: inline SVG, no script, no address outside the file. Of the run it reads metrics.jsonl only.
"""

import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trivium.evaluation.compare import Comparison
from trivium.evaluation.page import STYLE as ANSWERS
from trivium.evaluation.page import show_system, show_table
from trivium.training.monitor import read_metrics

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
h1,h2{font-weight:600}svg{width:100%;height:auto;background:#fafafa;border:1px solid #ddd;border-radius:6px}
table{border-collapse:collapse;margin:.5rem 0}td,th{padding:.2rem .8rem .2rem 0;text-align:left}
pre{white-space:pre-wrap;background:#f6f6f6;padding:.8rem;border-radius:6px;overflow-wrap:anywhere}
figure{margin:1rem 0}figcaption{color:#555}
@media (prefers-color-scheme:dark){body{background:#161616;color:#ddd}svg,pre{background:#1f1f1f;border-color:#444}}
"""
COLOURS = ("#1f6feb", "#d1572b", "#2a9d5c")
NO_CURVE = ("loss", "perplexity", "tokens")
WIDTH, HEIGHT, LEFT, BOTTOM = 720, 260, 56, 30
Series = Sequence[tuple[float, float]]


def write_report(
    run: Path, *, recipe: dict[str, Any], manifest: Any, result: dict[str, Any], judged: Comparison | None = None
) -> Path:
    """Write `report.html` into the run folder and return its path; `manifest` is the data's, or what holds it.

    `judged` are the answers of the weights that were kept: their table, picture, worst and best are shown.
    """
    metrics = read_metrics(run)
    steps = [entry for entry in metrics if entry.get("loss") is not None]
    valid = [entry for entry in metrics if "valid" in entry]
    data = getattr(manifest, "manifest", manifest)
    shown = ("parts", "sources", "held_out_sources", "duplicates", "quarantined", "fingerprint", "too_long", "left_out")
    tokens = result["tokens"] / max(result["steps"], 1)
    speeds = smooth([(entry["step"], tokens / max(entry["seconds"], 1e-9)) for entry in steps])
    parts = [
        f"<h1>{html.escape(run.name)}</h1>",
        _table({name: _short(value) for name, value in result.items()}),
        "<h2>Loss</h2>",
        draw_lines(
            {
                "training": smooth([(entry["step"], entry["loss"]) for entry in steps]),
                "held out": [(entry["step"], entry["valid"]["loss"]) for entry in valid],
            },
            "nats per target token, by step",
        ),
        *_score_curves(valid, recipe),
        *([] if judged is None else ["<h2>The kept weights</h2>", show_table(judged), show_system(judged, "model")]),
        "<h2>Speed and rate</h2>",
        draw_lines({"tokens per second": speeds}, "tokens per second, by step"),
        draw_lines({"rate": [(e["step"], e["rate"]) for e in steps]}, "learning rate, by step"),
        "<h2>Samples</h2>",
        *(_samples(entry) for entry in valid if entry.get("samples")),
        "<h2>Data</h2>",
        _pre({name: data[name] for name in shown if name in data} if isinstance(data, dict) else {}),
        "<h2>Recipe</h2>",
        _pre(recipe),
    ]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{html.escape(run.name)}</title>'
        f"<style>{ANSWERS}{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )
    path = run / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _score_curves(valid: Sequence[dict[str, Any]], recipe: dict[str, Any]) -> list[str]:
    """Bits per byte of a pretraining run; of a task its scores."""
    names = [name for name in {name: 0 for entry in valid for name in entry["valid"]} if name not in NO_CURVE]
    best = (recipe.get("save") or {}).get("best", "").removeprefix("-")
    names.sort(key=lambda name: name != best)  # what chose the weights comes first
    if "bits_per_byte" in names:
        whole = (recipe.get("objective") or {}).get("name", "causal") in ("causal", "prefix")
        hidden = "bits per byte of the hidden tokens only, which other tokens surround: not a decoder's bits per byte"
        names, captions = ["bits_per_byte"], {"bits_per_byte": "bits per byte of held-out text, by step"}
        captions = captions if whole else {"bits_per_byte": hidden}
    else:
        captions = {}
    return [
        draw_lines(
            {f"{name.replace('_', ' ')}, held out": [(entry["step"], entry["valid"].get(name)) for entry in valid]},
            captions.get(name, f"{name.replace('_', ' ')} of held-out examples, by step"),
        )
        for name in names
    ]


def smooth(series: Series, points: int = 200) -> Series:
    """Means over equal stretches, so that a long run stays a small picture."""
    stretch = max(1, -(-len(series) // points))
    groups = (series[begin : begin + stretch] for begin in range(0, len(series), stretch))
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def draw_lines(given: Mapping[str, Sequence[tuple[float, float | None]]], caption: str) -> str:
    """Curves as inline SVG with the range of both axes, without points that have no number; empty text if none has."""
    lines = {name: [(x, y) for x, y in each if y is not None and math.isfinite(y)] for name, each in given.items()}
    points = [point for series in lines.values() for point in series]
    if not points:
        return ""
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    low_y, high_y = min(y for _, y in points), max(y for _, y in points)

    def place(x: float, y: float) -> str:
        across = LEFT + (x - low_x) / ((high_x - low_x) or 1) * (WIDTH - LEFT - 12)
        up = HEIGHT - BOTTOM - (y - low_y) / ((high_y - low_y) or 1) * (HEIGHT - BOTTOM - 28)
        return f"{across:.1f},{up:.1f}"

    drawn = []
    for number, (name, series) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(place(x, y) for x, y in series)
        drawn.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>')
        label = f"{name}: {_short(series[-1][1])}" if series else name
        across = LEFT + number * 220
        drawn.append(f'<text x="{across}" y="16" font-size="13" fill="{colour}">{html.escape(label)}</text>')
    axis = (
        f'<text x="4" y="34" font-size="12" fill="#888">{_short(high_y)}</text>'
        f'<text x="4" y="{HEIGHT - BOTTOM}" font-size="12" fill="#888">{_short(low_y)}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 8}" font-size="12" fill="#888">{_short(low_x)}</text>'
        f'<text x="{WIDTH - 60}" y="{HEIGHT - 8}" font-size="12" fill="#888">{_short(high_x)}</text>'
    )
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{axis}{"".join(drawn)}</svg>'
    return f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _samples(entry: dict[str, Any]) -> str:
    """What a model wrote at one evaluation: texts, or tables of source, target and output."""
    shown = (
        f"<pre>{html.escape(each)}</pre>" if isinstance(each, str) else _table({n: str(v) for n, v in each.items()})
        for each in entry["samples"]
    )
    return f"<h3>step {entry['step']} ({entry.get('progress', 0):.0%})</h3>{''.join(shown)}"


def _table(rows: dict[str, str]) -> str:
    cells = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows.items())
    return f"<table>{''.join(cells)}</table>"


def _pre(value: Any) -> str:
    return f"<pre>{html.escape(json.dumps(value, indent=1, ensure_ascii=False))}</pre>"


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(each)}" for name, each in value.items())
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
