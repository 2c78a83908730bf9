"""Which published architectures trivium speaks: a row for each, mapping its config.json to `ModelConfig` and back.

Does not know tensor names (names.py) or files (auto.py), and runs no code of a model folder: `auto_map` is not
even looked at.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from trivium.errors import ConfigError, HubError
from trivium.hub import names
from trivium.hub.convert import listing
from trivium.hub.settings import (
    ACTIVATION_NAMES,
    Kind,
    Settings,
    activation_of,
    essential,
    read_rope,
    typed,
    write_rope,
)
from trivium.model.config import Activation, ModelConfig

Tensors = Mapping[str, Tensor]  # under canonical foreign names; empty where only the config is known


@dataclass(frozen=True)
class Row:
    """One model_type: what it fixes, what it only calls otherwise, what it must not ask for, and what needs code."""

    architecture: str  # the class that transformers opens
    naming: names.Naming
    fixed: Mapping[str, Any]  # our fields that this architecture cannot vary
    keys: Mapping[str, tuple[str, Any]]  # their key -> our field, and what its absence means
    read: Callable[[Settings, Tensors], dict[str, Any]]  # the fields that need code
    write: Callable[[ModelConfig], dict[str, Any]] = lambda config: {}
    requires: Mapping[str, Any] = field(default_factory=dict)  # their key -> the only value that we compute
    loose: tuple[str, ...] = ()  # fields that only the tensors tell


_KINDS: dict[Any, Kind] = {
    int: "count",
    float: "number",
    bool: "flag",
    int | None: "id",
    Activation: "activation",
}
_FIELD_KINDS = {item.name: _KINDS.get(item.type, "count") for item in fields(ModelConfig)}


def read_config(settings: Settings, tensors: Tensors | None = None) -> ModelConfig:
    """Our config from the object in a config.json; `tensors` settle what files get wrong, such as tied heads.

    Raises `HubError` for an unknown model_type, a value of the wrong type, or a feature that we do not compute.
    """
    tensors = tensors or {}
    row = row_of(settings)
    for key, value in {**row.requires, "quantization_config": None}.items():
        if settings.get(key) not in (None, value):
            found = f"config.json sets {key}={settings[key]!r}"
            raise HubError(f"{found}; trivium computes only {value!r}; use another model")
    chosen: dict[str, Any] = {}
    for key, (name, absent) in row.keys.items():
        value = typed(settings, key, "id" if name == "pad_id" else _FIELD_KINDS[name], absent)
        if chosen.setdefault(name, value) != value and value and name != "dropout":
            found = f"config.json sets {key}={value!r} but {name} is {chosen[name]!r}"
            raise HubError(f"{found}; expected one value for both; use another model")
    if chosen["pad_id"] is None:
        chosen["pad_id"] = chosen["eos_id"] or 0  # padding is never looked at: any id will do
    chosen["tie_embeddings"] = _is_tied(chosen, settings, tensors)
    return ModelConfig(**{**chosen, **row.fixed, **row.read({**settings, **chosen}, tensors)})


def write_config(config: ModelConfig, *, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """The object for a config.json that transformers 4 and 5 read as this model; `HubError` if none can."""
    return _written(choose(config), config) | {"dtype": str(dtype).removeprefix("torch.")}


def choose(config: ModelConfig) -> str:
    """The model_type that expresses a config completely: reading back what it would write gives the config again.

    Raises `HubError` that lists what stands in the way of the nearest one.
    """
    lost = {model_type: _lost(model_type, config) for model_type in TABLE}
    nearest = min(lost, key=lambda model_type: len(lost[model_type]))
    if lost[nearest]:
        raise HubError(
            f"no published architecture expresses this model: the nearest, {nearest}, cannot have "
            f"{listing(lost[nearest])}; change these fields to save it as a Hugging Face folder"
        )
    return nearest


def row_of(settings: Settings) -> Row:
    """The row of a config.json; `HubError` for a model_type that is not in the table."""
    model_type = settings.get("model_type")
    if not isinstance(model_type, str) or model_type not in TABLE:
        known = ", ".join(TABLE)
        raise HubError(f"config.json has model_type {model_type!r}; expected one of {known}; use another model")
    return TABLE[model_type]


def _written(model_type: str, config: ModelConfig) -> dict[str, Any]:
    row = TABLE[model_type]
    written: dict[str, Any] = {"architectures": [row.architecture], "model_type": model_type}
    for key, (name, _) in row.keys.items():
        value = getattr(config, name)
        if name == "decoder_start_id" and value is None:
            value = config.pad_id  # readers need one; choose() sees that it was not ours
        written[key] = ACTIVATION_NAMES[value] if name == "activation" else value
    return written | row.write(config)


def _lost(model_type: str, config: ModelConfig) -> list[str]:
    """The fields that would come back changed from this model_type, as `field=value`."""
    row = TABLE[model_type]
    if row.fixed["family"] != config.family:
        return [item.name for item in fields(config)]
    try:
        back = read_config(_written(model_type, config))
    except ConfigError:
        return [item.name for item in fields(config)]
    except HubError as error:
        return [str(error)]
    return [
        f"{item.name}={getattr(config, item.name)!r}"
        for item in fields(config)
        if item.name not in (*row.loose, *_idle(config))
        and essential(getattr(config, item.name)) != essential(getattr(back, item.name))
    ]


def _idle(config: ModelConfig) -> set[str]:
    """Fields that do not change what this model computes: of another kind of positions, or a limit of length."""
    idle = set() if config.position == "learned" else {"max_positions"}
    idle |= set() if config.position == "rope" else {"rope_theta", "rope_scaling"}
    return idle | (set() if config.position == "relative" else {"relative_buckets", "relative_max_distance"})


def _is_tied(chosen: Mapping[str, Any], settings: Settings, tensors: Tensors) -> bool:
    """Whether the head is the embedding: as the config says, unless the file holds two different tables."""
    rules = row_of(settings).naming.rules
    table = next((tensors[rule.theirs] for rule in rules if rule.is_table and rule.theirs in tensors), None)
    head = tensors.get("lm_head.weight")
    same = head is None or (table is not None and head.shape == table.shape and torch.equal(head, table))
    # transformers 5 ties every T5, whatever its config says, whose file has no other head.
    return same and (bool(chosen["tie_embeddings"]) or (settings["model_type"] == "t5" and bool(tensors)))


def _read_gpt2(known: Settings, tensors: Tensors) -> dict[str, Any]:
    return {} if known["ffn_size"] else {"ffn_size": 4 * known["hidden_size"]}


def _read_bert(known: Settings, tensors: Tensors) -> dict[str, Any]:
    """A folder of the headless class gives a model whose hidden states count and whose logits mean nothing."""
    headless = known.get("architectures") == ["BertModel"]
    if tensors:
        headless = not any(name.startswith("cls.predictions.") for name in tensors)
    return {"head_transform": not headless, "head_bias": not headless}


def _write_bert(config: ModelConfig) -> dict[str, Any]:
    return {"tie_word_embeddings": True} | ({} if config.head_transform else {"architectures": ["BertModel"]})


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


def _keys(text: str) -> dict[str, tuple[str, Any]]:
    """The `keys` of a row from "their_key our_field absent, …": equal names are given once, `absent` is JSON."""
    words = [entry.split() for entry in text.split(",")]
    return {entry[0]: (entry[:2][-1], json.loads(entry[2]) if len(entry) > 2 else None) for entry in words}


_RMS = {"norm": "rms", "norm_placement": "pre"}
_LAYER = {"norm": "layer", "gated_ffn": False, "qkv_bias": True, "bias": True}
_MODERN = {"family": "decoder", "position": "rope", "gated_ffn": True, **_RMS}
_MODERN_KEYS = """vocab_size, hidden_size, num_hidden_layers num_layers, num_attention_heads num_heads,
    num_key_value_heads num_kv_heads, head_dim head_size, intermediate_size ffn_size,
    max_position_embeddings max_positions, rms_norm_eps norm_epsilon 1e-6, hidden_act activation "silu",
    attention_dropout dropout 0, tie_word_embeddings tie_embeddings false, pad_token_id pad_id,"""

TABLE: dict[str, Row] = {
    "gpt2": Row(
        architecture="GPT2LMHeadModel",
        naming=names.GPT2,
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
    "bert": Row(
        architecture="BertForMaskedLM",
        naming=names.BERT,
        fixed={"family": "encoder", "position": "learned", "norm_placement": "post", "embedding_norm": True}
        | {"tie_embeddings": True, **_LAYER},
        keys=_keys(
            """vocab_size, hidden_size, num_hidden_layers num_layers, num_attention_heads num_heads,
            intermediate_size ffn_size, max_position_embeddings max_positions, type_vocab_size token_types 2,
            layer_norm_eps norm_epsilon 1e-12, hidden_dropout_prob dropout 0.1,
            attention_probs_dropout_prob dropout 0.1, hidden_act activation "gelu",
            tie_word_embeddings tie_embeddings true, bos_token_id bos_id, eos_token_id eos_id, pad_token_id pad_id 0"""
        ),
        requires={"is_decoder": False, "add_cross_attention": False}
        | {"tie_word_embeddings": True, "position_embedding_type": "absolute"},
        read=_read_bert,
        write=_write_bert,
    ),
    "t5": Row(
        architecture="T5ForConditionalGeneration",
        naming=names.T5,
        fixed={"family": "encoder_decoder", "position": "relative", "attention_scale": False} | _RMS,
        keys=_keys(
            """vocab_size, d_model hidden_size, d_kv head_size, d_ff ffn_size, num_layers num_encoder_layers,
            num_decoder_layers num_layers, num_heads, relative_attention_num_buckets relative_buckets 32,
            relative_attention_max_distance relative_max_distance 128, layer_norm_epsilon norm_epsilon 1e-6,
            dropout_rate dropout 0.1, tie_word_embeddings tie_embeddings true, bos_token_id bos_id,
            eos_token_id eos_id 1, pad_token_id pad_id 0, decoder_start_token_id decoder_start_id 0"""
        ),
        requires={"is_encoder_decoder": True},
        read=_read_t5,
        write=_write_t5,
        loose=("tie_embeddings",),
    ),
    "llama": Row(
        architecture="LlamaForCausalLM",
        naming=names.LLAMA,
        fixed={**_MODERN, "qk_norm": False},
        keys=_keys(
            _MODERN_KEYS
            + """attention_bias qkv_bias false, mlp_bias bias false, bos_token_id bos_id 1, eos_token_id eos_id 2"""
        ),
        read=_read_llama,
        write=_write_llama,
    ),
    "qwen3": Row(
        architecture="Qwen3ForCausalLM",
        naming=names.LLAMA,
        fixed={**_MODERN, "qk_norm": True},
        keys=_keys(_MODERN_KEYS + "bos_token_id bos_id, eos_token_id eos_id"),
        requires={"attention_bias": False},
        read=_read_qwen3,
        write=_write_qwen3,
    ),
    "marian": Row(
        architecture="MarianMTModel",
        naming=names.MARIAN,
        # torch's default epsilon: the architecture has no setting for it.
        fixed={
            "family": "encoder_decoder",
            "position": "sinusoidal",
            "norm_placement": "post",
            "norm_epsilon": 1e-5,
        }
        | _LAYER,
        keys=_keys(
            """vocab_size, decoder_vocab_size vocab_size, d_model hidden_size, encoder_layers num_encoder_layers,
            decoder_layers num_layers, encoder_attention_heads num_heads, decoder_attention_heads num_heads,
            encoder_ffn_dim ffn_size, decoder_ffn_dim ffn_size, max_position_embeddings max_positions 1024,
            scale_embedding embedding_scale false, dropout dropout 0.1, activation_function activation "gelu",
            tie_word_embeddings tie_embeddings true, bos_token_id bos_id, eos_token_id eos_id 0,
            pad_token_id pad_id 58100, decoder_start_token_id decoder_start_id 58100"""
        ),
        requires={"share_encoder_decoder_embeddings": True, "is_encoder_decoder": True}
        | {"normalize_before": False, "normalize_embedding": False, "add_final_layer_norm": False},
        read=_read_marian,
        write=_write_marian,
        loose=("head_bias",),
    ),
}
