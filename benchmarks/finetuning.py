"""The same checkpoint fine-tuned with trivium and with transformers' Trainer (and peft), rows in, a folder out.

Same rows, steps, batch, AdamW, linear schedule, clipping and dropout. Each run is a process of its own; timed is all
from rows and folder to the trained folder, imports apart. The peer runs as it comes (“default”) and at the best setting
that it had in as many short trials as ours had. Rounds alternate; processor and wall seconds; one judge (trivium's loss
and answers, on rows that nobody trained on) for both folders.

    python benchmarks/finetuning.py [--rounds 3] [--only NAME …] [--root DIR_WITH_runs] [--record]
"""

import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from table import in_rounds, make_parser, show_rows

# Task, data, checkpoint (below --root), steps, rank of an adapter, rate.
WORKS: dict[str, tuple[str, str, str, int, int, float]] = {
    "summarization": ("summarization", "python-docstrings", "starters/summarizer-en", 60, 0, 5e-4),
    "summarization, LoRA": ("summarization", "python-docstrings", "starters/summarizer-en", 60, 8, 5e-3),
    "classification": ("text-classification", "rotten-tomatoes", "MINILM", 40, 0, 1e-4),
    "classification, LoRA": ("text-classification", "rotten-tomatoes", "MINILM", 40, 8, 1e-3),
}
BATCH, SOURCE, TARGET, JUDGED, TRIAL = 16, 256, 48, 300, 8
TARGETS = {"summarization": ["q", "v"], "text-classification": ["query", "value"]}
OURS: list[dict[str, Any]] = [{}, {"pack": False}, {"micro_rows": 8}, {"pack": False, "micro_rows": 8}]
THEIRS: list[dict[str, Any]] = [
    {},  # the default
    {"train_sampling_strategy": "group_by_length"},
    {"train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused", "attn": "sdpa", "multiple": 8},
    {"train_sampling_strategy": "group_by_length", "attn": "eager", "workers": 1},
]
# Where trivium computes in bfloat16, the peer may too: its three trials are made so, the default as it comes.
BFLOAT16 = {"bf16": True}


def tune_ours(job: dict[str, Any], out: str) -> str:
    """Fine-tune with trivium; the trained folder."""
    from trivium import finetune

    result = finetune(
        job["model"], job["task"], {"train": job["rows"], "valid": job["rows"][:2]}, run=out, quiet=True,
        steps=job["steps"], rows_per_batch=BATCH, source_tokens=SOURCE, target_tokens=TARGET, on_long="truncate",
        valid_rows=1, scored_rows=1, save={"best": "", "evaluate_at": [], "every_steps": 0},
        lora={"rank": job["rank"]} if job["rank"] else None,
        optimizer={"rate": job["rate"], "weight_decay": 0.0, "beta2": 0.999}, **job["setting"],
    )  # fmt: skip
    return str(result.folder)


