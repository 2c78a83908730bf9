"""What a table of examples holds, before anything is trained on it: form, lengths, what would be cut, what repeats.

One pass over each part, the held-out ones first. Memory is bounded: eight bytes a row and side for lengths, 12 to 24
for duplicates, two kilobytes for near-duplicates of the first rows, and the held-out inputs (see split.py).
"""

import re
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium.data.dedup import HashSet, NearSet, digest_letters, letters_of
from trivium.data.files import PLAIN, Quarantine, kind_of, list_files
from trivium.data.forms import Form, detect_form, to_form
from trivium.data.reading import place_of
from trivium.data.rows import Row, find_parts, list_tables, read_rows
from trivium.data.sides import MEASURED, Piece, Side, input_of, make_sides, output_of
from trivium.data.source import Document
from trivium.data.split import GIVEN_BYTES, HeldOut
from trivium.errors import ConfigError, DataError, RequestError

if TYPE_CHECKING:
    from trivium.tokenizer import Tokenizer

FIRST_ROWS = 200  # tell the form
NEAR_ROWS = 50_000  # are compared for near-duplicates
SHOWN = 3
SOURCE_TOKENS, TARGET_TOKENS = 512, 128  # what fine-tuning takes at most where a recipe says nothing
VARYING = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")  # what would make each error a reason of its own


@dataclass(frozen=True)
class Lengths:
    """Of one side of all rows; `cut` are longer than allowed and lose `lost` tokens together."""

    shortest: int
    median: int
    percentile_95: int
    longest: int
    total: int
    cut: int = 0
    lost: int = 0


@dataclass(frozen=True)
class PartReport:
    """One part: rows that can be used and others by reason, lengths by side, and what repeats.

    `duplicates` are rows that were there before; `near_duplicates` are almost; `same_input` have an input that was
    there before with another output. `cut` rows have a side that is longer than allowed, `nothing_left` would train
    nothing once they are cut.
    """

    rows: int
    unusable: dict[str, int]
    lengths: dict[str, Lengths]
    cut: int
    nothing_left: int
    duplicates: int
    near_duplicates: int
    same_input: int
    near_compared: int


@dataclass(frozen=True)
class Overlap:
    """A held-out part and the training rows: `rows` of it are there with the same input to the letter; so many
    training rows have an input that is `near` one of its."""

    rows: int
    near: int


@dataclass(frozen=True)
class RowsReport:
    """What `inspect_rows` finds; `unit` is tokens or characters; `limits` says how many of them a side may have, which
    nobody knows without a tokenizer; three `examples`, each by side in pieces."""

    form: Form
    unit: str
    limits: dict[str, int]
    parts: dict[str, PartReport]
    overlap: dict[str, Overlap]
    examples: list[dict[str, list[Piece]]]


def holds_rows(path: str | Path) -> bool:
    """Whether there are tables at a path, and nothing but tables that are no plain text in columns."""
    path = Path(path)
    if not path.exists() or (path / "manifest.json").is_file():
        return False
    if any(f".{kind_of(file)}" in PLAIN for file in list_files(path)):
        return False
    rows = list(islice(read_rows(path, quarantine=Quarantine()), FIRST_ROWS))
    return bool(rows) and detect_form(rows) != "text"


def inspect_rows(
    path: str | Path,
    *,
    test: str | Path | None = None,
    mapping: Mapping[str, str] | None = None,
    tokenizer: "Tokenizer | None" = None,
    max_length: int | None = None,
    target_length: int | None = None,
    quarantine: Path | None = None,
) -> RowsReport:
    """Look at the rows of a table or a folder of train.*, valid.*, test.*; `test` names held-out rows elsewhere.

    With a tokenizer lengths are tokens, of which a target may have `target_length` and any other side `max_length`: as
    many as fine-tuning takes where nothing is said. Rows that cannot be used are counted by reason, and written with
    file and line to `quarantine`. Raises `DataError` where no row can be used and `ConfigError` for a length without a
    tokenizer.
    """
    for name, length in (("max_length", max_length), ("target_length", target_length)):
        if length is not None and (tokenizer is None or length < 1):
            raise ConfigError(
                f"{name} is {length}{' without a tokenizer' if tokenizer is None else ''}; expected a number of tokens "
                f"and whose they are; give --tokenizer and a positive --{name.replace('_', '-')}"
            )
    parts = find_parts(path) | ({"test": list_tables(test)} if test is not None else {})
    form = _form_of(parts, mapping)
    limits: dict[str, int] = {}
    if tokenizer is not None:
        most = max_length or min(SOURCE_TOKENS, tokenizer.model_max_length)
        limits = dict.fromkeys(MEASURED[form], most)
        limits |= {"target": target_length or TARGET_TOKENS} if "target" in limits else {}
    maker = _Maker(form, mapping or {}, tokenizer, quarantine)
    held: dict[str, _HeldInputs] = {}
    reports: dict[str, PartReport] = {}
    examples: list[dict[str, list[Piece]]] = []
    for part in sorted(parts, key=lambda name: (name == "train", name)):  # training rows are compared with the rest
        seen = _HeldInputs() if part != "train" else None
        tally = _Tally(form, limits)
        for values, sides in maker.make(parts[part]):
            given = input_of(form, values)
            tally.add(sides, given, output_of(form, values))
            if seen is not None:
                seen.add(given)
            else:
                for each in held.values():
                    each.compare(given)
            if part == ("train" if "train" in parts else min(parts)) and len(examples) < SHOWN:
                examples.append({side.name: list(side.pieces) for side in make_sides(form, values, tokenizer)})
        if seen is not None:
            held[part] = seen.close()
        reports[part] = tally.report(dict(maker.quarantine.counts))
    if not any(report.rows for report in reports.values()):
        reasons = ", ".join(
            f"{count} × {reason}" for each in reports.values() for reason, count in each.unusable.items()
        )
        raise DataError(f"no usable row of the form {form} at {path} ({reasons}); expected some; look at the file")
    overlap = {part: Overlap(each.found_rows(), each.near) for part, each in held.items() if "train" in parts}
    unit = "characters" if tokenizer is None else "tokens"
    return RowsReport(form, unit, limits, {part: reports[part] for part in parts}, overlap, examples)


