"""Which documents are held out, decided before a tokenizer or a model sees anything.

Whole sources are held out where there are enough of them, single documents otherwise; and a training document
that shares much with a held-out one leaves. Memory is bounded: sizes by source, the held-out texts (a few hundred
kilobytes), and eight bytes a training document.
"""

import hashlib
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trivium.data.source import Document

WORDS = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af]|[^\W\u2e80-\u9fff\uac00-\ud7af]+")
SHINGLE = 8  # words; a Chinese character is a word
SHARED = 0.2  # of a document's shingles: more of them in held-out text, and it is a near-duplicate


def shingle(text: str) -> NDArray[np.uint64]:
    """Hashes of each run of eight words, sorted and distinct; of the whole text where it is shorter."""
    words = np.fromiter((zlib.crc32(word.encode()) for word in WORDS.findall(text.lower())), dtype=np.uint64)
    if len(words) == 0:
        return words
    length = min(SHINGLE, len(words))
    mixed = np.zeros(len(words) - length + 1, dtype=np.uint64)
    for offset in range(length):
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + words[offset : offset + len(mixed)]
    return np.unique(mixed)


def hash_letters(text: str) -> int:
    """Eight bytes that are equal for texts which differ only in case, digits, spaces and punctuation."""
    letters = re.sub(r"[\W\d_]+", "", text.lower())
    return int.from_bytes(hashlib.blake2b(letters.encode("utf-8", "replace"), digest_size=8).digest(), "little")


@dataclass
class HeldOut:
    """The documents kept for validation, and what a training document must not resemble."""

    documents: list[Document] = field(default_factory=list)
    letters: set[int] = field(default_factory=set)
    shingles: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, dtype=np.uint64))

    def resembles(self, text: str) -> bool:
        """Whether a text is the same as held-out text, or shares more than a fifth of its runs of eight words."""
        if hash_letters(text) in self.letters:
            return True
        found = shingle(text)
        if len(found) == 0 or len(self.shingles) == 0:
            return False
        places = np.searchsorted(self.shingles, found).clip(max=len(self.shingles) - 1)
        return bool((self.shingles[places] == found).mean() > SHARED)


def hold_out(
    documents: Iterable[Document],
    sizes: dict[str, int],
    *,
    fraction: float = 0.05,
    most: int = 500_000,
    seed: int = 0,
) -> HeldOut:
    """Choose validation documents from a stream whose bytes by source are known.

    About `fraction` of the bytes, at most `most`. Depends on names, texts and seed alone, not on order. Always
    at least one document, if it has to be the one with the smallest hash.
    """
    target = min(int(fraction * sum(sizes.values())), most)
    sources = _choose_sources(sizes, target, seed)
    rate = target / max(sum(sizes.values()), 1)
    chosen: list[Document] = []
    smallest: tuple[float, Document] | None = None
    for document in documents:
        if sources:
            if document.source in sources:
                chosen.append(document)
            continue
        rank = _rank(seed, document.text)
        if rank < rate:
            chosen.append(document)
        elif smallest is None or rank < smallest[0]:
            smallest = (rank, document)
    if not chosen and smallest is not None:
        chosen = [smallest[1]]
    unique = list({hash_letters(document.text): document for document in chosen}.values())
    shingles = [shingle(document.text) for document in unique]
    joined = np.unique(np.concatenate(shingles)) if shingles else np.empty(0, dtype=np.uint64)
    return HeldOut(unique, {hash_letters(document.text) for document in unique}, joined)


def _choose_sources(sizes: dict[str, int], target: int, seed: int) -> set[str]:
    """Whole sources in the order of a keyed hash, none above half the target; empty if they do not add up."""
    chosen: set[str] = set()
    total = 0
    for source in sorted(sizes, key=lambda name: _rank(seed, name)):
        if sizes[source] <= target / 2 and total < target:
            chosen.add(source)
            total += sizes[source]
    return chosen if total >= target / 2 and len(chosen) > 1 else set()


def _rank(seed: int, text: str) -> float:
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "little") / 2**64
