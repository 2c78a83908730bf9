"""Tiny configs of each architecture, and the context that its family reads: shared by many tests."""

from trivium.model import ModelConfig, Side

SIZES = {"vocab_size": 64, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "ffn_size": 48}
CLASSIC = {"gated_ffn": False, "bias": True, "qkv_bias": True, "norm": "layer"}

TINY = {
    "gpt2": ModelConfig(
        family="decoder", position="learned", max_positions=64, activation="gelu_tanh", **CLASSIC, **SIZES
    ),
    "llama": ModelConfig(family="decoder", num_kv_heads=2, tie_embeddings=False, **SIZES),
    "qwen3": ModelConfig(family="decoder", num_kv_heads=2, qk_norm=True, tie_embeddings=False, **SIZES),
    "bert": ModelConfig(
        family="encoder",
        position="learned",
        max_positions=64,
        norm_placement="post",
        embedding_norm=True,
        token_types=2,
        activation="gelu",
        head_transform=True,
        head_bias=True,
        **CLASSIC,
        **SIZES,
    ),
    "t5": ModelConfig(
        family="encoder_decoder",
        num_encoder_layers=2,
        position="relative",
        activation="relu",
        gated_ffn=False,
        attention_scale=False,
        head_scale=True,
        decoder_start_id=0,
        **SIZES,
    ),
    "bart": ModelConfig(
        family="encoder_decoder",
        num_encoder_layers=2,
        position="learned",
        max_positions=64,
        norm_placement="post",
        embedding_norm=True,
        activation="gelu",
        head_bias=True,
        decoder_start_id=0,
        **CLASSIC,
        **SIZES,
    ),
    "transformer2017": ModelConfig(
        family="encoder_decoder",
        num_encoder_layers=2,
        position="sinusoidal",
        norm_placement="post",
        embedding_scale=True,
        activation="relu",
        head_bias=True,
        decoder_start_id=0,
        **CLASSIC,
        **SIZES,
    ),
}


def context_for(config: ModelConfig, side: Side) -> Side | None:
    """The side itself for an encoder–decoder to read, nothing for the other families."""
    return side if config.family == "encoder_decoder" else None
