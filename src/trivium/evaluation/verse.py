"""What poems of a model of regular Chinese verse are like: whether they have the form asked for, and what they repeat.

Poems are asked for by the first line of a held-out poem, as sources/verse.py writes it: title, author and form. Says
nothing of how good they are as poems.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trivium.errors import ConfigError, DataError
from trivium.generation.settings import SamplingConfig
from trivium.generation.text import generate_text
from trivium.hub.auto import load
from trivium.sources.verse import FORMS, VERSE, Poem

Row = Mapping[str, Any]
SIZES = {form: size for size, form in FORMS.items()}  # lines and characters of each
SAMPLED = SamplingConfig(max_new_tokens=100, do_sample=True, temperature=0.8, top_p=0.95)


@dataclass(frozen=True)
class CopyRate:
    """The shares of verses and of couplets that stand in the training text, character for character."""

    verses: float
    couplets: float


@dataclass(frozen=True)
class VerseReport:
    """Poems as they came, how many of them have the form asked for, and how much they repeat of the training text.

    `real` is the same rate of the poems whose titles were taken. The split keeps couplets and verses of seven of
    held-out poems out of the training text, so that only their verses of five can be in it.
    """

    poems: tuple[str, ...]
    legal: int
    copied: CopyRate
    real: CopyRate

    @property
    def legal_share(self) -> float:
        """The share of poems in legal form."""
        return self.legal / len(self.poems)


def evaluate_verse(
    model: str | Path,
    data: str | Path,
    *,
    poems: int = 100,
    part: str = "test",
    first_verse: bool = False,
    config: SamplingConfig | None = None,
) -> VerseReport:
    """Let a model folder write to so many random titles of `data/{part}.jsonl`, and compare with `data/train.jsonl`.

    With `first_verse` the model is given that of the real poem too; it counts for the form, not as written. Raises
    `ConfigError` for no poems, `DataError` for rows of another source, `HubError` for a model that cannot be had.
    """
    if poems < 1:
        raise ConfigError(f"poems is {poems}; expected 1 or more, whose shares are counted; raise it")
    rows = _read_rows(Path(data) / f"{part}.jsonl")
    rows = random.Random(0).sample(rows, min(poems, len(rows)))
    opened, tokenizer = load(model)
    given = [row["lines"][:1] if first_verse else [] for row in rows]
    prompts = ["".join(f"{line}\n" for line in (_heading(row), *known)) for row, known in zip(rows, given, strict=True)]
    written = [text.strip() for text in generate_text(opened, tokenizer, prompts, config or SAMPLED)]
    whole = ["\n".join((*known, text)) for known, text in zip(given, written, strict=True)]
    real = ["\n".join(row["lines"]) for row in rows]
    seen = find_seen([*whole, *real], Path(data) / "train.jsonl")
    return VerseReport(
        poems=tuple(f"{_heading(row)}\n{poem}" for row, poem in zip(rows, whole, strict=True)),
        legal=sum(has_form(poem, row["form"]) for poem, row in zip(whole, rows, strict=True)),
        copied=measure_copying(whole, seen, given=int(first_verse)),
        real=measure_copying(real, seen, given=int(first_verse)),
    )


def has_form(poem: str, form: str) -> bool:
    """Whether a poem has as many lines as the form asks, each a verse of as many characters and its mark."""
    lines, characters = SIZES[form]
    found = [VERSE.fullmatch(line) for line in poem.split("\n")]
    return len(found) == lines and all(each is not None and len(each[1]) == characters for each in found)


def measure_copying(poems: Sequence[str], seen: frozenset[str], *, given: int = 0) -> CopyRate:
    """The share of couplets of all poems together that were seen, and of verses but the first `given` of each."""
    verses = [verse for poem in poems for verse in list_verses(poem)[given:]]
    couplets = [couplet for poem in poems for couplet in list_couplets(poem)]
    shares = [sum(each in seen for each in found) / len(found) if found else 0.0 for found in (verses, couplets)]
    return CopyRate(*shares)


def list_verses(poem: str) -> list[str]:
    """The verses of a poem without their marks."""
    return [verse for verse, _ in VERSE.findall(poem)]


def list_couplets(poem: str) -> list[str]:
    """Each two verses that belong together; a last one without its fellow is none."""
    verses = list_verses(poem)
    return [f"{one}，{two}" for one, two in zip(verses[::2], verses[1::2], strict=False)]


def find_seen(poems: Sequence[str], training: Path) -> frozenset[str]:
    """Those verses and couplets of the poems that stand in the training poems, which are read once."""
    wanted = {part for poem in poems for part in (*list_verses(poem), *list_couplets(poem))}
    seen: set[str] = set()
    for row in _read_rows(training):
        text = "\n".join(row["lines"])
        seen |= wanted.intersection(list_verses(text)) | wanted.intersection(list_couplets(text))
    return frozenset(seen)


def _heading(row: Row) -> str:
    """What a poem is asked for with."""
    return Poem(row["title"], row["author"], "", row["form"], ()).text


def _read_rows(path: Path) -> list[Row]:
    try:
        rows: list[Row] = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); expected a part of the source poetry-zh") from error
    if not rows or not all(
        isinstance(row, dict) and {"title", "author", "form", "lines"} <= row.keys() and row["form"] in SIZES
        for row in rows
    ):
        raise DataError(f"{path} has other rows; expected the source poetry-zh: trivium data sources build poetry-zh")
    return rows
