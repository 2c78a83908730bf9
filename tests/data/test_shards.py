"""Prepared folders: what is written is what was read, again at once, and never half or silently changed."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.test_split import SMALL, make_text, train_texts, valid_texts
from trivium.data import prepare as prepare_module
from trivium.data import shards as shards_module
from trivium.data.loader import Loader
from trivium.data.objective import ObjectiveConfig, Vocabulary
from trivium.data.prepare import TokenizerConfig, inspect_data, prepare_data
from trivium.data.shards import Shards, ShardWriter, read_manifest
from trivium.errors import DataError
from trivium.tokenizer import Tokenizer, train_tokenizer


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    chance = random.Random(9)
    rows = [json.dumps({"text": make_text(chance, chance.randint(5, 60))}) for _ in range(120)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([*rows, "broken", '{"text": 1}', '{"text": "\\ud800"}', rows[0]]))
    return path


def test_all_documents_arrive_once(text_file: Path, tmp_path: Path) -> None:
    folder = prepare_data(text_file, tmp_path / "out", tokenizer=SMALL)
    texts = [json.loads(line)["text"] for line in text_file.read_text().splitlines()[:120]]
    train, valid = train_texts(folder), valid_texts(folder)
    assert sorted(train + valid) == sorted(texts)
    manifest, tokenizer = read_manifest(folder), Tokenizer.load(folder / "tokenizer")
    for part, expected in (("train", train), ("valid", valid)):
        shards = Shards(folder, part)
        ids = shards.read(0, shards.num_tokens)
        assert ids.dtype == np.uint16 and shards.num_documents == len(expected) and int(shards.offsets[0]) == 0
        assert np.array_equal(np.flatnonzero(ids == tokenizer.eos_id) + 1, shards.offsets[1:])
        assert shards.num_bytes == sum(len(text.encode()) for text in expected)
        assert np.array_equal(shards.count_tokens(tokenizer.vocab_size), np.bincount(ids, minlength=384))
    assert sum(manifest["quarantined"].values()) == 3
    stored = [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]
    assert [entry["line"] for entry in stored] == [121, 122, 123]
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {*manifest["files"], "manifest.json"} and manifest["schema"] == 1


def test_same_input_is_reused_and_any_change_is_seen(text_file: Path, tmp_path: Path) -> None:
    folder = prepare_data(text_file, tmp_path / "out", tokenizer=SMALL)
    stamp = (folder / "manifest.json").stat().st_mtime_ns
    told: list[str] = []
    assert prepare_data(text_file, tmp_path / "out", tokenizer=SMALL, progress=told.append) == folder and not told
    assert (folder / "manifest.json").stat().st_mtime_ns == stamp
    first = Shards(folder).fingerprint
    assert Shards(prepare_data(text_file, tmp_path / "again", tokenizer=SMALL)).fingerprint == first
    prepare_data(text_file, tmp_path / "out", tokenizer=SMALL, seed=1, progress=told.append)
    assert told and Shards(folder).fingerprint != first
    with text_file.open("a") as file:
        file.write('\n{"text": "one more document of several words"}')
    prepare_data(text_file, tmp_path / "out", tokenizer=SMALL)
    assert Shards(folder).fingerprint != first


def test_given_tokenizer_is_taken_and_its_content_counts(text_file: Path, tmp_path: Path) -> None:
    first = prepare_data(text_file, tmp_path / "out", tokenizer=SMALL)
    given = TokenizerConfig(folder=str(first / "tokenizer"))
    second = prepare_data(text_file, tmp_path / "second", tokenizer=given)
    assert np.array_equal(Shards(first).read(0, 500), Shards(second).read(0, 500))
    before = read_manifest(second)["input"]
    larger = prepare_data(text_file, tmp_path / "larger", tokenizer=TokenizerConfig(vocab_size=400))
    Tokenizer.load(larger / "tokenizer").save(first / "tokenizer")
    assert read_manifest(prepare_data(text_file, tmp_path / "second", tokenizer=given))["input"] != before


def test_foreign_folder_is_never_deleted(text_file: Path, tmp_path: Path) -> None:
    for out in (tmp_path, text_file):
        with pytest.raises(DataError, match=r"holds something else; expected .* name another folder"):
            prepare_data(text_file, out, tokenizer=SMALL)
    assert text_file.is_file()
    (tmp_path / "empty").mkdir()
    prepare_data(text_file, tmp_path / "empty", tokenizer=SMALL)


def test_failure_leaves_what_was_there(text_file: Path, tmp_path: Path) -> None:
    folder = prepare_data(text_file, tmp_path / "out", tokenizer=SMALL)
    before = Shards(folder).fingerprint
    text_file.write_text("broken")
    with pytest.raises(DataError, match=r"no usable document .*1 × not JSON.*; look at the files"):
        prepare_data(text_file, folder, tokenizer=SMALL)
    assert Shards(folder).fingerprint == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "rows.jsonl"]


def test_flipped_bit_and_missing_file_are_named(text_file: Path, tmp_path: Path) -> None:
    """T21: one bit, anywhere, is found when the part is opened."""
    folder = prepare_data(text_file, tmp_path / "out", tokenizer=SMALL)
    chance = random.Random(0)
    for name in ["train-00000.bin", "train.ends"] * 4:
        content = (folder / name).read_bytes()
        broken = bytearray(content)
        broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
        (folder / name).write_bytes(broken)
        with pytest.raises(DataError, match=rf"{name} is not the file that was written"):
            Shards(folder)
        (folder / name).write_bytes(content)
    Shards(folder)
    (folder / "train.ends").unlink()
    with pytest.raises(DataError, match=r"train\.ends is missing"):
        Shards(folder)
    Shards(folder, "valid")
    with pytest.raises(DataError, match="no part 'test'"):
        Shards(folder, "test")
    (folder / "manifest.json").write_text('{"schema": 2}')
    with pytest.raises(DataError, match="schema 2; this version reads 1; upgrade"):
        Shards(folder)
    with pytest.raises(DataError, match="holds no prepared data; run: trivium data prepare"):
        Shards(tmp_path)


@pytest.mark.parametrize("vocab_size", [65_536, 65_537])
def test_reading_across_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vocab_size: int) -> None:
    monkeypatch.setattr(shards_module, "SHARD_TOKENS", 20)
    chance = random.Random(1)
    rows = [[chance.randrange(1, vocab_size) for _ in range(chance.randrange(12))] for _ in range(30)]
    writer = ShardWriter(tmp_path, "train", vocab_size=vocab_size, end_id=0)
    writer.write(rows, [""] * 30)
    parts = {"train": writer.close()}
    files = {
        path.name: {"size": path.stat().st_size, "sha256": shards_module.hash_file(path)} for path in tmp_path.iterdir()
    }
    manifest = {"schema": 1, "parts": parts, "files": files, "fingerprint": "x"}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    shards = Shards(tmp_path)
    whole = [token for row in rows for token in [*row, 0]]
    assert len(parts["train"]["shards"]) > 5 and shards.num_tokens == len(whole)
    for start in range(len(whole)):
        for stop in range(start, len(whole) + 1, 7):
            assert shards.read(start, stop).tolist() == whole[start:stop]
    assert shards.read(0, 3).dtype == ("uint16" if vocab_size == 65_536 else "uint32")


def test_loader_reads_shards(text_file: Path, tmp_path: Path) -> None:
    folder = prepare_data(text_file, tmp_path / "out", tokenizer=SMALL)
    vocabulary = Vocabulary.from_tokenizer(Tokenizer.load(folder / "tokenizer"))
    for name in ("causal", "masked", "span_corruption", "prefix"):
        loader = Loader(Shards(folder), vocabulary, objective=ObjectiveConfig(name), seq_len=32, rows_per_batch=4)
        assert loader.batch_at(3).num_targets > 0


def test_inspect_data(text_file: Path, tmp_path: Path) -> None:
    raw = inspect_data(text_file)
    assert (raw["form"], raw["files"], raw["documents"]) == ("text", 1, 121) and len(raw["examples"]) == 3
    assert raw["quarantined"]["not JSON"] == 1
    prepared = inspect_data(prepare_data(text_file, tmp_path / "out", tokenizer=SMALL))
    assert prepared["form"] == "prepared" and prepared["parts"]["valid"]["documents"] >= 1
    assert prepared["duplicates"] == 1


def test_own_output_is_no_input(tmp_path: Path) -> None:
    """Prepared data inside the folder that was prepared: its valid.jsonl and tokenizer are not read as text."""
    chance = random.Random(2)
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": make_text(chance, 20)}) for _ in range(20)))
    folder = prepare_data(str(tmp_path), tmp_path / "out", tokenizer=SMALL)
    told: list[str] = []
    assert prepare_data(tmp_path, tmp_path / "out", tokenizer=SMALL, progress=told.append) == folder and not told
    assert list(read_manifest(folder)["inputs"]) == [str(tmp_path / "a.jsonl")]


@pytest.mark.parametrize("change", ["more", "another order"])
def test_input_that_changes_meanwhile_is_refused(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """T36: what the first reading held out must not be trained on because the second found it elsewhere."""

    def train_and_change(*texts: Any, **settings: Any) -> Tokenizer:
        tokenizer = train_tokenizer(*texts, **settings)
        lines = text_file.read_text().splitlines()
        text_file.write_text("\n".join(lines * 2 if change == "more" else lines[::-1]))
        return tokenizer

    monkeypatch.setattr(prepare_module, "train_tokenizer", train_and_change)
    with pytest.raises(DataError, match=r"changed while it was read; expected files that stay .*; run again"):
        prepare_data(text_file, tmp_path / "out", tokenizer=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_what_a_killed_preparation_left_goes(text_file: Path, tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for number in (ended.pid, os.getppid()):
        (tmp_path / f".out.{number}.tmp").mkdir()
    prepare_data(text_file, tmp_path / "out", tokenizer=SMALL)
    assert [path.name for path in tmp_path.glob(".*")] == [f".out.{os.getppid()}.tmp"]


def test_manifest_that_does_not_fit_is_an_error(text_file: Path, tmp_path: Path) -> None:
    folder = prepare_data(text_file, tmp_path / "out", tokenizer=SMALL)
    manifest = read_manifest(folder)
    for broken in ({"parts": {"train": {}}}, {"parts": []}, {"files": None}):
        (folder / "manifest.json").write_text(json.dumps({**manifest, **broken}))
        with pytest.raises(DataError, match=r"manifest\.json is broken"):
            Shards(folder)
    manifest["parts"]["train"]["tokens"] += 1
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"holds not what its manifest\.json counts in train"):
        Shards(folder)
