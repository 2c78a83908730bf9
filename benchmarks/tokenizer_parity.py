"""Do ids and decoded text equal transformers', on many mixed lines, for every kind of tokenizer that folders hold?

The lines (English, Chinese, code, emoji, control characters, special tokens, anything else in Unicode) and the folders
are those of tests/tokenizer/wild.py. Both sides are AutoTokenizer objects with their own defaults; text is decoded
from the peer's ids twice, special tokens shown and left out. Kinds from packages need the folder that
TRIVIUM_CHECKPOINTS names. One line that differs is printed for each kind.

    python benchmarks/tokenizer_parity.py --lines 100000
"""

import argparse
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))  # the tests' folders and lines

BATCH = 1000


def compare(name: str, folder: Path, lines: list[str]) -> tuple[int, int]:
    """How many lines have equal ids, and how many rows of ids an equal text."""
    from transformers import AutoTokenizer as Theirs

    from trivium import AutoTokenizer

    theirs: Any = Theirs.from_pretrained(folder)
    ours = AutoTokenizer.from_pretrained(folder)
    equal, decoded, shown = 0, 0, False
    for begin in range(0, len(lines), BATCH):
        some = lines[begin : begin + BATCH]
        expected, found = theirs(some)["input_ids"], ours(some)["input_ids"]
        texts = [
            [each.batch_decode(expected, skip_special_tokens=skip) for skip in (True, False)] for each in (theirs, ours)
        ]
        for index, line in enumerate(some):
            same = expected[index] == found[index], all(a[index] == b[index] for a, b in zip(*texts, strict=True))
            equal, decoded = equal + same[0], decoded + same[1]
            if not all(same) and not shown:
                spelled = [ours.convert_ids_to_tokens(each[index]) for each in (expected, found)]
                print(f"{name}: {line!r}: {spelled} {[[a[index] for a in each] for each in texts]}", file=sys.stderr)
                shown = True
    return equal, decoded


def main() -> None:
    """Parse arguments and print a row for each kind."""
    from _pytest.outcomes import Skipped
    from tests.tokenizer.wild import FOLDERS, SHIPPED, marian, mixed_lines

    kinds = {**FOLDERS, **SHIPPED, "marian": marian}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=100_000, help="how many lines")
    parser.add_argument("--seed", type=int, default=0, help="of the lines")
    parser.add_argument("--only", nargs="+", choices=kinds, default=list(kinds), help="these kinds alone")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of the peer
    lines = mixed_lines(options.lines, seed=options.seed)
    print("| kind | lines | ids equal | decoded equal |\n|---|---|---|---|")
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            try:
                equal, decoded = compare(name, kinds[name](Path(folder) / name), lines)
                print(f"| {name} | {len(lines):,} | {equal:,} | {decoded:,} |", flush=True)
            except Skipped as reason:
                print(f"{name}: left out, {reason}", file=sys.stderr)


if __name__ == "__main__":
    main()
