"""The main job: the starters answer, then three models learn on real text in a few minutes and show what they do.

A story told on the terminal around `pretrain`, with every number measured on text that neither the tokenizer nor
the models have seen. Interrupted, the same command goes on where it stopped.
"""

import json
import os
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trivium.data.files import list_files
from trivium.data.shards import Shards
from trivium.errors import ConfigError, DataError
from trivium.evaluation.gaps import read_gaps, score_commonest, score_rewriter, score_writer
from trivium.generation.fill import fill_mask
from trivium.generation.settings import SamplingConfig
from trivium.generation.text import generate_text
from trivium.hub.auto import load
from trivium.hub.starters import list_starters, read_language, served_tasks
from trivium.machine import inspect_machine
from trivium.model import Transformer
from trivium.pipelines.build import pipeline
from trivium.pipelines.command import show_result
from trivium.story import ASKED, STORY
from trivium.tokenizer import Tokenizer
from trivium.training.course import Materials
from trivium.training.pretraining import PretrainResult, gather_materials, pretrain
from trivium.training.recipe import Recipe, load_recipe

# Shares of the training time. Writer and rewriter get the same, because they are compared.
SHARES = {"decoder": 0.36, "encoder": 0.28, "encoder_decoder": 0.36}
SAMPLED = SamplingConfig(max_new_tokens=40, do_sample=True, temperature=0.7, top_p=0.9, seed=1)
SHOWN = 4
Say = Callable[..., None]


def run_demo(
    text: str | None = None,
    *,
    minutes: float = 6.0,
    out: str | Path = "runs/demo",
    restart: bool = False,
    limit_files: int = 0,
) -> dict[str, Any]:
    """Train a writer, a reader and a rewriter for `minutes` in all; narrate, write `demo.json` and return it.

    `text` is a file or folder, by default the documentation of this Python installation. `limit_files` uses only
    some of that. Raises `DataError` for unusable text; Ctrl-C saves first, and the same call resumes.
    """
    out, started, machine = Path(out), time.perf_counter(), inspect_machine()
    say = _choose_language()
    source = "python" if text is None else str(text)
    if minutes <= 0:
        raise ConfigError(f"{minutes} minutes of training; expected more than none; give --minutes a positive number")
    if text is not None:
        list_files(Path(text))
    say("hello")
    answers = _show_starters(say)
    say("machine", name=machine.processor, kind=machine.machine_class, cores=machine.cores, dtype=machine.compute_dtype)
    say("text_python" if text is None else "text_own", path=source)
    recipes = {family: plan(family, source, minutes, out, limit_files) for family in SHARES}
    materials = {family: gather_materials(recipe) for family, recipe in recipes.items()}
    say("split", **_describe_split(materials["decoder"]))
    prompt = _choose_prompt(materials["decoder"], text)
    report: dict[str, Any] = {"machine": {"class": machine.machine_class, "cores": machine.cores}}
    result = _tell_writer(recipes["decoder"], materials["decoder"], prompt, say, restart)
    report["decoder"] = summarize_result(result)
    masked = _tell_reader(recipes["encoder"], materials["encoder"], say, restart, report)
    _tell_rewriter(recipes["encoder_decoder"], materials["encoder_decoder"], say, restart, report)
    if answers:
        report["starters"] = answers
    report["seconds"] = round(time.perf_counter() - started, 1)
    path = out / "demo.json"
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    next_words = {family: report[family]["folder"] for family in SHARES}
    next_words |= {"prompt": prompt, "recipe": str(out / "writer" / "config.yaml")}
    next_words["masked"] = "Return a [MASK] of strings." if text is None else masked
    quoted = {name: shlex.quote(word) for name, word in next_words.items()}
    say("end", report=out / "rewriter" / "report.html", json=path, **quoted)
    return report


def _show_starters(say: Say) -> dict[str, str]:
    """What each starter answers to a text of its task and language; those without such a text stay silent."""
    answers = {}
    for name, folder in list_starters().items():
        task = served_tasks(folder)[0]
        asked = ASKED.get((task, read_language(folder)))
        if asked is None:
            continue
        result = pipeline(task, model=folder)(asked)
        answers[name] = show_result(result, as_json=False, lines=False).removeprefix(asked).strip()
        if task == "fill-mask":
            answers[name] = ", ".join(fill["token_str"].strip() for fill in result[:3])
        say("starter", name=name, asked=asked, answer=answers[name].replace("\n", "\n    "))
    return answers


