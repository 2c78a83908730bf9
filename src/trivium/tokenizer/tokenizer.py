"""A tokenizer: text to ids and back, saved and loaded as a Hugging Face folder.

The work is done by the `tokenizers` library; this wrapper knows which ids have a role (padding, end, mask,
sentinels), and keeps text from turning into control ids. Training is in train.py, streams are decoded in stream.py.
"""

import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import tokenizers
from tokenizers import decoders

from trivium.errors import ConfigError, HubError
from trivium.tokenizer.adding import add_special_tokens, add_tokens
from trivium.tokenizer.backend import copy_of, plain_copy
from trivium.tokenizer.batch import Encoded, TokenBatch, list_of_ids
from trivium.tokenizer.call import UNBOUNDED, call_tokenizer
from trivium.tokenizer.chat import apply_template
from trivium.tokenizer.foreign import read_folder
from trivium.tokenizer.frame import dress
from trivium.tokenizer.guard import guarded, reading
from trivium.tokenizer.padding import pad_rows
from trivium.tokenizer.report import measure
from trivium.tokenizer.role import CUSTOMARY, ROLES, RoleId, RoleText, Setting, text_of
from trivium.tokenizer.words import mark_word_starts

SENTINEL = re.compile(r"<extra_id_(\d+)>")


