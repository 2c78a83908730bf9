"""What counts as one word when texts are compared, in any script. Knows no metric and no tokenizer of a model.

The rule, character by character:

- a run of ASCII letters and digits is a word, in lower case: on plain English these are rouge-score's tokens;
- a run with other letters, digits and their combining marks is one word too (*für*, *слово*, *हिन्दी*);
- in scripts written without spaces (Chinese characters, kana, Thai, Lao, Khmer, Burmese, …) each character with its
  marks is a word, for no rule without a dictionary finds longer ones;
- everything else (spaces, punctuation, symbols, emoji, fractions) separates words.

Texts are compared in Unicode's composed form, so that one writing of *é* equals the other.
"""

import re
import unicodedata

_ASCII_WORD = re.compile(r"[a-z0-9]+")
# Words over the kinds below. A joiner (zero-width, as Persian and Indic words hold) joins only letters beyond ASCII:
# in English it separates, as rouge-score has it.
_WORD = re.compile(r"[aw](?:[awm]|(?<=[wm])j(?=w))*|cm*")
# First and last characters of the scripts written without spaces.
_SPACELESS = (
    *((0x0E01, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19DF), (0x1A20, 0x1AAF), (0x1B00, 0x1B7F)),
    *((0x3005, 0x3007), (0x3021, 0x302F), (0x3031, 0x303C), (0x3041, 0x312F), (0x31A0, 0x31FF), (0x3400, 0x4DBF)),
    *((0x4E00, 0x9FFF), (0xA000, 0xA48F), (0xA980, 0xA9FF), (0xAA60, 0xAADF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F)),
    *((0x1B000, 0x1B16F), (0x20000, 0x3FFFF)),
)


class _Kinds(dict[int, str]):
    """The kind of each character, found when first met: a ASCII, w letter or digit, c alone, m mark, j joiner."""

    def __missing__(self, code: int) -> str:
        category = unicodedata.category(chr(code))
        spaceless = any(first <= code <= last for first, last in _SPACELESS)
        if category[0] == "L" or (category == "Nl" and spaceless):  # 〇 is a number, and a word as 一 is
            kind = "c" if spaceless else "a" if code < 128 else "w"
        elif category == "Nd":
            kind = "a" if code < 128 else "w"
        elif category in ("Mn", "Mc") and not 0xFE00 <= code <= 0xFE0F:  # those choose an emoji's look
            kind = "m"
        else:
            kind = "j" if code in (0x200C, 0x200D) else " "
        self[code] = kind
        return kind


_KINDS = _Kinds()


def split_words(text: str, *, ascii_only: bool = False) -> list[str]:
    """The words of a text, in lower case; with `ascii_only`, letters beyond a–z separate, as rouge-score has it."""
    if ascii_only or text.isascii():
        return _ASCII_WORD.findall(text.lower())
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())
    return [text[start:stop].replace("\u200c", "").replace("\u200d", "") for start, stop in find_words(text)]


def find_words(text: str) -> list[tuple[int, int]]:
    """Where each word of a text begins and ends."""
    return [match.span() for match in _WORD.finditer(text.translate(_KINDS))]


def find_spaceless(text: str) -> list[str]:
    """The characters of scripts written without spaces, in order."""
    return [text[start] for start, _ in find_words(text) if text[start].translate(_KINDS) == "c"]


def is_spaceless(text: str) -> bool:
    """Whether most words of a text stand in scripts written without spaces."""
    return len(find_spaceless(text)) * 2 > len(find_words(text))
