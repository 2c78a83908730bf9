"""Published sizes, and what a size costs: parameters, operations, memory. Arithmetic only, nothing is allocated.

Knows no data and no machine: how long a training takes is not planned here.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from trivium.errors import ConfigError
from trivium.model.config import ModelConfig


@dataclass(frozen=True)
class Plan:
    """What one model costs, by the rules of `plan_model`."""

    name: str
    config: ModelConfig
    seq_len: int
    parameters: int
    forward_flops_per_token: int
    training_flops_per_token: int
    weight_bytes: int  # float32; half of it in bfloat16
    gradient_bytes: int
    optimizer_bytes: int  # AdamW: two float32 moments

    @property
    def training_bytes(self) -> int:
        """Memory of a training without its activations."""
        return self.weight_bytes + self.gradient_bytes + self.optimizer_bytes


def plan_model(model: str | ModelConfig, *, seq_len: int = 0) -> Plan:
    """Parameters, FLOPs per token and memory of a preset's name, or of any config.

    FLOPs are the mean over a sequence of `seq_len` tokens (0: the longest that the model has, else 512; two stacks
    read and write as many); training is forward and twice as much backward (Kaplan et al. 2020, §2.1). Weights,
    gradients and AdamW's two moments are float32. Raises `ConfigError` for an unknown name.
    """
    config = model if isinstance(model, ModelConfig) else find_preset(model)
    length = seq_len or config.max_positions or 512
    parameters = count_parameters(config)
    both = 2 * length if config.family == "encoder_decoder" else length
    forward = count_flops(config, length) // both
    return Plan(
        name=model if isinstance(model, str) else config.family,
        config=config,
        seq_len=length,
        parameters=parameters,
        forward_flops_per_token=forward,
        training_flops_per_token=3 * forward,
        weight_bytes=4 * parameters,
        gradient_bytes=4 * parameters,
        optimizer_bytes=8 * parameters,
    )


def find_preset(name: str) -> ModelConfig:
    """The config of a published size; `ConfigError` names the nearest when there is none."""
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=1, cutoff=0.4)
        advice = f"did you mean {near[0]}?" if near else "choose one"
        raise ConfigError(f"there is no size {name!r}; expected one of {', '.join(PRESETS)}; {advice}")
    return PRESETS[name]


def count_parameters(config: ModelConfig) -> int:
    """How many numbers a model learns, all of it: embeddings, blocks, head; what is tied counts once."""
    size, norm = config.hidden_size, config.hidden_size * (2 if config.norm == "layer" else 1)
    two = config.family == "encoder_decoder"
    layers = config.num_layers + config.num_encoder_layers
    block = _attention(config) + _ffn(config) + 2 * norm
    stacks = layers * block + (config.num_layers * (_attention(config) + norm) if two else 0)
    ends = norm if config.norm_placement == "pre" else 0
    ends += config.relative_buckets * config.num_heads if config.position == "relative" else 0
    places = config.max_positions * size if config.position == "learned" else 0
    apart = two and config.position == "learned"  # then each stack has its own positions and norm
    places = (places + norm * config.embedding_norm) * (1 + apart)
    embedding = config.vocab_size * size + config.token_types * size + places
    return embedding + stacks + ends * (1 + two) + _head(config, norm)


def count_flops(config: ModelConfig, tokens: int) -> int:
    """Floating-point operations of one forward pass over a sequence, head included; two stacks read `tokens` too.

    Counts both the multiplication and the addition of every matrix product, and of attention every pair of places
    that a window allows, the causally hidden too, as kernels and other counters do. Norms, activations and softmax
    (about a hundredth) are left out.
    """
    size, wide = config.hidden_size, config.num_heads * config.head_size
    seen = min(tokens, config.window) if config.window else tokens
    matrices = size * (2 * wide + 2 * config.num_kv_heads * config.head_size)
    attention = matrices + 2 * seen * wide
    ffn = (3 if config.gated_ffn else 2) * size * config.ffn_size
    layers = config.num_layers + config.num_encoder_layers
    blocks = layers * (attention + ffn)
    if config.family == "encoder_decoder":
        blocks += config.num_layers * (matrices + 2 * tokens * wide)
    return 2 * (tokens * blocks + _head_products(config, tokens))


def _linear(inputs: int, outputs: int, bias: bool) -> int:
    return inputs * outputs + outputs * bias


def _attention(config: ModelConfig) -> int:
    size, wide, narrow = config.hidden_size, config.num_heads * config.head_size, config.num_kv_heads * config.head_size
    inward = _linear(size, wide, config.qkv_bias) + 2 * _linear(size, narrow, config.qkv_bias)
    return inward + _linear(wide, size, config.bias) + 2 * config.head_size * config.qk_norm


def _ffn(config: ModelConfig) -> int:
    ups = 2 if config.gated_ffn else 1
    return ups * _linear(config.hidden_size, config.ffn_size, config.bias) + _linear(
        config.ffn_size, config.hidden_size, config.bias
    )


def _head(config: ModelConfig, norm: int) -> int:
    size = config.hidden_size
    if config.head == "language":
        own = 0 if config.tie_embeddings else config.vocab_size * size
        transform = _linear(size, size, True) + norm if config.head_transform else 0
        return own + transform + config.vocab_size * config.head_bias
    return _classes(config, size + 1) + (_linear(size, size, True) if _has_dense(config) else 0)


def _head_products(config: ModelConfig, tokens: int) -> int:
    """Multiplications of the head; of a text only one place is looked at."""
    size = config.hidden_size
    if config.head == "language":
        return tokens * size * (config.vocab_size + size * config.head_transform)
    return (_classes(config, size) + size * size * _has_dense(config)) * (1 if config.head == "sequence" else tokens)


def _classes(config: ModelConfig, each: int) -> int:
    if config.head in ("language", "none"):
        return 0
    classes = 2 if config.head == "span" else len(config.labels)
    no_bias = config.head == "sequence" and config.family == "decoder"
    return classes * (min(each, config.hidden_size) if no_bias else each)


def _has_dense(config: ModelConfig) -> bool:
    return config.head == "sequence" and config.family != "decoder"


_LAYER: dict[str, Any] = {"norm": "layer", "gated_ffn": False, "qkv_bias": True, "bias": True, "dropout": 0.1}


def _transformer(hidden_size: int, num_heads: int, dropout: float) -> ModelConfig:
    return ModelConfig(
        family="encoder_decoder",
        vocab_size=37000,
        hidden_size=hidden_size,
        num_layers=6,
        num_encoder_layers=6,
        num_heads=num_heads,
        ffn_size=4 * hidden_size,
        position="sinusoidal",
        norm_placement="post",
        norm_epsilon=1e-5,
        embedding_scale=True,
        activation="relu",
        decoder_start_id=0,
        **{**_LAYER, "dropout": dropout},
    )


def _bert(hidden_size: int, num_layers: int, num_heads: int) -> ModelConfig:
    return ModelConfig(
        family="encoder",
        vocab_size=30522,
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        ffn_size=4 * hidden_size,
        max_positions=512,
        position="learned",
        norm_placement="post",
        norm_epsilon=1e-12,
        embedding_norm=True,
        token_types=2,
        activation="gelu",
        head_transform=True,
        head_bias=True,
        **_LAYER,
    )


def _gpt(hidden_size: int, num_layers: int, num_heads: int, max_positions: int) -> ModelConfig:
    return ModelConfig(
        family="decoder",
        vocab_size=50257,
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        ffn_size=4 * hidden_size,
        max_positions=max_positions,
        position="learned",
        norm_epsilon=1e-5,
        activation="gelu_tanh",
        pad_id=50256,
        bos_id=50256,
        eos_id=50256,
        **_LAYER,
    )


def _t5(hidden_size: int, num_layers: int, num_heads: int, *, head_size: int = 64, ffn_size: int) -> ModelConfig:
    return ModelConfig(
        family="encoder_decoder",
        vocab_size=32128,
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_encoder_layers=num_layers,
        num_heads=num_heads,
        head_size=head_size,
        ffn_size=ffn_size,
        position="relative",
        activation="relu",
        gated_ffn=False,
        attention_scale=False,
        head_scale=True,
        dropout=0.1,
        eos_id=1,
        decoder_start_id=0,
    )


PRESETS: dict[str, ModelConfig] = {
    # Vaswani et al. 2017, table 3, with the English–German vocabulary of §5.1
    "transformer-base": _transformer(512, 8, 0.1),
    "transformer-big": _transformer(1024, 16, 0.3),
    # Devlin et al. 2018, §3
    "bert-base": _bert(768, 12, 12),
    "bert-large": _bert(1024, 24, 16),
    # Radford et al. 2019, table 2, heads as in the published weights
    "gpt2": _gpt(768, 12, 12, 1024),
    "gpt2-medium": _gpt(1024, 24, 16, 1024),
    "gpt2-large": _gpt(1280, 36, 20, 1024),
    "gpt2-xl": _gpt(1600, 48, 25, 1024),
    # Brown et al. 2020, table 2.1, which prints 24 heads for the fourth and a width of 5,140 for the seventh: neither
    # goes with its heads of 128, while 16 heads and 5,120 do and give the printed counts of parameters.
    "gpt3-125m": _gpt(768, 12, 12, 2048),
    "gpt3-350m": _gpt(1024, 24, 16, 2048),
    "gpt3-760m": _gpt(1536, 24, 16, 2048),
    "gpt3-1.3b": _gpt(2048, 24, 16, 2048),
    "gpt3-2.7b": _gpt(2560, 32, 32, 2048),
    "gpt3-6.7b": _gpt(4096, 32, 32, 2048),
    "gpt3-13b": _gpt(5120, 40, 40, 2048),
    "gpt3-175b": _gpt(12288, 96, 96, 2048),
    # Raffel et al. 2020, §3.7
    "t5-small": _t5(512, 6, 8, ffn_size=2048),
    "t5-base": _t5(768, 12, 12, ffn_size=3072),
    "t5-large": _t5(1024, 24, 16, ffn_size=4096),
    "t5-3b": _t5(1024, 24, 32, head_size=128, ffn_size=16384),
    "t5-11b": _t5(1024, 24, 128, head_size=128, ffn_size=65536),
}
