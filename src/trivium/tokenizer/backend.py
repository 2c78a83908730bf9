"""Copies of a backend: one whose switches nobody else shares, one that takes special tokens in a text as text."""

import json
import secrets
from collections.abc import Collection

import tokenizers
from tokenizers import models


def copy_of(backend: tokenizers.Tokenizer, *, without: Collection[str] = ()) -> tokenizers.Tokenizer:
    """An equal tokenizer that shares the model, the largest part; never by to_str, which walks every unused id."""
    copy = tokenizers.Tokenizer(backend.model)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if (found := getattr(backend, part)) is not None:
            setattr(copy, part, found)
    copy.encode_special_tokens = backend.encode_special_tokens
    added = backend.get_added_tokens_decoder()
    copy.add_tokens([added[number] for number in sorted(added) if added[number].content not in without])
    return copy


def plain_copy(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A copy for which special tokens in a text are text."""
    copy = copy_of(backend)
    copy.encode_special_tokens = True
    if isinstance(backend.model, models.Unigram):
        # T5's model has `</s>` among its own pieces and finds it in a text whatever the switch says. A piece whose
        # name nobody can guess is never found; ids stay what they are.
        special = {token.content for token in copy.get_added_tokens_decoder().values() if token.special}
        model = json.loads(backend.model.__getstate__())
        pieces = [(secrets.token_hex(16) + text if text in special else text, score) for text, score in model["vocab"]]
        copy.model = models.Unigram(pieces, model["unk_id"], model.get("byte_fallback", False))
    return copy
