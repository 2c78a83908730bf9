"""SentencePiece models (`spiece.model`, `tokenizer.model`) as parts of a fast tokenizer.

Reads the few fields of the file that the conversion needs, by the published schema (sentencepiece_model.proto), so
that no further package has to be installed and nothing but these fields is looked at. Runs no SentencePiece.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers

from trivium.errors import HubError

_CONTROL, _USER_DEFINED = 3, 4
_LONGEST_PIECE = 1000  # characters; the trainer's own limit is 16


@dataclass
class PieceModel:
    """What a SentencePiece file says: pieces in the order of their ids, as (text, score, type), and a few settings."""

    pieces: list[tuple[str, float, int]] = field(default_factory=list)
    kind: int = 1  # 1 Unigram, 2 BPE
    byte_fallback: bool = False
    unk_id: int = 0
    names: dict[str, str] = field(default_factory=lambda: {"unk": "<unk>", "bos": "<s>", "eos": "</s>", "pad": "<pad>"})
    ids: dict[str, int] = field(default_factory=lambda: {"unk": 0, "bos": 1, "eos": 2, "pad": -1})
    charsmap: bytes = b""
    space_first: bool = True  # a space is put before the text
    squeeze: bool = True  # spaces at both ends go, several become one

    @property
    def vocabulary(self) -> dict[str, int]:
        """Each piece's id."""
        return {text: index for index, (text, _, _) in enumerate(self.pieces)}

    @property
    def added(self) -> list[AddedToken]:
        """Control pieces and those that users defined, which no model may split."""
        return [
            AddedToken(text, normalized=False, special=kind == _CONTROL)
            for text, _, kind in self.pieces
            if kind in (_CONTROL, _USER_DEFINED)
        ]

    def merges(self) -> list[tuple[str, str]]:
        """The merges that make a BPE's pieces: every way to split one into two others, the earliest piece first.

        None makes a control piece, which no text may become.
        """
        ids = self.vocabulary
        controls = {text for text, _, kind in self.pieces if kind == _CONTROL}
        found = []
        for text, index in ids.items():
            if text in controls:
                continue
            splits = [(text[:cut], text[cut:]) for cut in range(1, len(text))]
            found += [(index, len(a), len(b), ids[a], ids[b], a, b) for a, b in splits if a in ids and b in ids]
        return [(each[5], each[6]) for each in sorted(found)]

    def bpe(self, **options: Any) -> Tokenizer:
        """A fast BPE of these pieces, without normalizer and decoder."""
        return Tokenizer(models.BPE(vocab=self.vocabulary, merges=self.merges(), fuse_unk=True, **options))

    def normalizer(self) -> Any:
        """What the file says of normalisation and spaces, as one normalizer."""
        rules: list[Any] = [normalizers.Precompiled(self.charsmap)] if self.charsmap else []
        if self.squeeze:
            ends, runs = Regex(r"\A +| +\z"), Regex(" {2,}")
            rules += [normalizers.Replace(ends, ""), normalizers.Replace(runs, " ")]
        rules += [normalizers.Prepend("▁")] if self.space_first else []
        return normalizers.Sequence([*rules, normalizers.Replace(" ", "▁")])

    def unigram(self, extra: list[tuple[str, float]] | None = None, *, byte_fallback: bool | None = None) -> Tokenizer:
        """A fast Unigram of these pieces and some more after them, without pre-tokenizer and decoder."""
        pieces = [(text, score) for text, score, _ in self.pieces] + (extra or [])
        fallback = self.byte_fallback if byte_fallback is None else byte_fallback
        tokenizer = Tokenizer(models.Unigram(pieces, self.unk_id, fallback))
        if self.charsmap:
            tokenizer.normalizer = normalizers.Precompiled(self.charsmap)
        return tokenizer


def parse_pieces(content: bytes) -> PieceModel:
    """What a SentencePiece model file holds; raises `HubError` for anything else, tiktoken files by name."""
    model = PieceModel()
    if re.match(rb"[A-Za-z0-9+/]+={0,2} \d+\n", content):
        raise HubError(
            "the tokenizer's file is a tiktoken file; expected a SentencePiece model; get the folder's tokenizer.json"
        )
    try:
        for number, value in _fields(content):
            if number == 1:
                model.pieces.append(_piece(value))
            elif number == 2:
                _trainer(model, value)
            elif number == 3:
                rules = dict(_fields(value))
                model.charsmap = bytes(rules.get(2, b""))
                model.space_first, model.squeeze = bool(rules.get(3, 1)), bool(rules.get(4, 1))
    except (ValueError, IndexError, struct.error, TypeError, AttributeError) as error:
        raise HubError(
            f"the file of the tokenizer is damaged ({error}); expected a SentencePiece model; get it again"
        ) from None
    if not model.pieces or model.kind not in (1, 2) or not 0 <= model.unk_id < len(model.pieces):
        raise HubError(
            f"the SentencePiece model has {len(model.pieces)} pieces and kind {model.kind}; expected some, of kind 1 "
            "(Unigram) or 2 (BPE), one of them unknown; get a tokenizer.json"
        )
    return model


def _piece(content: Any) -> tuple[str, float, int]:
    fields = dict(_fields(content))
    text = bytes(fields.get(1, b"")).decode()
    if len(text) > _LONGEST_PIECE:
        raise ValueError(f"a piece of {len(text)} characters")
    (score,) = struct.unpack("<f", fields.get(2, bytes(4)))
    return text, score, int(fields.get(3, 1))


def _trainer(model: PieceModel, content: Any) -> None:
    fields = dict(_fields(content))
    model.kind = int(fields.get(3, 1))
    model.byte_fallback = bool(fields.get(35, 0))
    for offset, role in enumerate(("unk", "bos", "eos", "pad")):
        if 40 + offset in fields:  # negative numbers are 64 bits of two's complement
            number = int(fields[40 + offset])
            model.ids[role] = number - (1 << 64) if number >> 63 else number
        if 45 + offset in fields:
            model.names[role] = bytes(fields[45 + offset]).decode()
    model.unk_id = model.ids["unk"]


def _fields(content: Any) -> Iterator[tuple[int, Any]]:
    """Numbers and values of a message in protobuf's wire format: integers, or bytes of fixed or given length."""
    content = memoryview(content)
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(content, at)
            yield key >> 3, value
            continue
        if wire == 2:
            size, at = _varint(content, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > len(content):
            raise ValueError("cut off")
        yield key >> 3, content[at : at + size]
        at += size


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("a number without end")
