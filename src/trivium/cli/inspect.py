"""`trivium data inspect`: what a file, a folder or a prepared folder holds, with three examples to look at."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trivium.cli.output import Json, print_values

if TYPE_CHECKING:
    from trivium.data.inspection import PartReport, RowsReport
    from trivium.data.sides import Piece
    from trivium.tokenizer import Tokenizer

app = typer.Typer()
MARKS = {True: ("\x1b[1;32m", "\x1b[0m"), False: ("⟦", "⟧")}  # round what is trained: in colour, without
SHOWN = 600  # characters of a piece


@app.command("inspect")
def inspect_data_command(
    path: Annotated[Path, typer.Argument(help="A text file, a table, a folder, or a prepared folder.")],
    tokenizer: Annotated[str, typer.Option(help="A model folder or hub name: lengths in its tokens.")] = "",
    max_length: Annotated[int | None, typer.Option(help="Tokens that are allowed: what would be cut?")] = None,
    target_length: Annotated[int | None, typer.Option(help="The same of a target.")] = None,
    test: Annotated[str, typer.Option(help="Held-out rows that are elsewhere.")] = "",
    columns: Annotated[str, typer.Option("--map", help="Ours = theirs: source=article,target=highlights")] = "",
    quarantine: Annotated[Path | None, typer.Option(help="Write rows that cannot be used to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a file, folder or prepared folder holds: form, lengths, what is trained, cut, repeated."""
    from trivium.data.forms import read_mapping
    from trivium.data.inspection import holds_rows, inspect_rows
    from trivium.data.prepare import inspect_data

    if not (tokenizer or test or columns or max_length or target_length or holds_rows(path)):
        print_values(inspect_data(path), as_json)
        return
    opened, note = _open_tokenizer(tokenizer)
    mapping = read_mapping(columns)
    report = inspect_rows(
        path,
        test=test or None,
        mapping=mapping,
        tokenizer=opened,
        max_length=max_length,
        target_length=target_length,
        quarantine=quarantine,
    )
    if as_json:
        from dataclasses import asdict

        print(json.dumps(asdict(report), ensure_ascii=False))
        return
    for line in _describe(report, note, colour=_is_terminal() and not os.environ.get("NO_COLOR")):
        print(line)


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _open_tokenizer(name: str) -> "tuple[Tokenizer | None, str]":
    """The tokenizer of a model, and what has to be said of its chat template."""
    if not name:
        return None, ""
    from trivium.hub.resolve import resolve_folder
    from trivium.tokenizer import Tokenizer
    from trivium.tokenizer.chat_mask import set_chat_template

    found = Tokenizer.load(resolve_folder(name))
    if found.settings.get("chat_template") or found.eos_token is None:
        return found, ""
    set_chat_template(found)
    return found, "the tokenizer has no chat template: a plain one is used, in which eos_token ends each turn"


def _describe(report: "RowsReport", note: str, *, colour: bool) -> list[str]:
    """The report in lines for a person."""
    lines = [f"form      {report.form}", *([f"note      {note}"] if note and report.form == "chat" else [])]
    for name, part in report.parts.items():
        lines += ["", *_describe_part(name, part, report)]
    for name, overlap in report.overlap.items():
        rows = max(report.parts[name].rows, 1)
        train = max(report.parts["train"].rows, 1)
        lines += [
            "",
            f"overlap   {overlap.rows:,} rows of {name} ({overlap.rows / rows:.1%}) have an input that is in train too",
            f"          {overlap.near:,} rows of train ({overlap.near / train:.1%}) have nearly one of {name}'s inputs",
        ]
    before, after = MARKS[colour]
    for number, example in enumerate(report.examples, start=1):
        lines += ["", f"example {number} (trained: {before}so{after})"]
        for side, pieces in example.items():
            lines.append(f"  {side}: " + "".join(_show(piece, colour=colour) for piece in pieces).rstrip("\n"))
    return lines


def _describe_part(name: str, part: "PartReport", report: "RowsReport") -> list[str]:
    lines = [f"{name:<9} {part.rows:,} rows"]
    for reason, count in sorted(part.unusable.items(), key=lambda item: -item[1]):
        lines.append(f"  unusable {count:,}: {reason}")
    for side, found in part.lengths.items():
        lines.append(
            f"  {side:<7} {report.unit}: shortest {found.shortest:,}, median {found.median:,}, 95 % up to "
            f"{found.percentile_95:,}, longest {found.longest:,}, together {found.total:,}"
        )
        if side in report.limits:
            lines.append(
                f"  {'':<7} {found.cut:,} ({found.cut / max(part.rows, 1):.1%}) are longer than "
                f"{report.limits[side]:,} and would lose {found.lost:,} ({found.lost / max(found.total, 1):.1%}) tokens"
            )
    lines.append(_describe_cut(part, report))
    if part.nothing_left:
        lines.append(f"  cut so, {part.nothing_left:,} rows would train nothing")
    lines.append(
        f"  repeats {part.duplicates:,} rows; {part.near_duplicates:,} more nearly (of the first "
        f"{part.near_compared:,}); {part.same_input:,} have an earlier input with another output"
    )
    return lines


def _describe_cut(part: "PartReport", report: "RowsReport") -> str:
    from trivium.tasks.encode import KINDS, REFUSED_SHARE, ways_out

    if not report.limits:
        return "  what would be cut depends on tokens: add --tokenizer FOLDER"
    share, ways = part.cut / max(part.rows, 1), ways_out(KINDS[report.form]) if report.form in KINDS else ()
    advice = f"; a run wants --on-long {' or '.join(ways)}" if ways and share > REFUSED_SHARE else ""
    return f"  {part.cut:,} rows ({share:.1%}) would be cut or dropped{advice}"


def _show(piece: "Piece", *, colour: bool) -> str:
    """A piece with marks if it is trained; what a terminal would obey is spelled out."""
    text, trained = piece
    if len(text) > SHOWN:
        text = f"{text[: SHOWN // 2]} … {text[-SHOWN // 2 :]}"
    text = "".join(each if each.isprintable() or each in "\n\t" else repr(each)[1:-1] for each in text)
    before, after = MARKS[colour] if trained else ("", "")
    return f"{before}{text}{after}"
