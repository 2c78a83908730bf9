"""Filling the gaps that an encoder was trained to fill.

Legend: G gaps of all rows, K candidates, D hidden size, V vocabulary.
"""

from collections.abc import Sequence
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


def fill_mask(model: Transformer, tokenizer: "Tokenizer", text: str, *, top_k: int = 5) -> list[list[Fill]]:
    """For each mask token in `text`, its `top_k` likeliest tokens; other masks stay masked meanwhile.

    Raises `ConfigError` for a model that is no encoder, `RequestError` for a text without a mask or too long.
    """
    check_filler(model, tokenizer)
    return fill_rows(model, tokenizer, [mask_ids(model, tokenizer, text)], top_k=top_k)[0]


def check_filler(model: Transformer, tokenizer: "Tokenizer") -> None:
    """Raise `ConfigError` unless the two can fill masks."""
    if model.config.family != "encoder" or tokenizer.mask_id is None:
        raise ConfigError("filling masks needs an encoder and a tokenizer with a mask token; choose another folder")


def mask_ids(model: Transformer, tokenizer: "Tokenizer", text: str, *, cut_to: int = 0) -> list[int]:
    """Ids of a text whose masks mean masks; longer ones are cut to `cut_to` tokens, if it is not 0.

    Raises `RequestError` for a text without a mask or too long.
    """
    mask = tokenizer.special_tokens["mask_token"]
    ids = tokenizer.encode_control(text, add_special=True)
    if cut_to and len(ids) > cut_to:
        tail = ids[-1:] if ids[-1] in tokenizer.control_ids else []
        ids = ids[: cut_to - len(tail)] + tail
    if tokenizer.mask_id not in ids:
        raise RequestError(f"there is no {mask} in {text[:60]!r}; expected at least one; write {mask} for the gap")
    longest = model.config.max_positions
    if model.config.position == "learned" and len(ids) > longest:
        raise RequestError(f"the text has {len(ids)} tokens; this model reads at most {longest}; shorten the text")
    return ids


@torch.inference_mode()
def fill_rows(
    model: Transformer,
    tokenizer: "Tokenizer",
    rows: Sequence[list[int]],
    *,
    top_k: int = 5,
    targets: Sequence[int] | None = None,
) -> list[list[list[Fill]]]:
    """Candidates for each gap of each row of ids, in one batch; among `targets` alone if they are given."""
    model = evaluation_copy(model)
    side = Side.from_ids(rows, pad_id=model.config.pad_id).to(model.embedding.tokens.weight.device)
    places_G2 = torch.eq(side.ids, tokenizer.mask_id or 0).nonzero()
    hidden_G1D = model(side)[places_G2[:, 0], places_G2[:, 1]][:, None]
    probabilities_GV = model.head(hidden_G1D)[:, 0].float().softmax(-1)
    allowed = None if targets is None else torch.tensor(targets, device=probabilities_GV.device)
    if allowed is not None:
        probabilities_GV = probabilities_GV[:, allowed]
    best = probabilities_GV.topk(min(top_k, probabilities_GV.shape[1]))
    tokens_GK = best.indices if allowed is None else allowed[best.indices]
    results: list[list[list[Fill]]] = [[] for _ in rows]
    for (row, place), tokens, values in zip(places_G2.tolist(), tokens_GK.tolist(), best.values.tolist(), strict=True):
        texts = [_with_token(tokenizer, rows[row], place, token) for token in tokens]
        results[row].append(
            [
                Fill(token, tokenizer.token_text(token), probability, text)
                for token, probability, text in zip(tokens, values, texts, strict=True)
            ]
        )
    return results


def _with_token(tokenizer: "Tokenizer", ids: list[int], place: int, token: int) -> str:
    """The text with one gap filled: other masks stay visible, what frames the text does not."""
    filled = [*ids[:place], token, *ids[place + 1 :]]
    framing = (tokenizer.cls_id, tokenizer.sep_id)
    return tokenizer.decode([each for each in filled if each not in framing], skip_special=False).strip()
