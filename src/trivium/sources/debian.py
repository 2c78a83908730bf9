"""What Debian says about its packages: a long description, its one-line synopsis, and a section.

The split is by source package, by first paragraph and by near-duplicates of that paragraph or of the whole: half of
the descriptions share their first paragraph with another, and a split by row would test what was trained on.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from trivium.data.dedup import digest_letters, letters_of
from trivium.data.source import clean_text
from trivium.errors import DataError
from trivium.sources.cluster import Clusters, split_clusters
from trivium.sources.fetch import debian_index, read_stanzas

HELD_OUT = {"test": 2000, "valid": 1000}
SMALLEST_SECTION = 300
FEWEST_WORDS = 25  # a shorter text has nothing to be summarised
DUMMY = re.compile(r"\b(dummy|transitional|metapackage)\b", re.IGNORECASE)
ITEM = re.compile(r"\s*(?:[*+•·o-]|\d+[.)])\s")


@dataclass(frozen=True)
class Description:
    """One package: its long text, its synopsis, and where it belongs."""

    text: str
    synopsis: str
    package: str
    origin: str  # the source package
    section: str

    @property
    def first_paragraph(self) -> str:
        """What half of the packages share with another."""
        return self.text.split("\n\n", 1)[0]


def read_descriptions(counts: Counter[str], *, suite: str = "", seen: set[int] | None = None) -> list[Description]:
    """Every description of a release, long enough or not, none twice; what was left out is counted by reason.

    The release is the machine's own, or another `suite` of Debian. `seen` holds digests of long texts that are left
    out; those that were read are added.
    """
    seen = set() if seen is None else seen
    about: dict[str, tuple[str, str]] = {}
    for path in debian_index("Packages", suite):
        for stanza in read_stanzas(path):
            name = stanza.get("Package", "")
            about[name] = (stanza.get("Source", name).split(" ")[0], stanza.get("Section", "").split("/")[-1])
    found: list[Description] = []
    for path in debian_index("Translations", suite):
        for stanza in read_stanzas(path):
            synopsis, _, body = stanza.get("Description-en", "").partition("\n")
            text = unwrap(body)
            origin, section = about.get(stanza.get("Package", ""), ("", ""))
            digest = digest_letters(letters_of(text))
            if not text or not synopsis or not origin:
                counts["no text, no synopsis or no such package"] += 1
            elif digest in seen:
                counts["long text seen before"] += 1
            elif DUMMY.search(synopsis):
                counts["dummy, transitional or metapackage"] += 1
            else:
                seen.add(digest)
                found.append(Description(text, clean_text(synopsis).strip(), stanza["Package"], origin, section))
    if not seen:
        raise DataError("apt's indexes hold no English descriptions; expected Translation-en; check /etc/apt/sources")
    return sorted(found, key=lambda each: each.package)


def unwrap(body: str) -> str:
    """Debian's long form as paragraphs of one line each; items and what is indented keep their lines."""
    paragraphs: list[list[str]] = [[]]
    fresh = True  # whether the next line begins a line of its own
    for line in clean_text(body).split("\n"):
        line = line[1:] if line[:1] in (" ", "\t") else line
        if line.strip() in (".", ""):
            paragraphs.append([])
            fresh = True
        elif fresh or ITEM.match(line) or (line[0] == " " and not _continues(paragraphs[-1])):
            paragraphs[-1].append(line.strip())
            fresh = False
        else:
            paragraphs[-1][-1] += " " + line.strip()
    return "\n\n".join("\n".join(lines) for lines in paragraphs if lines)


def _continues(lines: list[str]) -> bool:
    """Whether an indented line goes on with the item above it."""
    return bool(lines and ITEM.match(lines[-1]))


def split_descriptions(found: list[Description]) -> list[str]:
    """The part of each description: train, valid, test, or empty where its cluster is held out but has given enough."""
    return split_clusters(cluster_descriptions(found), [each.package for each in found], HELD_OUT)


def cluster_descriptions(found: list[Description]) -> Clusters:
    """What belongs together: one source package, one first paragraph or nearly one, nearly one text."""
    clusters = Clusters(len(found))
    clusters.join_equal(each.origin for each in found)
    firsts = [letters_of(each.first_paragraph) for each in found]
    clusters.join_equal(firsts)
    clusters.join_alike(firsts)
    clusters.join_alike(letters_of(each.text) for each in found)
    return clusters


def synopsis_rows(counts: Counter[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """(part, row) of the summarization task: long text to synopsis."""
    for part, each in split_rows(counts):
        yield part, synopsis_row(each)


def synopsis_row(each: Description) -> dict[str, str]:
    """A description as a row of the summarization task."""
    return {
        "source": each.text,
        "target": each.synopsis,
        "package": each.package,
        "section": each.section,
        "group": each.origin,
    }


def section_rows(counts: Counter[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """(part, row) of the classification task: long text to section, of sections with 300 or more descriptions."""
    rows = list(split_rows(counts))
    sizes = Counter(each.section for _, each in rows)
    for part, each in rows:
        if sizes[each.section] < SMALLEST_SECTION:
            counts[f"section with fewer than {SMALLEST_SECTION}"] += 1
            continue
        yield part, {"text": each.text, "label": each.section, "package": each.package, "group": each.origin}


def split_rows(counts: Counter[str]) -> Iterator[tuple[str, Description]]:
    """(part, description) of those that are long enough; the same parts for every task."""
    long = long_enough(read_descriptions(counts), counts)
    for part, each in zip(split_descriptions(long), long, strict=True):
        if part:
            yield part, each
        else:
            counts["held-out cluster has given its rows"] += 1


def long_enough(found: list[Description], counts: Counter[str] | None = None) -> list[Description]:
    """Those whose text can be summarised; the others are counted."""
    long = [each for each in found if len(each.text.split()) >= FEWEST_WORDS]
    if counts is not None:
        counts[f"fewer than {FEWEST_WORDS} words"] += len(found) - len(long)
    return long