def tune_theirs(job: dict[str, Any], out: str) -> str:
    """Fine-tune with transformers (and peft); the trained folder."""
    import transformers as t

    setting, two = dict(job["setting"]), job["task"] == "summarization"
    # A starter's weights are of 16 bits: taken as they come, the peer would train in them, 15 times slower on a CPU.
    opening: dict[str, Any] = {"dtype": "float32"}
    opening |= {"attn_implementation": setting.pop("attn")} if "attn" in setting else {}
    workers, multiple = setting.pop("workers", 0), setting.pop("multiple", None)
    tokenizer = t.AutoTokenizer.from_pretrained(job["model"])
    if two:
        model = t.AutoModelForSeq2SeqLM.from_pretrained(job["model"], **opening)
        encoded = tokenizer([r["source"] for r in job["rows"]], truncation=True, max_length=SOURCE)
        targets = tokenizer([r["target"] for r in job["rows"]], truncation=True, max_length=TARGET)["input_ids"]
        end = tokenizer.eos_token_id
        encoded["labels"] = [each if each[-1:] == [end] else [*each[: TARGET - 1], end] for each in targets]
        collate: Any = t.DataCollatorForSeq2Seq(tokenizer, model, pad_to_multiple_of=multiple)
    else:
        names = sorted({row["label"] for row in job["rows"]})
        model = t.AutoModelForSequenceClassification.from_pretrained(
            job["model"], num_labels=len(names), id2label=dict(enumerate(names)), **opening
        )
        encoded = tokenizer([r["text"] for r in job["rows"]], truncation=True, max_length=SOURCE)
        encoded["labels"] = [names.index(row["label"]) for row in job["rows"]]
        collate = t.DataCollatorWithPadding(tokenizer, pad_to_multiple_of=multiple)
    if job["rank"]:
        import peft

        kind = peft.TaskType.SEQ_2_SEQ_LM if two else peft.TaskType.SEQ_CLS
        whole = None if two else ["pooler"]  # beside the classifier: with us both are the head, and learn
        lora = peft.LoraConfig(
            r=job["rank"], lora_alpha=16, target_modules=TARGETS[job["task"]], task_type=kind, modules_to_save=whole
        )
        model = peft.get_peft_model(model, lora)
    data = [{key: encoded[key][row] for key in encoded} for row in range(len(job["rows"]))]
    made, kind = (t.Seq2SeqTrainingArguments, t.Seq2SeqTrainer) if two else (t.TrainingArguments, t.Trainer)
    arguments = made(
        out, max_steps=job["steps"], per_device_train_batch_size=BATCH, learning_rate=job["rate"], use_cpu=True,
        warmup_steps=round(0.06 * job["steps"]), report_to="none", save_strategy="no", dataloader_num_workers=workers,
        disable_tqdm=True, logging_steps=50, seed=0, **setting,
    )  # fmt: skip
    kind(model=model, args=arguments, train_dataset=data, data_collator=collate, processing_class=tokenizer).train()
    final = model.merge_and_unload() if job["rank"] else model
    final.save_pretrained(f"{out}/final")
    tokenizer.save_pretrained(f"{out}/final")
    return f"{out}/final"


