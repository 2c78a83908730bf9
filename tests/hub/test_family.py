"""Config files in both directions: nothing is dropped in silence, and both spellings of version 4 and 5 are read."""

from dataclasses import fields, replace
from typing import Any

import pytest
import transformers

from tests.reference import PAIRS
from trivium.errors import ConfigError, HubError
from trivium.hub.family import TABLE, choose, read_config, write_config
from trivium.model.config import ModelConfig, RopeScaling

SMALL: dict[str, Any] = {"vocab_size": 61, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "ffn_size": 40}
LAYER: dict[str, Any] = {"norm": "layer", "gated_ffn": False, "qkv_bias": True, "bias": True}
READER: dict[str, Any] = {
    "family": "encoder",
    "position": "learned",
    "max_positions": 64,
    "norm_placement": "post",
    "embedding_norm": True,
    "activation": "gelu",
    "head_transform": True,
    "head_bias": True,
    **SMALL,
    **LAYER,
}
CONFIGS = {
    "gpt2": ModelConfig(
        family="decoder", position="learned", max_positions=64, activation="gelu_tanh", **SMALL, **LAYER
    ),
    "bert": ModelConfig(token_types=2, **READER),
    "roberta": ModelConfig(token_types=1, bos_id=5, **READER),
    "distilbert": ModelConfig(norm_epsilon=1e-12, **READER),
    "bart": ModelConfig(
        family="encoder_decoder",
        position="learned",
        num_encoder_layers=2,
        norm_placement="post",
        norm_epsilon=1e-5,
        embedding_norm=True,
        activation="gelu",
        max_positions=64,
        eos_id=2,
        decoder_start_id=2,
        **SMALL,
        **LAYER,
    ),
    "pegasus": ModelConfig(
        family="encoder_decoder",
        position="sinusoidal",
        num_encoder_layers=2,
        norm_epsilon=1e-5,
        embedding_scale=True,
        activation="relu",
        max_positions=64,
        eos_id=1,
        decoder_start_id=0,
        **SMALL,
        **LAYER,
    ),
    "mistral": ModelConfig(family="decoder", num_kv_heads=2, window=9, max_positions=64, eos_id=2, **SMALL),
    "qwen2": ModelConfig(family="decoder", num_kv_heads=2, qkv_bias=True, max_positions=64, eos_id=2, **SMALL),
    "t5": ModelConfig(
        family="encoder_decoder",
        position="relative",
        num_encoder_layers=3,
        gated_ffn=True,
        activation="gelu_tanh",
        attention_scale=False,
        head_scale=True,
        eos_id=1,
        decoder_start_id=0,
        **SMALL,
    ),
    "llama": ModelConfig(family="decoder", num_kv_heads=2, tie_embeddings=False, max_positions=64, eos_id=2, **SMALL),
    "qwen3": ModelConfig(
        family="decoder", num_kv_heads=2, head_size=12, qk_norm=True, window=7, max_positions=64, **SMALL
    ),
    "marian": ModelConfig(
        family="encoder_decoder",
        position="sinusoidal",
        num_encoder_layers=2,
        norm_placement="post",
        norm_epsilon=1e-5,
        embedding_scale=True,
        activation="relu",
        max_positions=64,
        eos_id=2,
        decoder_start_id=3,
        **SMALL,
        **LAYER,
    ),
}


@pytest.mark.parametrize("model_type", sorted(CONFIGS))
def test_round_trip(model_type: str) -> None:
    config = replace(CONFIGS[model_type], dropout=0.125, pad_id=3)
    assert choose(config) == model_type
    written = write_config(config)
    assert read_config(written) == config
    assert written["dtype"] == "float32"


@pytest.mark.parametrize("model_type", sorted(CONFIGS))
def test_transformers_reads_what_we_write_and_we_what_it_writes(model_type: str) -> None:
    written = write_config(CONFIGS[model_type])
    theirs = transformers.AutoConfig.for_model(**written)
    assert theirs.model_type == model_type
    assert read_config(theirs.to_dict()) == CONFIGS[model_type]


def test_every_row_has_a_parity_pair() -> None:
    assert {model_type for model_type, _ in PAIRS.values()} == set(TABLE)


