"""Systems side by side on the same texts: means with intervals, differences that chance does not explain, and what
the outputs are like. Knows outputs only: who wrote them, and how, is the caller's.
"""

import math
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from trivium.errors import ConfigError, DataError
from trivium.evaluation.baselines import BASELINES
from trivium.evaluation.metrics import (
    METRICS,
    choose_tokenize,
    exact_match,
    find_entities,
    list_texts,
    load_sacrebleu,
    squad_match,
)
from trivium.evaluation.rouge import rouge
from trivium.evaluation.significance import Interval, PairedResult, adjust_p_values, bootstrap_interval, paired_test
from trivium.evaluation.summaries import TrainingText, describe_output

Score = Callable[[Any, Any], dict[str, float]]
Scorer = Callable[[Sequence[Any], Sequence[Any]], dict[str, float]]
LEVEL = 0.95
# The score of one text that systems are ranked by, for each metric that has one.
PRIMARY = {
    "accuracy": "accuracy",
    "bleu": "chrf",
    "entities": "exact_match",
    "exact_match": "exact_match",
    "multilabel": "exact_match",
    "regression": "r2",
    "rouge": "rougeL",
    "squad": "f1",
}
_WRITTEN = ("bleu", "exact_match", "rouge", "squad")


@dataclass(frozen=True)
class SystemRow:
    """One system: means over texts with intervals, scores of the whole set, what its outputs are like, and how it
    differs from the best baseline (`adjusted_p` holds for all systems together)."""

    name: str
    is_baseline: bool
    scores: dict[str, Interval]
    whole: dict[str, float]
    described: dict[str, float]
    against: PairedResult | None = None
    adjusted_p: float | None = None

    @property
    def is_significant(self) -> bool:
        """Whether the difference is beyond chance at the level of the intervals."""
        return self.adjusted_p is not None and self.adjusted_p <= 1 - LEVEL


@dataclass(frozen=True)
class Comparison:
    """Systems from the best to the worst by `primary`, the score that they are ranked and tested by, and the texts
    with every score; `left_out` counts rows that not every model could read."""

    metric: str
    primary: str
    rows: tuple[SystemRow, ...]
    against: str
    references: Sequence[Any]
    outputs: Mapping[str, Sequence[Any]]
    per_text: Mapping[str, Sequence[dict[str, float]]]
    sources: Sequence[str] | None
    reference_described: dict[str, float]
    left_out: int = 0

    @property
    def scale(self) -> int:
        """What scores are multiplied by when shown: fractions as per cent, those of a metric of one's own as they
        are."""
        return 100 if self.metric in PRIMARY and self.metric != "bleu" else 1

    def to_dict(self, *, texts: bool = False) -> dict[str, Any]:
        """All numbers as JSON has them; with `texts`, every source, reference and output with its scores too."""
        found: dict[str, Any] = {
            "metric": self.metric,
            "primary": self.primary,
            "texts": len(self.references),
            "left_out": self.left_out,
            "level": LEVEL,
            "against": self.against,
            "reference": self.reference_described,
            "systems": [asdict(row) | {"is_significant": row.is_significant} for row in self.rows],
        }
        if texts:
            found["rows"] = [
                {
                    **({"source": self.sources[i]} if self.sources is not None else {}),
                    "reference": reference,
                    "outputs": {name: outputs[i] for name, outputs in self.outputs.items()},
                    "scores": {name: scores[i] for name, scores in self.per_text.items()},
                }
                for i, reference in enumerate(self.references)
            ]
        return found

    def to_cells(self) -> list[list[str]]:
        """The table as texts: a line of headings, a line for each system, and one for the references."""
        first = self.rows[0]
        others = [name for name in first.scores if name != self.primary]
        wholes = [name for name in first.whole if name not in first.scores]
        described = list(first.described)
        tests = (f"against {self.against}", "p") if len(self.rows) > 1 else ()
        names = (*others, *(f"{name} (whole)" for name in wholes), *tests)
        lines = [["system", f"{self.primary} [95 %]", *names, *described]]
        for row in self.rows:
            lines.append(
                [
                    row.name + (" (baseline)" if row.is_baseline else ""),
                    self._interval(row.scores[self.primary]),
                    *(self._number(row.scores[name].mean) for name in others),
                    *(
                        self._number(row.whole[name]) if _is_share(name) else f"{row.whole[name]:.4g}"
                        for name in wholes
                    ),
                    *(self._tested(row) if tests else ()),
                    *_described(row.described),
                ]
            )
        if self.reference_described:
            lines.append(["(reference)", *[""] * (len(names) + 1), *_described(self.reference_described)])
        return lines

    def to_table(self) -> str:
        """The table in columns for a terminal, with a line that says how to read it."""
        cells = self.to_cells()
        widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(cell + " " * (w - _width(cell)) for cell, w in zip(line, widths, strict=True)) for line in cells
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join(line.rstrip() for line in [*lines, "", self.legend()])

    def legend(self) -> str:
        """One sentence on what the table's numbers are."""
        left = f" ({self.left_out} more too long for a model are left out)" if self.left_out else ""
        tests = f"; p: paired randomisation against {self.against}, adjusted for all systems (Holm); *: beyond chance."
        return f"{len(self.references)} texts{left}; brackets: 95 % bootstrap intervals{tests * (len(self.rows) > 1)}"

    def _interval(self, interval: Interval, sign: str = "") -> str:
        mean, low, high = (self._number(value, sign) for value in (interval.mean, interval.low, interval.high))
        return f"{mean} [{low}, {high}]"

    def _number(self, value: float, sign: str = "") -> str:
        return f"{value * self.scale:{sign}.1f}" if self.metric in PRIMARY else f"{value:{sign}.3f}"

    def _tested(self, row: SystemRow) -> tuple[str, str]:
        """The difference from the best baseline, and how often chance gives one as large."""
        if row.against is None or row.adjusted_p is None:
            return "", ""
        difference = self._interval(row.against.difference, sign="+")
        return difference, f"{row.adjusted_p:.2g}{' *' if row.is_significant else ''}"


