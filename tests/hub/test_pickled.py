"""Pickled weights come in by one command, which runs nothing of them; no other way opens them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.reference import build_pair, our_logits, sides
from trivium.errors import HubError
from trivium.hub.auto import load_model, save_model
from trivium.hub.convert import read_tensors
from trivium.hub.pickled import convert_pickle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as they were before safetensors: config, vocabulary, code that nobody should run, a pickle."""
    pair = build_pair("bert")
    folder = save_model(pair.ours, tmp_path / "old")
    (folder / "model.safetensors").unlink()
    (folder / "vocab.txt").write_text("[PAD]\n")
    (folder / "modeling_x.py").write_text("raise SystemExit\n")
    torch.save(pair.theirs.state_dict(), folder / "pytorch_model.bin")
    return folder


def same(folder: Path) -> bool:
    pair = build_pair("bert")
    inputs, _ = sides(pair.ours)
    return torch.equal(our_logits(load_model(folder), inputs), our_logits(pair.ours, inputs))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_folder_is_converted_at_the_users_word(folder: Path, tmp_path: Path, zipped: bool) -> None:
    if not zipped:  # as before 2020
        tensors = torch.load(folder / "pytorch_model.bin")
        torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    with pytest.raises(HubError, match=r"write one with: trivium convert .*old --out DIR"):
        load_model(folder)
    command = [sys.executable, "-m", "trivium", "convert", str(folder), "--out", str(tmp_path / "new")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == f"encoder in {tmp_path / 'new'}\n"
    assert same(tmp_path / "new")
    names = {"README.md", "config.json", "generation_config.json", "model.safetensors", "vocab.txt"}
    assert {path.name for path in (tmp_path / "new").iterdir()} == names


def test_shards(folder: Path, tmp_path: Path) -> None:
    tensors = torch.load(folder / "pytorch_model.bin")
    (folder / "pytorch_model.bin").unlink()
    index = {name: f"pytorch_model-0000{1 + number % 2}-of-00002.bin" for number, name in enumerate(tensors)}
    for file in set(index.values()):
        torch.save({name: tensor for name, tensor in tensors.items() if index[name] == file}, folder / file)
    path = folder / "pytorch_model.bin.index.json"
    path.write_text(json.dumps({"weight_map": index}))
    convert_pickle(folder, tmp_path / "new")
    assert same(tmp_path / "new")
    path.write_text(json.dumps({"weight_map": {**index, "x": "../elsewhere.bin"}}))
    with pytest.raises(HubError, match="outside itself"):
        convert_pickle(folder, tmp_path / "other")


class Trap:
    """What a malicious file holds: a call of anything on opening."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_but_tensors_comes_in(folder: Path, tmp_path: Path) -> None:
    sprung, file = tmp_path / "sprung", folder / "pytorch_model.bin"
    good = torch.load(file)
    huge = torch.zeros(1).expand(10**6, 10**6)
    wrong: list[tuple[Any, str]] = [
        ({"x": Trap(sprung)}, "could not be read as weights"),
        ([torch.zeros(2)], "holds a list"),
        ({**good, "step": 3}, "holds 'step', which is no plain tensor"),
        ({**good, 3: torch.zeros(2)}, "holds 3, which is no plain tensor"),
        ({**good, "sparse": torch.zeros(2).to_sparse()}, "holds 'sparse', which is no plain tensor"),
        ({**good, "huge": huge}, "holds 'huge', which is no plain tensor"),
    ]
    for content, words in wrong:
        torch.save(content, file)
        with pytest.raises(HubError, match=words) as caught:
            convert_pickle(folder, tmp_path / "new")
        assert "\n" not in str(caught.value)
    torch.save(good, file)
    whole = file.read_bytes()
    for damaged in (b"", b"PK\x03\x04", whole[: len(whole) // 2], b"\x80\x02cos\nsystem\n(S'true'\ntR."):
        file.write_bytes(damaged)
        with pytest.raises(HubError, match="could not be read as weights"):
            convert_pickle(folder, tmp_path / "new")
    assert not sprung.exists()
    assert not (tmp_path / "new").exists()


def test_tensors_that_share_memory_are_written_whole(folder: Path, tmp_path: Path) -> None:
    whole = torch.arange(12.0).view(3, 4)
    torch.save({"a": whole, "b": whole, "rows": whole[1:], "turned": whole.T}, folder / "pytorch_model.bin")
    convert_pickle(folder, tmp_path / "new")
    read = read_tensors(tmp_path / "new")
    assert torch.equal(read["b"], whole)
    assert torch.equal(read["rows"], whole[1:])
    assert torch.equal(read["turned"], whole.T)


def test_places_that_are_wrong(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(HubError, match="is taken"):
        convert_pickle(folder, folder)
    with pytest.raises(HubError, match="is no folder"):
        convert_pickle(tmp_path / "nowhere", tmp_path / "new")
    with pytest.raises(HubError, match=r"has neither pytorch_model\.bin nor"):
        convert_pickle(tmp_path, tmp_path / "new")