def work(job: dict[str, Any]) -> None:
    """One run in this process; prints processor and wall seconds, peak memory, and the folder's path."""
    import torch
    import torch._dynamo  # the first optimizer imports it, for more than a second: trivium's while it is timed

    torch.set_num_threads(job["threads"])
    if job["tool"] == "trivium":
        import trivium.training.finetuning  # noqa: F401  # imports are not timed
    else:
        import transformers

        transformers.logging.set_verbosity_error()
        for name in ("Seq2SeqTrainer", "AutoModelForSeq2SeqLM", "DataCollatorForSeq2Seq"):
            getattr(transformers, name)
    wall, own = time.perf_counter(), time.process_time()
    folder = (tune_ours if job["tool"] == "trivium" else tune_theirs)(job, job["out"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {"cpu": time.process_time() - own, "wall": time.perf_counter() - wall, "peak": peak, "folder": folder}
    print(json.dumps(found))


def judge(task: str, folder: str, rows: list[dict[str, Any]]) -> str:
    """The held-out loss and score of a folder, in words."""
    from trivium.data.batch import collate
    from trivium.evaluation.answer import answer_samples
    from trivium.evaluation.labels import evaluate_labels
    from trivium.evaluation.likelihood import evaluate_loss
    from trivium.evaluation.metrics import METRICS
    from trivium.hub.auto import load
    from trivium.tasks import Limits, encode_rows, find_task

    model, tokenizer = load(folder)
    found, limits = find_task(task), Limits(SOURCE, TARGET, "truncate")
    samples = encode_rows(found, rows, model.config, tokenizer, limits=limits, labels=model.config.labels).samples
    examples = [sample.example for sample in samples]
    batches = [collate(examples[at : at + 16], model.config.pad_id) for at in range(0, len(examples), 16)]
    if found.head != "language":
        scores = METRICS[str(found.metric)](*answer_samples(model, tokenizer, found, samples))
        return f"loss {evaluate_labels(model, batches):.3f}, accuracy {scores['accuracy']:.3f}"
    loss = evaluate_loss(model, batches, bytes_per_token=1.0).loss
    answers = answer_samples(model, tokenizer, found, samples[:100], decoding={"num_beams": 1})
    return f"loss {loss:.3f}, ROUGE-L {METRICS[str(found.metric)](*answers)['rougeL']:.3f}"


def start(job: dict[str, Any], threads: int) -> dict[str, Any]:
    """One run in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1"}
    environment["TOKENIZERS_PARALLELISM"] = "false" if threads == 1 else "true"
    command = [sys.executable, __file__, "--rounds", "0"]
    job = job | {"threads": threads}
    done = subprocess.run(command, input=json.dumps(job), env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def read_rows(root: Path, data: str, part: str, most: int) -> list[dict[str, Any]]:
    """Rows of a built corpus, drawn with one seed."""
    lines = (root / "runs/sources" / data / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in random.Random(0).sample(lines, min(most, len(lines)))]
    return [{key: row[key] for key in ("source", "target", "text", "label") if key in row} for row in rows]


def measure(name: str, root: Path, minilm: str, *, rounds: int, threads: int) -> list[str]:
    """The rows of the table for one work."""
    from trivium.machine import inspect_machine

    task, data, checkpoint, steps, rank, rate = WORKS[name]
    model = minilm if checkpoint == "MINILM" else str(root / checkpoint)
    rows = read_rows(root, data, "train", steps * BATCH)
    job = {"model": model, "task": task, "rows": rows, "rank": rank, "rate": rate}

    def run(tool: str, setting: dict[str, Any], steps: int, out: str) -> dict[str, Any]:
        return start(job | {"tool": tool, "setting": setting, "steps": steps, "out": out}, threads)

    with tempfile.TemporaryDirectory() as folder:
        best, half = {}, BFLOAT16 if inspect_machine().compute_dtype == "bfloat16" else {}
        theirs = [each | (half if each else {}) for each in THEIRS]
        for tool, settings in (("trivium", OURS), ("transformers", theirs)):
            trials = [run(tool, each, TRIAL, f"{folder}/try-{tool}-{at}")["cpu"] for at, each in enumerate(settings)]
            best[tool] = settings[trials.index(min(trials))]
            print(name, tool, [round(each, 1) for each in trials], file=sys.stderr, flush=True)
        contenders = {"ours": ("trivium", best["trivium"]), "best": ("transformers", best["transformers"])}
        contenders |= {"default": ("transformers", {})} if best["transformers"] else {}
        found: dict[str, list[dict[str, Any]]] = {each: [] for each in contenders}
        for number in range(rounds):
            for each, (tool, setting) in contenders.items():
                found[each].append(run(tool, setting, steps, f"{folder}/{each}-{number}"))
        held = read_rows(root, data, "test", JUDGED)
        scores = {each: judge(task, runs[-1]["folder"], held) for each, runs in found.items()}
    lines = []
    for each in list(contenders)[1:]:
        ratios = [[a[key] / b[key] for a, b in zip(found["ours"], found[each], strict=True)] for key in ("cpu", "wall")]
        mine, theirs = (statistics.median(one["cpu"] for one in found[key]) for key in ("ours", each))
        peaks = [statistics.median(one["peak"] for one in found[key]) for key in ("ours", each)]
        label = f"{each} {json.dumps(contenders[each][1])}" if each == "best" else "default"
        lines.append(
            f"{name} | {label} | {mine:.1f} / {theirs:.1f} s | {in_rounds(ratios[0])} | {in_rounds(ratios[1])} | "
            f"{peaks[0]:,.0f} / {peaks[1]:,.0f} MB ({peaks[0] / peaks[1]:.2f}) | {scores['ours']} | {scores[each]}"
        )
    return lines


def main() -> None:
    """Run the works and print the table."""
    parser = make_parser(__doc__, WORKS)
    parser.add_argument("--root", type=Path, default=Path())
    parser.add_argument("--minilm", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.rounds == 0:
        work(json.loads(sys.stdin.read()))
        return
    from trivium.machine import inspect_machine

    for name in arguments.only:
        _, data, checkpoint, *_ = WORKS[name]
        needed = {f"trivium data sources build {data} --out DIR/{data}": arguments.root / "runs/sources" / data}
        if checkpoint == "MINILM":
            needed["--minilm FOLDER"] = Path(arguments.minilm)
        if missing := [how for how, path in needed.items() if not path.is_dir()]:
            print(f"skipped: {name} needs {' and '.join(missing)}", file=sys.stderr)
            continue
        lines = measure(name, arguments.root, arguments.minilm, rounds=arguments.rounds, threads=arguments.threads)
        load = f"load {os.getloadavg()[1]:.1f}, {arguments.threads} thread(s)"
        show_rows(
            "work | peer's setting | processor time | ratio of processor time | ratio of wall time | peak memory | "
            "trivium | peer",
            [line.replace(" | ", f" ({load}) | ", 1) for line in lines],
            machine_class=inspect_machine().machine_class,
            record=arguments.record,
        )


if __name__ == "__main__":
    main()
