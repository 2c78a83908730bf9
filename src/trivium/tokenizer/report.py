"""How a tokenizer does on some text: the size of its tokens, and its speed."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trivium.tokenizer.tokenizer import Tokenizer


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


def measure(tokenizer: "Tokenizer", texts: Iterable[str]) -> TokenizerReport:
    """Encode some texts and report bytes per token and tokens per second."""
    texts = list(texts)
    start = time.perf_counter()
    tokens = sum(len(ids) for ids in tokenizer.encode_batch(texts))
    seconds = time.perf_counter() - start
    return TokenizerReport(len(texts), sum(len(text.encode()) for text in texts), tokens, seconds)
