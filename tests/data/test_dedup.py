"""Texts that are the same in their letters, and texts that are nearly the same."""

import random
from collections.abc import Iterator

import numpy as np
import pytest

from trivium.data.dedup import HashSet, NearSet, digest_letters, letters_of, sign, windows


def make_words(chance: random.Random, count: int) -> list[str]:
    return ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(count)]


def change(words: list[str], share: float, chance: random.Random) -> list[str]:
    """A copy in which a run of so large a share of the words is another."""
    count = max(round(share * len(words)), 1)
    at = chance.randrange(len(words) - count)
    return [*words[:at], *make_words(chance, count), *words[at + count :]]


def test_letters() -> None:
    assert letters_of("A b-1,É\n中") == "abé中".encode() and letters_of("X_9") == b"x"
    assert digest_letters(letters_of("One, 2")) == digest_letters(letters_of("one 3!"))
    assert letters_of("1 2") != letters_of("3 4")  # no letters at all: the text itself
    assert letters_of("") == b"" and len(windows(b"", 32)) == 1 and len(windows(b"x" * 40, 32)) == 9
    text = bytes(random.Random(1).choices(range(97, 123), k=500))
    for size in (8, 16, 32):
        by_text: dict[bytes, int] = {}
        for at, value in enumerate(windows(text + text, size).tolist()):
            assert by_text.setdefault((text + text)[at : at + size], value) == value
        assert len(set(by_text.values())) == len(by_text) == 500


def test_hash_set_is_a_set_in_few_bytes() -> None:
    chance = random.Random(0)
    known, flat = set[int](), HashSet()
    values = [0, 1, *(chance.getrandbits(64) for _ in range(20_000)), *(number << 40 for number in range(1, 100))]
    for value in [*values, *values[::3]]:
        assert flat.add(value) is (value not in known and not (value == 1 and 0 in known))
        known.add(value)
    assert 8 * len(flat._slots) <= 24 * len(known)


def pairs(share: float) -> Iterator[tuple[bytes, bytes]]:
    for seed in range(100):
        chance = random.Random(seed)
        words = make_words(chance, chance.choice([40, 100, 400, 3000]))
        yield letters_of(" ".join(words)), letters_of(" ".join(change(words, share, chance)))


def test_signature_estimates_what_is_shared() -> None:
    for first, second in pairs(0.2):
        left, right = set(windows(first, 16).tolist()), set(windows(second, 16).tolist())
        estimate = float((sign(first) == sign(second)).mean())
        assert estimate == pytest.approx(len(left & right) / len(left | right), abs=0.25)  # 4 standard deviations
    assert np.array_equal(sign(b"abc" * 9000), sign(b"abc" * 9001))


@pytest.mark.parametrize(("share", "least", "most"), [(0.05, 0.95, 1.0), (0.6, 0.0, 0.0)])
def test_copies_are_found_and_others_left(share: float, least: float, most: float) -> None:
    """T22's figures for planted pairs: recall of near copies at least 0.95, none taken for one that is not."""
    near = NearSet()
    found = 0
    for first, second in pairs(share):
        assert near.add(first) and not near.add(first)
        found += not near.add(second)
    assert least <= found / 100 <= most