@pytest.mark.parametrize("model_type", sorted(CONFIGS))
def test_every_field_is_either_kept_or_refused(model_type: str) -> None:
    """Change each field in turn: reading back gives it again, or saving says its name."""
    others: dict[str, Any] = {
        "family": "decoder" if CONFIGS[model_type].family == "encoder" else "encoder",
        "position": "rope" if CONFIGS[model_type].position == "sinusoidal" else "sinusoidal",
        "head": "none",
        "labels": ("a", "b"),
        "problem": "multi",
        "norm": "rms" if CONFIGS[model_type].norm == "layer" else "layer",
        "norm_placement": "pre" if CONFIGS[model_type].norm_placement == "post" else "post",
        "activation": "silu" if CONFIGS[model_type].activation != "silu" else "relu",
        "rope_scaling": RopeScaling("yarn", 4.0, original_positions=32, beta_fast=16.0),
        "num_encoder_layers": 5,
        "num_heads": 2,
        "num_kv_heads": 1,
    }
    for item in fields(ModelConfig):
        before = getattr(CONFIGS[model_type], item.name)
        other = others.get(item.name, not before if isinstance(before, bool) else 0.25)
        if item.name not in others and not isinstance(before, bool | float):
            other = 2 * (before or 8)
        try:
            config = replace(CONFIGS[model_type], **{item.name: other})
        except ConfigError:
            continue  # no model at all
        try:
            written = write_config(config)
        except HubError as error:
            assert "cannot have" in str(error) or item.name in str(error)
            continue
        back = read_config(written)
        untold = {"max_positions", "rope_theta", "rope_scaling", "relative_buckets", "relative_max_distance"}
        untold |= {"labels", "problem"}  # without a head they mean nothing
        if item.name not in untold | set(TABLE[written["model_type"]].loose):
            assert getattr(back, item.name) == other, item.name


def test_what_cannot_be_written_is_named() -> None:
    config = replace(CONFIGS["qwen3"], embedding_norm=True, rope_scaling=RopeScaling("linear", 2.0))
    with pytest.raises(HubError, match=r"nearest, qwen3, cannot have embedding_norm=True; change"):
        write_config(config)


def test_what_readers_need_is_asked_for() -> None:
    with pytest.raises(HubError, match="decoder_start_id=None"):
        write_config(replace(CONFIGS["t5"], decoder_start_id=None))
    with pytest.raises(HubError, match="qk_norm=True"):
        write_config(replace(CONFIGS["qwen3"], qkv_bias=True))
    with pytest.raises(HubError, match="tie_embeddings=False"):
        write_config(replace(CONFIGS["bert"], tie_embeddings=False))
    assert write_config(replace(CONFIGS["llama"], num_heads=3, num_kv_heads=3))["model_type"] == "mistral"
    with pytest.raises(HubError, match="nearest, qwen2, cannot have bias=True"):
        write_config(replace(CONFIGS["llama"], num_heads=3, num_kv_heads=3, bias=True, qkv_bias=True))


def test_rope_of_version_4_and_5() -> None:
    plain = {**write_config(CONFIGS["llama"])}
    for key in ("rope_parameters", "rope_scaling", "rope_theta"):
        plain.pop(key)
    assert read_config(plain).rope_theta == 10_000.0
    assert read_config({**plain, "rope_theta": 500.0}).rope_theta == 500.0
    assert read_config({**plain, "rope_parameters": {"rope_theta": 500.0}}).rope_theta == 500.0
    old = {"type": "linear", "factor": 4.0}
    assert read_config({**plain, "rope_scaling": old}).rope_scaling == RopeScaling("linear", 4.0)
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    read = read_config({**plain, "rope_theta": 5e5, "rope_scaling": llama3, "max_position_embeddings": 128})
    assert read.rope_theta == 5e5
    assert read.rope_scaling == RopeScaling("llama3", 8.0, original_positions=128)


