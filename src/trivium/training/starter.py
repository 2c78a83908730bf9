"""From finished runs to a starter: 16-bit weights in an ordinary folder, and a card that says how it was made.

Trains nothing: the commands that did are the recipe's, and stand in the card word for word. Samples are what the
16-bit folder itself answers.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from trivium.errors import ConfigError
from trivium.folder import read_json
from trivium.generation.fill import fill_mask
from trivium.generation.settings import combine_settings
from trivium.generation.text import generate_text
from trivium.hub.auto import load, load_model, load_tokenizer, model_card, save_model
from trivium.hub.decoding import read_generation, read_task
from trivium.sources.catalogue import read_licences
from trivium.training.checkpoint import list_checkpoints
from trivium.training.monitor import read_metrics
from trivium.training.storage import Storage, put_folder, unfinished_name

LARGEST_BYTES = 12_000_000
LICENCE = "apache-2.0"


@dataclass(frozen=True)
class StarterRecipe:
    """What becomes a starter, and what its card tells.

    `folder` is a model folder, by default the last run's `final`. `runs` are finished run folders, whose metrics tell
    time, machine, tokens and curves; `sources` corpora with LICENCES.json; `commands` everything that was typed.
    `task` is what it is for, `also` other tasks that it serves; `generation` is added to how it decodes.
    `comparison` is the JSON that `trivium evaluate … --out` wrote, `scores` other numbers by name. `samples` are
    inputs whose answers the card shows.
    """

    name: str
    task: str
    about: str
    limits: str
    runs: tuple[str, ...]
    folder: str = ""
    title: str = ""
    also: tuple[str, ...] = ()
    language: str = "en"
    sources: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    generation: Mapping[str, Any] = field(default_factory=dict)
    comparison: str = ""
    scores: Mapping[str, str | float] = field(default_factory=dict)
    samples: tuple[str, ...] = ()
    out: str = "starters"

    def __post_init__(self) -> None:
        if not self.runs:
            raise ConfigError(f"{self.name} names no run; expected those that made it; add runs")


def make_starter(recipe: StarterRecipe) -> Path:
    """Write `out/name` and return it; an older starter of that name is replaced.

    Raises `ConfigError` for a run that is not finished, for weights that 16 bits cannot hold and for more than 12 MB;
    `HubError` and `DataError` for what cannot be read.
    """
    source, target = Path(recipe.folder or Path(recipe.runs[-1]) / "final"), Path(recipe.out) / recipe.name
    histories = [_tell_run(Path(run)) for run in recipe.runs]
    model, tokenizer = load_model(source, dtype=torch.float16), load_tokenizer(source)
    odd = [name for name, weights in model.named_parameters() if not torch.isfinite(weights).all()]
    if odd:
        raise ConfigError(f"{odd[0]} of {source} has numbers beyond 16 bits; expected at most 65504; train it anew")
    generation = read_json(source / "generation_config.json") | dict(recipe.generation)
    tasks = read_json(source / "config.json").get("task_specific_params")
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished_name(target)
    try:
        save_model(model, unfinished, tokenizer=tokenizer, generation=generation, tasks=tasks)
        card = _write_card(recipe, unfinished, histories)
        (unfinished / "README.md").write_text(model_card(model.config, card), encoding="utf-8")
        size = sum(path.stat().st_size for path in unfinished.rglob("*"))
        if size > LARGEST_BYTES:
            found = f"{recipe.name} has {size / 1e6:.1f} MB"
            raise ConfigError(
                f"{found}; expected at most {LARGEST_BYTES / 1e6:.0f}; make the model or vocabulary smaller"
            )
    except BaseException:  # Ctrl-C too: nothing half made may lie among the starters
        Storage().remove(unfinished)
        raise
    put_folder(Storage(), unfinished, target)
    return target


def _write_card(recipe: StarterRecipe, folder: Path, histories: Sequence[str]) -> dict[str, Any]:
    """What `model_card` makes the README.md of."""
    parts = [
        recipe.about.strip(),
        f"```bash\ntrivium run {recipe.task} starter:{recipe.name} < text\n```",
        _tell_samples(recipe, folder),
        _tell_data(recipe.sources),
        _section("How it was made", "```bash\n" + "\n".join(recipe.commands) + "\n```" if recipe.commands else ""),
        *histories,
        _section(
            "Scores", "\n\n".join(filter(None, (_tell_comparison(recipe.comparison), _tell_scores(recipe.scores))))
        ),
        _section("Limits", recipe.limits.strip()),
    ]
    return {
        "title": recipe.title or recipe.name,
        "text": "\n\n".join(filter(None, parts)),
        "pipeline_tag": recipe.task,
        "language": recipe.language,
        "license": LICENCE,
        "tags": ["trivium", *recipe.also],
    }


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}" if text else ""


def _tell_run(run: Path) -> str:
    """Time, machine, tokens and held-out curve of a finished run."""
    if not (run / "result.json").is_file():
        raise ConfigError(f"{run} has no result.json; expected a finished run; train it to its end first")
    result = read_json(run / "result.json")
    facts = {"parameters": f"{result['parameters']:,}", "steps": f"{result['steps']:,}"}
    facts |= {"tokens read": f"{result['tokens']:,}"} if "tokens" in result else {}
    facts |= {"examples": f"{result['examples']:,}"} if "examples" in result else {}
    facts |= {"training time": f"{result['seconds'] / 60:.0f} minutes"}
    manifests = [folder / "MANIFEST.json" for folder in list_checkpoints(run)]
    machine = read_json(manifests[-1])["machine"] if manifests and manifests[-1].is_file() else {}
    names = ("processor", "device", "threads", "compute_dtype", "torch")
    facts |= {name.replace("_", " "): str(machine[name]) for name in names if name in machine}
    curve = [entry for entry in read_metrics(run) if "valid" in entry]
    lines = [[f"{e['progress']:.0%}", f"{e['step']:,}", f"{e['valid']['loss']:.3f}"] for e in curve]
    shown = draw_rows(["done", "step", "held-out loss"], lines) if lines else ""
    return f"### Run `{run.name}`\n\n{draw_rows(['', ''], [list(fact) for fact in facts.items()])}\n\n{shown}".strip()


def _tell_data(sources: Sequence[str]) -> str:
    """What the corpora were made of, by licence: their manifests in short."""
    told = []
    for source in sources:
        manifest = read_licences(Path(source))
        rows = ", ".join(f"{count:,} {part}" for part, count in manifest["rows"].items())
        under: dict[str, list[str]] = defaultdict(list)
        for package in manifest["packages"]:
            under[package["licence"]].append(f"{package['name']} {package['version']} ({package['kind']})")
        table = draw_rows(["licence", "packages"], [[name, ", ".join(under[name])] for name in under])
        made = f"made {manifest['made'][:10]}; rows: {rows}"
        told.append(f"`{manifest['source']}`: {manifest['summary']} ({made}).\n\n{table}")
    return _section("Data", "\n\n".join(told))


def _tell_comparison(path: str) -> str:
    """The table of systems that `trivium evaluate … --out` measured."""
    if not path:
        return ""
    found = read_json(Path(path))
    if not {"primary", "metric", "texts", "systems"} <= found.keys():
        raise ConfigError(f"{path} is no comparison; expected comparison.json of `trivium evaluate … --out`; name it")
    best, scale = found["primary"], 1 if found["metric"] == "bleu" else 100
    rows = []
    for system in found["systems"]:
        score = system["scores"][best]
        interval = f"{scale * score['mean']:.1f} [{scale * score['low']:.1f}, {scale * score['high']:.1f}]"
        rows.append([system["name"] + " (baseline)" * system["is_baseline"], interval])
    return f"{found['texts']:,} texts of `{found.get('data', '')}`.\n\n{draw_rows(['system', f'{best} [95 %]'], rows)}"


def _tell_scores(scores: Mapping[str, str | float]) -> str:
    return draw_rows(["measure", "score"], [[name, f"{value}"] for name, value in scores.items()]) if scores else ""


def _tell_samples(recipe: StarterRecipe, folder: Path) -> str:
    """What the folder as it will be published answers."""
    if not recipe.samples:
        return ""
    model, tokenizer = load(folder)
    if model.config.head != "language":
        raise ConfigError(f"samples of a model with head {model.config.head}; expected one that writes; leave them out")
    if model.config.family == "encoder":
        fills = [fill_mask(model, tokenizer, text, top_k=3) for text in recipe.samples]
        answers = [
            "; ".join(" ".join(f"{each.token_text!r} {each.probability:.0%}" for each in gap) for gap in gaps)
            for gaps in fills
        ]
    else:
        own = read_generation(folder) | read_task(folder, recipe.task)
        prefix = own.pop("prefix", "")
        answers = generate_text(model, tokenizer, [prefix + text for text in recipe.samples], combine_settings(own))
    pairs = zip(recipe.samples, answers, strict=True)
    return _section(
        "Samples", "\n\n".join(f"```text\n{text.strip()}\n→ {answer.strip()}\n```" for text, answer in pairs)
    )


def draw_rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(
        "| " + " | ".join(each.replace("|", "\\|").replace("\n", " ") for each in row) + " |" for row in lines
    )
