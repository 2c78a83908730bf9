"""The rows of a supervised data set in its parts: as its files name them, or with some held out by content.

Memory holds the rows: fine-tuning sets are small beside what models are pretrained on.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trivium.data.forms import detect_form, to_form
from trivium.data.rows import PARTS, Row, find_parts, read_rows
from trivium.errors import DataError

Values = dict[str, Any]


def read_parts(
    data: str | Path | Iterable[Values] | Mapping[str, Iterable[Values]],
    *,
    columns: Mapping[str, str] | None = None,
    raw: bool = False,
    needed: str = "train",
    wanted: Collection[str] | None = None,
) -> dict[str, list[Values]]:
    """The rows of a file or folder as `train`, and `valid` and `test` where there are such files; or rows in memory.

    Columns get the canonical names of their form (forms.py); `columns` says which of the file's is which
    ({"source": "article"}). `raw` leaves them as they are. Parts that are not `wanted` are not read: a test set without
    answers is no error. Raises `DataError`, also without a row of the part `needed`.
    """
    if isinstance(data, str | Path):
        files = {part: each for part, each in find_parts(data).items() if wanted is None or part in wanted}
        found = {part: list(read_rows(each)) for part, each in files.items()}
    else:
        given = data if isinstance(data, Mapping) else {"train": data}
        named = {PARTS.get(part, part): rows for part, rows in given.items()}
        found = {part: _as_rows(part, rows) for part, rows in named.items() if wanted is None or part in wanted}
    parts: dict[str, list[Values]] = {}
    for part, rows in found.items():
        form = None if raw or not rows else detect_form(rows[:100], mapping=columns or {})
        parts[part] = [dict(row.values) if raw else to_form(row, mapping=columns or {}, form=form) for row in rows]
    if not parts.get(needed):
        place = data if isinstance(data, str | Path) else "data"
        purpose = "to train on" if needed == "train" else f"of the part {needed}"
        raise DataError(f"{place} has no rows {purpose}; expected a table or a folder with {needed}.*; look at them")
    return parts


def _as_rows(part: str, rows: Iterable[Values]) -> list[Row]:
    try:
        return [Row(dict(row), f"{part} in memory", line) for line, row in enumerate(rows, start=1)]
    except (TypeError, ValueError):
        raise DataError(
            f"{part} in memory holds no rows; expected dictionaries by column; pass a list of them"
        ) from None


def hold_out_rows(
    rows: Sequence[Values], *, fraction: float, seed: int, key: Callable[[Values], Any]
) -> tuple[list[Values], list[Values]]:
    """(train, valid): about `fraction` of the different `key`s, those of the least hash, with all of their rows.

    So no text stands in both. Raises `DataError` where all rows have one key.
    """

    def digest(value: Any) -> bytes:
        return hashlib.blake2b(f"{seed}|{json.dumps(value, default=str)}".encode(), digest_size=8).digest()

    digests = [digest(key(row)) for row in rows]
    different = sorted(set(digests))
    if len(different) < 2:
        raise DataError(
            f"{len(rows)} rows with {len(different)} different text cannot be split; expected at least two texts; give "
            "a folder with train and valid files, or more rows"
        )
    held = set(different[: max(round(fraction * len(different)), 1)])
    train = [row for row, own in zip(rows, digests, strict=True) if own not in held]
    return train, [row for row, own in zip(rows, digests, strict=True) if own in held]
