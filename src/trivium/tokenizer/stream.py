"""Ids to text as they come: what is certain is given out, what may still change is kept back."""

import codecs
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trivium.tokenizer.tokenizer import Tokenizer

FALLBACK_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
# Byte-level tokens write each byte as a character: itself if it is printable, else the next one from 256 (GPT-2).
PRINTABLE = (*range(33, 127), *range(161, 173), *range(174, 256))
BYTE_OF = {chr(byte): byte for byte in PRINTABLE}
BYTE_OF |= {chr(256 + place): byte for place, byte in enumerate(sorted({*range(256)} - {*PRINTABLE}))}


class DecodeStream:
    """Turns ids into text as they come; the pieces joined equal the full decode.

    Keeps back what may still change: a character whose bytes are not all there yet, and the last few ids that
    the decoder needs to know whether a space comes before the next.
    """

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._tokenizer = tokenizer
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace") if tokenizer.byte_level else None
        self._begins = tokenizer.prefix_space  # a space that no text has is still to come
        self._ids: list[int] = []
        self._shown = 0  # ids before this have been given out; the others wait

    def push(self, token_id: int) -> str:
        """The text that is certain once this id is known; often empty inside a character."""
        stored = self._tokenizer.backend.id_to_token(token_id)
        if stored is None or token_id in self._tokenizer.control_ids:
            return ""
        if self._bytes is not None:
            text = self._bytes.decode(bytes_of(stored))
            if text and self._begins:
                text, self._begins = text.removeprefix(" "), False
            return text
        self._ids.append(token_id)
        # A run of bytes is decoded as a whole: one that is no character spoils all before it.
        return "" if FALLBACK_BYTE.fullmatch(stored) else self._settle()

    def flush(self) -> str:
        """What was kept back, at the end of the ids."""
        return self._bytes.decode(b"", final=True) if self._bytes is not None else self._settle(final=True)

    def _settle(self, *, final: bool = False) -> str:
        before = self._decode(self._ids[: self._shown])
        now = self._decode(self._ids)
        if len(now) <= len(before) or (now.endswith("\ufffd") and not final):
            return ""
        self._ids = self._ids[self._shown :]
        self._shown = len(self._ids)
        return now[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.backend.decode(ids, skip_special_tokens=True))


def bytes_of(stored: str) -> bytes:
    """The bytes that a token of a byte-level vocabulary stands for; added tokens are written as they are."""
    if all(character in BYTE_OF for character in stored):
        return bytes(BYTE_OF[character] for character in stored)
    return stored.encode()
