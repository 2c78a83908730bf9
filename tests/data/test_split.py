"""T36: nothing that is held out, nor anything much like it, is left to train on."""

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from trivium.data import split as split_module
from trivium.data.corpus import python_documents
from trivium.data.dedup import letters_of
from trivium.data.prepare import TokenizerConfig, prepare_data
from trivium.data.shards import Shards, read_manifest
from trivium.data.source import Document
from trivium.data.split import HeldOut, hold_out
from trivium.errors import DataError
from trivium.tokenizer import Tokenizer

SMALL = TokenizerConfig(vocab_size=384)


def sizes_of(documents: list[Document]) -> dict[str, int]:
    sizes = Counter[str]()
    for document in documents:
        sizes[document.source] += len(document.text.encode())
    return dict(sizes)


def make_text(chance: random.Random, words: int) -> str:
    return " ".join("".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(words))


def train_texts(folder: Path) -> list[str]:
    """What training sees, from the shards themselves."""
    shards, tokenizer = Shards(folder), Tokenizer.load(folder / "tokenizer")
    bounds = zip(shards.offsets[:-1], shards.offsets[1:], strict=True)
    return [tokenizer.decode(shards.read(int(start), int(stop) - 1).tolist()) for start, stop in bounds]


def valid_texts(folder: Path) -> list[str]:
    return [json.loads(line)["text"] for line in (folder / "valid.jsonl").read_text().splitlines()]


def runs(text: str) -> set[tuple[str, ...]]:
    """Three-word runs: another measure of likeness than the one that is tested."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + 3]) for at in range(max(len(words) - 2, 1))}


def test_no_held_out_text_in_the_shards(tmp_path: Path) -> None:
    """T36, on files that are full of copies, copies in other dress, and copies with a few words changed."""
    chance = random.Random(3)
    originals = [make_text(chance, chance.choice([12, 20, 40, 150, 1500])) for _ in range(150)]
    rows = []
    for text in originals:
        words = text.split()
        changed = [*words]
        for _ in range(max(len(words) // 20, 1)):
            changed[chance.randrange(2) * (len(words) - 1)] = "changed"
        rows += [text, text, text.upper().replace(" ", ", "), " ".join(changed), "In short: " + text]
    chance.shuffle(rows)
    for number in range(40):
        part = rows[number::40]
        (tmp_path / f"{number:02d}.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in part))
    folder = prepare_data([tmp_path / f"{number:02d}.jsonl" for number in range(40)], tmp_path / "out", tokenizer=SMALL)
    train, valid = train_texts(folder), valid_texts(folder)
    assert len(valid) > 5 and len(train) > 100
    assert not set(train) & set(valid)
    assert not set(map(letters_of, train)) & set(map(letters_of, valid))
    train_runs = [runs(text) for text in train]
    for text in valid:
        own = runs(text)
        assert max(len(own & other) / len(own | other) for other in train_runs) < 0.3, text
    report = read_manifest(folder)
    assert report["near_duplicates_of_held_out"] > 0 and report["duplicates"] > 0
    total = report["parts"]["train"]["documents"] + report["near_duplicates_of_held_out"] + report["duplicates"]
    assert total + len(valid) <= len(rows)


def test_python_corpus_holds_out_whole_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    documents = list(python_documents(limit_files=150))
    held = hold_out(documents, sizes_of(documents))
    sources = {document.source for document in held.documents}
    share = sum(len(each.text) for each in held.documents) / sum(len(each.text) for each in documents)
    assert len(sources) > 2 and 0.02 < share < 0.07
    left = [each for each in documents if each.source not in sources and not held.resembles(letters_of(each.text))]
    assert len(left) > 0.75 * len(documents)
    kept = [runs(each.text) for each in held.documents]
    for document in left:
        own = runs(document.text)
        assert max(len(own & other) / len(own | other) for other in kept) < 0.6, document.text


def test_choice_depends_on_text_and_seed_alone() -> None:
    chance = random.Random(0)
    documents = [Document(make_text(chance, 50), "one file", number) for number in range(400)]
    sizes = sizes_of(documents)
    first = hold_out(documents, sizes, seed=1).documents
    again = hold_out(documents[::-1], sizes, seed=1).documents
    assert {each.text for each in first} == {each.text for each in again}
    assert {each.text for each in first} != {each.text for each in hold_out(documents, sizes, seed=2).documents}
    assert 5 <= len(first) <= 40
    few = hold_out(documents, sizes, most=2_000).documents
    assert 1 <= len(few) <= 15


@pytest.mark.parametrize("words", [6, 12, 30, 200, 4000])
def test_resembles(words: int) -> None:
    chance = random.Random(words)
    text = make_text(chance, words)
    held = HeldOut([Document(text, "a"), Document(make_text(chance, 100), "b")])
    parts = text.split()
    for copy in (text, text.title(), text.replace(" ", "\n"), f"12. {text}!", " ".join([*parts[:-1], "other"])):
        assert held.resembles(letters_of(copy)), copy
    assert held.resembles(letters_of(" ".join(parts[: words * 2 // 3] + make_text(chance, words // 3).split())))
    for _ in range(20):
        assert not held.resembles(letters_of(make_text(chance, words)))


@pytest.mark.parametrize(
    "text", ["one two three four five six seven eight nine ten", "first\n\nsecond\n\nthird", "ab", "字" * 50]
)
def test_single_short_text_gives_both_parts(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    folder = prepare_data(tmp_path / "a.txt", tmp_path / "out", tokenizer=SMALL)
    train, valid = train_texts(folder), valid_texts(folder)
    assert len(train) == len(valid) == 1 and len(train[0]) >= len(valid[0]) > 0
    assert sorted("".join((train[0] + valid[0]).split())) == sorted("".join(text.split()))


def test_valid_file_beside_train_file_is_held_out(tmp_path: Path) -> None:
    chance = random.Random(5)
    texts = [make_text(chance, 30) for _ in range(30)]
    (tmp_path / "train.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts[:20]))
    (tmp_path / "valid.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts[15:25]))
    (tmp_path / "test.txt").write_text(texts[29])
    folder = prepare_data(tmp_path, tmp_path.parent / f"{tmp_path.name}-out", tokenizer=SMALL)
    assert train_texts(folder) == texts[:15] and valid_texts(folder) == texts[15:25]


def test_nothing_left_to_train_on(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "the same text"}\n' * 5)
    with pytest.raises(DataError, match=r"nothing is left to train on .*; add text"):
        prepare_data(tmp_path / "a.jsonl", tmp_path / "out", tokenizer=SMALL)
    assert not (tmp_path / "out").exists() and [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_of_a_large_valid_file_a_sample_is_kept_and_nothing_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(6)
    texts = [make_text(chance, 30) for _ in range(80)]
    (tmp_path / "train-00000-of-00001.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts[:20]))
    (tmp_path / "validation.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts[20:]))
    monkeypatch.setattr(split_module, "GIVEN_BYTES", 3_000)
    folder = prepare_data(tmp_path, tmp_path / "out", tokenizer=SMALL)
    assert train_texts(folder) == texts[:20]
    assert 5 < len(valid_texts(folder)) < 40 and set(valid_texts(folder)) < set(texts[20:])