def _form_of(parts: dict[str, list[Path]], mapping: Mapping[str, str] | None) -> Form:
    files = parts.get("train") or next(iter(parts.values()))
    rows = list(islice(read_rows(files, quarantine=Quarantine()), FIRST_ROWS))
    if not rows:
        raise DataError(f"{files[0]} has no row that can be read; expected at least one; look at the file")
    return detect_form(rows, mapping=mapping)


@dataclass
class _Maker:
    """Files to canonical values with their sides; what cannot be used goes to a quarantine, new for each part."""

    form: Form
    mapping: Mapping[str, str]
    tokenizer: "Tokenizer | None"
    store: Path | None
    quarantine: Quarantine = field(default_factory=Quarantine)

    def make(self, files: list[Path]) -> Iterator[tuple[dict[str, Any], list[Side]]]:
        self.quarantine = Quarantine(self.store)
        for row in read_rows(files, quarantine=self.quarantine):
            try:
                values = to_form(row, mapping=self.mapping, form=self.form)
                yield values, make_sides(self.form, values, self.tokenizer, shown=False)
            except (DataError, RequestError) as error:
                self.quarantine.put(Path(row.file), row.line, _reason(error, row), str(row.values))


def _reason(error: Exception, row: Row) -> str:
    """What is wrong with a row, without where it is and what varies from row to row."""
    words = str(error).removeprefix(place_of(row)).lstrip(": ").partition(";")[0]
    return VARYING.sub("…", words)


class _Tally:
    """Lengths and repetitions of one part."""

    def __init__(self, form: Form, limits: Mapping[str, int]) -> None:
        self.sizes = {name: array("q") for name in MEASURED[form]}
        self.limits = limits
        self.rows, self.cut, self.nothing_left, self.repeated = 0, 0, 0, Counter[str]()
        self.whole, self.inputs, self.near = HashSet(), HashSet(), NearSet()

    def add(self, sides: list[Side], given: str, output: str) -> None:
        self.rows += 1
        for side in sides:
            if side.name in self.sizes:
                self.sizes[side.name].append(side.size)
        self.cut += any(side.size > self.limits.get(side.name, side.size) for side in sides)
        trained = [side for side in sides if any(side.mask)]
        self.nothing_left += not all(any(side.mask[: self.limits.get(side.name)]) for side in trained)
        new_input = self.inputs.add(_digest(given))
        if not self.whole.add(_digest(f"{given}\x00{output}")):
            self.repeated["duplicates"] += 1
            return
        self.repeated["same_input"] += not new_input
        if self.rows <= NEAR_ROWS and not self.near.add(letters_of(f"{given}\n{output}")):
            self.repeated["near_duplicates"] += new_input  # an equal input with another output is counted above

    def report(self, unusable: dict[str, int]) -> PartReport:
        return PartReport(
            self.rows,
            unusable,
            {name: self._lengths(sizes, self.limits.get(name)) for name, sizes in self.sizes.items() if sizes},
            self.cut,
            self.nothing_left,
            self.repeated["duplicates"],
            self.repeated["near_duplicates"],
            self.repeated["same_input"],
            min(self.rows, NEAR_ROWS),
        )

    def _lengths(self, sizes: "array[int]", limit: int | None) -> Lengths:
        ordered = sorted(sizes)
        over = [] if limit is None else [size - limit for size in ordered if size > limit]
        middle, most = ordered[len(ordered) // 2], ordered[min(len(ordered) * 95 // 100, len(ordered) - 1)]
        return Lengths(ordered[0], middle, most, ordered[-1], sum(ordered), len(over), sum(over))


class _HeldInputs:
    """The inputs of a held-out part, and how many of them training rows have too."""

    def __init__(self) -> None:
        self.count: Counter[int] = Counter()
        self.texts: list[Document] = []
        self.size, self.near = 0, 0
        self.found: set[int] = set()
        self.all: HeldOut | None = None

    def add(self, given: str) -> None:
        self.count[_digest(given)] += 1
        if self.size < GIVEN_BYTES:  # what is kept in memory is bounded
            self.size += len(given)
            self.texts.append(Document(given, "held"))

    def close(self) -> "_HeldInputs":
        self.all, self.texts = HeldOut(self.texts), []
        return self

    def compare(self, given: str) -> None:
        digest = _digest(given)
        if digest in self.count:
            self.found.add(digest)
        self.near += self.all is not None and self.all.resembles(letters_of(given))

    def found_rows(self) -> int:
        return sum(self.count[digest] for digest in self.found)


def _digest(text: str) -> int:
    """Eight bytes for a text to the letter, but for its white space."""
    return digest_letters(" ".join(text.split()).encode("utf-8", "replace"))
