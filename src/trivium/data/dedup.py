"""When two texts are the same: to the letter, in their letters alone, or nearly.

Knows no files and no split. What is remembered of a text is bounded and stated: `HashSet` 12 to 24 bytes, `NearSet`
(for corpora of some hundred thousand texts) about two kilobytes.
"""

import hashlib
import re
from array import array

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
NOT_LETTERS = re.compile(r"[\W\d_]+")
NOT_ASCII_LETTERS = bytes(code for code in range(256) if not chr(code).isalpha() or code > 127)
MIX = np.uint64(0x9E3779B97F4A7C15)
# 16 bands of 4: a pair of likeness 0.7 is compared with probability 0.99, one of 0.3 with 0.12.
BANDS, ROWS, WINDOW = 16, 4, 16
FACTORS: Hashes = np.frombuffer(hashlib.shake_128(b"MinHash").digest(8 * BANDS * ROWS), dtype="<u8") | np.uint64(1)


def letters_of(text: str) -> bytes:
    """The letters of a text in lower case and nothing else; of a text without letters, all of it."""
    if text.isascii():
        letters = text.encode().lower().translate(None, NOT_ASCII_LETTERS)
    else:
        letters = NOT_LETTERS.sub("", text.lower()).encode("utf-8", "replace")
    return letters or text.encode("utf-8", "replace")


def digest_letters(letters: bytes) -> int:
    """Eight bytes for the letters of a text (see `letters_of`)."""
    return int.from_bytes(hashlib.blake2b(letters, digest_size=8).digest(), "little")


def windows(letters: bytes, size: int) -> Hashes:
    """A hash of each run of `size` bytes (8, 16 or 32), in order; of the whole where it is shorter."""
    padded = letters + bytes(max(size - len(letters), 0))
    hashes = np.empty(len(padded) - 7, dtype=np.uint64)
    for shift in range(min(8, len(hashes))):
        part = hashes[shift::8]
        part[:] = np.frombuffer(padded, dtype="<u8", count=len(part), offset=shift)
    hashes *= MIX
    hashes ^= hashes >> np.uint64(29)
    width = 8
    while width < size:
        hashes = hashes[:-width] * MIX + hashes[width:]
        hashes ^= hashes >> np.uint64(32)
        width *= 2
    return hashes


class HashSet:
    """Eight-byte hashes in one flat table, at most two thirds full: a Python set takes about 90 bytes for each."""

    def __init__(self) -> None:
        self._slots, self._count = array("Q", [0]) * 1024, 0

    def add(self, value: int) -> bool:
        """Remember a hash; whether it is new."""
        value = value or 1  # 0 marks a free slot
        slots, mask = self._slots, len(self._slots) - 1
        at = value & mask
        while slots[at]:
            if slots[at] == value:
                return False
            at = (at + 1) & mask
        slots[at] = value
        self._count += 1
        if 3 * self._count > 2 * len(slots):
            self._slots, self._count = array("Q", [0]) * (2 * len(slots)), 0
            for old in slots:
                if old:
                    self.add(old)
        return True


class NearSet:
    """Texts by MinHash (Broder 1997) in bands of a signature (Leskovec et al., ch. 3)."""

    def __init__(self, likeness: float = 0.7) -> None:
        self.likeness = likeness
        self._bands: dict[bytes, NDArray[np.uint32]] = {}

    def add(self, letters: bytes) -> bool:
        """Remember the letters of a text unless one alike is there: whether they are new."""
        signature = sign(letters)
        keys = [bytes([band]) + signature[band * ROWS :][:ROWS].tobytes() for band in range(BANDS)]
        for key in keys:
            known = self._bands.get(key)
            if known is not None and float((known == signature).mean()) >= self.likeness:
                return False
        for key in keys:
            self._bands.setdefault(key, signature)
        return True


def sign(letters: bytes) -> NDArray[np.uint32]:
    """The MinHash signature of a text's windows, `(64,)`: equal places estimate the share of windows in common."""
    found = windows(letters, WINDOW)
    smallest = np.full(len(FACTORS), np.iinfo(np.uint64).max, dtype=np.uint64)
    for begin in range(0, len(found), 2048):
        part = found[begin : begin + 2048, None] * FACTORS
        part ^= part >> np.uint64(32)
        np.minimum(smallest, part.min(axis=0), out=smallest)
    return (smallest >> np.uint64(32)).astype(np.uint32)