def plan(family: str, source: str, minutes: float, out: Path, limit_files: int = 0) -> Recipe:
    """The recipe of one of the three models: 128 wide, or a quarter of that work where there is no minute a model."""
    long = minutes >= 2
    name = {"decoder": "writer", "encoder": "reader", "encoder_decoder": "rewriter"}[family]
    # In minutes, gaps over half of the text teach more: three times as many words a step. The test has 15 %.
    noise = ["objective.name=span_corruption", "objective.noise_density=0.5"] if family == "encoder_decoder" else []
    settings = [
        f"family={family}",
        f"run={json.dumps(str(out / name))}",
        f"budget.minutes={minutes * SHARES[family]}",
        f"size.width={128 if long else 64}",
        f"size.head_size={32 if long else 16}",
        f"data.seq_len={128 if long else 64}",
        f"data.source={json.dumps(source)}",
        f"data.prepared={json.dumps(str(out / 'data'))}",
        f"data.limit_files={limit_files}",
        f"data.tokenizer.vocab_size={4096 if long else 1024}",
        "save.evaluate_at=[0.333, 0.667]",
        "save.every_steps=200",
        "save.keep_last=1",
        *noise,
    ]
    return load_recipe(None, settings)


def summarize_result(result: PretrainResult) -> dict[str, Any]:
    """The entries of demo.json that all three models have."""
    names = ("parameters", "tokens", "loss_before", "loss_after", "bits_per_byte", "folder")
    return {name: asdict(result)[name] for name in names}


def _tell_writer(recipe: Recipe, materials: Materials, prompt: str, say: Say, restart: bool) -> PretrainResult:
    say("writer", minutes=recipe.budget.minutes)

    def show(model: Transformer, progress: float) -> list[str]:
        written = generate_text(model, materials.tokenizer, [prompt], SAMPLED)[0]
        say("sample", progress=f"{progress:.0%}", prompt=prompt, text=" ".join(written.split()))
        return [prompt + written]

    result = pretrain(recipe, restart=restart, on_evaluate=show)
    frequency = _frequency_loss(materials)
    say(
        "writer_result",
        loss=result.loss_after,
        frequency=frequency,
        bits=result.bits_per_byte,
        frequency_bits=frequency / np.log(2) / materials.bytes_per_token,
        tokens=result.tokens,
        speed=result.tokens / max(result.seconds, 1e-9),
    )
    return result


def _tell_reader(recipe: Recipe, materials: Materials, say: Say, restart: bool, report: dict[str, Any]) -> str:
    """The reader's chapter; returns a sentence with a gap to try."""
    say("reader", minutes=recipe.budget.minutes)
    result = pretrain(recipe, restart=restart)
    commonest = int(Shards(_data_folder(recipe), verify=False).count_tokens(materials.tokenizer.vocab_size).argmax())
    right, total = 0, 0
    for batch in materials.valid.valid_batches(recipe.data.valid_rows):
        targets = batch.targets[batch.weights > 0]
        right, total = right + int((targets == commonest).sum()), total + len(targets)
    baseline = right / max(total, 1)
    report["encoder"] = {
        **summarize_result(result),
        "masked_accuracy": result.accuracy,
        "baseline_accuracy": baseline,
    }
    say("reader_result", accuracy=result.accuracy, baseline=baseline, loss=result.loss_after)
    model, tokenizer = load(result.folder)
    shown = _surest_masks(model, tokenizer, _held_out_texts(recipe))
    for text, truth, guesses in shown:
        say("mask", text=text, truth=truth, guesses="  ".join(f"{guess!r} {share:.0%}" for guess, share in guesses))
    return shown[0][0] if shown else tokenizer.special_tokens["mask_token"]


def _tell_rewriter(recipe: Recipe, materials: Materials, say: Say, restart: bool, report: dict[str, Any]) -> None:
    say("rewriter", minutes=recipe.budget.minutes)
    result = pretrain(recipe, restart=restart)
    model, tokenizer = load(result.folder)
    writer, _ = load(report["decoder"]["folder"])
    asked = gather_materials(replace(recipe, objective=None))  # T5's own 15 %
    loader = asked.valid
    batches = list(loader.valid_batches(recipe.data.valid_rows))
    score = score_rewriter(model, batches, loader.vocabulary)
    baseline = score_commonest((asked.train.batch_at(step) for step in range(200)), batches, loader.vocabulary)
    left = score_writer(writer, batches, loader.vocabulary)
    report["encoder_decoder"] = summarize_result(result)
    report["rewriting"] = {
        "spans_test": score.gaps,
        "exact": score.exact,
        "token_accuracy": score.token_accuracy,
        "baseline_exact": baseline.exact,
        "baseline_token_accuracy": baseline.token_accuracy,
        "decoder_exact": left.exact,
        "decoder_token_accuracy": left.token_accuracy,
    }
    say("rewriter_result", score=score, baseline=baseline, left=left)
    for text, truth, answer in _surest_gaps(model, tokenizer, batches, asked):
        say("gap", text=text, truth=truth, answer=answer)


