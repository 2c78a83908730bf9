"""The Transformer as mathematics: tensors in, tensors out. Knows no text, no files, no ranks."""

from trivium.model.cache import Cache
from trivium.model.config import ModelConfig, RopeScaling
from trivium.model.init import build_model, initialize
from trivium.model.mask import Side
from trivium.model.transformer import Transformer

__all__ = [
    "Cache",
    "ModelConfig",
    "RopeScaling",
    "Side",
    "Transformer",
    "build_model",
    "initialize",
]
