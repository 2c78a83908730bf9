"""Where sentences end, in any script: rules alone, no model and no list of words but a few abbreviations."""

import re

# A mark, what closes behind it, and spaces; marks of scripts without spaces need none; or the end of a line.
_END = re.compile(
    r"(?P<stop>[.!?…؟۔।॥։።၊။។]+[\"'”’)\]]*(?:\s+|\Z))"
    r"|(?P<full>[。！？｡]+[”’」』）]*\s*)|(?P<gap>\n\s*\n\s*)|(?P<line>\n[ \t]*)"
)
_SHORT = r"[A-Z]|[A-Z]\.[A-Z]|e\.g|i\.e|cf|vs|[Dd]r|[Mm]rs?|[Mm]s|[Pp]rof|[Ff]ig|[Ss]t|approx"
_ABBREVIATION = re.compile(rf"(?:^|[\s(\[])(?:{_SHORT})\Z")
# A line at least so long that ends without a mark was broken where it was full, not where a sentence ends.
WRAPPED_LINE = 60


def split_sentences(text: str) -> list[str]:
    """The sentences of a text with the spaces behind them; joined they are the text.

    A full stop before a lower-case letter or behind an abbreviation ends nothing; nor does a line that goes on in
    lower case or is as long as lines are broken at. An empty line always ends a sentence.
    """
    sentences, start = [], 0
    for match in _END.finditer(text):
        if _ends(text, start, match):
            sentences.append(text[start : match.end()])
            start = match.end()
    if start < len(text):
        sentences.append(text[start:])
    return sentences


def _ends(text: str, start: int, match: re.Match[str]) -> bool:
    goes_on = text[match.end() : match.end() + 1].islower()
    if match["stop"]:
        behind_abbreviation = match["stop"].startswith(".") and _ABBREVIATION.search(text, start, match.start())
        return not behind_abbreviation and not (goes_on and match["stop"][0] in ".…")
    if match["line"]:
        line_start = max(text.rfind("\n", 0, match.start()) + 1, start)
        return not goes_on and match.start() - line_start < WRAPPED_LINE
    return True
