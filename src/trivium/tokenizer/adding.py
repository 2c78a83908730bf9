"""Tokens that a vocabulary did not have, given ids after its last one. A model's tables must have room for them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trivium.errors import ConfigError
from trivium.tokenizer.role import ROLES, text_of

if TYPE_CHECKING:
    from trivium.tokenizer.tokenizer import Tokenizer

_MORE = ("additional_special_tokens", "extra_special_tokens")


def add_tokens(tokenizer: "Tokenizer", new_tokens: Any, special_tokens: bool = False) -> int:
    """Give one text or several an id each, those that have none yet, and say how many these were."""
    texts = list(new_tokens) if isinstance(new_tokens, list | tuple) else [new_tokens]
    backend, before = tokenizer.backend, tokenizer.backend.get_vocab_size()
    (backend.add_special_tokens if special_tokens else backend.add_tokens)(texts)
    tokenizer.look_up()
    return backend.get_vocab_size() - before


def add_special_tokens(tokenizer: "Tokenizer", special_tokens_dict: Mapping[str, Any]) -> int:
    """Give roles their tokens, `{"pad_token": "[PAD]"}`, adding those that the vocabulary lacks; how many these were.

    `additional_special_tokens` (or `extra_special_tokens`) is a list of tokens without a role. Raises `ConfigError`
    for other names.
    """
    if unknown := special_tokens_dict.keys() - {*ROLES, *_MORE}:
        raise ConfigError(f"no special token is called {min(unknown)}; expected {', '.join(ROLES)}; correct it")
    count = 0
    for role, given in special_tokens_dict.items():
        texts = [text for each in (given if role in _MORE else [given]) if (text := text_of(each) or str(each))]
        count += add_tokens(tokenizer, texts, special_tokens=True)
        if role in ROLES:
            setattr(tokenizer, role, texts[0])
    return count
