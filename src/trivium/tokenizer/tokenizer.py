"""A tokenizer: text to ids and back, saved and loaded as a Hugging Face folder.

The work is done by the `tokenizers` library; this wrapper knows which ids have a role (padding, end, mask,
sentinels), keeps text from turning into control ids, and decodes streams. Training is in train.py.
"""

import codecs
import json
import re
import secrets
import time
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tokenizers
from tokenizers import decoders, models, processors

from trivium.errors import ConfigError, DataError, HubError

ROLES = ("pad_token", "bos_token", "eos_token", "unk_token", "cls_token", "sep_token", "mask_token")
SENTINEL = re.compile(r"<extra_id_(\d+)>")
FALLBACK_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
# Byte-level tokens write each byte as a character: itself if it is printable, else the next one from 256 (GPT-2).
PRINTABLE = (*range(33, 127), *range(161, 173), *range(174, 256))
BYTE_OF = {chr(byte): byte for byte in PRINTABLE}
BYTE_OF |= {chr(256 + place): byte for place, byte in enumerate(sorted({*range(256)} - {*PRINTABLE}))}
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


@dataclass(frozen=True)
class TokenizerReport:
    """How a tokenizer does on some text: `bytes_per_token` of UTF-8 and speed on this machine."""

    texts: int
    bytes: int
    tokens: int
    seconds: float

    @property
    def bytes_per_token(self) -> float:
        """Bytes of UTF-8 text that one token stands for."""
        return self.bytes / max(self.tokens, 1)

    @property
    def tokens_per_second(self) -> float:
        """Tokens made per second of wall-clock time."""
        return self.tokens / max(self.seconds, 1e-9)


