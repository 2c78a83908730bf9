"""Text to ids and back. The only package that knows the `tokenizers` library."""

from trivium.tokenizer.tokenizer import DecodeStream, Tokenizer, TokenizerReport
from trivium.tokenizer.train import train_tokenizer

__all__ = ["DecodeStream", "Tokenizer", "TokenizerReport", "train_tokenizer"]
