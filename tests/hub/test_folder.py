"""Model folders on disk: what is written, and that no broken or hostile one does more than fail."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.reference import build_pair, our_logits, sides
from trivium.errors import HubError, TriviumError
from trivium.hub.auto import load_model, save_model
from trivium.hub.convert import file_ranges, forget_pages, read_tensors, write_tensors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good folder to spoil."""
    return save_model(build_pair("llama").ours, tmp_path / "model with a space")


def settings(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(folder: Path, words: str) -> None:
    with pytest.raises(TriviumError, match=words) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_files(tmp_path: Path) -> None:
    pair = build_pair("t5")
    card = {"title": "A test", "text": "Text.", "license": "apache-2.0", "language": ["en", "zh"]}
    save_model(pair.ours, tmp_path, generation={"num_beams": 2}, card=card)
    names = {"README.md", "config.json", "generation_config.json", "model.safetensors"}
    assert {path.name for path in tmp_path.iterdir()} == names  # and no temporary files
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert generation == {
        "eos_token_id": 1,
        "pad_token_id": 0,
        "decoder_start_token_id": 0,
        "num_beams": 2,
    }
    _, front, body = (tmp_path / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "transformers",
        "pipeline_tag": "text2text-generation",
        "tags": ["trivium"],
        "license": "apache-2.0",
        "language": ["en", "zh"],
    }
    assert "# A test\n\nText." in body
    assert oct((tmp_path / "model.safetensors").stat().st_mode)[-3:] == "644"


def test_dtypes(folder: Path) -> None:
    model = load_model(folder)
    save_model(model.bfloat16(), folder)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert load_model(folder).head.vocabulary.dtype == torch.float32
    assert load_model(folder, dtype="stored").head.vocabulary.dtype == torch.bfloat16
    assert load_model(folder, dtype=torch.float64).head.vocabulary.dtype == torch.float64


def test_a_loaded_model_trains_and_saves_over_its_own_file(folder: Path) -> None:
    model = load_model(folder)
    before = load_file(folder / "model.safetensors")
    inputs, _ = sides(model)
    our_logits(model, inputs).square().mean().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert torch.equal(tensor, before[name])  # training is not writing
    save_model(model, folder)
    assert torch.equal(our_logits(load_model(folder), inputs), our_logits(model, inputs))


def test_a_failed_save_leaves_the_old_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "model.safetensors").read_bytes()

    def full(_: object, path: Path, **__: object) -> None:
        path.write_bytes(before[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trivium.hub.convert.save_file", full)
    with pytest.raises(HubError, match=r"could not be written .*No space left"):
        write_tensors(folder / "model.safetensors", {"x": torch.zeros(2)})
    assert (folder / "model.safetensors").read_bytes() == before
    assert not list(folder.glob(".*"))


def test_shared_memory_is_written_twice(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    write_tensors(tmp_path / "x.safetensors", {"a": whole[:3], "b": whole[3:], "c": whole, "d": whole.view(2, 3).T})
    read = read_tensors(tmp_path / "x.safetensors")
    assert torch.equal(read["b"], whole[3:])
    assert torch.equal(read["d"], whole.view(2, 3).T)


def header(folder: Path, content: bytes, size: int | None = None) -> None:
    length = len(content) if size is None else size
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", length) + content)


def test_damaged_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    good = path.read_bytes()
    for damaged in (b"", b"\x00", good[:7], good[:100], good[:-1], good + b"x", b"\xff" * 400):
        path.write_bytes(damaged)
        refused(folder, "missing or damaged")
    header(folder, b"{}", size=2**62)
    refused(folder, "missing or damaged")
    header(folder, b"[" * 5000)
    refused(folder, "missing or damaged")
    for spans in (((0, 8), (4, 12)), ((0, 8), (0, 8)), ((0, 8), (8, 2**60)), ((8, 0), (8, 16))):
        entries = {name: {"dtype": "F32", "shape": [2], "data_offsets": s} for name, s in zip("ab", spans, strict=True)}
        content = json.dumps(entries).encode()
        path.write_bytes(struct.pack("<Q", len(content)) + content + bytes(16))
        refused(folder, "missing or damaged")
    path.unlink()
    refused(folder, "no weights")
    path.mkdir()
    refused(folder, "missing or damaged")


def test_pickles_are_not_opened(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, "only pytorch_model.bin, a pickle that could run code; expected model.safetensors")


def test_tensors_that_do_not_fit(folder: Path) -> None:
    path = folder / "model.safetensors"
    good = load_file(path)
    spoiled = {
        "missing: model.norm.weight": {name: t for name, t in good.items() if name != "model.norm.weight"},
        "unexpected: model.extra": {**good, "model.extra": torch.zeros(3)},
        r"model.norm.weight \(31,\)": {**good, "model.norm.weight": torch.zeros(31)},
        "torch.int64": {**good, "model.norm.weight": torch.zeros(32, dtype=torch.int64)},
        "two tensors are both model.norm.weight": {**good, "norm.weight": torch.zeros(32)},
    }
    for words, tensors in spoiled.items():
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)
        refused(folder, words)


def shard(folder: Path) -> dict[str, str]:
    """Split the weights over two files; the index as it should be."""
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    index = {}
    for number, part in enumerate((names[:9], names[9:]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors").unlink()
    return index


def test_shards(folder: Path) -> None:
    model = load_model(folder)
    inputs, _ = sides(model)
    index, path = shard(folder), folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": index}))
    assert torch.equal(our_logits(load_model(folder), inputs), our_logits(model, inputs))
    name = next(iter(index))
    outside = folder.parent / "other.safetensors"
    save_file({name: torch.zeros(2)}, outside)
    for target in ("../other.safetensors", str(outside), "..", "", "sub/x.safetensors", "a\x00.safetensors"):
        path.write_text(json.dumps({"weight_map": {**index, name: target}}))
        refused(folder, "outside itself|expected .safetensors files|missing or damaged")
    wrong: list[Any] = [{name: index[name]}, {**index, "ghost": index[name]}, {name: 3}, [], None]
    for entries in wrong:
        path.write_text(json.dumps({"weight_map": entries}))
        refused(folder, "disagree about|has no weight_map|missing:")


def test_links_out_of_the_folder_are_not_followed(folder: Path) -> None:
    moved = folder.parent / "elsewhere.safetensors"
    (folder / "model.safetensors").rename(moved)
    (folder / "model.safetensors").symlink_to(moved)
    refused(folder, "outside itself")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("model.safetensors")
    refused(folder, "no weights|outside itself")
    config = folder.parent / "config.json"
    (folder / "config.json").rename(config)
    (folder / "config.json").symlink_to(config)
    refused(folder, "outside itself")


def test_the_links_of_a_hub_cache_are_followed(folder: Path, tmp_path: Path) -> None:
    entry = tmp_path / "models--org--name"
    snapshot = entry / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (entry / "blobs").mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(entry / "blobs" / str(number))
        (snapshot / path.name).symlink_to(os.path.relpath(entry / "blobs" / str(number), snapshot))
    assert load_model(snapshot).config.family == "decoder"


def test_hostile_configs(folder: Path) -> None:
    good = (folder / "config.json").read_text()
    settings(folder, num_hidden_layers=2**31 - 1)
    refused(folder, "promises 2147483647 layers")
    settings(folder, num_hidden_layers=2, vocab_size=2**31 - 1, hidden_size=2**31 - 4)
    refused(folder, "describes no possible model|do not fit")
    for text in ("", "[]", "{", "[" * 100_000, '"x"', "\x00", "{} {}"):
        (folder / "config.json").write_text(text)
        refused(folder, "not readable|JSON object")
    (folder / "config.json").write_bytes(b"\xff\xfe{")
    refused(folder, "not readable")
    (folder / "config.json").write_text(good)
    settings(folder, num_key_value_heads=3)
    refused(folder, "cannot share 3 key/value heads")


def test_code_in_a_folder_is_not_run(folder: Path) -> None:
    trap = "import pathlib; pathlib.Path(__file__).with_name('sprung').touch()\n"
    for name in ("modeling_x.py", "configuration_x.py", "__init__.py"):
        (folder / name).write_text(trap)
    settings(
        folder,
        auto_map={"AutoModel": "modeling_x.X", "AutoConfig": "configuration_x.X"},
        trust_remote_code=True,
    )
    assert load_model(folder).config.num_layers == 2
    assert not (folder / "sprung").exists()


def test_a_wrong_tie_is_settled_by_the_tensors(folder: Path) -> None:
    """A file that holds two different tables is not tied, whatever its config says, as in transformers."""
    settings(folder, tie_word_embeddings=True)
    assert load_model(folder).config.tie_embeddings is False
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    assert load_model(folder).config.tie_embeddings is True


def test_old_names_of_layer_norms_and_buffers(tmp_path: Path) -> None:
    pair = build_pair("bert")
    save_model(pair.ours, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }
    old["bert.embeddings.position_ids"] = torch.arange(64)[None]
    old["bert.pooler.dense.weight"] = torch.zeros(32, 32)
    old["cls.seq_relationship.bias"] = torch.zeros(2)
    save_file(old, tmp_path / "model.safetensors")
    inputs, _ = sides(pair.ours)
    assert torch.equal(our_logits(load_model(tmp_path), inputs), our_logits(pair.ours, inputs))


def test_opening_a_model_does_not_import_a_compiler(folder: Path) -> None:
    """Seconds, at every start: torch fills embeddings on the meta device with the parts of its compiler."""
    code = f"""
import sys
from trivium.hub.auto import load_model
load_model({str(folder)!r})
print([name for name in ("torch._dynamo", "torch._inductor", "sympy.core") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(sys.platform != "linux", reason="asks the system where files are mapped")
def test_a_converted_model_does_not_hold_its_file_too(tmp_path: Path) -> None:
    """Pages that were copied are given back, whole and readable again; other memory is never touched."""

    def resident() -> int:
        found = Path("/proc/self/smaps").read_text().partition(str(tmp_path / "x.safetensors"))[2]
        return sum(int(line.split()[1]) for line in found.split("VmFlags")[0].splitlines() if line.startswith("Rss:"))

    own = torch.arange(2**20).float()
    write_tensors(tmp_path / "x.safetensors", {"x": own})
    mapped = read_tensors(tmp_path / "x.safetensors")["x"]
    assert torch.equal(mapped, own)
    assert resident() > 4000
    for tensor in (mapped, own):
        forget_pages(tensor, file_ranges())
    assert resident() < 100
    assert torch.equal(own, torch.arange(2**20).float())
    assert torch.equal(mapped, own)


def test_turned_matrices_stay_in_the_file_until_they_are_trained(tmp_path: Path) -> None:
    pair = build_pair("gpt2")
    pair.theirs.save_pretrained(tmp_path / "theirs")
    viewed, dense = load_model(tmp_path / "theirs"), load_model(tmp_path / "theirs")
    for parameter in dense.parameters():
        parameter.data = parameter.data.contiguous()
    turned = [name for name, parameter in viewed.named_parameters() if not parameter.is_contiguous()]
    assert len(turned) == 6 * viewed.config.num_layers
    inputs, _ = sides(viewed)
    assert torch.allclose(viewed(inputs), dense(inputs), atol=1e-6)
    save_model(viewed, tmp_path / "ours")
    for name, tensor in read_tensors(tmp_path / "ours").items():
        assert torch.equal(tensor, pair.theirs.state_dict()[name]), name
    for model in (viewed, dense):
        # fused: it takes every matrix for dense, and on a view it wrote into the neighbours
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        for _ in range(2):
            optimizer.zero_grad()
            model.head(model(inputs)).logsumexp(-1).sum().backward()
            optimizer.step()
    for (name, one), other in zip(viewed.named_parameters(), dense.parameters(), strict=True):
        assert one.is_contiguous() and torch.allclose(one, other, atol=1e-5), name
    assert all(
        torch.equal(tensor, pair.theirs.state_dict()[name])
        for name, tensor in read_tensors(tmp_path / "theirs").items()
    )
