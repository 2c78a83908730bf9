"""Systems on one test set, each trained with several seeds: a run is trained and judged once, then read again.

A text's score is the mean over seeds; intervals and tests are over texts. Folders below the place of a work:
`SYSTEM/seed-N` as `finetune` makes them, with `judged.json` of the answers beside; `baselines/NAME.json`.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trivium import evaluate_task, finetune
from trivium.evaluation.significance import Interval, PairedResult, adjust_p_values, bootstrap_interval, paired_test
from trivium.hub.auto import load_tokenizer
from trivium.sources.catalogue import build_source
from trivium.tasks import Limits

PARTS = ("train", "valid", "test")
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Judged:
    """Answers to the test set and what one was worth by each score; `seconds` is the time of all answers."""

    outputs: list[Any]
    references: list[Any]
    scores: list[dict[str, float]]
    seconds: float


@dataclass(frozen=True)
class System:
    """A baseline, or a model with one judgement for each seed. Seconds of training are the mean of the seeds."""

    name: str
    judged: tuple[Judged, ...]
    is_baseline: bool = False
    parameters: int = 0
    pretrained_seconds: float = 0.0
    seconds: float = 0.0
    tokens_per_second: float = 0.0

    def mean_scores(self, key: str) -> list[float]:
        """For each text the mean of a score over the seeds."""
        each = [[text[key] for text in judged.scores] for judged in self.judged]
        return [sum(values) / len(values) for values in zip(*each, strict=True)]

    def interval(self, key: str) -> Interval:
        """The mean of a score over texts and seeds, and its 95 % interval over texts."""
        return bootstrap_interval(self.mean_scores(key))

    def describe_times(self) -> str:
        """Training and answering, in words."""
        count = len(self.judged[0].scores)
        answers = count / max(sum(each.seconds for each in self.judged) / len(self.judged), 1e-3)
        before = f"{self.pretrained_seconds / 60:.1f} + " if self.pretrained_seconds else ""
        trained = f"{before}{self.seconds / 60:.1f} min, {self.tokens_per_second:,.0f} tokens/s; " * bool(self.seconds)
        return f"{trained}{answers:,.0f} texts/s"


def say(message: str) -> None:
    """A line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def open_data(name: str, root: Path, place: Path, limit: int) -> Path:
    """The folder of a corpus, built if it is not there; with a limit, one of so many rows of each part."""
    whole = root / "runs/sources" / name
    if not whole.is_dir():
        build_source(name, whole, progress=say)
    if not limit:
        return whole
    cut = place / f"data-{limit}"
    cut.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        if not (whole / f"{part}.jsonl").is_file():
            continue  # more training rows have no other parts
        lines = (whole / f"{part}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (cut / f"{part}.jsonl").write_text("".join(lines[:: max(len(lines) // limit, 1)][:limit]), encoding="utf-8")
    return cut


def read_part(data: Path, part: str) -> Rows:
    """The rows of a part."""
    return [json.loads(line) for line in (data / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()]


def judge_baseline(place: Path, task: str, data: Path, name: str) -> System:
    """A baseline on the test set; judged anew where the files are others."""
    files = [data / f"{part}.jsonl" for part in ("train", "test")]
    stamp = " ".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    found = _judge(place / "baselines" / f"{name}.json", task, data, stamp=stamp, baselines=[name])
    return System(name, (found,), is_baseline=True)


def judge_model(
    place: Path,
    name: str,
    task: str,
    data: Path,
    *,
    make: Callable[[int], str],
    seeds: int,
    pretrained_seconds: float = 0.0,
    decoding: Mapping[str, Any] | None = None,
    **settings: Any,
) -> System:
    """Fine-tune what `make(seed)` gives (a folder) once a seed, and judge each on the test set.

    `settings` are `finetune`'s, `decoding` is laid over the task's. A seed whose run is finished and judged is read,
    not trained again.
    """
    judged, results, speeds = [], [], []
    limits = Limits(settings["source_tokens"], settings.get("target_tokens", 128), "truncate")
    for seed in range(seeds):
        run = place / name.replace(" ", "-") / f"seed-{seed}"
        say(f"{place.name}: {name}, seed {seed}")
        folder = make(seed)
        result = finetune(
            folder, task, data, run=str(run), seed=seed, progress=say, quiet=True, on_long="truncate", **settings
        )
        stamp = json.loads((run / "result.json").read_text(encoding="utf-8"))["weights"]
        kept = f"{stamp} {json.dumps(decoding or {}, sort_keys=True)}"
        how = {"models": {name: result.folder}, "limits": limits, "decoding": decoding}
        judged.append(_judge(run / "judged.json", task, data, stamp=kept, **how))
        results.append(result)
        read = result.steps * settings.get("rows_per_batch", 16)
        speeds.append(read * _mean_tokens(folder, data, limits) / max(result.seconds, 1e-3))
    return System(
        name,
        tuple(judged),
        parameters=results[0].parameters,
        pretrained_seconds=pretrained_seconds,
        seconds=sum(each.seconds for each in results) / seeds,
        tokens_per_second=sum(speeds) / seeds,
    )


def best_baseline(systems: Sequence[System], key: str) -> System:
    """The best of all baselines by the mean of a score."""
    return max((each for each in systems if each.is_baseline), key=lambda each: each.interval(key).mean)


def compare_all(systems: Sequence[System], against: System, key: str) -> dict[str, tuple[PairedResult, float]]:
    """Each other system's difference from one, and its p-value adjusted for all of them (Holm)."""
    base = against.mean_scores(key)
    found = {each.name: paired_test(each.mean_scores(key), base) for each in systems if each is not against}
    adjusted = adjust_p_values([each.p_value for each in found.values()])
    return {name: (each, p) for (name, each), p in zip(found.items(), adjusted, strict=True)}


def in_interval(interval: Interval, sign: str = "") -> str:
    """Per cent, with the ends of the interval."""
    mean, low, high = (f"{100 * value:{sign}.1f}" for value in (interval.mean, interval.low, interval.high))
    return f"{mean} [{low}, {high}]"


def state_goal(goal: str, found: float, wanted: float, *, extra: bool = True) -> str:
    """Whether a goal in points is reached, and by how much it is or is not; `extra` is what must hold beside it."""
    reached = found >= wanted and extra
    beside = "" if extra else ", the intervals overlap"
    return f"{goal} ≥ {wanted:g}: **{'reached' if reached else 'not reached'}** ({found:+.1f}{beside})"


def _judge(path: Path, task: str, data: Path, *, stamp: str, **systems: Any) -> Judged:
    """The judgement that is kept for these weights, or a new one."""
    kept: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if kept.get("stamp") == stamp:
        return Judged(**kept["judged"])
    started = time.perf_counter()
    comparison = evaluate_task(task, data, **systems)
    seconds = time.perf_counter() - started
    (name,) = comparison.outputs
    judged = Judged(
        list(comparison.outputs[name]), list(comparison.references), list(comparison.per_text[name]), seconds
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"stamp": stamp, "judged": asdict(judged)}, ensure_ascii=False), encoding="utf-8")
    return judged


def _mean_tokens(folder: str, data: Path, limits: Limits) -> float:
    """Tokens of a training row as a model reads it, without padding, from a thousand rows."""
    rows, tokenizer = read_part(data, "train")[:1000], load_tokenizer(folder)
    sides = ((("source", "text"), limits.source), (("target",), limits.target))
    texts = [(str(row[name]), most) for row in rows for names, most in sides for name in names if name in row]
    ids = tokenizer.encode_batch([text for text, _ in texts])
    return sum(min(len(each), most) for each, (_, most) in zip(ids, texts, strict=True)) / len(rows)
