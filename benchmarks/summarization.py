"""Summaries on one test set: every baseline, ours pretrained and fine-tuned, the same without, a GPT-2-shaped decoder.

English: Debian descriptions → synopses, split by source package and first paragraph. Chinese: what an idiom means → the
idiom, or a manual page → its one-line name. ROUGE (characters for Chinese, %) of texts, each the mean over seeds, with
95 % bootstrap intervals over texts; differences from the best baseline by paired randomisation, adjusted (Holm).

`--pretrained` is a folder of an encoder–decoder; without it one is pretrained for `--minutes` on `--text` (the training
rows' own texts, if not given), as the decoder of like size always is, at a fixed start of token frequencies for the
model without pretraining. Runs lie in runs/benchmarks/summarization; a finished one is not trained again, one that was
cut goes on. It takes hours, so `make bench` leaves it out. `--limit` takes so many rows of each part: a trial, whose
numbers say nothing.

    python benchmarks/summarization.py [--only en|zh|manpages …] [--seeds 3] [--pretrained DIR] [--limit N] [--record]
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from table import make_parser, show_works

TASK = "summarization"
# What was found to learn best on held-out rows: other names in half of the examples, so that few are known by heart.
SETTINGS: dict[str, Any] = {"source_tokens": 256, "target_tokens": 40, "rows_per_batch": 16, "swap": 0.5}
SIGN = {"prefix": "summarize: ", "save": {"best": "rougeL", "evaluate_at": [0.25, 0.5, 0.75]}}
SHORT: dict[str, Any] = SETTINGS | {"source_tokens": 128, "target_tokens": 64, "rows_per_batch": 48, "dropout": 0.1}
DECODER_BYTES = 20_000_000  # of text in memory, more than half an hour of a CPU reads
BASELINES = ("lead", "lead-cut", "textrank", "nearest")
KEYS = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True)
class Work:
    """A corpus of pairs, what is pretrained for it, how and how long it is learned, what is laid over the task's
    decoding, and the goal over the best of the baselines, in points; `more` is a corpus of further training rows,
    `beside` one of text to pretrain on."""

    source: str
    over_baselines: float
    tokenizer: Mapping[str, Any]
    settings: Mapping[str, Any]
    rate: float
    budget: Mapping[str, float]
    decoding: Mapping[str, Any] = field(default_factory=dict)
    more: str = ""
    beside: str = ""


ONE_EACH = {"single_characters": True}  # a character a token: what copies characters has to see them
WORKS = {
    "en": Work(
        "debian-descriptions",
        6.0,
        {"vocab_size": 5900, "prefix_space": True},
        SETTINGS | SIGN,
        8e-4,
        {"minutes": 45},
        {"num_beams": 8, "max_new_tokens": 40},
        more="debian-releases",
    ),
    "zh": Work(
        "idioms-zh",
        5.0,
        {"vocab_size": 6400} | ONE_EACH,
        SHORT,
        1.2e-3,
        {"minutes": 42},
        {"num_beams": 8, "no_repeat_ngram_size": 2, "max_new_tokens": 16},
        beside="poetry-zh",
    ),
    "manpages": Work("manpages-zh", 5.0, {"vocab_size": 4096} | ONE_EACH, SETTINGS, 8e-4, {"epochs": 10}),
}
OVER_NOTHING = 3.0
# Models without pretraining, and whether they begin with the circuit that copies; the first there is is ours' measure.
UNTRAINED = {"ours without pretraining": True, "ours without pretraining or copying": False}


def read_training(data: Path) -> list[dict[str, str]]:
    """The training rows; where an idiom comes from and its example are empty if a held-out target stands in them."""
    from seeds import read_part

    held = {row["target"] for part in ("valid", "test") for row in read_part(data, part)}

    def spare(text: str) -> str:
        return "" if any(target in text for target in held) else text

    rows = read_part(data, "train")
    return [row | {name: spare(row[name]) for name in ("origin", "example") if name in row} for row in rows]


def write_text(data: Path, place: Path, beside: Path | None = None) -> Path:
    """What there is to pretrain on without another corpus: all that the training rows say, the idiom in its example,
    and about as many characters of a corpus `beside`, without rows in which a held-out target stands."""
    from seeds import read_part

    path, texts = place / "text.jsonl", []
    for row in read_training(data):
        example = row.get("example", "").split("★")[0].replace("～", row["target"])
        texts.append("\n".join(filter(None, (row["source"], row["target"], row.get("origin", ""), example))))
    if beside is not None:
        held = {row["target"] for part in ("valid", "test") for row in read_part(data, part)}
        other = [row["text"] for row in read_part(beside, "train")]
        every = max(sum(map(len, other)) // sum(map(len, texts)), 1)
        texts += [text for text in other[::every] if not any(target in text for target in held)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")
    return path


def write_idiom_tasks(data: Path, place: Path) -> list[dict[str, Any]]:
    """Two more tasks of the same training rows, each with its sign: the idiom in the text that it comes from, and what
    an idiom means. What must serve all three is less easily learned by heart."""
    tasks: dict[str, list[dict[str, str]]] = {"origins": [], "meanings": []}
    for row in read_training(data):
        tasks["meanings"].append({"source": row["target"], "target": row["source"]})
        if row["origin"] and sum(each in row["origin"] for each in row["target"]) >= 3:
            tasks["origins"].append({"source": row["origin"], "target": row["target"]})
    for name, rows in tasks.items():
        (place / name).mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (place / name / "train.jsonl").write_text(lines, encoding="utf-8")
    signs = (("origins", 0.4, "出处："), ("meanings", 0.3, "释义："))
    return [{"task": TASK, "data": str(place / name), "weight": share, "prefix": sign} for name, share, sign in signs]


def pretrain_ours(work: Work, text: Path, run: Path, minutes: float) -> tuple[str, float]:
    """An encoder–decoder pretrained by span corruption from a start that copies: its folder and the seconds."""
    from trivium import Recipe, pretrain
    from trivium.data.prepare import TokenizerConfig
    from trivium.training.optim import OptimizerConfig
    from trivium.training.recipe import BudgetConfig, DataConfig, SizeConfig

    data = DataConfig(source=str(text), rows_per_batch=16, tokenizer=TokenizerConfig(**work.tokenizer))
    recipe = Recipe("encoder_decoder", run=str(run), data=data, optimizer=OptimizerConfig(rate=1e-3))
    recipe = replace(recipe, size=SizeConfig(width=192, layers=3, head_size=64, copy_start=True))
    found = pretrain(replace(recipe, budget=BudgetConfig(minutes=minutes)), quiet=True)
    return found.folder, found.seconds


def build_untrained(pretrained: str, data: Path, place: Path, seed: int, *, copies: bool) -> str:
    """The same architecture and tokenizer with fresh weights, which begin at the frequencies of target tokens, and if
    `copies` with the circuit that copies, as the pretrained one began: then what is compared is the pretraining."""
    import torch
    from seeds import read_part

    from trivium.hub.auto import load_model_config, load_tokenizer, save_model
    from trivium.model import build_model
    from trivium.model.start import set_copy_start, set_unigram_start

    config, tokenizer = load_model_config(pretrained), load_tokenizer(pretrained)
    model = build_model(config, seed=seed, zero_outputs=True)
    if model.head.bias is not None or model.head.weight is not None:  # a tied head has no place for frequencies
        ids = tokenizer.encode_batch([row["target"] for row in read_part(data, "train")])
        counts = torch.bincount(torch.tensor(list(chain.from_iterable(ids))), minlength=config.vocab_size) + 0.1
        log_frequencies = (counts / counts.sum()).log()
        if copies:
            set_copy_start(model, log_frequencies, seed=seed)
        else:
            set_unigram_start(model, log_frequencies)
    folder = place / ("untrained" if copies else "untrained-ordinary") / f"seed-{seed}"
    return str(save_model(model, folder, tokenizer=tokenizer))


def build_decoder(pretrained: str, place: Path) -> str:
    """A GPT-2 shape of the same width and tokenizer, with as many layers as come nearest in parameters."""
    from trivium.hub.auto import load_model_config, load_tokenizer, save_model
    from trivium.model import build_model
    from trivium.model.sizes import count_parameters, find_preset

    like, tokenizer = load_model_config(pretrained), load_tokenizer(pretrained).dress_for("decoder")
    width, heads = like.hidden_size, like.hidden_size // 32
    shape = replace(
        find_preset("gpt2"), vocab_size=like.vocab_size, hidden_size=width, num_heads=heads, num_kv_heads=heads,
        head_size=width // heads, ffn_size=4 * width, max_positions=512, dropout=0.0, pad_id=like.pad_id,
        bos_id=like.eos_id, eos_id=like.eos_id,
    )  # fmt: skip
    wanted = count_parameters(like)
    sizes = [replace(shape, num_layers=layers) for layers in range(1, 49)]
    config = min(sizes, key=lambda each: abs(count_parameters(each) - wanted))
    return str(save_model(build_model(config), place / "decoder/untrained", tokenizer=tokenizer))


def pretrain_decoder(untrained: str, text: Path, run: Path, minutes: float) -> tuple[str, float]:
    """The decoder pretrained as a language model on the same text for as long: its folder and the seconds."""
    from trivium import finetune
    from trivium.data.source import read_documents
    from trivium.hub.auto import load_model_config

    if not (run / "result.json").is_file():
        rows, size = [], 0
        for document in read_documents(text):
            rows.append({"text": document.text})
            size += len(document.text.encode())
            if size > DECODER_BYTES:
                break
        rate = 3e-3 * (128 / load_model_config(untrained).hidden_size) ** 0.5
        finetune(
            untrained, "text-generation", rows, run=str(run), minutes=minutes, quiet=True, source_tokens=256,
            on_long="split", save={"best": ""}, optimizer={"rate": rate, "beta2": 0.999},
        )  # fmt: skip
    return str(run / "final"), float(json.loads((run / "result.json").read_text(encoding="utf-8"))["seconds"])


def measure(name: str, options: Any) -> list[str]:
    """Train and judge all systems of one work: the rows of the table."""
    from seeds import judge_baseline, judge_model, open_data, read_part, say

    from trivium.sources.catalogue import check_agreement

    work = WORKS[name]
    place = options.root / "runs/benchmarks/summarization" / (f"{name}-{options.limit}" if options.limit else name)
    data = open_data(work.source, options.root, place, options.limit)
    beside = open_data(work.beside, options.root, place / work.beside, options.limit) if work.beside else None
    text = options.text or write_text(data, place, beside)
    systems = [judge_baseline(place, TASK, data, each) for each in BASELINES]
    if options.pretrained:
        pretrained, before = str(options.pretrained), _read_seconds(options.pretrained)
    else:
        say(f"{name}: pretraining ours for {options.minutes:g} minutes")
        pretrained, before = pretrain_ours(work, text, place / "pretrained", options.minutes)
    say(f"{name}: pretraining the decoder for {options.minutes:g} minutes")
    shape = build_decoder(pretrained, place)
    decoder, decoder_before = pretrain_decoder(shape, text, place / "decoder/pretrained", options.minutes)
    settings = {**work.settings, **({"epochs": options.epochs} if options.epochs else work.budget)}
    learned = [row["target"] for row in read_part(data, "train")]
    if work.more:
        check_agreement(options.root / "runs/sources" / each for each in (work.source, work.more))
        more = open_data(work.more, options.root, place / work.more, options.limit)
        other = [row["target"] for row in read_part(more, "train")]
        share, learned = len(other) / len(learned), learned + other
        sign = settings.get("prefix", "")
        settings["mix"] = [{"task": TASK, "data": str(more), "weight": round(share, 2), "prefix": sign}]
    if name == "zh":
        settings["mix"] = write_idiom_tasks(data, place)

    def judge(system: str, make: Any, seconds: float = 0.0, **own: Any) -> None:
        found = judge_model(
            place, system, TASK, data, make=make, seeds=options.seeds, pretrained_seconds=seconds,
            decoding=work.decoding, **(settings | own),
        )  # fmt: skip
        systems.append(found)

    ours = {"optimizer": {"rate": work.rate, "beta2": 0.999}}
    judge("ours", lambda seed: pretrained, before, **ours)
    for system, copies in UNTRAINED.items():
        if copies <= _began_with_copying(Path(pretrained)):
            judge(system, lambda seed, how=copies: build_untrained(pretrained, data, place, seed, copies=how), **ours)
    judge("GPT-2 shape", lambda seed: decoder, decoder_before, optimizer={"rate": options.decoder_rate, "beta2": 0.999})
    return lay_out(name, systems, learned)


def lay_out(name: str, systems: list[Any], learned: list[str]) -> list[str]:
    """A row for each system, the best first, with the goals in the row of ours; `learned` are the training targets."""
    from seeds import best_baseline, compare_all, in_interval, state_goal

    from trivium.evaluation.summaries import TrainingText

    training = TrainingText(learned)
    best = best_baseline(systems, "rougeL")
    tested = compare_all(systems, best, "rougeL")
    ours = next(each for each in systems if each.name == "ours")
    nothing = next(each for each in systems if each.name in UNTRAINED)
    ahead, behind = ours.interval("rougeL"), best.interval("rougeL")
    goals = (
        state_goal(f"over {best.name}", 100 * (ahead.mean - behind.mean), WORKS[name].over_baselines,
                   extra=ahead.low > behind.high or ahead.mean < behind.mean),
        state_goal("over no pretraining", 100 * (ahead.mean - nothing.interval("rougeL").mean), OVER_NOTHING),
    )  # fmt: skip
    lines = []
    for each in sorted(systems, key=lambda each: -each.interval("rougeL").mean):
        scores = " | ".join(in_interval(each.interval(key)) for key in KEYS)
        result, p_value = tested.get(each.name, (None, 1.0))
        against = f"{in_interval(result.difference, '+')}, p {p_value:.2g}" if result else "—"
        kind = "baseline" if each.is_baseline else f"{each.parameters / 1e6:.2f} M, {len(each.judged)} seed(s)"
        shares = [training.verbatim(str(text)) for judged in each.judged for text in judged.outputs]
        copied = f"{sum(shares) / len(shares):.1%}"
        told = "; ".join(goals) if each is ours else ""
        lines.append(
            f"{name} | {each.name} ({kind}) | {scores} | {against} | {copied} | {each.describe_times()} | {told}"
        )
    return lines


def _began_with_copying(folder: Path) -> bool:
    """Whether the run round a folder had `size.copy_start`."""
    import yaml

    path = folder.parent / "config.yaml"
    size = yaml.safe_load(path.read_text(encoding="utf-8")).get("size") if path.is_file() else None
    return bool(size and size.get("copy_start"))


def _read_seconds(folder: Path) -> float:
    """How long a folder was pretrained, if its run lies round it."""
    path = folder.parent / "result.json"
    return float(json.loads(path.read_text(encoding="utf-8"))["seconds"]) if path.is_file() else 0.0


def main() -> None:
    """Measure the works and print the table of each."""
    parser = make_parser(__doc__, WORKS, count="seeds", most=3)
    parser.add_argument("--pretrained", type=Path, help="an encoder–decoder to fine-tune")
    parser.add_argument("--decoder-rate", type=float, default=6e-4)
    show_works(
        parser,
        "work | system | ROUGE-1 | ROUGE-2 | ROUGE-L | ROUGE-L against the best baseline | "
        "words copied from training | training (pretraining +), answering | goals",
        measure,
    )


if __name__ == "__main__":
    main()
