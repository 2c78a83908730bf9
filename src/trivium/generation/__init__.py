"""Writing, rewriting and filling gaps with a model: what to choose, how to decode, what text comes of it."""

from trivium.generation.beam import search_beams
from trivium.generation.decode import decode_step, prefill
from trivium.generation.fill import Fill, fill_mask
from trivium.generation.packed import prepare_decoding
from trivium.generation.row import Generation
from trivium.generation.settings import SamplingConfig
from trivium.generation.text import generate_text, stream_text
from trivium.generation.write import generate

__all__ = [
    "Fill",
    "Generation",
    "SamplingConfig",
    "combine_settings",
    "decode_step",
    "fill_mask",
    "generate",
    "generate_text",
    "prefill",
    "prepare_decoding",
    "search_beams",
    "stream_text",
]
