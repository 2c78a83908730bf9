"""Filling the gaps that an encoder was trained to fill.

Legend: B batch of one, G gaps, V vocabulary.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from trivium.errors import ConfigError, RequestError
from trivium.generation.packed import evaluation_copy
from trivium.model import Side, Transformer

if TYPE_CHECKING:
    from trivium.tokenizer import Tokenizer


@dataclass(frozen=True)
class Fill:
    """One candidate for one gap: the token, its probability, and the whole text with it in place."""

    token: int
    token_text: str
    probability: float
    sequence: str


@torch.inference_mode()
def fill_mask(model: Transformer, tokenizer: "Tokenizer", text: str, *, top_k: int = 5) -> list[list[Fill]]:
    """For each mask token in `text`, its `top_k` likeliest tokens; other masks stay masked meanwhile.

    Raises `ConfigError` for a model that is no encoder, `RequestError` for a text without a mask or too long.
    """
    if model.config.family != "encoder" or tokenizer.mask_id is None:
        raise ConfigError("filling masks needs an encoder and a tokenizer with a mask token; choose another folder")
    mask = tokenizer.special_tokens["mask_token"]
    ids = tokenizer.encode_control(text, add_special=True)
    places = [place for place, token in enumerate(ids) if token == tokenizer.mask_id]
    if not places:
        raise RequestError(f"there is no {mask} in {text[:60]!r}; expected at least one; write {mask} for the gap")
    longest = model.config.max_positions
    if model.config.position == "learned" and len(ids) > longest:
        raise RequestError(f"the text has {len(ids)} tokens; this model reads at most {longest}; shorten the text")
    model = evaluation_copy(model)
    side = Side.from_ids([ids]).to(model.embedding.tokens.weight.device)
    probabilities_BGV = model.head(model(side)[:, places]).float().softmax(-1)
    best = probabilities_BGV[0].topk(min(top_k, model.config.vocab_size))
    results = []
    for place, tokens, probabilities in zip(places, best.indices.tolist(), best.values.tolist(), strict=True):
        texts = [_with_token(tokenizer, ids, place, token) for token in tokens]
        results.append(
            [
                Fill(token, tokenizer.token_text(token), probability, text)
                for token, probability, text in zip(tokens, probabilities, texts, strict=True)
            ]
        )
    return results


def _with_token(tokenizer: "Tokenizer", ids: list[int], place: int, token: int) -> str:
    """The text with one gap filled: other masks stay visible, what frames the text does not."""
    filled = [*ids[:place], token, *ids[place + 1 :]]
    framing = (tokenizer.cls_id, tokenizer.sep_id)
    return tokenizer.decode([each for each in filled if each not in framing], skip_special=False).strip()
