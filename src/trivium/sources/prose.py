"""Documentation in the formats that manuals are written in, down to its sentences: paragraphs of plain text.

Pages (HTML and DocBook), reStructuredText, Perl's pod, roff manual pages and plain text. What is no prose (code,
tables, menus, signatures, listings) goes; the words that stay are not changed. Not a parser of any of these formats:
a paragraph that comes out odd is dropped, because there is enough of the rest. Knows no packages.
"""

import gzip
import html
import re
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from trivium.data.source import clean_text

FEWEST_WORDS, HEADING_WORDS = 8, 12
WORD = re.compile(r"[A-Za-z]{2,}|\b[aAI]\b")
# Characters of code and tables: prose has few.
ODD = re.compile(r"[{}<>|=\\_^~$@#*/;]")
SPACES = re.compile(r"\s+")
HIDDEN = re.compile(
    r"<(script|style|head|pre|nav|table|programlisting|screen|synopsis|code-block|footer|form|svg|math)\b.*?</\1\s*>"
    r"|<!--.*?-->|<\?.*?\?>",
    re.DOTALL | re.IGNORECASE,
)
HEADING = re.compile(r"<(h[1-6]|title)\b[^>]*>", re.IGNORECASE)
INLINE = re.compile(
    r"</?(?:a|abbr|acronym|app|b|big|cite|code|command|em|emph|emphasis|file|filename|font|gui|guilabel|i|input|kbd"
    r"|key|link|literal|option|q|quote|replaceable|samp|small|span|strong|sub|sup|systemitem|tt|u|ulink|var|xref)\b[^>]*>",
    re.IGNORECASE,
)
TAG = re.compile(r"<[^<>]*>")
LANGUAGE = re.compile(r"<html\b[^>]*?\blang=[\"']?(?!en)[a-zA-Z]", re.IGNORECASE)
# No word of another language of manuals that is as frequent there.
FREQUENT = "the of to and is that for it be this are by from which can with you will"
POD = re.compile(r"[BCEFILSXZ]<(?:<+\s+(.*?)\s+>+|([^<>]*))>", re.DOTALL)
UNDERLINE = re.compile(r"^([=\-~^\"'`#*+:.])\1{2,}\s*$")
ROLE = re.compile(r"(?::[a-zA-Z:+-]+:)?`{1,2}~?([^`<]+?)\s*(?:<[^`>]*>)?`{1,2}_{0,2}")
ROFF_SPECIAL = {"aq": "'", "cq": "'", "oq": "'", "dq": '"', "lq": '"', "rq": '"', "em": "—", "en": "–", "bu": "•"}
ROFF_SPECIAL |= {"ti": "~", "ha": "^", "rs": "\\", "ga": "`", "hy": "-", "co": "©", "rg": "®", "tm": "™", "mu": "×"}
ROFF = re.compile(r"\\(?:f(?:\[[^\]]*\]|\(..|.)|s[-+]?\d+|\((..)|\[([^\]]+)\]|([-. '`e~0&|^%:/,c\\]))")
ROFF_PLAIN = {"-": "-", ".": ".", " ": " ", "'": "'", "`": "`", "e": "\\", "\\": "\\", "~": " ", "0": " "}
FONTS = ("B", "I", "BR", "BI", "IR", "IB", "RB", "RI", "SM", "SB")
BREAKS = ("PP", "P", "LP", "IP", "TP", "TQ", "HP", "RS", "RE", "br", "sp", "SS")


def read_prose(path: str, data: bytes) -> list[str]:
    """The paragraphs of a documentation file, in order; none where the format is not known or nothing is prose."""
    if path.endswith(".gz"):
        path, data = path.removesuffix(".gz"), gzip.decompress(data)
    suffix = PurePosixPath(path).suffix.lower()
    read = READERS.get(suffix, read_roff if re.fullmatch(r"\.[1-8][a-z]*", suffix) else None)
    if read is None:
        return []
    return keep_prose(read(clean_text(data.decode("utf-8", "replace"))))


def keep_prose(blocks: Iterable[tuple[bool, str]]) -> list[str]:
    """The (is heading, text) that read like prose; a heading stays where prose follows it."""
    kept: list[str] = []
    heading = ""
    for is_heading, block in blocks:
        text = SPACES.sub(" ", block).strip(" ¶\u200b")
        if is_heading:
            heading = text if len(text.split()) <= HEADING_WORDS and WORD.search(text) else ""
        elif is_prose(text):
            kept += [heading, text] if heading else [text]
            heading = ""
    return kept


def is_prose(text: str) -> bool:
    """Whether a paragraph reads like sentences of English: words, few signs of code, an end."""
    words = WORD.findall(text)
    if len(words) < FEWEST_WORDS or "\ufffd" in text:
        return False
    letters = sum(map(len, words))
    return (
        letters >= 0.68 * len(text)
        and len(ODD.findall(text)) <= 0.03 * len(text)
        and text.rstrip("\"')]*”’").endswith((".", ":", "!", "?", ";"))
        and max(map(len, text.split())) <= 60
    )


def is_english(paragraphs: list[str]) -> bool:
    """Whether a document is English, by its most frequent words: manuals come in other languages too."""
    words = " ".join(paragraphs).lower().split()
    frequent = frozenset(FREQUENT.split())
    return len(words) > 0 and sum(word in frequent for word in words) >= 0.12 * len(words)


