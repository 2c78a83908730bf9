"""The roles that special tokens have (padding, end, mask, …), and attributes that read and set them and settings."""

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
    """The id of a special token as an attribute that can be set, None where there is none."""

    def __init__(self, role: str) -> None:
        self.role = role

    def __get__(self, tokenizer: "Tokenizer", _: Any = None) -> int | None:
        text = tokenizer.special_tokens.get(self.role) if tokenizer is not None else None
        return None if text is None else tokenizer.backend.token_to_id(text)

    def __set__(self, tokenizer: "Tokenizer", index: int | None) -> None:
        text = None if index is None else tokenizer.backend.id_to_token(index)
        if index is not None and text is None:
            raise ConfigError(
                f"the id of {self.role} was set to {index}; expected one below {tokenizer.vocab_size}; choose another"
            )
        setattr(tokenizer, self.role, text)


class Setting:
    """A setting of tokenizer_config.json as an attribute, one of `allowed` if that says which."""

    def __init__(self, name: str, *allowed: str) -> None:
        self.name, self.allowed = name, allowed

    def __get__(self, tokenizer: "Tokenizer", _: Any = None) -> Any:
        found = tokenizer.settings.get(self.name) if tokenizer is not None else None
        return found if not self.allowed or found in self.allowed else self.allowed[0]

    def __set__(self, tokenizer: "Tokenizer", value: Any) -> None:
        if self.allowed and value not in self.allowed:
            raise ConfigError(f"{self.name} is {value!r}; expected {' or '.join(self.allowed)}; choose one")
        tokenizer.settings[self.name] = value


def text_of(token: Any) -> str | None:
    """A special token as the two spellings of config files: a string, or a mapping with `content`."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None
