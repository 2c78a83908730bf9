"""Folders of the shape of `gpt2` and `t5-small`: small models that transformers made, trained a little and saved."""

import json
import pydoc_data.topics
from pathlib import Path
from typing import Any

import torch

from trivium.tokenizer import train_tokenizer

TEXTS = list(pydoc_data.topics.topics.values())
PROSE = [" ".join(text.split()) for text in TEXTS]


def gpt2_tokenizer(vocab_size: int = 800) -> Any:
    """transformers' GPT-2 tokenizer with a vocabulary of our text."""
    from transformers import GPT2TokenizerFast

    trained = train_tokenizer(TEXTS[:30], vocab_size=vocab_size, num_sentinels=0)
    model = json.loads(trained.backend.to_str())["model"]
    pieces = [text for text in model["vocab"] if text not in trained.special_tokens.values()]
    vocabulary = {text: index for index, text in enumerate([*pieces, "<|endoftext|>"])}
    return GPT2TokenizerFast(vocab=vocabulary, merges=[tuple(pair) for pair in model["merges"]])


def t5_tokenizer(vocab_size: int = 800, extra_ids: int = 100) -> Any:
    """transformers' T5 tokenizer with a vocabulary of our text."""
    from tokenizers import SentencePieceUnigramTokenizer
    from transformers import T5TokenizerFast

    trained = SentencePieceUnigramTokenizer()
    special = ["<pad>", "</s>", "<unk>"]
    trained.train_from_iterator(
        TEXTS[:30], vocab_size=vocab_size, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    pieces = json.loads(trained.to_str())["model"]["vocab"]
    return T5TokenizerFast(vocab=[tuple(piece) for piece in pieces], extra_ids=extra_ids)


def make_gpt2(folder: Path, *, steps: int = 100) -> Path:
    """A GPT-2 that learned our text for some steps, with its tokenizer, saved by transformers."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    tokenizer = gpt2_tokenizer()
    end = tokenizer.eos_token_id
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer), n_positions=128, n_embd=48, n_layer=2, n_head=4, bos_token_id=end,
            eos_token_id=end, task_specific_params={"text-generation": {"do_sample": True, "max_length": 50}},
        )
    )  # fmt: skip
    ids = tokenizer(" ".join(PROSE[:12]))["input_ids"]
    rows = torch.tensor(ids[: len(ids) // 64 * 64]).view(-1, 64)
    _train(
        model, [{"input_ids": rows[at : at + 8], "labels": rows[at : at + 8]} for at in range(0, len(rows), 8)], steps
    )
    _save(model, tokenizer, folder)
    spelling = json.loads((folder / "tokenizer.json").read_text())["model"]  # the older files, which gpt2 has too
    (folder / "vocab.json").write_text(json.dumps(spelling["vocab"], ensure_ascii=False))
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "".join(" ".join(each) + "\n" for each in spelling["merges"])
    )
    return folder


def make_t5(folder: Path, *, steps: int = 50) -> Path:
    """A T5 that learned to answer texts with their first words, with its tokenizer, saved by transformers."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    tokenizer = t5_tokenizer()
    summarization = {"prefix": "summarize: ", "max_length": 40, "min_length": 3, "num_beams": 4}
    summarization |= {"early_stopping": True, "length_penalty": 2.0, "no_repeat_ngram_size": 3}
    translation = {"prefix": "translate English to German: ", "max_length": 40, "num_beams": 4, "early_stopping": True}
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(tokenizer), d_model=48, d_kv=12, d_ff=96, num_layers=2, num_heads=4, dropout_rate=0.0,
            decoder_start_token_id=0, n_positions=512,
            task_specific_params={"summarization": summarization, "translation_en_to_de": translation},
        )
    )  # fmt: skip
    texts = [text.split("\n\n") for text in TEXTS[:64]]
    batches = []
    for at in range(0, len(texts), 8):
        sources = [f"summarize: {' '.join(parts[1:])[:300]}" for parts in texts[at : at + 8]]
        batch = tokenizer(sources, return_tensors="pt", padding=True)
        labels = tokenizer([parts[0][:60] for parts in texts[at : at + 8]], return_tensors="pt", padding=True)
        batches.append({**batch, "labels": labels["input_ids"].masked_fill(labels["input_ids"] == 0, -100)})
    _train(model, batches, steps)
    return _save(model, tokenizer, folder)


def _train(model: Any, batches: list[dict[str, Any]], steps: int) -> None:
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=5e-3)
    for step in range(steps):
        model(**batches[step % len(batches)]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def _save(model: Any, tokenizer: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
