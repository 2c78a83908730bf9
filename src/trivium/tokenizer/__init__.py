"""Text to ids and back. The only package that knows the `tokenizers` library."""

from trivium.tokenizer.batch import Encoded, TokenBatch
from trivium.tokenizer.report import TokenizerReport
from trivium.tokenizer.stream import DecodeStream
from trivium.tokenizer.tokenizer import Tokenizer
from trivium.tokenizer.train import train_tokenizer

__all__ = ["DecodeStream", "Encoded", "TokenBatch", "Tokenizer", "TokenizerReport", "train_tokenizer"]
