"""Text as it is written: pieces that never have to be taken back, and strings that end it.

Knows tokens and text, nothing of models.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trivium.tokenizer import Tokenizer


class TextStream:
    """Turns tokens into text and ends before the first of `stop`.

    What might be the beginning of a stop string is held back until the next tokens decide. `text` is all that was
    released so far, `stopped` says that a stop string was met.
    """

    def __init__(self, tokenizer: "Tokenizer", stop: Sequence[str] = ()) -> None:
        from trivium.tokenizer import DecodeStream

        self._decoder, self._stop, self._held = DecodeStream(tokenizer), tuple(stop), ""
        self.text, self.stopped = "", False

    def push(self, token: int) -> str:
        """Take one token and return the text that is now certain, often less than the token's own."""
        return self._release(self._decoder.push(token), last=False)

    def flush(self) -> str:
        """Release what is held back: no more tokens will come. Returns all of the text."""
        self._release(self._decoder.flush(), last=True)
        return self.text

    def _release(self, new: str, *, last: bool) -> str:
        if self.stopped:
            return ""
        pending = self._held + new
        found = [index for index in map(pending.find, self._stop) if index >= 0]
        if found:
            self.stopped = True
            certain, self._held = pending[: min(found)], ""
        else:
            keep = 0 if last else max((_overlap(pending, stop) for stop in self._stop), default=0)
            certain, self._held = pending[: len(pending) - keep], pending[len(pending) - keep :]
        self.text += certain
        return certain


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
