"""Descriptions that only other releases of Debian have: more training rows beside those of the machine's own.

Rows are for training alone. A row leaves if anything that it belongs with is not in the train part of
`debian-descriptions`, which is decided without looking at other releases and so stays as it is.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from trivium.sources.debian import (
    Description,
    cluster_descriptions,
    long_enough,
    read_descriptions,
    split_descriptions,
    synopsis_row,
)
from trivium.sources.fetch import list_releases

# Of two wordings the earlier suite's stays: that of the stable release before the unfinished one and the older ones.
SUITES = ("trixie", "sid", "bookworm", "bullseye")


def other_suites() -> list[str]:
    """The suites of Debian that are not the machine's own."""
    own = list_releases()
    return [suite for suite in SUITES if suite not in own]


def release_rows(suites: Sequence[str], counts: Counter[str]) -> Iterator[dict[str, str]]:
    """The rows of other suites that say something new and belong with nothing that is held out."""
    seen: set[int] = set()
    own = long_enough(read_descriptions(Counter(), seen=seen))
    more = _read_suites(suites, own, seen, counts)
    kept = drop_held_out(own, split_descriptions(own), more)
    counts["cluster held out in debian-descriptions"] += len(more) - len(kept)
    yield from map(synopsis_row, kept)


def _read_suites(
    suites: Sequence[str], own: list[Description], seen: set[int], counts: Counter[str]
) -> list[Description]:
    """What the suites describe anew: no long text and no package with its synopsis twice."""
    said = {(each.package, each.synopsis) for each in own}
    more: list[Description] = []
    for suite in suites:
        for each in long_enough(read_descriptions(counts, suite=suite, seen=seen), counts):
            if (each.package, each.synopsis) in said:
                counts["package and synopsis seen before"] += 1
                continue
            said.add((each.package, each.synopsis))
            more.append(each)
    return more


def drop_held_out(own: list[Description], parts: list[str], more: list[Description]) -> list[Description]:
    """Those of `more` that share no cluster with a row of `own` outside of train."""
    clusters = cluster_descriptions(own + more)
    clusters.join_equal(each.package for each in own + more)  # a package may move to another source package
    held = {clusters.find(row) for row, part in enumerate(parts) if part != "train"}
    return [each for row, each in enumerate(more, len(own)) if clusters.find(row) not in held]