def _surest_masks(
    model: Transformer, tokenizer: Tokenizer, texts: list[str]
) -> list[tuple[str, str, list[tuple[str, float]]]]:
    """Held-out sentences with one word masked, those the model is surest of first: (text, truth, guesses)."""
    mask, found = tokenizer.special_tokens["mask_token"], []
    generator = np.random.default_rng(0)
    for text in texts:
        sentence = " ".join(text.split("\n\n")[0].split())[:200]
        ids = tokenizer.encode(sentence)[:60]
        words = [place for place in range(2, len(ids)) if _is_word(tokenizer.token_text(ids[place]))]
        if not words:
            continue
        place = int(generator.choice(words))
        before, after = (tokenizer.decode(part).strip("\ufffd") for part in (ids[:place], ids[place + 1 :]))
        gap = fill_mask(model, tokenizer, f"{before}{mask}{after}", top_k=3)[0]
        guesses = [(fill.token_text, fill.probability) for fill in gap]
        found.append((f"{before}{mask}{after}", tokenizer.token_text(ids[place]), guesses))
    return sorted(found, key=lambda each: -each[2][0][1])[:SHOWN]


@torch.inference_mode()
def _surest_gaps(
    model: Transformer, tokenizer: Tokenizer, batches: list[Any], materials: Materials
) -> list[tuple[str, str, str]]:
    """Held-out gaps worth showing, those the model is surest of first: (text with gap, truth, answer)."""
    allowed = torch.zeros(model.config.vocab_size, dtype=torch.bool)
    allowed[: len(materials.valid.vocabulary.ordinary)] = torch.from_numpy(materials.valid.vocabulary.ordinary)
    found = []
    for batch in batches:
        logits = model.head(model(batch.inputs, batch.context)).masked_fill(~allowed, -torch.inf)
        best = logits.log_softmax(-1).max(-1)
        for gap in read_gaps(batch, materials.valid.vocabulary):
            columns = slice(gap.column, gap.column + len(gap.span))
            truth = tokenizer.decode(gap.span)
            if not _is_word(truth):
                continue
            sureness = float(best.values[gap.row, columns].mean())
            before = tokenizer.decode(gap.document[max(0, gap.start - 24) : gap.start])
            after = tokenizer.decode(gap.document[gap.stop : gap.stop + 16])
            answer = tokenizer.decode(best.indices[gap.row, columns].tolist())
            around = " ".join(f"{before} ___ {after}".split()).strip("\ufffd")  # cut within a character
            found.append((sureness, around, truth.strip(), answer.strip()))
    return [(text, truth, answer) for _, text, truth, answer in sorted(found, reverse=True)[:SHOWN]]


def _is_word(text: str) -> bool:
    """Whether a gap is worth showing: three letters or more, or any Chinese character, and no part of one."""
    return "\ufffd" not in text and (len(text.strip()) > 2 or any("\u4e00" <= each <= "\u9fff" for each in text))


def _choose_language() -> Say:
    """A function that prints a line of the story in English, or in Chinese where `LANG` says so."""
    language = os.environ.get("LC_ALL") or os.environ.get("LC_MESSAGES") or os.environ.get("LANG") or "en"
    chinese = language.lower().startswith("zh")

    def say(key: str, **values: Any) -> None:
        english, mandarin = STORY[key]
        print((mandarin if chinese else english).format(**values), flush=True)

    return say


def _data_folder(recipe: Recipe) -> Path:
    return Path(recipe.data.prepared)


def _describe_split(materials: Materials) -> dict[str, Any]:
    manifest = Shards(_data_folder(materials.recipe), verify=False).manifest
    train, valid = manifest["parts"]["train"], manifest["parts"]["valid"]
    return {
        "train_documents": train["documents"],
        "train_megabytes": train["bytes"] / 1e6,
        "train_tokens": train["tokens"],
        "valid_documents": valid["documents"],
        "valid_kilobytes": valid["bytes"] / 1e3,
        "near": manifest["near_duplicates_of_held_out"],
    }


def _held_out_texts(recipe: Recipe, most: int = 200) -> list[str]:
    lines = (_data_folder(recipe) / "valid.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines[:most]]


def _choose_prompt(materials: Materials, text: str | None) -> str:
    """Something to begin with: a phrase of documentation, or how a held-out document of the user's begins."""
    if text is None:
        return "Return the"
    texts = _held_out_texts(materials.recipe)
    if not texts:
        raise DataError(f"{text} is too short to hold any of it out; expected more text; add some")
    ids = materials.tokenizer.encode(texts[0].strip())[:6]
    return materials.tokenizer.decode(ids)


def _frequency_loss(materials: Materials) -> float:
    """Nats per held-out token for a model that knows only how often each token occurs in training."""
    folder, size = _data_folder(materials.recipe), materials.tokenizer.vocab_size
    counts = Shards(folder, verify=False).count_tokens(size) + 0.5
    valid = Shards(folder, "valid", verify=False).count_tokens(size)
    return float(-(valid * np.log(counts / counts.sum())).sum() / valid.sum())