class Tokenizer:
    """A fast tokenizer with named roles. `settings` is what tokenizer_config.json holds; ids are below `vocab_size`.

    Plain `encode` treats its text as text: a `<pad>` or `[MASK]` typed by a user becomes ordinary tokens, never
    the control id. `encode_control` is for text of our own that means them. With `calls="transformers"`, as
    AutoTokenizer gives it, `encode` and `decode` have the defaults that Hugging Face users expect.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        settings: dict[str, Any] | None = None,
        *,
        calls: Literal["trivium", "transformers"] = "trivium",
    ) -> None:
        self.calls = calls
        self.backend = backend
        self.backend.no_padding()
        self.backend.no_truncation()
        self.settings = dict(settings or {})
        self.look_up()

    def look_up(self) -> None:
        """Read again what follows from the backend and the settings; raises `HubError` for ids with wide gaps."""
        backend = self.backend
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self.vocab_size = 1 + max(vocabulary.values(), default=-1)
        if self.vocab_size > 2 * len(vocabulary) + 1000:
            raise HubError(
                f"a tokenizer of {len(vocabulary)} tokens has ids up to {self.vocab_size - 1}; expected them to be "
                "numbered from 0 almost without gaps; download or train it again"
            )
        added = backend.get_added_tokens_decoder()
        self.control_ids = frozenset(number for number, token in added.items() if token.special)
        self.special_tokens: dict[str, str] = {}
        for role in ROLES:
            if role in self.settings:
                text = text_of(self.settings[role])
            else:
                text = next((each for each in CUSTOMARY[role] if backend.token_to_id(each) in self.control_ids), None)
            if text and backend.token_to_id(text) is not None:
                self.special_tokens[role] = text
        numbered = {
            int(found[1]): index for index, each in added.items() if (found := SENTINEL.fullmatch(each.content))
        }
        self.sentinel_ids = [numbered[index] for index in sorted(numbered)]
        self.prefix_space = _decoding_steps(backend) == ["ByteLevel", "Strip"]
        self.byte_level = isinstance(backend.decoder, decoders.ByteLevel) or self.prefix_space
        # Two, since what special tokens in a text mean is a switch of the object, and threads share it.
        self.plain = plain_copy(backend)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Tokenizer, calls=self.calls), (self.backend, self.settings)

    @property
    def kind(self) -> str:
        """`bpe`, `wordpiece`, `unigram` or `other`."""
        name = type(self.backend.model).__name__.lower()
        return name if name in ("bpe", "wordpiece", "unigram") else "other"

    # Ids of the roles, None where there is no such token; then the names that Hugging Face users know.
    pad_id = pad_token_id = RoleId("pad_token")
    bos_id = bos_token_id = RoleId("bos_token")
    eos_id = eos_token_id = RoleId("eos_token")
    unk_id = unk_token_id = RoleId("unk_token")
    cls_id = cls_token_id = RoleId("cls_token")
    sep_id = sep_token_id = RoleId("sep_token")
    mask_id = mask_token_id = RoleId("mask_token")
    pad_token = RoleText("pad_token")
    bos_token = RoleText("bos_token")
    eos_token = RoleText("eos_token")
    unk_token = RoleText("unk_token")
    cls_token = RoleText("cls_token")
    sep_token = RoleText("sep_token")
    mask_token = RoleText("mask_token")
    padding_side = Setting("padding_side", "right", "left")
    truncation_side = Setting("truncation_side", "right", "left")
    chat_template = Setting("chat_template")
    is_fast = True
    # Functions of other files, whose first parameter is the tokenizer.
    add_tokens, add_special_tokens, pad = add_tokens, add_special_tokens, pad_rows
    word_starts, measure = mark_word_starts, measure

    def __len__(self) -> int:
        return self.vocab_size

    def __bool__(self) -> bool:
        return True

    @property
    def model_max_length(self) -> int:
        """How many tokens the model reads, if its settings say so, else 10²⁰ or more."""
        found = self.settings.get("model_max_length")
        return int(found) if isinstance(found, int | float) and 0 < found < 10**18 else UNBOUNDED

    @model_max_length.setter
    def model_max_length(self, length: int) -> None:
        """Let calls that cut without a `max_length` cut there."""
        self.settings["model_max_length"] = length

    @property
    def model_input_names(self) -> list[str]:
        """What a call gives unless told otherwise."""
        found = self.settings.get("model_input_names")
        return list(found) if isinstance(found, list) else ["input_ids", "attention_mask"]

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The token of each role that has one."""
        return dict(self.special_tokens)

    @property
    def all_special_ids(self) -> list[int]:
        """Ids that stand for no text, or for a role."""
        return sorted(self.control_ids | set(self.convert_tokens_to_ids(list(self.special_tokens.values()))))

    @property
    def all_special_tokens(self) -> list[str]:
        """The tokens of `all_special_ids`."""
        return list(self.convert_ids_to_tokens(self.all_special_ids))

    def encode(
        self, text: str, text_pair: str | None = None, *, add_special: bool | None = None, **options: Any
    ) -> Any:
        """Ids of one text; `add_special` adds what the model type expects around it, such as [CLS] and [SEP].

        Takes the keywords of a call too (`return_tensors`, `truncation`, `max_length`, …). An AutoTokenizer's object
        adds special tokens unless told not to, and reads those that are written in the text.
        """
        theirs = self.calls == "transformers"
        special = options.pop("add_special_tokens", theirs) if add_special is None else add_special
        if text_pair is None and not options and not theirs:
            return self.encode_batch([text], add_special=special)[0]
        options = {"split_special_tokens": not theirs} | options
        return self(text, text_pair, add_special_tokens=special, **options)["input_ids"]

    def __call__(self, text: Any = None, text_pair: Any = None, **options: Any) -> TokenBatch:
        """Ids of a text, or of a list of texts, as transformers' tokenizers give them.

        Keywords: `padding` (True, "max_length"), `truncation`, `max_length`, `stride`, `return_tensors` ("pt", "np"),
        `add_special_tokens` (True), `text_target`, `is_split_into_words`, `return_offsets_mapping`, …; rows are padded
        where `padding_side` says. Special tokens in a text mean themselves; `split_special_tokens=True` takes it as
        text. Raises `ConfigError` for other keywords and a missing padding token, `RequestError` for what is no text.
        """
        return call_tokenizer(self, text, text_pair, **options)

    encode_plus = batch_encode_plus = __call__  # as they were called before transformers 5

    def pair(self, text: str, pair: str | None = None, *, add_special: bool = True, control: bool = False) -> Encoded:
        """One text, or two as one input, with types, character offsets and sides: what pipelines point at words with.

        Special tokens in the texts are text unless `control`. Raises `DataError` for half surrogate pairs.
        """
        with reading((text, pair)):
            found = (self.backend if control else self.plain).encode(text, pair, add_special_tokens=add_special)
        return Encoded(found.ids, found.type_ids, found.offsets, found.sequence_ids)

    def encode_batch(self, texts: Sequence[str], *, add_special: bool = False) -> list[list[int]]:
        """Ids of many texts, in parallel over the machine's cores; raises `DataError` for half surrogate pairs."""
        texts = list(texts)
        with reading(texts):
            found = self.plain.encode_batch_fast(texts, add_special_tokens=add_special)
        return [encoding.ids for encoding in found]

    def encode_control(self, text: str, *, add_special: bool = False) -> list[int]:
        """Ids of a text in which special tokens, written out, mean themselves: `"The [MASK] of the list."`."""
        with reading((text,)):
            return list(self.backend.encode(text, add_special_tokens=add_special).ids)

    def decode(self, ids: Any, skip_special: bool | None = None, **options: Any) -> str:
        """Text of ids (a list, a tensor, one id); special tokens are left out unless `skip_special=False`.

        An AutoTokenizer's object keeps them unless told to skip them, and takes spaces before punctuation out where
        its settings ask for that. `skip_special_tokens` and `clean_up_tokenization_spaces` are understood too.
        """
        theirs = self.calls == "transformers"
        skip = options.pop("skip_special_tokens", not theirs) if skip_special is None else skip_special
        clean = options.pop("clean_up_tokenization_spaces", None)
        if options:
            raise ConfigError(f"decode has no {next(iter(options))}; expected skip_special_tokens; correct or drop it")
        if clean is None:
            clean = theirs and bool(self.settings.get("clean_up_tokenization_spaces"))
        with reading():
            text = str(self.backend.decode(list_of_ids(ids), skip_special_tokens=skip))
        return _tidy(text) if clean and self.kind != "bpe" else text

    def batch_decode(self, rows: Any, skip_special: bool | None = None, **options: Any) -> list[str]:
        """The text of each row of ids, as `decode` gives it."""
        return [self.decode(row, skip_special, **options) for row in rows]

    def tokenize(self, text: str, pair: str | None = None, *, add_special_tokens: bool = False) -> list[str]:
        """The tokens of a text (and a pair) as they are stored, special tokens in it included."""
        with reading((text, pair)):
            return list(self.backend.encode(text, pair, add_special_tokens=add_special_tokens).tokens)

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text of stored tokens."""
        return str(self.backend.decoder.decode(list(tokens))) if self.backend.decoder else " ".join(tokens)

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many tokens a call adds to a text, or to a pair."""
        return int(self.backend.num_special_tokens_to_add(pair))

    def convert_ids_to_tokens(self, ids: Any, *, skip_special_tokens: bool = False) -> Any:
        """Tokens as they are stored, of ids; one token of one id."""
        if isinstance(ids, int):
            return self.backend.id_to_token(ids)
        found = [each for each in list_of_ids(ids) if not (skip_special_tokens and each in self.control_ids)]
        return [self.backend.id_to_token(each) for each in found]

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """Ids of stored tokens, that of the unknown token for others; one id of one token."""
        if isinstance(tokens, str):
            found = self.backend.token_to_id(tokens)
            return self.unk_id if found is None else found
        return [self.convert_tokens_to_ids(each) for each in tokens]

    def get_vocab(self) -> dict[str, int]:
        """Every token as it is stored, with its id."""
        return dict(self.backend.get_vocab(with_added_tokens=True))

    def apply_chat_template(
        self, messages: Any, *, tokenize: bool = True, return_dict: bool = True, **options: Any
    ) -> Any:
        """A chat, or a list of chats, as the model's template writes it: text, or a `TokenBatch` (or its ids alone).

        Keywords: `add_generation_prompt`, `continue_final_message`, `tools` (JSON schemas), `documents`,
        `chat_template`, those of a call (`return_tensors`, `padding`, `truncation`, `max_length`), and variables of
        the template. Special tokens in messages stay text. Raises `ConfigError` without a template, `RequestError`
        for messages that it refuses.
        """
        return apply_template(self, messages, dict(options), tokenize=tokenize, return_dict=return_dict)

    def token_text(self, token_id: int) -> str:
        """One id as readable text, with the space before it if it has one."""
        text = self.decode([token_id], skip_special=False)
        stored = self.backend.id_to_token(token_id) or ""
        return f" {text}" if stored.startswith("▁") and not text.startswith(" ") else text

    def dress_for(self, family: Literal["encoder", "decoder", "encoder_decoder"]) -> "Tokenizer":
        """A copy that puts round a text what this family's models expect when special tokens are asked for.

        `[CLS] … [SEP]` for an encoder, `… </s>` for an encoder–decoder, nothing for a decoder, which continues.
        Raises `ConfigError` when the tokenizer has no such tokens.
        """
        backend = copy_of(self.backend)
        return Tokenizer(backend, dress(self, backend, family), calls=self.calls)

    def save_pretrained(self, folder: str | Path) -> tuple[str, ...]:
        """The same as `save`; gives the names of the files."""
        self.save(folder)
        return tuple(str(Path(folder) / name) for name in ("tokenizer.json", "tokenizer_config.json"))

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, which transformers' AutoTokenizer opens too."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.backend.save(str(folder / "tokenizer.json"))
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_max_length": 1_000_000,
            **self.settings,
            **self.special_tokens,
        }
        settings.pop("auto_map", None)  # names of Python files, which we neither run nor pass on
        text = json.dumps(settings, indent=2, ensure_ascii=False, sort_keys=True)
        (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "Tokenizer":
        """Open a folder's tokenizer, whatever its files (foreign.py); raises `HubError` when none can be read."""
        folder = Path(folder)
        if not folder.is_dir():
            raise HubError(f"{folder} is no folder; expected one that a tokenizer was saved to; check the path")
        backend, settings = read_folder(folder)
        return guarded(folder, lambda: cls(backend, settings))


def _decoding_steps(backend: tokenizers.Tokenizer) -> list[str]:
    """The steps that make text of tokens, where there are several, by the names in tokenizer.json."""
    found = json.loads(backend.decoder.__getstate__()) if backend.decoder else {}
    return [each["type"] for each in found.get("decoders", [])]


def _tidy(text: str) -> str:
    """Spaces before punctuation and contractions taken out, as old tokenizers of English want their text."""
    for before, after in (
        *((f" {mark}", mark) for mark in ".?!,"),
        (" ' ", "'"),
        *((f" {ending}", ending) for ending in ("n't", "'m", "'s", "'ve", "'re")),
    ):
        text = text.replace(before, after)
    return text