FOREIGN = [
    ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rotary positions"),
    ("llama", {"rope_scaling": {"rope_type": ["x"], "factor": 2.0}}, "rotary positions"),
    ("llama", {"partial_rotary_factor": 0.5}, "rotary positions"),
    (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 0.5, "rope_theta": 1e4}},
        "factor of 0.5",
    ),
    ("llama", {"attention_bias": True}, "biases in some linears"),
    ("llama", {"hidden_act": "gelu_fast"}, "activation 'gelu_fast'"),
    ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
    ("llama", {"hidden_size": "32"}, "hidden_size='32'"),
    ("llama", {"hidden_size": True}, "hidden_size=True"),
    ("llama", {"num_hidden_layers": 10**40}, "num_hidden_layers=1000"),
    ("llama", {"rms_norm_eps": float("inf")}, "rms_norm_eps=inf"),
    ("llama", {"vocab_size": -1}, "vocab_size=-1"),
    ("llama", {"tie_word_embeddings": "no"}, "tie_word_embeddings='no'"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
    ("gpt2", {"activation_function": None}, "activation None"),
    ("bert", {"is_decoder": True}, "is_decoder=True"),
    ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
    ("bert", {"tie_word_embeddings": False}, "tie_word_embeddings=False"),
    ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "expected one kind"),
    ("qwen3", {"layer_types": ["linear_attention"] * 2}, "expected one kind"),
    ("qwen3", {"attention_bias": True}, "attention_bias=True"),
    ("t5", {"feed_forward_proj": "gated-tanh"}, "activation 'tanh'"),
    ("t5", {"feed_forward_proj": 7}, "activation '7'"),
    ("marian", {"decoder_ffn_dim": 41}, "decoder_ffn_dim=41 but ffn_size is 40"),
    ("marian", {"decoder_vocab_size": 62}, "decoder_vocab_size=62"),
    ("marian", {"share_encoder_decoder_embeddings": False}, "share_encoder_decoder_embeddings"),
    ("marian", {"normalize_before": True}, "normalize_before"),
    ("roberta", {"is_decoder": True}, "is_decoder=True"),
    ("qwen2", {"use_mrope": True}, "use_mrope=True"),
    ("llama", {"rope_interleaved": True}, "rope_interleaved=True"),
    ("mistral", {"layer_types": ["sliding_attention"]}, "layer_types"),
    ("bart", {"decoder_attention_heads": 2}, "decoder_attention_heads=2 but num_heads is 4"),
    ("bart", {"architectures": ["BartForQuestionAnswering"]}, "BartForQuestionAnswering; expected a class whose head"),
    ("bert", {"architectures": ["BertForMultipleChoice"]}, "'BertForMultipleChoice'; expected a class"),
    ("bert", {"architectures": ["BertForTokenClassification"], "id2label": {"1": "a"}}, "id2label"),
    ("bert", {"architectures": ["BertForTokenClassification"], "id2label": ["a"]}, "id2label"),
    (
        "bert",
        {"architectures": ["BertForSequenceClassification"], "problem_type": "ranking"},
        "problem_type='ranking'; expected one of single_label",
    ),
    ("bert", {"model_type": "albert"}, "leaves out: all its layers share one set of weights"),
    ("bert", {"model_type": "modernbert"}, "leaves out"),
    ("llama", {"model_type": "gemma3_text"}, "leaves out"),
    ("pegasus", {"static_position_embeddings": False}, "static_position_embeddings"),
    ("marian", {"model_type": "mamba"}, "model_type 'mamba'; expected one of gpt2, roberta"),
    ("marian", {"model_type": ["t5"]}, "model_type"),
]


@pytest.mark.parametrize(("model_type", "change", "words"), FOREIGN)
def test_what_we_do_not_compute_is_refused(model_type: str, change: dict[str, Any], words: str) -> None:
    written = write_config(CONFIGS[model_type])
    if any(key.startswith("rope_") for key in change):
        written = {key: value for key, value in written.items() if not key.startswith("rope_")}
    with pytest.raises(HubError) as caught:
        read_config({**written, **change})
    assert words in str(caught.value)


def test_files_of_older_versions() -> None:
    t5 = write_config(CONFIGS["t5"])
    for key in ("num_decoder_layers", "relative_attention_max_distance", "scale_decoder_outputs"):
        del t5[key]
    read = read_config({**t5, "feed_forward_proj": "relu", "tie_word_embeddings": True})
    assert (read.num_layers, read.relative_max_distance, read.gated_ffn, read.head_scale) == (
        3,
        128,
        False,
        True,
    )
    gpt2 = {**write_config(CONFIGS["gpt2"]), "n_inner": None, "pad_token_id": None, "eos_token_id": [7, 8]}
    read = read_config(gpt2)
    assert (read.ffn_size, read.pad_id, read.eos_id) == (128, 7, 7)
    llama = write_config(CONFIGS["llama"])
    for key in ("head_dim", "num_key_value_heads", "attention_bias", "mlp_bias", "tie_word_embeddings"):
        del llama[key]
    read = read_config(llama)
    assert (read.head_size, read.num_kv_heads, read.bias, read.tie_embeddings) == (8, 4, False, False)
