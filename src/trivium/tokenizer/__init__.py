"""Text to ids and back. The only package that knows the `tokenizers` library."""

from trivium.tokenizer.call import Encoded, TokenBatch
from trivium.tokenizer.stream import DecodeStream
from trivium.tokenizer.tokenizer import Tokenizer, TokenizerReport
from trivium.tokenizer.train import train_tokenizer

__all__ = ["DecodeStream", "Encoded", "TokenBatch", "Tokenizer", "TokenizerReport", "train_tokenizer"]
