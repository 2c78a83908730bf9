"""A small tokenizer and models that speak it: shared by the tests that need text."""

from dataclasses import replace
from functools import cache

from tests.families import TINY
from trivium.model import Transformer, build_model
from trivium.tokenizer import Tokenizer, train_tokenizer

TEXTS = [
    "Return the length of the array along the given axis.",
    "Raise an error if the value is not a valid number, else return None.",
    "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。",
    "naïve café — “quoted” 🙂 and some more words to learn from",
]
FAMILY_OF = {
    "llama": "decoder",
    "gpt2": "decoder",
    "t5": "encoder_decoder",
    "bart": "encoder_decoder",
    "bert": "encoder",
}


@cache
def tokenizer_for(family: str, kind: str = "bpe") -> Tokenizer:
    """A tokenizer trained on the texts above, dressed for a family."""
    trained = train_tokenizer(TEXTS * 20, kind=kind, vocab_size=420, num_sentinels=8)
    return trained.dress_for(family)


def speaker(name: str, seed: int = 1) -> tuple[Transformer, Tokenizer]:
    """A random model of one of `TINY` with the vocabulary and special tokens of its tokenizer."""
    tokenizer = tokenizer_for(FAMILY_OF[name])
    config = replace(TINY[name], vocab_size=tokenizer.vocab_size, pad_id=tokenizer.pad_id, eos_id=tokenizer.eos_id)
    return build_model(config, seed=seed), tokenizer