class Tokenizer:
    """A fast tokenizer with named roles. `settings` is what tokenizer_config.json holds; ids are below `vocab_size`.

    Plain `encode` treats its text as text: a `<pad>` or `[MASK]` typed by a user becomes ordinary tokens, never
    the control id. `encode_control` is for text of our own that means them.
    """

    def __init__(self, backend: tokenizers.Tokenizer, settings: dict[str, Any] | None = None) -> None:
        self.backend = backend
        self.backend.no_padding()
        self.backend.no_truncation()
        self.settings = dict(settings or {})
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
                text = _text_of(self.settings[role])
            else:
                text = next((each for each in CUSTOMARY[role] if backend.token_to_id(each) in self.control_ids), None)
            if text and backend.token_to_id(text) is not None:
                self.special_tokens[role] = text
        numbered = {
            int(found[1]): index for index, each in added.items() if (found := SENTINEL.fullmatch(each.content))
        }
        self.sentinel_ids = [numbered[index] for index in sorted(numbered)]
        self.byte_level = isinstance(backend.decoder, decoders.ByteLevel)
        # Two, since what special tokens in a text mean is a switch of the object, and threads share it.
        self._plain = _without_control(backend)

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer, (self.backend, self.settings)

    @property
    def kind(self) -> str:
        """`bpe`, `wordpiece`, `unigram` or `other`."""
        name = type(self.backend.model).__name__.lower()
        return name if name in ("bpe", "wordpiece", "unigram") else "other"

    def _role_id(self, role: str) -> int | None:
        text = self.special_tokens.get(role)
        return None if text is None else self.backend.token_to_id(text)

    @property
    def pad_id(self) -> int | None:
        """Id of the padding token, if there is one; likewise below."""
        return self._role_id("pad_token")

    @property
    def bos_id(self) -> int | None:
        """Id that begins a text."""
        return self._role_id("bos_token")

    @property
    def eos_id(self) -> int | None:
        """Id that ends a text."""
        return self._role_id("eos_token")

    @property
    def unk_id(self) -> int | None:
        """Id of what the vocabulary cannot spell."""
        return self._role_id("unk_token")

    @property
    def cls_id(self) -> int | None:
        """Id that BERT puts before a text."""
        return self._role_id("cls_token")

    @property
    def sep_id(self) -> int | None:
        """Id that BERT puts after a text."""
        return self._role_id("sep_token")

    @property
    def mask_id(self) -> int | None:
        """Id of the gap that an encoder fills."""
        return self._role_id("mask_token")

    def encode(self, text: str, *, add_special: bool = False) -> list[int]:
        """Ids of one text; `add_special` adds what the model type expects around it, such as [CLS] and [SEP]."""
        return self.encode_batch([text], add_special=add_special)[0]

    def encode_batch(self, texts: Sequence[str], *, add_special: bool = False) -> list[list[int]]:
        """Ids of many texts, in parallel over the machine's cores; raises `DataError` for half surrogate pairs."""
        texts = list(texts)
        try:
            found = self._plain.encode_batch_fast(texts, add_special_tokens=add_special)
        except TypeError:
            _refuse_surrogates(texts)
            raise
        return [encoding.ids for encoding in found]

    def encode_control(self, text: str, *, add_special: bool = False) -> list[int]:
        """Ids of a text in which special tokens, written out, mean themselves: `"The [MASK] of the list."`."""
        try:
            return list(self.backend.encode(text, add_special_tokens=add_special).ids)
        except TypeError:
            _refuse_surrogates([text])
            raise

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of ids; special tokens are left out unless asked for."""
        return str(self.backend.decode(list(ids), skip_special_tokens=skip_special))

    def token_text(self, token_id: int) -> str:
        """One id as readable text, with the space before it if it has one."""
        text = self.decode([token_id], skip_special=False)
        stored = self.backend.id_to_token(token_id) or ""
        return f" {text}" if stored.startswith("▁") and not text.startswith(" ") else text

    def word_starts(self) -> np.ndarray:
        """For each id, whether it begins a word, `(vocab_size,)` bool: what whole-word masking groups by.

        Taken from how fast tokenizers mark words: `##` inside (WordPiece), `Ġ` or `▁` before (byte-level BPE,
        SentencePiece); anything that is no letter or digit, and each Chinese character, is a word of its own, however
        many bytes it is spelled with. A table cannot see that a word also begins after a line's end.
        """
        starts = np.ones(self.vocab_size, dtype=bool)
        stored = self.backend.get_vocab(with_added_tokens=True)
        marked, wordpiece = any(text.startswith(("Ġ", "▁")) for text in stored), self.kind == "wordpiece"
        for text, index in stored.items():
            if wordpiece:
                starts[index] = not text.startswith("##")
            elif marked and not text.startswith(("Ġ", "▁", "Ċ")):
                starts[index] = _begins_word(text, byte_level=self.byte_level)
        starts[list(self.control_ids)] = True
        return starts

    def dress_for(self, family: Literal["encoder", "decoder", "encoder_decoder"]) -> "Tokenizer":
        """A copy that puts round a text what this family's models expect when special tokens are asked for.

        `[CLS] … [SEP]` for an encoder, `… </s>` for an encoder–decoder, nothing for a decoder, which continues.
        Raises `ConfigError` when the tokenizer has no such tokens.
        """
        before, after = {
            "encoder": ("cls_token", "sep_token"),
            "decoder": (None, None),
            "encoder_decoder": (None, "eos_token"),
        }[family]
        missing = [role for role in (before, after) if role and role not in self.special_tokens]
        if missing:
            raise ConfigError(
                f"the tokenizer has no {' and no '.join(missing)}, expected round the texts of an {family}; "
                "choose a tokenizer of that family, or train one"
            )
        first, last = (self.special_tokens[role] if role else "" for role in (before, after))
        inputs = ["input_ids", *(["token_type_ids"] if family == "encoder" else []), "attention_mask"]
        # The class that takes tokenizer.json as it is: those named after a model would put other tokens round.
        settings = {name: value for name, value in self.settings.items() if not name.startswith("add_")}
        settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": inputs}
        backend = _copy(self.backend)
        backend.post_processor = processors.TemplateProcessing(
            single=f"{first} $A {last}".split(),
            pair=f"{first} $A {last} $B:1 {last and last + ':1'}".split(),
            special_tokens=[(text, self.backend.token_to_id(text)) for text in (first, last) if text],
        )
        return Tokenizer(backend, settings)

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
        """Open a folder's tokenizer.json; raises `HubError` when it is missing or broken."""
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise HubError(f"{folder} has no tokenizer.json; expected a folder that a fast tokenizer was saved to")
        try:
            backend = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
            settings: dict[str, Any] = {}
            for name in ("special_tokens_map.json", "tokenizer_config.json"):
                if (folder / name).is_file():
                    settings |= dict(json.loads((folder / name).read_text(encoding="utf-8")).items())
        except Exception as error:  # the library raises bare Exception
            raise HubError(f"{folder}'s tokenizer cannot be read ({error}); save or download it again") from None
        return cls(backend, settings)

    def measure(self, texts: Iterable[str]) -> TokenizerReport:
        """Encode some texts and report bytes per token and tokens per second."""
        texts = list(texts)
        start = time.perf_counter()
        tokens = sum(len(ids) for ids in self.encode_batch(texts))
        seconds = time.perf_counter() - start
        return TokenizerReport(len(texts), sum(len(text.encode()) for text in texts), tokens, seconds)


