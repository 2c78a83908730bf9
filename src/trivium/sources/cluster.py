"""Rows that belong together, and parts that never divide them: what makes a held-out score honest.

Rows are joined by equal keys (a source package, a first paragraph) and by near-duplicate texts, over any number of
steps; whole clusters are then held out by a keyed hash. Knows no files. Memory: about two kilobytes a text.
"""

import hashlib
from collections.abc import Hashable, Iterable, Sequence

from trivium.data.dedup import BANDS, ROWS, sign


class Clusters:
    """Rows numbered from 0, joined by union and find (Tarjan 1975)."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def find(self, row: int) -> int:
        """The smallest row of the cluster that a row is in."""
        while (parent := self._parent[row]) != row:
            self._parent[row] = row = self._parent[parent]
        return row

    def join(self, one: int, other: int) -> None:
        """Put two rows, and all that is with them, in one cluster."""
        one, other = sorted((self.find(one), self.find(other)))
        self._parent[other] = one

    def join_equal(self, keys: Iterable[Hashable]) -> None:
        """Join the rows whose keys are equal; a row without one has the key None."""
        first: dict[Hashable, int] = {}
        for row, key in enumerate(keys):
            if key is not None:
                self.join(first.setdefault(key, row), row)

    def join_alike(self, letters: Iterable[bytes], *, likeness: float = 0.7) -> None:
        """Join the rows whose texts (see `letters_of`) share so much of their windows, by MinHash."""
        first: dict[bytes, list[tuple[int, bytes]]] = {}
        seen: dict[bytes, int] = {}
        for row, text in enumerate(letters):
            if (known := seen.setdefault(text, row)) != row:
                self.join(known, row)
                continue
            signature = sign(text)
            for band in range(BANDS):
                key = bytes([band]) + signature[band * ROWS :][:ROWS].tobytes()
                self._meet(row, signature.tobytes(), first.setdefault(key, []), likeness)

    def _meet(self, row: int, signature: bytes, bucket: list[tuple[int, bytes]], likeness: float) -> None:
        """Join a row with those of its bucket that are alike, else leave it there to be met."""
        for other, theirs in bucket:
            if self.find(other) == self.find(row):
                return
            equal = sum(signature[at : at + 4] == theirs[at : at + 4] for at in range(0, len(signature), 4))
            if equal >= likeness * BANDS * ROWS:
                self.join(other, row)
                return
        if len(bucket) < 32:  # a boilerplate sentence must not make this quadratic
            bucket.append((row, signature))


def split_clusters(
    clusters: Clusters, names: Sequence[str], wanted: dict[str, int], *, largest: int = 20, most: int = 3
) -> list[str]:
    """The part of each row: one of `wanted` (part to number of rows), `train`, or empty for rows that are left out.

    Clusters come in the order of a hash of their first name; those above `largest` rows are trained on. A held-out
    cluster gives at most `most` rows, so that a few families do not decide a score; its other rows are left out.
    """
    members: dict[int, list[int]] = {}
    for row in range(len(names)):
        members.setdefault(clusters.find(row), []).append(row)
    order = sorted(members.values(), key=lambda rows: _rank(min(names[row] for row in rows)))
    parts = ["train"] * len(names)
    need = dict(wanted)
    for rows in order:
        if len(rows) > largest or not need:
            continue
        part = next(iter(need))
        chosen = sorted(rows, key=lambda row: _rank(names[row]))[: min(most, need[part])]
        for row in rows:
            parts[row] = part if row in chosen else ""
        need[part] -= len(chosen)
        if not need[part]:
            del need[part]
    return parts


def _rank(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest()
