"""Poems by a model of Chinese verse for the titles of held-out poems: how many are in legal form, how much is copied.

    python benchmarks/verse.py [MODEL] [--data DIR] [--poems 100] [--first-verse] [--temperature 0.8] [--record]

MODEL is a folder or `starter:poet-zh`, which is the default; DIR is what `trivium data sources build poetry-zh` wrote.
Copied: the share of verses, and of couplets, that stand in the training text character for character; beside it the
same rate of the real poems with these titles (of which the split lets none but verses of five be there).
"""

from dataclasses import replace
from pathlib import Path

from table import make_parser, show_rows

from trivium.evaluation.verse import SAMPLED, evaluate_verse
from trivium.machine import inspect_machine


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("model", nargs="?", default="starter:poet-zh")
    parser.add_argument("--data", type=Path, default=Path("runs/sources/poetry-zh"))
    parser.add_argument("--poems", type=int, default=100)
    parser.add_argument("--first-verse", action="store_true", help="give the real poem's first verse too")
    parser.add_argument("--temperature", type=float, default=SAMPLED.temperature)
    parser.add_argument("--top-p", type=float, default=SAMPLED.top_p)
    parser.add_argument("--shown", type=int, default=3)
    given = parser.parse_args()
    if not given.data.is_dir():
        print(f"skipped: {given.data} is not there; trivium data sources build poetry-zh --out {given.data}")
        return
    config = replace(SAMPLED, temperature=given.temperature, top_p=given.top_p)
    report = evaluate_verse(given.model, given.data, poems=given.poems, first_verse=given.first_verse, config=config)
    print("\n\n".join(report.poems[: given.shown]), end="\n\n")
    rates = (report.copied.verses, report.real.verses, report.copied.couplets, report.real.couplets)
    asked = "title and first verse" if given.first_verse else "title"
    row = " | ".join((given.model, asked, f"{report.legal} of {len(report.poems)}", *(f"{rate:.1%}" for rate in rates)))
    columns = "model | asked with | legal form | verses copied | of real poems | couplets copied | of real poems"
    show_rows(columns, [row], machine_class=inspect_machine().machine_class, record=given.record)


if __name__ == "__main__":
    main()
