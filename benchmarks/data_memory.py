"""Memory of preparing data: does it stay flat when the text grows?

Makes jsonl files of documents by shuffling sentences of the Python corpus, prepares them in processes of their own,
and prints peak resident memory and time beside those of a plain script that reads all text into memory and calls
`tokenizers` itself (same vocabulary size, ids kept as uint16). Both run one after the other, on the same machine.

    python benchmarks/data_memory.py --megabytes 10 300
"""

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VOCAB_SIZE = 4096


def write_documents(path: Path, megabytes: int) -> None:
    """So much text in documents of 5 to 60 shuffled sentences."""
    from trivium.data.corpus import python_documents

    sentences = [line.strip() for each in python_documents() for line in each.text.split(". ") if 30 < len(line) < 400]
    chance, written = random.Random(0), 0
    with path.open("w", encoding="utf-8") as out:
        while written < megabytes * 1_000_000:
            text = ". ".join(chance.choices(sentences, k=chance.randint(5, 60)))
            written += len(text.encode())
            out.write(json.dumps({"text": text}) + "\n")


def run_nothing(path: Path, out: Path) -> int:
    """Only the imports, to tell what is theirs."""
    import trivium.data.prepare  # noqa: F401

    return 0


def run_trivium(path: Path, out: Path) -> int:
    """What `trivium data prepare` does."""
    from trivium.data.prepare import TokenizerConfig, prepare_data
    from trivium.data.shards import read_manifest

    parts = read_manifest(prepare_data(path, out, tokenizer=TokenizerConfig(vocab_size=VOCAB_SIZE)))["parts"]
    return int(parts["train"]["tokens"] + parts["valid"]["tokens"])


def run_plain(path: Path, out: Path) -> int:
    """The usual script: everything in a list. No split, no search for duplicates, no check sums."""
    import numpy as np
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    with path.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB_SIZE, special_tokens=["<eos>"], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    rows = []
    for begin in range(0, len(texts), 1000):
        batch = tokenizer.encode_batch(texts[begin : begin + 1000])
        rows += [np.array([*each.ids, 0], dtype=np.uint16) for each in batch]
    np.save(out, np.concatenate(rows))
    return sum(len(row) for row in rows)


RUNS = {"imports": run_nothing, "trivium": run_trivium, "plain": run_plain}


def peak_megabytes() -> float:
    """Peak resident memory of this process; from Linux's own count, since ru_maxrss begins at the parent's."""
    try:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def measure(name: str, path: Path, out: Path) -> dict[str, float]:
    """One run in a process of its own: seconds, seconds of processor (which company does not change), MiB, tokens."""
    command = [sys.executable, __file__, "--run", name, str(path), str(out)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def main() -> None:
    """Parse arguments, and either be one measured run or make them all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 1000], help="sizes of text to prepare")
    parser.add_argument("--run", nargs=3, metavar=("NAME", "FILE", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        name, path, out = options.run
        begin = time.perf_counter()
        tokens = RUNS[name](Path(path), Path(out))
        found = {"seconds": time.perf_counter() - begin, "cpu": time.process_time(), "peak": peak_megabytes()}
        print(json.dumps({**found, "tokens": tokens}))
        return
    folder = Path(tempfile.mkdtemp())
    try:
        print("| text | run | peak MiB | seconds | processor | tokens |\n|---|---|---|---|---|---|")
        for megabytes in options.megabytes:
            path = folder / f"{megabytes}.jsonl"
            write_documents(path, megabytes)
            for name in RUNS:
                found = measure(name, path, folder / f"{name}-{megabytes}.npy")
                figures = f"{found['peak']:.0f} | {found['seconds']:.1f} | {found['cpu']:.1f} | {found['tokens']:.0f}"
                print(f"| {megabytes} MB | {name} | {figures} |", flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
