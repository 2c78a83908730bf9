"""The roles that special tokens have (padding, end, mask, …), and attributes that read and set them."""

from typing import TYPE_CHECKING, Any

from trivium.errors import ConfigError

if TYPE_CHECKING:
    from trivium.tokenizer.tokenizer import Tokenizer

ROLES = ("pad_token", "bos_token", "eos_token", "unk_token", "cls_token", "sep_token", "mask_token")
# What to call the roles where a folder has tokenizer.json alone.
CUSTOMARY = {
    "pad_token": ("<pad>", "[PAD]"),
    "bos_token": ("<s>", "<|begin_of_text|>"),
    "eos_token": ("</s>", "<|endoftext|>", "<|end_of_text|>"),
    "unk_token": ("<unk>", "[UNK]"),
    "cls_token": ("[CLS]",),
    "sep_token": ("[SEP]",),
    "mask_token": ("[MASK]", "<mask>"),
}


class RoleText:
    """The text of a special token as an attribute that can be set to another token of the vocabulary."""

    def __init__(self, role: str) -> None:
        self.role = role

    def __get__(self, tokenizer: "Tokenizer", _: Any = None) -> str | None:
        return tokenizer.special_tokens.get(self.role) if tokenizer is not None else None

    def __set__(self, tokenizer: "Tokenizer", text: str | None) -> None:
        if text is None:
            tokenizer.special_tokens.pop(self.role, None)
            tokenizer.settings[self.role] = None
        elif tokenizer.backend.token_to_id(text) is None:
            raise ConfigError(
                f"{self.role} was set to {text!r}, which the vocabulary does not have; expected one of its tokens; "
                f"choose another, for example {next(iter(tokenizer.special_tokens.values()), 'a word')!r}"
            )
        else:
            tokenizer.special_tokens[self.role] = tokenizer.settings[self.role] = text


class RoleId:
    """The id of a special token as an attribute, None where there is none."""

    def __init__(self, role: str) -> None:
        self.role = role

    def __get__(self, tokenizer: "Tokenizer", _: Any = None) -> int | None:
        text = tokenizer.special_tokens.get(self.role) if tokenizer is not None else None
        return None if text is None else tokenizer.backend.token_to_id(text)


def text_of(token: Any) -> str | None:
    """A special token as the two spellings of config files: a string, or a mapping with `content`."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None