def compare_outputs(
    systems: Mapping[str, Sequence[Any]],
    references: Sequence[Any],
    *,
    sources: Sequence[str] | None = None,
    training_texts: Sequence[str] | None = None,
    metric: str | Scorer = "rouge",
    best: str = "",
    baselines: Collection[str] = tuple(BASELINES),
    left_out: int = 0,
) -> Comparison:
    """Score every system's outputs and test each against the best of those whose names are in `baselines`.

    Without a baseline among them, against the worst. `training_texts` are what outputs might have been copied from.
    The order of texts and of systems changes nothing. `metric` may be a function of one's own from two lists to named
    numbers; `best` is then the number to rank by, with a minus where less is better. Raises `DataError` for lists of
    unequal lengths, `ConfigError` for an unknown metric.
    """
    name, primary = _name_metric(metric, best)
    _check(systems, references, sources)
    score, training = _scorer(metric, references, primary), TrainingText(training_texts) if training_texts else None
    whole = METRICS[metric] if isinstance(metric, str) else metric
    written = name in _WRITTEN or (name not in PRIMARY and all(isinstance(each, str) for each in references))
    per_text = {
        system: [score(text, wanted) for text, wanted in zip(outputs, references, strict=True)]
        for system, outputs in systems.items()
    }
    rows = []
    for system, outputs in systems.items():
        scores = {
            key: bootstrap_interval([each[key] for each in per_text[system]], level=LEVEL)
            for key in per_text[system][0]
        }
        described = _describe(outputs, sources, training) if written else {}
        rows.append(SystemRow(system, system in baselines, scores, whole(outputs, references), described))
    rows.sort(key=lambda row: (-row.scores[primary].mean, row.name))
    against = next((row for row in rows if row.is_baseline), rows[-1]).name
    firsts = [next(iter(list_texts(each)), "") for each in references] if written else []
    return Comparison(
        metric=name,
        primary=primary,
        rows=tuple(_test_all(rows, against, {n: [e[primary] for e in each] for n, each in per_text.items()})),
        against=against,
        references=references,
        outputs=systems,
        per_text=per_text,
        sources=sources,
        reference_described=_describe(firsts, sources, training) if written else {},
        left_out=left_out,
    )


def _name_metric(metric: str | Scorer, best: str) -> tuple[str, str]:
    """A metric's name, and the score of one text that systems are ranked by."""
    if isinstance(metric, str) and metric in PRIMARY:
        return metric, PRIMARY[metric]
    if isinstance(metric, str) or not best:
        raise ConfigError(
            f"metric {metric!r} has no score of one text; expected one of {', '.join(PRIMARY)}, or a function and the "
            "number that is best; choose one"
        )
    return getattr(metric, "__name__", "metric"), best


