from pathlib import Path

import pytest

from tests.sources.packages import make_release, use_mirror, use_release
from tests.sources.test_catalogue import described, needs_apt, rows_of, sentence
from trivium.data.shards import hash_file
from trivium.sources import debian, releases
from trivium.sources.catalogue import build_source, read_licences
from trivium.sources.debian import Description
from trivium.sources.releases import drop_held_out

# Of `described()`, as it was before there were other releases: who changes this changes every score.
TEST = {f"program{number}-{kind}" for number in (6, 8, 15, 22, 28, 31) for kind in ("bin", "data")}
VALID = {f"program{name}" for name in ("0-bin", "1-bin", "2-data", "27-data", "35-bin", "35-data")}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's release; a mirror of the others is in the same folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(debian, "HELD_OUT", {"test": 12, "valid": 6})
    monkeypatch.setattr(releases, "SUITES", ("newer", "test", "older"))
    make_release(tmp_path, [], described())
    use_release(tmp_path, monkeypatch)
    use_mirror(tmp_path, monkeypatch)
    return tmp_path


def entry(package: str, source: str, body: str, synopsis: str = "") -> dict[str, str]:
    text = "\n .\n".join(f" {paragraph}" for paragraph in body.split("\n\n"))
    about = {"Package": package, "Source": source, "Section": "net"}
    return about | {"Description-en": f"{synopsis or 'what ' + package + ' is'}\n{text}"}


def words(seed: str) -> str:
    return f"{sentence(seed + ' one', 6)}\n\n{sentence(seed + ' two', 6)}"


@needs_apt
def test_rows_of_other_releases_are_new_and_belong_with_nothing_held_out(own: Path) -> None:
    pairs = rows_of(build_source("debian-descriptions", own / "own"))
    held = [row for part in ("test", "valid") for row in pairs[part]]
    train = pairs["train"][0]
    newer = [
        entry("fresh", "fresh", words("fresh")),
        entry("more", train["group"], words("more")),
        entry("moved", held[0]["group"], words("moved")),
        entry("first", "first", f"{held[1]['source'].split(chr(10))[0]}\n\n{sentence('first', 6)}"),
        entry("nearly", "nearly", held[2]["source"].replace(" a ", " the ", 1)),
        entry(held[3]["package"], "renamed", words("renamed")),
        entry("friend", "bridge", words("friend")),
        entry("bridge", "bridge", f"{held[4]['source'].split(chr(10))[0]}\n\n{sentence('bridge', 6)}"),
        entry("again", "again", train["source"]),
        entry(train["package"], train["group"], words("reworded"), train["target"]),
        entry("empty", "empty", words("empty"), "transitional package"),
        entry("short", "short", "Too short to be summarised."),
    ]
    older = [
        entry("fresh-old", "fresh-old", words("fresh")),
        entry("fresh", "fresh", words("what it was")),
        entry("gone", "gone", words("gone")),
    ]
    make_release(own, [], newer, "newer")
    make_release(own, [], older, "older")
    folder = build_source("debian-releases", own / "more")
    parts = rows_of(folder)
    assert set(parts) == {"train"} and set(parts["train"][0]) == set(train)
    assert [(row["package"], row["group"]) for row in parts["train"]] == [
        ("fresh", "fresh"),
        ("more", train["group"]),
        ("gone", "gone"),
    ]
    assert parts["train"][0]["source"] == words("fresh") and parts["train"][0]["target"] == "what fresh is"
    manifest = read_licences(folder)
    assert manifest["left_out"] == {
        "dummy, transitional or metapackage": 1,
        "long text seen before": 2,
        "fewer than 25 words": 1,
        "package and synopsis seen before": 2,
        "cluster held out in debian-descriptions": 6,
    }
    names = {each["name"].split("_")[0] for each in manifest["packages"]}
    assert names == {"test", "newer", "older"} and {each["kind"] for each in manifest["packages"]} == {"Debian index"}


@needs_apt
def test_other_releases_leave_the_own_parts_as_they_were(own: Path) -> None:
    for suite in ("newer", "older"):
        make_release(own, [], [entry(suite, suite, words(suite))], suite)
    before = build_source("debian-descriptions", own / "before")
    build_source("debian-releases", own / "more")
    after = build_source("debian-descriptions", own / "after")
    parts = rows_of(before)
    assert {row["package"] for row in parts["test"]} == TEST and {row["package"] for row in parts["valid"]} == VALID
    for file in before.glob("*.jsonl"):
        assert hash_file(file) == hash_file(after / file.name)


def test_what_belongs_with_a_row_that_is_not_trained_on_leaves() -> None:
    def describe(name: str, origin: str) -> Description:
        return Description(words(name), "synopsis", name, origin, "net")

    own = [describe(name, name) for name in ("trained", "tested", "chosen", "left")]
    own.append(describe("left-doc", "left"))
    more = [describe(f"{each.package}-new", each.origin) for each in own] + [describe("new", "new")]
    kept = drop_held_out(own, ["train", "test", "valid", "", ""], more)
    assert [each.package for each in kept] == ["trained-new", "new"]
