"""From one recipe to a starter: corpora, training, 16-bit weights in an ordinary folder, and a card that tells of it.

What exists is not made again: a corpus that lies there, a run that is finished; one that was cut goes on. Samples and
scores are those of the 16-bit folder itself.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from trivium.data.shards import Shards
from trivium.errors import ConfigError
from trivium.evaluation.systems import evaluate_task
from trivium.evaluation.verse import evaluate_verse
from trivium.folder import read_json
from trivium.generation.fill import fill_mask
from trivium.generation.settings import combine_settings
from trivium.generation.text import generate_text
from trivium.hub.auto import load, load_model, load_model_config, load_tokenizer, model_card, save_model
from trivium.hub.decoding import SIGNS, read_generation, read_task
from trivium.sources.catalogue import build_source, check_agreement, read_licences
from trivium.tasks import Limits
from trivium.training.checkpoint import list_checkpoints
from trivium.training.finetuning import finetune
from trivium.training.monitor import read_metrics
from trivium.training.pretraining import pretrain
from trivium.training.recipe import Recipe
from trivium.training.storage import Storage, put_folder, unfinished_name
from trivium.training.tuning import TuneRecipe

LARGEST_BYTES = 12_000_000
LICENCE = "apache-2.0"


@dataclass(frozen=True)
class StarterRecipe:
    """What becomes a starter, and what its card tells.

    `sources` are folders of corpora, each named as the corpus that it is built of where it is missing. `pretrain` is
    the first half of the training, `finetune` the second, if there is one; then `baselines` are judged beside the
    starter on the test rows of its data. A poet writes under so many `poems` of the first corpus instead. `task` is
    what it is for, `also` other tasks that it serves; `generation` is added to how it decodes, `command` is what was
    typed, and `samples` are inputs whose answers the card shows.
    """

    name: str
    task: str
    about: str
    limits: str
    pretrain: Recipe
    finetune: TuneRecipe | None = None
    baselines: tuple[str, ...] = ()
    title: str = ""
    also: tuple[str, ...] = ()
    language: str = "en"
    sources: tuple[str, ...] = ()
    command: str = ""
    generation: Mapping[str, Any] = field(default_factory=dict)
    poems: int = 0
    samples: tuple[str, ...] = ()
    out: str = "starters"

    def __post_init__(self) -> None:
        wrong = [
            "baselines without finetune, whose test rows they answer" * bool(self.baselines and not self.finetune),
            "poems without sources, whose titles they have" * bool(self.poems and not self.sources),
            "poems beside baselines" * bool(self.poems and self.baselines),
            f"{self.poems} poems" * (self.poems < 0),
        ]
        if any(wrong):
            raise ConfigError(f"{self.name} has {', '.join(filter(None, wrong))}; expected one test of it; mend it")


def make_starter(
    recipe: StarterRecipe,
    *,
    restart: bool = False,
    progress: Callable[[str], None] | None = None,
    quiet: bool = False,
) -> Path:
    """Make what is missing, then write `out/name` and return it; an older starter of that name is replaced.

    `restart` trains again what was trained, as `pretrain` and `finetune` do.
    Raises as `build_source`, `pretrain`, `finetune` and `evaluate_task` do; `ConfigError` for weights that 16 bits
    cannot hold and for more than 12 MB.
    """
    for corpus in map(Path, recipe.sources):
        if not corpus.is_dir():
            build_source(corpus.name, corpus, progress=progress)
    check_agreement(map(Path, recipe.sources))
    source = Path(pretrain(recipe.pretrain, restart=restart, progress=progress, quiet=quiet).folder)
    runs = [Path(recipe.pretrain.run)]
    if recipe.finetune is not None:
        tuned = finetune(source, recipe=recipe.finetune, restart=restart, progress=progress, quiet=quiet)
        source, runs = Path(tuned.folder), [*runs, Path(recipe.finetune.run)]
    target, histories = Path(recipe.out) / recipe.name, [_tell_run(run) for run in runs]
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
        _section("How it was made", f"```bash\n{recipe.command}\n```" if recipe.command else ""),
        *histories,
        _section("Scores", _compare(recipe, folder) or _count_verse(recipe, folder) or _count_masked(recipe)),
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


def _compare(recipe: StarterRecipe, folder: Path) -> str:
    """The table of the starter and the baselines on the test rows; the texts stay in the run's folder."""
    tuned = recipe.finetune
    if tuned is None or not recipe.baselines:
        return ""
    limits = Limits(tuned.source_tokens, tuned.target_tokens, "truncate")
    found = evaluate_task(
        tuned.task, tuned.data, models={f"starter:{recipe.name}": folder}, baselines=recipe.baselines, limits=limits,
        columns=tuned.columns, out=Path(tuned.run) / "test",
    )  # fmt: skip
    rows = []
    for system in found.rows:
        score = system.scores[found.primary]
        mean, low, high = (found.scale * value for value in (score.mean, score.low, score.high))
        copied = [f"{system.described['verbatim']:.1%}"] if "verbatim" in system.described else []
        rows.append([system.name + " (baseline)" * system.is_baseline, f"{mean:.1f} [{low:.1f}, {high:.1f}]", *copied])
    table = draw_rows(["system", f"{found.primary} [95 %]", "words copied from training"][: len(rows[0])], rows)
    return f"{len(found.references):,} texts of `{tuned.data}`.\n\n{table}"


def _count_verse(recipe: StarterRecipe, folder: Path) -> str:
    """How many poems have the form that was asked for, and how much of them stands in the training text."""
    if not recipe.poems:
        return ""
    config = combine_settings(read_generation(folder))
    title, both = (
        evaluate_verse(folder, recipe.sources[0], poems=recipe.poems, config=config, first_verse=first)
        for first in (False, True)
    )
    asked = [f"{found.legal} of {len(found.poems)}" for found in (title, both)]
    rows = [["poems in the form that was asked for", *asked, ""]]
    for what in ("verses", "couplets"):
        rates = (f"{getattr(rate, what):.1%}" for rate in (title.copied, both.copied, title.real))
        rows.append([f"{what} that stand in the training text", *rates])
    heads = ["measure", "from a title", "from a title and a first verse", "real poems with these titles"]
    return f"Poems under titles of `{recipe.sources[0]}` that were held out.\n\n{draw_rows(heads, rows)}"


def _count_masked(recipe: StarterRecipe) -> str:
    """How many masked tokens of held-out text an encoder fills in."""
    if recipe.pretrain.family != "encoder":
        return ""
    run = Path(recipe.pretrain.run)
    counts = Shards(recipe.pretrain.data.prepared or run / "data", "valid").count_tokens(
        load_model_config(run / "final").vocab_size
    )
    right, commonest = read_json(run / "result.json")["accuracy"], counts.max() / counts.sum()
    return (
        f"Of the masked tokens of held-out text {right:.1%} are filled in as they were; the commonest token everywhere "
        f"would be right for {commonest:.1%}."
    )


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
        prefix, separator = (own.pop(sign, "") for sign in SIGNS)
        asked = [f"{prefix}{text}{separator}" for text in recipe.samples]
        answers = generate_text(model, tokenizer, asked, combine_settings(own))
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