def read_page(text: str) -> list[tuple[bool, str]]:
    """English HTML, XHTML or DocBook as blocks: what block tags part; code, tables and menus are out."""
    if LANGUAGE.search(text[:2000]):
        return []
    text = HIDDEN.sub("\n\n", text)
    text = INLINE.sub("", HEADING.sub("\x00\x01", text))
    blocks = TAG.sub("\x00", text).split("\x00")
    return [(block.startswith("\x01"), html.unescape(block.lstrip("\x01"))) for block in blocks if block.strip()]


def _read_rst(text: str) -> list[tuple[bool, str]]:
    """reStructuredText as blocks: directives, literal blocks and fields are out, roles are their text."""
    found: list[tuple[bool, str]] = []
    literal = -1  # indentation of the block that began a literal or a directive; deeper blocks belong to it
    for block in re.split(r"\n[ \t]*\n", text):
        lines = block.strip("\n").split("\n")
        indent = len(lines[0]) - len(lines[0].lstrip())
        if literal >= 0 and indent > literal:
            continue
        literal = -1
        first = lines[0].strip()
        if first.startswith(".."):
            notes = re.match(r"\.\. (?:note|warning|tip|important|seealso|caution|attention)::\s*(.*)", first)
            literal = -1 if notes else indent
            lines = [notes[1], *lines[1:]] if notes else []
        titles = [line for line in lines if not UNDERLINE.match(line.strip())]
        if len(titles) < len(lines):
            found += [(True, _plain_rst(title)) for title in titles[:1]]
            lines = titles[1:]
        if lines and lines[0].lstrip().startswith((":", "|", "+-", "%")):
            continue
        if lines and lines[-1].rstrip().endswith("::"):
            literal = indent
            lines[-1] = lines[-1].rstrip()[:-1]
        items = re.split(r"\n[ \t]*(?:[-*+•]|#\.|\d+[.)])[ \t]+", "\n" + "\n".join(lines))
        found += [(False, _plain_rst(item)) for item in items if item.strip()]
    return found


def _plain_rst(text: str) -> str:
    text = ROLE.sub(r"\1", text)
    return re.sub(r"(?<![\w*])\*{1,2}([^*\s][^*]*)\*{1,2}", r"\1", re.sub(r"\|(\w+)\|", r"\1", text))


def _read_pod(text: str) -> list[tuple[bool, str]]:
    """Perl's documentation as blocks: verbatim paragraphs are out."""
    found: list[tuple[bool, str]] = []
    inside = False
    for block in re.split(r"\n[ \t]*\n", text):
        block = block.strip("\n")
        if block.startswith("="):
            command, _, rest = block.partition(" ")
            inside = command.split("\n")[0] not in ("=cut", "=begin", "=for")
            if command.startswith("=head"):
                found.append((True, _plain_pod(rest)))
        elif inside and block and not block.startswith((" ", "\t")):
            found.append((False, _plain_pod(block)))
    return found


def _plain_pod(text: str) -> str:
    while (plain := POD.sub(_pod_text, text)) != text:
        text = plain
    return text


def _pod_text(match: re.Match[str]) -> str:
    inner = match[1] if match[1] is not None else match[2]
    kind = match[0][0]
    if kind in "XZ":
        return ""
    if kind == "E":
        return {"lt": "‹", "gt": "›", "sol": "/", "verbar": "|"}.get(inner, html.unescape(f"&{inner};"))
    return inner.split("|")[0].strip("/") if kind == "L" else inner


def read_roff(text: str) -> list[tuple[bool, str]]:
    """A manual page (man macros) as blocks; examples between `.nf` and `.fi` are out."""
    found: list[tuple[bool, list[str]]] = [(False, [])]
    skipping, tag = False, False
    for line in text.replace("\\\n", "").split("\n"):
        macro, _, rest = line[1:].strip().partition(" ") if line[:1] in (".", "'") else ("", "", line)
        if macro in ("nf", "EX", "TS"):
            skipping = True
        elif macro in ("fi", "EE", "TE"):
            skipping = False
            found.append((False, []))
        elif skipping or macro.startswith('\\"'):
            continue
        elif macro in ("SH", "Sh"):
            found += [(True, [_plain_roff(rest).strip('" ')]), (False, [])]
        elif macro in BREAKS or (not macro and not line.strip()):
            found.append((False, []))
            tag = macro in ("TP", "TQ")
        elif not macro or macro in FONTS:
            found[-1][1].append(_plain_roff(_join_words(macro, rest)))
            if tag:  # the line after .TP is the term that the paragraph explains
                found.append((False, []))
            tag = False
    return [(is_heading, " ".join(lines)) for is_heading, lines in found if lines]


def _join_words(macro: str, rest: str) -> str:
    """The arguments of a font macro: those of two alternating fonts are written together."""
    if macro in ("", "B", "I", "SM", "SB"):
        return rest.replace('"', "") if macro else rest
    return "".join(quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', rest))


def _plain_roff(text: str) -> str:
    return ROFF.sub(
        lambda match: ROFF_SPECIAL.get(match[1] or match[2] or "", "") or ROFF_PLAIN.get(match[3] or "", ""), text
    )


def _read_plain(text: str) -> list[tuple[bool, str]]:
    """Plain text as blocks; what is indented deeply is a listing."""
    blocks = re.split(r"\n[ \t]*\n", text)
    return [(False, block) for block in blocks if not block.lstrip("\n").startswith(("    ", "\t"))]


READERS: dict[str, Callable[[str], list[tuple[bool, str]]]] = {
    ".html": read_page,
    ".htm": read_page,
    ".xhtml": read_page,
    ".xht": read_page,
    ".page": read_page,
    ".xhp": read_page,
    ".rst": _read_rst,
    ".pod": _read_pod,
    ".txt": _read_plain,
}
