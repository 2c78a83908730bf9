"""`AutoTokenizer.from_pretrained`: a tokenizer that answers the calls that Hugging Face users type."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium.errors import ConfigError
from trivium.hub.resolve import resolve_folder

if TYPE_CHECKING:
    from trivium.tokenizer import Tokenizer

# Keywords of theirs that change nothing here: every tokenizer is a fast one.
_IDLE = {"use_fast", "legacy", "trust_remote_code", "token", "force_download", "resume_download"}

_SETTINGS = {"model_max_length", "chat_template", "padding_side", "truncation_side"}


class AutoTokenizer:
    """Opens the tokenizer of a folder or hub name, of whatever kind; not to be instantiated."""

    @staticmethod
    def from_pretrained(name_or_folder: str | Path, *, revision: str | None = None, **settings: Any) -> "Tokenizer":
        """A `Tokenizer` whose `encode` and `decode` have transformers' defaults (special tokens added, and kept).

        `revision` is a branch, tag or commit of a hub name; further keywords set special tokens (`pad_token="…"`),
        `model_max_length`, `padding_side`, `truncation_side` or `chat_template`. Raises `HubError` when there is none
        to be had, `ConfigError` for other keywords.
        """
        from trivium.tokenizer import Tokenizer

        name = f"{name_or_folder}@{revision}" if revision is not None else name_or_folder
        opened = Tokenizer.load(resolve_folder(name))
        found = Tokenizer(opened.backend, opened.settings, calls="transformers")
        for key, value in settings.items():
            if key == "clean_up_tokenization_spaces":
                found.settings[key] = value
            elif key in _SETTINGS or (key.endswith("_token") and hasattr(Tokenizer, key)):
                setattr(found, key, value)
            elif key not in _IDLE:
                raise ConfigError(
                    f"AutoTokenizer.from_pretrained has no {key}; expected revision, model_max_length or a special "
                    "token such as pad_token; drop it"
                )
        return found
