"""Long texts in windows that overlap, each with the special tokens and the other text of a pair round it."""

from collections.abc import Sequence

from trivium.tokenizer.batch import Encoded


def pick(encoded: Encoded, places: Sequence[int]) -> Encoded:
    """The tokens at some places of an encoded text."""
    return Encoded(
        ids=[encoded.ids[place] for place in places],
        types=[encoded.types[place] for place in places],
        offsets=[encoded.offsets[place] for place in places],
        sides=[encoded.sides[place] for place in places],
    )


def until_end(encoded: Encoded) -> list[int]:
    """The ids up to the last of the text itself: what a tokenizer puts after a text would end it there."""
    places = [place for place, side in enumerate(encoded.sides) if side == 0]
    return encoded.ids[: places[-1] + 1] if places else []


def cut_windows(encoded: Encoded, side: int, *, longest: int, overlap: int) -> list[Encoded]:
    """Windows of at most `longest` tokens over one side (0 or 1), which share `overlap` of its tokens.

    Everything else stands in each window. Nothing if there is no room for that beside the overlap.
    """
    if not longest or len(encoded.ids) <= longest:
        return [encoded]
    places = [place for place, each in enumerate(encoded.sides) if each == side]
    outside = [place for place, each in enumerate(encoded.sides) if each != side]
    step = longest - len(outside) - overlap
    if step < 1:
        return []
    starts = range(0, len(places) - overlap, step)
    return [pick(encoded, sorted({*outside, *places[start : start + step + overlap]})) for start in starts]


def cut_end(encoded: Encoded, side: int, *, longest: int) -> Encoded | None:
    """The same without the last tokens of one side, so that `longest` are left; None if that side has too few."""
    excess = len(encoded.ids) - longest
    if excess <= 0:
        return encoded
    places = [place for place, each in enumerate(encoded.sides) if each == side]
    if excess >= len(places):
        return None
    dropped = set(places[-excess:])
    return pick(encoded, [place for place in range(len(encoded.ids)) if place not in dropped])
