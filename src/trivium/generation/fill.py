"""Filling the gaps that an encoder was trained to fill."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from trivium.errors import ConfigError, RequestError
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
    if model.config.max_positions and len(ids) > model.config.max_positions:
        longest = model.config.max_positions
        raise RequestError(f"the text has {len(ids)} tokens; this model reads {longest}; shorten the text")
    model.eval()
    side = Side.from_ids([ids]).to(model.embedding.tokens.weight.device)
    probabilities_BTV = model.head(model(side)).float().softmax(-1)
    results = []
    for place in places:
        best = probabilities_BTV[0, place].topk(min(top_k, model.config.vocab_size))
        candidates = []
        for token, probability in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            filled = tokenizer.decode([*ids[:place], token, *ids[place + 1 :]], skip_special=False)
            for special in (tokenizer.special_tokens.get("cls_token"), tokenizer.special_tokens.get("sep_token")):
                filled = filled.replace(special, "") if special else filled
            candidates.append(Fill(token, tokenizer.token_text(token), probability, filled.strip()))
        results.append(candidates)
    return results
