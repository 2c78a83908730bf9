"""Where sentences end, in any script: rules alone, no model and no list of words but a few abbreviations."""

import re

# A mark, what closes behind it, and spaces; marks of scripts without spaces need none; or the end of a line.
_END = re.compile(
    r"(?P<stop>[.!?…؟۔।॥։።၊။។]+[\"'”’)\]]*(?:\s+|\Z))"
    r"|(?P<full>[。！？｡]+[”’」』）]*\s*)|(?P<gap>\n\s*\n\s*)|(?P<line>\n[ \t]*)"
)
_SHORT = r"[A-Z]|[A-Z]\.[A-Z]|e\.g|i\.e|cf|vs|[Dd]r|[Mm]rs?|[Mm]s|[Pp]rof|[Ff]ig|[Ss]t|approx"
_ABBREVIATION = re.compile(rf"(?:^|[\s(\[])(?:{_SHORT})\Z")
# Between these widths a text may be broken where its lines are full.
WIDTHS = range(40, 121)
_BULLETS = "-*•·#|>"


def split_sentences(text: str) -> list[str]:
    """The sentences of a text with the spaces behind them; joined they are the text.

    A full stop before a lower-case letter or behind an abbreviation ends nothing; nor does a line behind which the
    text goes on in lower case, or whose next word would have made it the longest. An empty line ends a sentence.
    """
    width = max(map(len, text.splitlines()), default=0)
    sentences, start = [], 0
    for match in _END.finditer(text):
        if _ends(text, start, match, width):
            sentences.append(text[start : match.end()])
            start = match.end()
    if start < len(text):
        sentences.append(text[start:])
    return sentences


def _ends(text: str, start: int, match: re.Match[str], width: int) -> bool:
    following = text[match.end() : match.end() + 1]
    if match["stop"]:
        behind_abbreviation = match["stop"].startswith(".") and _ABBREVIATION.search(text, start, match.start())
        return not behind_abbreviation and not (following.islower() and match["stop"][0] in ".…")
    if match["line"]:
        line = match.start() - (text.rfind("\n", 0, match.start()) + 1)
        word = len(text[match.end() : match.end() + width].split(maxsplit=1)[0]) if following.strip() else 0
        full = width in WIDTHS and line + 1 + word > width and following not in _BULLETS
        return not following.islower() and not full
    return True
