"""Which documents are held out, decided before a tokenizer or a model sees anything.

Whole sources are held out where there are enough of them, single documents otherwise; and a training document
that shares much with a held-out one leaves. Memory is bounded: sizes by source, the held-out texts (a few hundred
kilobytes) and their windows, eight bytes a letter.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from trivium.data.dedup import Hashes, digest_letters, letters_of, windows
from trivium.data.source import Document

# Windows of so many bytes of letters, about eight words or, in a short text, four: the share of a document's windows
# that makes it a near-duplicate. In 18 MB of docstrings no pair above half the same three-word runs is left.
SHORT, SHORT_WINDOW, SHORT_SHARED = 200, 16, 0.3
GIVEN_BYTES = 5_000_000  # of a larger valid.* a sample is kept: held-out text and its windows stay in memory
LONG_WINDOW, LONG_SHARED = 32, 0.15


@dataclass
class HeldOut:
    """The documents kept for validation, and what a training document must not resemble."""

    documents: list[Document]
    sources: frozenset[str] = frozenset()  # nothing of these is trained on, kept here or not
    letters: set[int] = field(init=False)
    short: Hashes = field(init=False)
    long: Hashes = field(init=False)

    def __post_init__(self) -> None:
        texts = [letters_of(document.text) for document in self.documents]
        self.letters = {digest_letters(each) for each in texts}
        # Lengths overlap, so that neighbours on either side of the border meet.
        self.short = _join(windows(each, SHORT_WINDOW) for each in texts if len(each) < 2 * SHORT)
        self.long = _join(windows(each, LONG_WINDOW) for each in texts if len(each) >= SHORT // 2)

    def resembles(self, letters: bytes) -> bool:
        """Whether letters (see `letters_of`) are those of a held-out text, or share many windows with such texts."""
        if digest_letters(letters) in self.letters:
            return True
        if len(letters) < SHORT:
            return _share(windows(letters, SHORT_WINDOW), self.short) > SHORT_SHARED
        found = windows(letters, LONG_WINDOW)
        if len(found) > 1024:  # one of eight, picked by its own hash, says as much
            found = found[found & np.uint64(7) == 0]
        return _share(found, self.long) > LONG_SHARED


def _join(hashes: Iterable[Hashes]) -> Hashes:
    return np.unique(np.concatenate([np.empty(0, dtype=np.uint64), *hashes]))


def _share(found: Hashes, known: Hashes) -> float:
    if len(found) == 0 or len(known) == 0:
        return 0.0
    places = np.searchsorted(known, found).clip(max=len(known) - 1)
    return float((known[places] == found).mean())


def hold_out(
    documents: Iterable[Document],
    sizes: dict[str, int],
    *,
    fraction: float = 0.05,
    most: int = 500_000,
    seed: int = 0,
    given: frozenset[str] = frozenset(),
) -> HeldOut:
    """Choose validation documents from a stream whose bytes by source are known.

    About `fraction` of the bytes, at most `most`; or all of the sources `given`. Depends on names, texts and seed
    alone, not on order. Always at least one document, if it has to be the one with the smallest hash.
    """
    total = sum(sizes.values())
    target = min(int(fraction * total), most)
    given &= sizes.keys()
    share = GIVEN_BYTES / max(sum(sizes[name] for name in given), 1)
    sources = given or _choose_sources(sizes, target, seed)
    chosen: list[Document] = []
    smallest: tuple[bool, float, Document] | None = None
    for document in documents:
        if sources:
            if document.source in sources and (not given or share >= 1 or _rank(seed, document.text) < share):
                chosen.append(document)
            continue
        rank = _rank(seed, document.text)
        # A document that is most of the text had better be trained on.
        candidate = (len(document.text) > total // 4, rank, document)
        if rank < target / max(total, 1) and not candidate[0]:
            chosen.append(document)
        elif smallest is None or candidate[:2] < smallest[:2]:
            smallest = candidate
    if not chosen and smallest is not None:
        chosen = [smallest[2]]
    return HeldOut(list({digest_letters(letters_of(document.text)): document for document in chosen}.values()), sources)


def _choose_sources(sizes: dict[str, int], target: int, seed: int) -> frozenset[str]:
    """Whole sources in the order of a keyed hash, none above half the target; empty if they do not add up."""
    chosen: set[str] = set()
    total = 0
    for source in sorted(sizes, key=lambda name: _rank(seed, name)):
        if sizes[source] <= target / 2 and total + sizes[source] <= 1.1 * target:
            chosen.add(source)
            total += sizes[source]
    return frozenset(chosen) if total >= target / 2 and len(chosen) > 1 else frozenset()


def _rank(seed: int, text: str) -> float:
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "little") / 2**64
