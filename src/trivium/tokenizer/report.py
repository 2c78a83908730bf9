"""How a tokenizer does on some text: the size of its tokens, and its speed."""

from dataclasses import dataclass


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
