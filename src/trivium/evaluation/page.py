"""One HTML file that shows a comparison: the table, its intervals as a picture, and the texts side by side.

Self-contained: no script, no address outside the file, and a policy in it that forbids both; every text is escaped.
"""

import html
from pathlib import Path
from typing import Any

from trivium.evaluation.compare import Comparison

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
h1,h2{font-weight:600}.wide{overflow-x:auto}svg{width:100%;max-width:50rem;height:auto}text{fill:currentColor}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .9rem .25rem 0;text-align:left;vertical-align:top}
th{font-weight:600;white-space:nowrap}.numbers td{white-space:nowrap}tr{border-bottom:1px solid #8884}
.text{white-space:pre-wrap;overflow-wrap:anywhere}.score{color:#777;white-space:nowrap}summary{cursor:pointer}
@media (prefers-color-scheme:dark){body{background:#161616;color:#ddd}}
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
LONG_TEXT = 400


def write_page(comparison: Comparison, path: str | Path, *, title: str = "Comparison", examples: int = 10) -> Path:
    """Write `render_page` to a file and return its path."""
    path = Path(path)
    page = render_page(comparison, title=title, examples=examples)
    path.write_bytes(page.encode("utf-8", errors="replace"))  # a text may hold half of a surrogate pair
    return path


def render_page(comparison: Comparison, *, title: str = "Comparison", examples: int = 10) -> str:
    """The page as text, with the `examples` worst and as many best texts by the score of the best system that is
    no baseline (of the best system, if all are)."""
    rows = comparison.rows
    shown = next((row.name for row in rows if not row.is_baseline), rows[0].name)
    scores = [each[comparison.primary] for each in comparison.per_text[shown]]
    order = sorted(range(len(scores)), key=lambda i: (scores[i], i))
    worst, best = order[:examples], order[examples:][::-1][:examples]
    by_whom = f"by {_escape(comparison.primary)} of {_escape(shown)}"
    parts = [
        f"<h1>{_escape(title)}</h1>",
        _table(comparison.to_cells()),
        f"<p>{_escape(comparison.legend())}</p>",
        _draw_intervals(comparison),
        f"<h2>Worst {by_whom}</h2>",
        *(_example(comparison, i) for i in worst),
        *([f"<h2>Best {by_whom}</h2>"] if best else []),
        *(_example(comparison, i) for i in best),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width"><title>{_escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _table(cells: list[list[str]]) -> str:
    head = "".join(f"<th>{_escape(cell)}</th>" for cell in cells[0])
    lines = (
        f"<tr><th>{_escape(name)}</th>{''.join(f'<td>{_escape(cell)}</td>' for cell in rest)}</tr>"
        for name, *rest in cells[1:]
    )
    return f'<div class="wide"><table class="numbers"><tr>{head}</tr>{"".join(lines)}</table></div>'


def _draw_intervals(comparison: Comparison) -> str:
    """Each system's mean as a dot on the line of its interval, over an axis from 0 to the greatest."""
    intervals = [(row.name, row.scores[comparison.primary]) for row in comparison.rows]
    top = max(interval.high for _, interval in intervals) or 1.0
    drawn = []
    for number, (name, interval) in enumerate(intervals):
        y = 20 + 26 * number
        low, mean, high = (210 + 480 * value / top for value in (interval.low, interval.mean, interval.high))
        drawn.append(
            f'<text x="200" y="{y + 5}" font-size="14" text-anchor="end">{_escape(name[:26])}</text>'
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="#1f6feb" stroke-width="3"/>'
            f'<circle cx="{mean:.1f}" cy="{y}" r="5" fill="#1f6feb"/>'
        )
    height = 26 * len(intervals) + 14
    axis = f'<line x1="210" x2="210" y1="6" y2="{height - 6}" stroke="#888"/>'
    return f'<svg viewBox="0 0 720 {height}" role="img">{axis}{"".join(drawn)}</svg>'


def _example(comparison: Comparison, i: int) -> str:
    lines = [] if comparison.sources is None else [("source", comparison.sources[i], "")]
    lines.append(("reference", comparison.references[i], ""))
    for row in comparison.rows:
        score = comparison.per_text[row.name][i][comparison.primary] * comparison.scale
        lines.append((row.name, comparison.outputs[row.name][i], f"{score:.1f}"))
    cells = (
        f'<tr><th>{_escape(name)}</th><td class="score">{score}</td><td class="text">{_folded(text)}</td></tr>'
        for name, text, score in lines
    )
    return f"<h3>Text {i + 1}</h3><table>{''.join(cells)}</table>"


def _folded(text: Any) -> str:
    """A text, or of a long one its beginning, behind which the whole can be unfolded."""
    text = text if isinstance(text, str) else str(text)
    if len(text) <= LONG_TEXT:
        return _escape(text)
    return f"<details><summary>{_escape(text[:LONG_TEXT])} …</summary>{_escape(text)}</details>"


def _escape(text: Any) -> str:
    return html.escape(str(text))
