"""Small models and data sets that a fine-tuning test can learn in a second: shared by the tests of fine-tuning."""

import json
import random
from pathlib import Path
from typing import Any

from trivium.hub.auto import save_model
from trivium.model import ModelConfig, build_model
from trivium.tokenizer import Tokenizer, train_tokenizer

ANIMALS = ["cat", "dog", "owl", "fox", "bee", "ant", "cow", "hen"]
COLOURS = ["red", "blue", "green", "black", "white", "brown"]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_tokenizer() -> Tokenizer:
    words = [*ANIMALS, *COLOURS, "the", "a", "saw", "is", "what", "colour", "where", "?"]
    draw = random.Random(0)
    texts = [" ".join(draw.choices(words, k=12)) for _ in range(400)]
    return train_tokenizer(texts, vocab_size=400, num_sentinels=8)


def make_model(folder: Path, family: str, tokenizer: Tokenizer, **changes: Any) -> Path:
    """A folder with a two-layer model of a family, random weights."""
    shared = {
        "vocab_size": tokenizer.vocab_size,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 2,
        "ffn_size": 64,
        "pad_id": tokenizer.pad_id,
        "eos_id": tokenizer.eos_id,
    }
    kinds: dict[str, dict[str, Any]] = {
        "decoder": {"tie_embeddings": False},
        "encoder_decoder": {
            "num_encoder_layers": 2,
            "position": "relative",
            "activation": "gelu_tanh",
            "attention_scale": False,
            "tie_embeddings": False,
            "decoder_start_id": tokenizer.pad_id,
        },
        "encoder": {
            "position": "learned",
            "max_positions": 64,
            "norm": "layer",
            "norm_placement": "post",
            "embedding_norm": True,
            "token_types": 2,
            "activation": "gelu",
            "gated_ffn": False,
            "qkv_bias": True,
            "bias": True,
            "head_transform": True,
            "head_bias": True,
        },
    }
    config = ModelConfig(family=family, **(shared | kinds[family] | changes))  # type: ignore[arg-type]  # a literal
    save_model(build_model(config, seed=0), folder, tokenizer=tokenizer.dress_for(family))  # type: ignore[arg-type]
    return folder


def pairs(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """A sentence and the animal in it."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        animal, colour = draw.choice(ANIMALS), draw.choice(COLOURS)
        rows.append({"source": f"the {animal} is {colour} {draw.choice(COLOURS)}", "target": animal})
    return rows
