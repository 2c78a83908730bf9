"""One HTML file that shows a comparison: the table, its intervals as a picture, and the texts side by side.

Self-contained: no script, no address outside the file, and a policy in it that forbids both; every text is escaped.
"""

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trivium.evaluation.compare import Comparison, list_numbers
from trivium.evaluation.metrics import list_texts
from trivium.evaluation.summaries import count_words

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
    parts = [
        f"<h1>{_escape(title)}</h1>",
        show_table(comparison),
        _draw_intervals(comparison),
        show_system(comparison, shown, examples=examples),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width"><title>{_escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def show_table(comparison: Comparison) -> str:
    """The table of a comparison and how to read it."""
    cells = comparison.to_cells()
    head = "".join(f"<th>{_escape(cell)}</th>" for cell in cells[0])
    lines = (
        f"<tr><th>{_escape(name)}</th>{''.join(f'<td>{_escape(cell)}</td>' for cell in rest)}</tr>"
        for name, *rest in cells[1:]
    )
    table = f'<table class="numbers"><tr>{head}</tr>{"".join(lines)}</table>'
    return f'<div class="wide">{table}</div><p>{_escape(comparison.legend())}</p>'


def show_system(comparison: Comparison, shown: str, *, examples: int = 10) -> str:
    """The picture that fits what one system answered, and the texts that it did worst and best, with all answers."""
    scores = {
        row.name: [each[comparison.primary] * comparison.scale for each in comparison.per_text[row.name]]
        for row in comparison.rows
    }
    order = sorted(range(len(scores[shown])), key=lambda i: (scores[shown][i], i))
    outputs = {row.name: comparison.outputs[row.name] for row in comparison.rows}
    parts = [_fitting_picture(comparison, shown)]
    for name, chosen in (("Worst", order[:examples]), ("Best", order[examples:][::-1][:examples])):
        if chosen:
            parts.append(f"<h2>{name} by {_escape(comparison.primary)} of {_escape(shown)}</h2>")
            parts.append(show_texts(chosen, comparison.sources, comparison.references, outputs, scores))
    return "".join(parts)


def _draw_intervals(comparison: Comparison) -> str:
    """Each system's mean as a dot on the line of its interval, over an axis that holds 0."""
    intervals = [(row.name, row.scores[comparison.primary]) for row in comparison.rows]
    low_end = min(0.0, *(interval.low for _, interval in intervals))
    top = max(0.0, *(interval.high for _, interval in intervals)) - low_end or 1.0
    drawn = []
    for number, (name, interval) in enumerate(intervals):
        y = 20 + 26 * number
        low, mean, high = (
            210 + 480 * (value - low_end) / top for value in (interval.low, interval.mean, interval.high)
        )
        drawn.append(
            f'<text x="200" y="{y + 5}" font-size="14" text-anchor="end">{_escape(name[:26])}</text>'
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="#1f6feb" stroke-width="3"/>'
            f'<circle cx="{mean:.1f}" cy="{y}" r="5" fill="#1f6feb"/>'
        )
    height = 26 * len(intervals) + 14
    zero = 210 - 480 * low_end / top
    axis = f'<line x1="{zero:.1f}" x2="{zero:.1f}" y1="6" y2="{height - 6}" stroke="#888"/>'
    return f'<svg viewBox="0 0 720 {height}" role="img">{axis}{"".join(drawn)}</svg>'


def show_texts(
    chosen: Sequence[int],
    sources: Sequence[str] | None,
    references: Sequence[Any],
    outputs: Mapping[str, Sequence[Any]],
    scores: Mapping[str, Sequence[float]],
) -> str:
    """The chosen texts, each as a table of source, reference and every system's output with its score."""
    parts = []
    for i in chosen:
        lines = [] if sources is None else [("source", sources[i], "")]
        lines.append(("reference", references[i], ""))
        lines.extend((name, texts[i], f"{scores[name][i]:.1f}") for name, texts in outputs.items())
        cells = (
            f'<tr><th>{_escape(name)}</th><td class="score">{score}</td><td class="text">{_folded(text)}</td></tr>'
            for name, text, score in lines
        )
        parts.append(f"<h3>Text {i + 1}</h3><table>{''.join(cells)}</table>")
    return "".join(parts)


def draw_confusion(outputs: Sequence[Any], references: Sequence[Any], *, labels: int = 12) -> str:
    """How often each label (row) was taken for which (column), the commonest `labels` of the references by name."""
    common = [label for label, _ in sorted(Counter(references).items(), key=lambda each: (-each[1], str(each[0])))]
    kept = set(common[:labels])

    def shown(label: Any) -> str:
        return str(label) if label in kept else "(other)"

    counts = Counter((shown(a), shown(b)) for a, b in zip(references, outputs, strict=True))
    names = list(dict.fromkeys([*map(str, common[:labels]), *(name for pair in sorted(counts) for name in pair)]))
    head = "".join(f"<th>{_escape(name)}</th>" for name in names)
    lines = []
    for name in names:
        total = sum(counts[name, other] for other in names)
        shades = (round(100 * counts[name, other] / max(total, 1)) for other in names)
        cells = (
            f'<td style="background:rgb(31 111 235/{shade * 0.7:.0f}%)">{counts[name, other]}</td>'
            for other, shade in zip(names, shades, strict=True)
        )
        lines.append(f"<tr><th>{_escape(name)}</th>{''.join(cells)}</tr>")
    table = f'<table class="numbers"><tr><th>true \\ found</th>{head}</tr>{"".join(lines)}</table>'
    return f'<div class="wide">{table}</div>'


def draw_lengths(outputs: Sequence[str], references: Sequence[str]) -> str:
    """How long outputs (blue) and references (grey) are, in words: two rows of bars over the same lengths.

    What is over twice as long as the longest reference stands in the last bar.
    """
    theirs = [count_words(text) for text in references]
    ours = [min(count_words(text), 2 * max(theirs)) for text in outputs]
    step = max(-(-max([*ours, *theirs, 1]) // 30), 1)
    drawn = []
    for lengths, colour, shift in ((theirs, "#999", 0), (ours, "#1f6feb", 9)):
        counts = Counter(length // step for length in lengths)
        for place, count in counts.items():
            height = 120 * count / len(lengths)
            x = 20 + 22 * place + shift
            drawn.append(f'<rect x="{x}" y="{130 - height:.1f}" width="9" height="{height:.1f}" fill="{colour}"/>')
    for place in range(0, 31, 5):
        drawn.append(f'<text x="{20 + 22 * place}" y="146" font-size="12">{place * step}</text>')
    return f'<svg viewBox="0 0 720 150" role="img">{"".join(drawn)}</svg>'


def draw_numbers(outputs: Sequence[float], references: Sequence[float]) -> str:
    """A dot for each text, the reference across and the output up, over the line where both are equal."""
    low, high = min(*outputs, *references), max(*outputs, *references)

    def place(value: float) -> float:
        return 20 + 300 * (value - low) / ((high - low) or 1.0)

    dots = "".join(
        f'<circle cx="{place(b):.1f}" cy="{340 - place(a):.1f}" r="3" fill="#1f6feb" fill-opacity="0.5"/>'
        for a, b in zip(outputs, references, strict=True)
    )
    line = '<line x1="20" x2="320" y1="320" y2="20" stroke="#888"/>'
    ends = f'<text x="20" y="338" font-size="12">{low:.4g}</text><text x="290" y="338" font-size="12">{high:.4g}</text>'
    return f'<svg viewBox="0 0 720 345" role="img">{line}{dots}{ends}</svg>'


def _fitting_picture(comparison: Comparison, shown: str) -> str:
    outputs, references = comparison.outputs[shown], comparison.references
    pairs = list(zip(outputs, references, strict=True))
    if comparison.metric == "accuracy":
        found = pairs
    elif comparison.metric == "entities":
        found = [pair for ours, theirs in pairs for pair in zip(ours, theirs, strict=True)]
    elif comparison.metric == "multilabel":
        both = [(set(ours), set(theirs)) for ours, theirs in pairs]
        found = [
            (label if label in ours else "(none)", label if label in theirs else "(none)")
            for ours, theirs in both
            for label in sorted(ours | theirs, key=str)
        ]
    elif comparison.metric == "regression":
        return f"<h2>Numbers of {_escape(shown)} (up) and of the references (across)</h2>" + draw_numbers(
            *([number for each in side for number in list_numbers(each)] for side in (outputs, references))
        )
    elif "length" in comparison.reference_described:
        firsts = [next(iter(list_texts(each)), "") for each in references]
        return f"<h2>Words of {_escape(shown)} (blue) and of the references</h2>{draw_lengths(outputs, firsts)}"
    else:
        return ""
    ours, theirs = [one for one, _ in found], [other for _, other in found]
    return f"<h2>Labels of {_escape(shown)}</h2>{draw_confusion(ours, theirs)}"


def _folded(text: Any) -> str:
    """A text, or of a long one its beginning, behind which the whole can be unfolded."""
    text = text if isinstance(text, str) else str(text)
    if len(text) <= LONG_TEXT:
        return _escape(text)
    return f"<details><summary>{_escape(text[:LONG_TEXT])} …</summary>{_escape(text)}</details>"


def _escape(text: Any) -> str:
    return html.escape(str(text))
