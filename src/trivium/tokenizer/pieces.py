"""A tokenizer as a bare table of pieces, as GGUF files keep it, and back.

Knows the names by which llama.cpp calls the ways to split text before a byte-level BPE, and no file format.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from trivium.errors import HubError
from trivium.tokenizer.frame import frame
from trivium.tokenizer.spiece import PieceModel
from trivium.tokenizer.splitter import SPLITTERS
from trivium.tokenizer.tokenizer import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5
_ROLES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}


@dataclass(frozen=True)
class PieceTable:
    """What llama.cpp is told of a tokenizer: `model` is `gpt2` (byte-level BPE) or `llama` (SentencePiece BPE).

    `splitter` names the way of splitting text into words, `kinds` are SentencePiece's types of pieces (1 normal,
    2 unknown, 3 control, 4 defined by users, 5 unused, 6 byte), `merges` pairs in one string, `roles` ids by name.
    """

    model: str
    splitter: str
    tokens: list[str]
    kinds: list[int]
    merges: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    roles: dict[str, int] = field(default_factory=dict)
    add_bos: bool = False
    space_first: bool = False
    chat_template: str = ""


# Texts in which these ways differ.
_PROBES = ("It's 12345 o'clock,\n\nÀ la carte\t x**2 …!?", "  spaced   out \r\n语言 9１２", "DON'T we'll a_b 10.25%")


def from_pieces(table: PieceTable) -> Tokenizer:
    """A tokenizer that reads text as the table's owner does; raises `HubError` for kinds that it cannot build."""
    if len(table.kinds) != len(table.tokens) or len(set(table.tokens)) != len(table.tokens):
        raise HubError(
            f"a tokenizer of {len(table.tokens)} tokens, {len(set(table.tokens))} of them different, has "
            f"{len(table.kinds)} kinds; expected one kind each; get the file again"
        )
    try:
        backend = _byte_level(table) if table.model == "gpt2" else _sentence_pieces(table)
    except HubError:
        raise
    except Exception as error:  # the tokenizers library raises bare Exception
        raise HubError(f"the tokenizer's table is damaged ({error}); expected whole merges; get it again") from None
    names = {role: table.tokens[index] for role, index in table.roles.items() if 0 <= index < len(table.tokens)}
    settings: dict[str, Any] = {_ROLES[role]: text for role, text in names.items()}
    if table.chat_template:
        settings["chat_template"] = table.chat_template
    added = [
        AddedToken(text, special=kind == CONTROL, normalized=False)
        for text, kind in zip(table.tokens, table.kinds, strict=True)
        if kind in (CONTROL, USER_DEFINED)
    ]
    backend.add_tokens(added)
    if table.add_bos and "bos" in names:
        frame(backend, f"{names['bos']} $A", f"{names['bos']} $A $B")
    return Tokenizer(backend, settings | {"tokenizer_class": "PreTrainedTokenizerFast"})


def to_pieces(tokenizer: Tokenizer, *, vocab_size: int) -> PieceTable:
    """The table of a byte-level BPE, filled up to `vocab_size` ids; raises `HubError` for other tokenizers."""
    backend = tokenizer.backend
    if not tokenizer.byte_level or tokenizer.kind != "bpe" or backend.normalizer is not None:
        found = f"a {tokenizer.kind} tokenizer has no place in a GGUF file"
        raise HubError(f"{found}; expected byte-level BPE without normalizer; keep the model as a Hugging Face folder")
    named = backend.get_vocab(with_added_tokens=True)
    tokens = [f"[PAD{index}]" for index in range(vocab_size)]
    kinds = [UNUSED] * vocab_size
    for text, index in named.items():
        tokens[index], kinds[index] = text, NORMAL
    for index, token in backend.get_added_tokens_decoder().items():
        kinds[index] = CONTROL if token.special else USER_DEFINED
    merges = json.loads(backend.to_str())["model"]["merges"]
    roles = {role: tokenizer.special_tokens.get(name) for role, name in _ROLES.items()}
    bos = tokenizer.bos_id
    return PieceTable(
        model="gpt2",
        splitter=_name_splitter(backend),
        tokens=tokens,
        kinds=kinds,
        merges=[each if isinstance(each, str) else " ".join(each) for each in merges],
        roles={role: named[text] for role, text in roles.items() if text},
        add_bos=bos is not None and tokenizer.encode("a", add_special=True)[:1] == [bos],
        chat_template=str(tokenizer.settings.get("chat_template") or ""),
    )


def _name_splitter(backend: tokenizers.Tokenizer) -> str:
    for name, build in SPLITTERS.items():
        candidate = build()
        if all(_cut(backend.pre_tokenizer, text) == _cut(candidate, text) for text in _PROBES):
            return name
    known = ", ".join(SPLITTERS)
    raise HubError(
        f"llama.cpp has no name for how this tokenizer splits words; expected one of {known}; keep the folder"
    )


def _cut(splitter: Any, text: str) -> list[str]:
    return [piece for piece, _ in splitter.pre_tokenize_str(text)] if splitter is not None else [text]


def _byte_level(table: PieceTable) -> tokenizers.Tokenizer:
    if table.splitter not in SPLITTERS:
        known = ", ".join(SPLITTERS)
        raise HubError(f"the tokenizer splits words by {table.splitter!r}; expected one of {known}; use another file")
    merges = [(first, second) for first, _, second in (merge.partition(" ") for merge in table.merges)]
    vocabulary = {text: index for index, text in enumerate(table.tokens)}
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = SPLITTERS[table.splitter]()
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentence_pieces(table: PieceTable) -> tokenizers.Tokenizer:
    """Llama 2's kind: merges follow from the pieces' order, bytes are pieces, a space stands before the text."""
    if table.model != "llama":
        found = f"the file's tokenizer is of kind {table.model!r}"
        raise HubError(f"{found}; expected gpt2 (byte-level BPE) or llama (SentencePiece); use another file")
    scores = table.scores or [0.0] * len(table.tokens)
    model = PieceModel(pieces=list(zip(table.tokens, scores, table.kinds, strict=True)), kind=2)
    backend = model.bpe(unk_token=table.tokens[table.roles.get("unknown", 0)], byte_fallback=True)
    backend.pre_tokenizer = pre_tokenizers.Metaspace(
        prepend_scheme="first" if table.space_first else "never", split=False
    )
    steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    steps += [decoders.Strip(content=" ", left=1)] if table.space_first else []
    backend.decoder = decoders.Sequence(steps)
    return backend
