"""Text to ids and back. The only package that knows the `tokenizers` library."""

from trivium.tokenizer.tokenizer import DecodeStream, Encoded, Tokenizer, TokenizerReport
from trivium.tokenizer.train import train_tokenizer

__all__ = ["DecodeStream", "Encoded", "Tokenizer", "TokenizerReport", "train_tokenizer"]
