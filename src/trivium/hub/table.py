"""The rows: for each model_type that trivium speaks, how its config.json maps to `ModelConfig` and back.

Data, and the few fields that need code; family.py reads and writes with it.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from trivium.errors import HubError
from trivium.hub import layouts
from trivium.hub.names import Naming
from trivium.hub.settings import ACTIVATION_NAMES, Settings, activation_of, read_rope, typed, write_rope
from trivium.model.config import ModelConfig

Tensors = Mapping[str, Tensor]  # under canonical foreign names; empty where only the config is known


@dataclass(frozen=True)
class Row:
    """One model_type: what it fixes, what it only calls otherwise, what it must not ask for, and what needs code."""

    architecture: str  # the class that transformers opens
    naming: Naming
    fixed: Mapping[str, Any]  # our fields that this architecture cannot vary
    keys: Mapping[str, tuple[str, Any]]  # their key -> our field, and what its absence means
    read: Callable[[Settings, Tensors], dict[str, Any]]  # the fields that need code
    write: Callable[[ModelConfig], dict[str, Any]] = lambda config: {}
    requires: Mapping[str, Any] = field(default_factory=dict)  # their key -> the only value that we compute
    loose: tuple[str, ...] = ()  # fields that only the tensors tell


def _read_gpt2(known: Settings, tensors: Tensors) -> dict[str, Any]:
    return {} if known["ffn_size"] else {"ffn_size": 4 * known["hidden_size"]}


def _read_bert(known: Settings, tensors: Tensors) -> dict[str, Any]:
    speaks = known["head"] == "language"
    return {"head_transform": speaks, "head_bias": speaks}


# The three BERTs compute the same but for their token types: these tell them apart when a model is written.
def _write_bert(config: ModelConfig) -> dict[str, Any]:
    if config.token_types < 1:
        raise HubError(f"token_types={config.token_types}")
    return {"tie_word_embeddings": True}


def _read_roberta(known: Settings, tensors: Tensors) -> dict[str, Any]:
    return _read_bert(known, tensors) | {"max_positions": known["max_positions"] - known["pad_id"] - 1}


def _write_roberta(config: ModelConfig) -> dict[str, Any]:
    if config.token_types != 1:
        raise HubError(f"token_types={config.token_types}")
    # Its first position follows the id of padding.
    return {"tie_word_embeddings": True, "max_position_embeddings": config.max_positions + config.pad_id + 1}


def _read_mt5(known: Settings, tensors: Tensors) -> dict[str, Any]:
    return _read_t5({"feed_forward_proj": "gated-gelu", **known}, tensors) | {"head_scale": False}


def _read_t5(known: Settings, tensors: Tensors) -> dict[str, Any]:
    kind = str(known.get("feed_forward_proj", "relu"))
    # “gated-gelu” has meant the tanh form since T5 v1.1, “gelu” alone the exact one.
    activation = "gelu_tanh" if kind == "gated-gelu" else activation_of(kind.removeprefix("gated-"))
    scaled = known.get("scale_decoder_outputs", known.get("tie_word_embeddings")) is not False
    layers = known["num_encoder_layers"]  # older files do not say the decoder's: both stacks are as deep
    found = {"activation": activation, "gated_ffn": kind.startswith("gated-"), "head_scale": scaled}
    return found if known.get("num_decoder_layers") else {**found, "num_layers": layers}


def _write_t5(config: ModelConfig) -> dict[str, Any]:
    name = ACTIVATION_NAMES[config.activation]
    if config.gated_ffn:
        name = "gated-gelu" if config.activation == "gelu_tanh" else f"gated-{name}"
    # transformers reads “not tied” as “not scaled”, and ties unless the file has another head.
    scaled = {"tie_word_embeddings": config.head_scale, "scale_decoder_outputs": config.head_scale}
    return {"is_encoder_decoder": True, "feed_forward_proj": name} | scaled


def _read_llama(known: Settings, tensors: Tensors) -> dict[str, Any]:
    if known["qkv_bias"] != known["bias"]:
        raise HubError("config.json has biases in some linears; expected all or none; use another model")
    return read_rope(known)


def _write_llama(config: ModelConfig) -> dict[str, Any]:
    if config.hidden_size % config.num_heads:
        raise HubError(f"hidden_size={config.hidden_size} that num_heads={config.num_heads} does not divide")
    return _write_modern(config) | {"attention_bias": config.bias}


def _write_modern(config: ModelConfig) -> dict[str, Any]:
    rope = write_rope(config.rope_theta, config.rope_scaling)
    return rope | {"max_position_embeddings": config.max_positions or 32768}


_LAYER_KINDS = ("full_attention", "sliding_attention")


def _write_mistral(config: ModelConfig) -> dict[str, Any]:
    return _write_modern(config) | {"sliding_window": config.window or None}


def _read_qwen3(known: Settings, tensors: Tensors) -> dict[str, Any]:
    layers, window = known["num_layers"], 0
    if known.get("use_sliding_window"):
        window = typed(known, "sliding_window", "count", 4096)
    kinds = known.get("layer_types")
    if kinds is None:
        full = min(typed(known, "max_window_layers", "count", 28), layers) if window else layers
        kinds = [_LAYER_KINDS[layer >= full] for layer in (0, layers - 1)]
    found = {str(kind) for kind in kinds} if isinstance(kinds, list) else {str(kinds)}
    if len(found) != 1 or not found.issubset(_LAYER_KINDS):
        raise HubError(f"config.json has layers {sorted(found)}; expected one kind; use another model")
    return read_rope(known) | {"window": window if found == {_LAYER_KINDS[1]} else 0}


def _write_qwen3(config: ModelConfig) -> dict[str, Any]:
    return _write_modern(config) | {
        "use_sliding_window": config.window > 0,
        "sliding_window": config.window or None,
        "max_window_layers": 0 if config.window else config.num_layers,
        "layer_types": [_LAYER_KINDS[config.window > 0]] * config.num_layers,
    }


def _read_marian(known: Settings, tensors: Tensors) -> dict[str, Any]:
    bias = tensors.get("final_logits_bias")
    return {"head_bias": bias is not None and bool(bias.any())}


def _write_marian(config: ModelConfig) -> dict[str, Any]:
    # Not left to MarianConfig's default, which forces token 0.
    start = {"is_encoder_decoder": True, "share_encoder_decoder_embeddings": True}
    limits = {"max_position_embeddings": config.max_positions or 4096, "forced_eos_token_id": config.eos_id}
    return start | limits


def _write_pegasus(config: ModelConfig) -> dict[str, Any]:
    return _write_bart(config) | {"max_position_embeddings": config.max_positions or 1024}


def _read_bart(known: Settings, tensors: Tensors) -> dict[str, Any]:
    return _read_marian(known, tensors) | {"embedding_norm": True}


def _write_bart(config: ModelConfig) -> dict[str, Any]:
    return {"is_encoder_decoder": True, "forced_eos_token_id": config.eos_id}


def _keys(text: str) -> dict[str, tuple[str, Any]]:
    """The `keys` of a row from "their_key our_field absent, …": equal names are given once, `absent` is JSON."""
    words = [entry.split() for entry in text.split(",")]
    return {entry[0]: (entry[:2][-1], json.loads(entry[2]) if len(entry) > 2 else None) for entry in words}


_RMS = {"norm": "rms", "norm_placement": "pre"}
_LAYER: dict[str, Any] = {"norm": "layer", "gated_ffn": False, "qkv_bias": True, "bias": True}
_MODERN: dict[str, Any] = {"family": "decoder", "position": "rope", "gated_ffn": True, **_RMS}
_MODERN_KEYS = """vocab_size, hidden_size, num_hidden_layers num_layers, num_attention_heads num_heads,
    num_key_value_heads num_kv_heads, head_dim head_size, intermediate_size ffn_size,
    max_position_embeddings max_positions, rms_norm_eps norm_epsilon 1e-6, hidden_act activation "silu",
    attention_dropout dropout 0, tie_word_embeddings tie_embeddings false, pad_token_id pad_id,"""

_BERT = {"family": "encoder", "position": "learned", "norm_placement": "post", "embedding_norm": True, **_LAYER}
_BERT |= {"tie_embeddings": True}
_BERT_KEYS = """vocab_size, hidden_size, num_hidden_layers num_layers, num_attention_heads num_heads,
    intermediate_size ffn_size, max_position_embeddings max_positions, type_vocab_size token_types 2,
    layer_norm_eps norm_epsilon 1e-12, hidden_dropout_prob dropout 0.1, attention_probs_dropout_prob dropout 0.1,
    hidden_act activation "gelu", tie_word_embeddings tie_embeddings true,"""
_BERT_REQUIRES: dict[str, Any] = {"is_decoder": False, "add_cross_attention": False, "tie_word_embeddings": True}
_BERT_REQUIRES |= {"position_embedding_type": "absolute"}
_T5 = {"family": "encoder_decoder", "position": "relative", "attention_scale": False, **_RMS}
_T5_KEYS = _keys(
    """vocab_size, d_model hidden_size, d_kv head_size, d_ff ffn_size, num_layers num_encoder_layers,
    num_decoder_layers num_layers, num_heads, relative_attention_num_buckets relative_buckets 32,
    relative_attention_max_distance relative_max_distance 128, layer_norm_epsilon norm_epsilon 1e-6,
    dropout_rate dropout 0.1, tie_word_embeddings tie_embeddings true, bos_token_id bos_id,
    eos_token_id eos_id 1, pad_token_id pad_id 0, decoder_start_token_id decoder_start_id 0"""
)
# torch's default epsilon: these two architectures have no setting for it.
_TWO_STACKS = {"family": "encoder_decoder", "norm_placement": "post", "norm_epsilon": 1e-5, **_LAYER}
_TWO_STACKS_KEYS = """vocab_size, d_model hidden_size, encoder_layers num_encoder_layers, decoder_layers num_layers,
    encoder_attention_heads num_heads, decoder_attention_heads num_heads, encoder_ffn_dim ffn_size,
    decoder_ffn_dim ffn_size, max_position_embeddings max_positions 1024, scale_embedding embedding_scale false,
    dropout dropout 0.1, activation_function activation "gelu", tie_word_embeddings tie_embeddings true,"""
_TWO_STACKS_REQUIRES = {"is_encoder_decoder": True, "normalize_before": False, "add_final_layer_norm": False}

TABLE: dict[str, Row] = {
    "gpt2": Row(
        architecture="GPT2LMHeadModel",
        naming=layouts.GPT2,
        fixed={"family": "decoder", "position": "learned", "norm_placement": "pre", **_LAYER},
        keys=_keys(
            """vocab_size, n_embd hidden_size, n_layer num_layers, n_head num_heads, n_inner ffn_size,
            n_positions max_positions, layer_norm_epsilon norm_epsilon 1e-5, scale_attn_weights attention_scale true,
            resid_pdrop dropout 0.1, embd_pdrop dropout 0.1, attn_pdrop dropout 0.1,
            activation_function activation "gelu_new", tie_word_embeddings tie_embeddings true,
            bos_token_id bos_id 50256, eos_token_id eos_id 50256, pad_token_id pad_id"""
        ),
        requires={"scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
        read=_read_gpt2,
    ),
    "roberta": Row(
        architecture="RobertaForMaskedLM",
        naming=layouts.ROBERTA,
        fixed=_BERT,
        keys=_keys(_BERT_KEYS + "bos_token_id bos_id 0, eos_token_id eos_id 2, pad_token_id pad_id 1"),
        requires=_BERT_REQUIRES,
        read=_read_roberta,
        write=_write_roberta,
    ),
    "bert": Row(
        architecture="BertForMaskedLM",
        naming=layouts.BERT,
        fixed=_BERT,
        keys=_keys(_BERT_KEYS + "bos_token_id bos_id, eos_token_id eos_id, pad_token_id pad_id 0"),
        requires=_BERT_REQUIRES,
        read=_read_bert,
        write=_write_bert,
    ),
    "distilbert": Row(
        architecture="DistilBertForMaskedLM",
        naming=layouts.DISTILBERT,
        fixed={**_BERT, "token_types": 0, "norm_epsilon": 1e-12},
        keys=_keys(
            """vocab_size, dim hidden_size, n_layers num_layers, n_heads num_heads, hidden_dim ffn_size,
            max_position_embeddings max_positions 512, dropout dropout 0.1, attention_dropout dropout 0.1,
            activation activation "gelu", tie_word_embeddings tie_embeddings true,
            bos_token_id bos_id, eos_token_id eos_id, pad_token_id pad_id 0"""
        ),
        requires={"tie_word_embeddings": True},
        read=_read_bert,
    ),
    "t5": Row(
        architecture="T5ForConditionalGeneration",
        naming=layouts.T5,
        fixed=_T5,
        keys=_T5_KEYS,
        requires={"is_encoder_decoder": True},
        read=_read_t5,
        write=_write_t5,
        loose=("tie_embeddings",),
    ),
    "llama": Row(
        architecture="LlamaForCausalLM",
        naming=layouts.LLAMA,
        fixed={**_MODERN, "qk_norm": False},
        keys=_keys(
            _MODERN_KEYS
            + """attention_bias qkv_bias false, mlp_bias bias false, bos_token_id bos_id 1, eos_token_id eos_id 2"""
        ),
        requires={"rope_interleaved": False},
        read=_read_llama,
        write=_write_llama,
    ),
    "mistral": Row(
        architecture="MistralForCausalLM",
        naming=layouts.MISTRAL,
        fixed={**_MODERN, "qk_norm": False},
        keys=_keys(_MODERN_KEYS + "sliding_window window 4096, bos_token_id bos_id 1, eos_token_id eos_id 2"),
        requires={"layer_types": None},
        read=lambda known, tensors: read_rope(known),
        write=_write_mistral,
    ),
    "qwen2": Row(
        architecture="Qwen2ForCausalLM",
        naming=layouts.LLAMA,
        fixed={**_MODERN, "qk_norm": False, "qkv_bias": True},
        keys=_keys(_MODERN_KEYS + "bos_token_id bos_id, eos_token_id eos_id"),
        requires={"use_mrope": False},
        read=_read_qwen3,
        write=_write_qwen3,
    ),
    "qwen3": Row(
        architecture="Qwen3ForCausalLM",
        naming=layouts.LLAMA,
        fixed={**_MODERN, "qk_norm": True},
        keys=_keys(_MODERN_KEYS + "bos_token_id bos_id, eos_token_id eos_id"),
        requires={"attention_bias": False},
        read=_read_qwen3,
        write=_write_qwen3,
    ),
    "marian": Row(
        architecture="MarianMTModel",
        naming=layouts.MARIAN,
        fixed={**_TWO_STACKS, "position": "sinusoidal"},
        keys=_keys(
            _TWO_STACKS_KEYS
            + """decoder_vocab_size vocab_size, bos_token_id bos_id, eos_token_id eos_id 0,
            pad_token_id pad_id 58100, decoder_start_token_id decoder_start_id 58100"""
        ),
        requires={**_TWO_STACKS_REQUIRES, "normalize_embedding": False, "share_encoder_decoder_embeddings": True},
        read=_read_marian,
        write=_write_marian,
        loose=("head_bias",),
    ),
    "pegasus": Row(
        architecture="PegasusForConditionalGeneration",
        naming=layouts.PEGASUS,
        fixed={**_TWO_STACKS, "position": "sinusoidal", "norm_placement": "pre"},
        keys=_keys(
            _TWO_STACKS_KEYS
            + """bos_token_id bos_id, eos_token_id eos_id 1, pad_token_id pad_id 0,
            decoder_start_token_id decoder_start_id 0"""
        ),
        requires={"is_encoder_decoder": True, "static_position_embeddings": True},
        read=_read_marian,
        write=_write_pegasus,
        loose=("head_bias",),
    ),
    "bart": Row(
        architecture="BartForConditionalGeneration",
        naming=layouts.BART,
        fixed={**_TWO_STACKS, "position": "learned"},
        keys=_keys(
            _TWO_STACKS_KEYS
            + """bos_token_id bos_id 0, eos_token_id eos_id 2, pad_token_id pad_id 1,
            decoder_start_token_id decoder_start_id 2"""
        ),
        requires={**_TWO_STACKS_REQUIRES, "normalize_embedding": True, "static_position_embeddings": False},
        read=_read_bart,
        write=_write_bart,
        loose=("head_bias",),
    ),
}
TABLE["xlm-roberta"] = replace(TABLE["roberta"], architecture="XLMRobertaForMaskedLM")
# T5 v1.1 by another name, and therefore written as that.
TABLE["mt5"] = replace(TABLE["t5"], architecture="MT5ForConditionalGeneration", read=_read_mt5)

# Known by name, and why the core does not grow for them (at most one config field and 40 lines each).
LEFT_OUT = {
    "albert": "all its layers share one set of weights, and its embeddings are narrower than its layers",
    "modernbert": "its layers alternate between two attentions with two rotary bases",
    "gemma3": "its layers alternate between two attentions with two rotary bases, and each has four norms",
    "gemma3_text": "its layers alternate between two attentions with two rotary bases, and each has four norms",
}
