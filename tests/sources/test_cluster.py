import random

from hypothesis import given
from hypothesis import strategies as st

from trivium.data.dedup import letters_of
from trivium.sources.cluster import Clusters, split_clusters

WORDS = [f"{first}{second}" for first in ("ba", "ke", "li", "mo", "nu") for second in ("ran", "tel", "vis", "dop")]


def sentence(seed: int, length: int = 40) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def test_rows_join_over_any_number_of_steps() -> None:
    clusters = Clusters(6)
    clusters.join_equal(["a", "b", "a", "c", None, None])
    clusters.join_equal([1, 2, 2, 3, 4, 5])
    assert [clusters.find(row) for row in range(6)] == [0, 0, 0, 3, 4, 5]


def test_near_duplicates_join_and_others_do_not() -> None:
    texts = [sentence(0), sentence(1), sentence(0).replace("ba", "be", 1), sentence(2), sentence(1)]
    clusters = Clusters(5)
    clusters.join_alike(map(letters_of, texts))
    assert [clusters.find(row) for row in range(5)] == [0, 1, 0, 3, 1]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=120))
def test_no_cluster_is_in_two_parts_and_the_counts_are_kept(keys: list[int]) -> None:
    clusters = Clusters(len(keys))
    clusters.join_equal(keys)
    names = [f"row {number}" for number in range(len(keys))]
    parts = split_clusters(clusters, names, {"test": 10, "valid": 5}, largest=6, most=2)
    seen: dict[int, set[str]] = {}
    held: dict[int, int] = {}
    for key, part in zip(keys, parts, strict=True):
        seen.setdefault(key, set()).add(part)
        held[key] = held.get(key, 0) + (part in ("test", "valid"))
    for key, found in seen.items():
        assert len(found - {""}) == 1  # a held-out cluster may leave rows over, and they are nowhere
        assert held[key] <= 2
        assert found == {"train"} or keys.count(key) <= 6
    assert parts.count("test") <= 10 and parts.count("valid") <= 5
    small = [key for key in seen if keys.count(key) <= 6]
    assert parts.count("test") + parts.count("valid") == min(15, sum(min(keys.count(key), 2) for key in small)) or (
        parts.count("test") == 10  # the last cluster of a part gave what was still needed
    )


def test_the_split_depends_on_names_alone_not_on_order() -> None:
    names = [f"package-{number}" for number in range(200)]

    def split(order: list[str]) -> dict[str, str]:
        parts = split_clusters(Clusters(len(order)), order, {"test": 20, "valid": 10})
        return dict(zip(order, parts, strict=True))

    assert split(names) == split(names[::-1])
    assert sorted(split(names).values()).count("test") == 20
