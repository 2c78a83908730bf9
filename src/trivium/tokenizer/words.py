"""Which tokens begin a word, as a table over the vocabulary: what whole-word masking groups by."""

import unicodedata
from typing import TYPE_CHECKING

import numpy as np

from trivium.tokenizer.stream import FALLBACK_BYTE, bytes_of

if TYPE_CHECKING:
    from trivium.tokenizer.tokenizer import Tokenizer


def mark_word_starts(tokenizer: "Tokenizer") -> np.ndarray:
    """What `Tokenizer.word_starts` gives.

    Taken from how fast tokenizers mark words: `##` inside (WordPiece), `Ġ` or `▁` before (byte-level BPE,
    SentencePiece); anything that is no letter or digit, and each Chinese character, is a word of its own, however
    many bytes it is spelled with. A table cannot see that a word also begins after a line's end.
    """
    starts = np.ones(tokenizer.vocab_size, dtype=bool)
    stored = tokenizer.get_vocab()
    marked, wordpiece = any(text.startswith(("Ġ", "▁")) for text in stored), tokenizer.kind == "wordpiece"
    for text, index in stored.items():
        if wordpiece:
            starts[index] = not text.startswith("##")
        elif marked and not text.startswith(("Ġ", "▁", "Ċ")):
            starts[index] = _begins_word(text, byte_level=tokenizer.byte_level)
    starts[list(tokenizer.control_ids)] = True
    return starts


def _begins_word(stored: str, *, byte_level: bool) -> bool:
    """Whether a token without a space before it begins a word all the same."""
    fallback = FALLBACK_BYTE.fullmatch(stored)
    written = bytes([int(fallback[1], 16)]) if fallback else bytes_of(stored) if byte_level else stored.encode()
    first = written.decode(errors="replace")[:1]
    if first == "\ufffd":  # part of a character: its first byte, from U+2000 on, where the letters of words end
        return written[:1] >= b"\xe2"
    return unicodedata.category(first)[0] not in "LMN" or first >= "\u2e80" if first else True