def _test_all(rows: Sequence[SystemRow], best: str, scores: Mapping[str, Sequence[float]]) -> list[SystemRow]:
    tested = {row.name: paired_test(scores[row.name], scores[best], level=LEVEL) for row in rows if row.name != best}
    adjusted = dict(zip(tested, adjust_p_values([each.p_value for each in tested.values()]), strict=True))
    return [replace(row, against=tested.get(row.name), adjusted_p=adjusted.get(row.name)) for row in rows]


def _scorer(metric: str | Scorer, references: Sequence[Any], primary: str) -> Score:
    """The function that scores one output against its reference."""
    if not isinstance(metric, str):
        return lambda output, reference: _score_alone(metric, output, reference, primary)
    if metric == "regression":
        numbers = [number for each in references for number in list_numbers(each)]
        mean = math.fsum(numbers) / len(numbers)
        spread = math.fsum((each - mean) ** 2 for each in numbers) / len(numbers)
        # Their mean is the share of the variance that is explained, R².
        return lambda output, reference: {"r2": 1 - _square(output, reference) / spread if spread else 0.0}
    if metric == "bleu":
        sacrebleu, texts = load_sacrebleu(), [text for each in references for text in list_texts(each)]
        bleu, chrf = sacrebleu.BLEU(tokenize=choose_tokenize(texts), effective_order=True), sacrebleu.CHRF()
        return lambda output, reference: {
            "chrf": chrf.sentence_score(output, list_texts(reference)).score,
            "sentence_bleu": bleu.sentence_score(output, list_texts(reference)).score,
        }
    known: dict[str, Score] = {
        "accuracy": lambda output, reference: {"accuracy": float(output == reference)},
        "entities": lambda output, wanted: {"exact_match": float(find_entities(output) == find_entities(wanted))},
        "exact_match": lambda output, reference: {"exact_match": exact_match([output], [reference])},
        "multilabel": lambda output, reference: {"exact_match": float(set(output) == set(reference))},
        "rouge": lambda output, reference: asdict(rouge(output, reference)),
        "squad": lambda output, wanted: dict(zip(("exact_match", "f1"), squad_match(output, wanted), strict=True)),
    }
    return known[metric]


def _score_alone(metric: Scorer, output: Any, reference: Any, primary: str) -> dict[str, float]:
    found = {name: float(value) for name, value in metric([output], [reference]).items()}
    if primary.startswith("-") and primary[1:] in found:
        found[primary] = -found[primary[1:]]
    if primary not in found:
        raise ConfigError(f"a metric gives {', '.join(found)}; expected {primary} among them; correct what is best")
    return found


def list_numbers(value: Any) -> list[float]:
    """One number, or the several of a row."""
    return list(value) if isinstance(value, list | tuple) else [value]


def _square(output: Any, reference: Any) -> float:
    pairs = zip(list_numbers(output), list_numbers(reference), strict=True)
    squares = [(ours - theirs) ** 2 for ours, theirs in pairs]
    return math.fsum(squares) / len(squares)


def _describe(outputs: Sequence[str], sources: Sequence[str] | None, training: TrainingText | None) -> dict[str, float]:
    rows = [
        describe_output(output, None if sources is None else sources[i], training) for i, output in enumerate(outputs)
    ]
    return {name: math.fsum(row[name] for row in rows) / len(rows) for name in rows[0]}


def _described(values: Mapping[str, float]) -> list[str]:
    return [f"{value:.1f}" if name == "length" else f"{value:.1%}" for name, value in values.items()]


def _is_share(name: str) -> bool:
    """Whether a score is a fraction, shown as per cent; an error has the unit of what is measured."""
    return not name.endswith("error")


def _width(text: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(each) in "WF") for each in text)


def _check(systems: Mapping[str, Sequence[Any]], references: Sequence[Any], sources: Sequence[str] | None) -> None:
    if not systems or not references:
        raise DataError(
            f"{len(systems)} systems and {len(references)} references; expected one of each or more; name some"
        )
    lists = {**{f"system {name!r}": each for name, each in systems.items()}, "the list of sources": sources}
    for name, each in lists.items():
        if each is not None and len(each) != len(references):
            raise DataError(
                f"{name} has {len(each)} texts for {len(references)} references; expected as many; "
                "give one for each reference"
            )