class DecodeStream:
    """Turns ids into text as they come; the pieces joined equal the full decode.

    Keeps back what may still change: a character whose bytes are not all there yet, and the last few ids that
    the decoder needs to know whether a space comes before the next.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace") if tokenizer.byte_level else None
        self._ids: list[int] = []
        self._shown = 0  # ids before this have been given out; the others wait

    def push(self, token_id: int) -> str:
        """The text that is certain once this id is known; often empty inside a character."""
        stored = self._tokenizer.backend.id_to_token(token_id)
        if stored is None or token_id in self._tokenizer.control_ids:
            return ""
        if self._bytes is not None:
            return self._bytes.decode(_bytes_of(stored))
        self._ids.append(token_id)
        # A run of bytes is decoded as a whole: one that is no character spoils all before it.
        return "" if FALLBACK_BYTE.fullmatch(stored) else self._settle()

    def flush(self) -> str:
        """What was kept back, at the end of the ids."""
        return self._bytes.decode(b"", final=True) if self._bytes is not None else self._settle(final=True)

    def _settle(self, *, final: bool = False) -> str:
        before = self._tokenizer.decode(self._ids[: self._shown])
        now = self._tokenizer.decode(self._ids)
        if len(now) <= len(before) or (now.endswith("\ufffd") and not final):
            return ""
        self._ids = self._ids[self._shown :]
        self._shown = len(self._ids)
        return now[len(before) :]


def _copy(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """An equal tokenizer that shares the model, the largest part; never by to_str, which walks every unused id."""
    copy = tokenizers.Tokenizer(backend.model)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if (found := getattr(backend, part)) is not None:
            setattr(copy, part, found)
    added = backend.get_added_tokens_decoder()
    copy.add_tokens([added[number] for number in sorted(added)])
    return copy


def _without_control(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A copy for which special tokens in a text are text."""
    copy = _copy(backend)
    copy.encode_special_tokens = True
    if isinstance(backend.model, models.Unigram):
        # T5's model has `</s>` among its own pieces and finds it in a text whatever the switch says. A piece whose
        # name nobody can guess is never found; ids stay what they are.
        special = {token.content for token in copy.get_added_tokens_decoder().values() if token.special}
        model = json.loads(backend.model.__getstate__())
        pieces = [(secrets.token_hex(16) + text if text in special else text, score) for text, score in model["vocab"]]
        copy.model = models.Unigram(pieces, model["unk_id"], model.get("byte_fallback", False))
    return copy


def _refuse_surrogates(texts: Sequence[str]) -> None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"a text has half of a surrogate pair ({text[error.start]!r}) at character {error.start}; expected "
                "Unicode text; replace it: text.encode('utf-8', 'replace').decode()"
            ) from None


def _bytes_of(stored: str) -> bytes:
    """The bytes that a token of a byte-level vocabulary stands for; added tokens are written as they are."""
    if all(character in BYTE_OF for character in stored):
        return bytes(BYTE_OF[character] for character in stored)
    return stored.encode()


def _begins_word(stored: str, *, byte_level: bool) -> bool:
    """Whether a token without a space before it begins a word all the same."""
    fallback = FALLBACK_BYTE.fullmatch(stored)
    written = bytes([int(fallback[1], 16)]) if fallback else _bytes_of(stored) if byte_level else stored.encode()
    first = written.decode(errors="replace")[:1]
    if first == "\ufffd":  # part of a character: its first byte, from U+2000 on, where the letters of words end
        return written[:1] >= b"\xe2"
    return unicodedata.category(first)[0] not in "LMN" or first >= "\u2e80" if first else True


def _text_of(token: Any) -> str | None:
    """A special token as the two spellings of config files: a string, or a mapping with `content`."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None
