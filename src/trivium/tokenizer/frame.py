"""The special tokens that are put round a text and a pair."""

from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers import processors

from trivium.errors import ConfigError

if TYPE_CHECKING:
    from trivium.tokenizer.tokenizer import Tokenizer


def frame(backend: tokenizers.Tokenizer, single: str, pair: str) -> None:
    """Have a backend write its texts as two patterns say: `[CLS] $A [SEP]`, `[CLS] $A [SEP] $B:1 [SEP]:1`."""
    texts = dict.fromkeys(part.removesuffix(":1") for part in pair.split() if not part.startswith("$"))
    backend.post_processor = processors.TemplateProcessing(
        single=single.split(),
        pair=pair.split(),
        special_tokens=[(text, backend.token_to_id(text) or 0) for text in texts],
    )


def dress(tokenizer: "Tokenizer", backend: tokenizers.Tokenizer, family: str) -> dict[str, Any]:
    """Frame a copy of a tokenizer's backend as `Tokenizer.dress_for` says; gives the settings that go with it."""
    before, after = {
        "encoder": ("cls_token", "sep_token"),
        "decoder": (None, None),
        "encoder_decoder": (None, "eos_token"),
    }[family]
    missing = [role for role in (before, after) if role and role not in tokenizer.special_tokens]
    if missing:
        raise ConfigError(
            f"the tokenizer has no {' and no '.join(missing)}, expected round the texts of an {family}; "
            "choose a tokenizer of that family, or train one"
        )
    first, last = (tokenizer.special_tokens[role] if role else "" for role in (before, after))
    frame(backend, f"{first} $A {last}", f"{first} $A {last} $B:1 {last and last + ':1'}")
    inputs = ["input_ids", *(["token_type_ids"] if family == "encoder" else []), "attention_mask"]
    # The class that takes tokenizer.json as it is: those named after a model would put other tokens round.
    settings = {name: value for name, value in tokenizer.settings.items() if not name.startswith("add_")}
    return settings | {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": inputs}
