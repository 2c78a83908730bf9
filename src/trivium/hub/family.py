"""Which published architectures trivium speaks: a row for each, mapping its config.json to `ModelConfig` and back.

Does not know tensor names (names.py) or files (auto.py), and runs no code of a model folder: `auto_map` is not
even looked at.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from trivium.errors import HubError
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
from trivium.model.config import ModelConfig

Tensors = Mapping[str, Tensor]  # under canonical foreign names; empty where only the config is known


@dataclass(frozen=True)
class Row:
    """One model_type: what it fixes, what it only calls otherwise, what we cannot compute, and what needs code."""

    architecture: str  # the class that transformers opens
    naming: names.Naming
    fixed: Mapping[str, Any]  # our fields that this architecture cannot vary
    keys: Mapping[str, str]  # our field -> their key
    defaults: Mapping[str, Any]  # what an absent key means, as transformers has it
    read: Callable[[Settings, Tensors], dict[str, Any]]  # the fields that need code
    write: Callable[[ModelConfig], dict[str, Any]]
    only: Mapping[str, tuple[Any, ...]] = field(
        default_factory=dict
    )  # their key -> the values that we compute
    # Fields that only the tensors tell.
    loose: tuple[str, ...] = ()


_KINDS: dict[Any, Kind] = {int: "count", float: "number", bool: "flag", int | None: "id"}
_FIELD_KINDS = {item.name: _KINDS.get(item.type) for item in fields(ModelConfig)}


def read_config(settings: Settings, tensors: Tensors | None = None) -> ModelConfig:
    """Our config from the object in a config.json; `tensors` settle what files get wrong, such as tied heads.

    Raises `HubError` for an unknown model_type, a value of the wrong type, or a feature that we do not compute.
    """
    tensors = tensors or {}
    row = row_of(settings)
    known = {"tie_word_embeddings": True, **row.defaults, **settings}
    if known.get("num_decoder_layers") is None:
        known["num_decoder_layers"] = known.get("num_layers")  # T5's older files: both stacks are as deep
    if known.get("quantization_config"):
        raise HubError(
            "config.json asks for quantized weights; expected plain ones; use the unquantized model"
        )
    for key, values in row.only.items():
        if key in known and known[key] not in values:
            expected = " or ".join(map(repr, values))
            raise HubError(
                f"config.json sets {key}={known[key]!r}; trivium computes only {expected}; use another model"
            )
    chosen = {ours: typed(known, theirs, _FIELD_KINDS[ours] or "count") for ours, theirs in row.keys.items()}
    chosen |= {f"{name}_id": typed(known, f"{name}_token_id", "id") for name in ("bos", "eos", "pad")}
    chosen["decoder_start_id"] = typed(known, "decoder_start_token_id", "id")
    if chosen["pad_id"] is None:
        chosen["pad_id"] = chosen["eos_id"] or 0  # padding is never looked at: any id will do
    chosen["tie_embeddings"] = _is_tied(known, tensors, row.naming)
    return ModelConfig(**{**chosen, **row.fixed, **row.read(known, tensors)})


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
        raise HubError(
            f"config.json has model_type {model_type!r}; expected one of {', '.join(TABLE)}; use another model"
        )
    return TABLE[model_type]


def _written(model_type: str, config: ModelConfig) -> dict[str, Any]:
    row = TABLE[model_type]
    written = {"architectures": [row.architecture], "model_type": model_type}
    written |= {theirs: getattr(config, ours) for ours, theirs in row.keys.items()}
    written |= {f"{name}_token_id": getattr(config, f"{name}_id") for name in ("bos", "eos", "pad")}
    if config.decoder_start_id is not None:
        written["decoder_start_token_id"] = config.decoder_start_id
    return written | {"tie_word_embeddings": config.tie_embeddings} | row.write(config)


def _lost(model_type: str, config: ModelConfig) -> list[str]:
    """The fields that would come back changed from this model_type, as `field=value`."""
    row = TABLE[model_type]
    if row.fixed["family"] != config.family:
        return [item.name for item in fields(config)]
    try:
        back = read_config(_written(model_type, config))
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


def _is_tied(known: Settings, tensors: Tensors, naming: names.Naming) -> bool:
    """Whether the head is the embedding: as the config says, unless the file holds two different tables."""
    tied = bool(typed(known, "tie_word_embeddings", "flag"))
    if not tensors:
        return tied
    table = next(
        (tensors[rule.theirs] for rule in naming.rules if rule.theirs in tensors and rule.is_table), None
    )
    head = tensors.get("lm_head.weight")
    same = head is None or (table is not None and head.shape == table.shape and torch.equal(head, table))
    # transformers 5 ties every T5, whatever its config says, whose file has no other head.
    return same and (tied or known["model_type"] == "t5")


def _read_gpt2(known: Settings, tensors: Tensors) -> dict[str, Any]:
    known = {**known, "n_inner": known.get("n_inner") or 4 * typed(known, "n_embd", "count")}
    return {
        "ffn_size": typed(known, "n_inner", "count"),
        "activation": activation_of(known["activation_function"]),
    }


def _write_gpt2(config: ModelConfig) -> dict[str, Any]:
    return {
        "n_inner": config.ffn_size,
        "activation_function": ACTIVATION_NAMES[config.activation],
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
    }


def _read_bert(known: Settings, tensors: Tensors) -> dict[str, Any]:
    """A folder of the headless class gives a model whose hidden states count and whose logits mean nothing."""
    headless = known.get("architectures") == ["BertModel"]
    if tensors:
        headless = not any(name.startswith("cls.predictions.") for name in tensors)
    return {
        "head_transform": not headless,
        "head_bias": not headless,
        "activation": activation_of(known["hidden_act"]),
    }


def _write_bert(config: ModelConfig) -> dict[str, Any]:
    return {
        "architectures": ["BertForMaskedLM" if config.head_transform else "BertModel"],
        "hidden_act": ACTIVATION_NAMES[config.activation],
        "attention_probs_dropout_prob": config.dropout,
    }


def _read_t5(known: Settings, tensors: Tensors) -> dict[str, Any]:
    kind = known["feed_forward_proj"]
    plain = kind.removeprefix("gated-") if isinstance(kind, str) else kind
    scaled = {"scale": known.get("scale_decoder_outputs", known["tie_word_embeddings"])}
    return {
        # “gated-gelu” has meant the tanh form since T5 v1.1, “gelu” alone the exact one.
        "activation": "gelu_tanh" if kind == "gated-gelu" else activation_of(plain),
        "gated_ffn": plain != kind,
        "head_scale": typed(scaled, "scale", "flag"),
    }


def _write_t5(config: ModelConfig) -> dict[str, Any]:
    name = ACTIVATION_NAMES[config.activation]
    if config.gated_ffn:
        name = "gated-gelu" if config.activation == "gelu_tanh" else f"gated-{name}"
    return {
        "is_encoder_decoder": True,
        "feed_forward_proj": name,
        # transformers reads “not tied” as “not scaled”, and ties unless the file has another head.
        "tie_word_embeddings": config.head_scale,
        "scale_decoder_outputs": config.head_scale,
    }


def _read_llama(known: Settings, tensors: Tensors) -> dict[str, Any]:
    if known["attention_bias"] is not known["mlp_bias"]:
        raise HubError(
            "config.json has biases in attention only or not there; expected all or none; use another model"
        )
    derived = {"num_key_value_heads": known["num_attention_heads"], "head_dim": 0}
    given = {key: known[key] if known.get(key) is not None else value for key, value in derived.items()}
    return read_rope(known) | {
        "num_kv_heads": typed(given, "num_key_value_heads", "count"),
        "head_size": typed(given, "head_dim", "count"),
        "qkv_bias": typed(known, "attention_bias", "flag"),
        "bias": typed(known, "mlp_bias", "flag"),
        "activation": activation_of(known["hidden_act"]),
    }


def _write_llama(config: ModelConfig) -> dict[str, Any]:
    if TABLE["llama"].fixed["qk_norm"] == config.qk_norm and config.hidden_size % config.num_heads:
        raise HubError(f"hidden_size={config.hidden_size} that num_heads={config.num_heads} does not divide")
    return write_rope(config.rope_theta, config.rope_scaling) | {
        "max_position_embeddings": config.max_positions or 32768,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_size,
        "attention_bias": config.qkv_bias,
        "mlp_bias": config.bias,
        "hidden_act": ACTIVATION_NAMES[config.activation],
    }


_LAYER_KINDS = ("full_attention", "sliding_attention")


def _read_qwen3(known: Settings, tensors: Tensors) -> dict[str, Any]:
    known = {**known, "mlp_bias": known["attention_bias"]}
    layers = typed(known, "num_hidden_layers", "count")
    sliding = bool(known.get("use_sliding_window")) and known.get("sliding_window") is not None
    kinds = known.get("layer_types")
    if kinds is None:
        full = min(typed(known, "max_window_layers", "count"), layers) if sliding else layers
        kinds = {_LAYER_KINDS[0]} if full == layers else {_LAYER_KINDS[1]} if full == 0 else set(_LAYER_KINDS)
    kinds = set(map(str, kinds))
    if kinds not in ({_LAYER_KINDS[0]}, {_LAYER_KINDS[1]}):
        raise HubError(
            f"config.json has attention layers {sorted(kinds)}; expected one kind; use another model"
        )
    sliding = sliding and kinds == {_LAYER_KINDS[1]}
    return _read_llama(known, tensors) | {"window": typed(known, "sliding_window", "count") if sliding else 0}


def _write_qwen3(config: ModelConfig) -> dict[str, Any]:
    return _write_llama(config) | {
        "use_sliding_window": config.window > 0,
        "sliding_window": config.window or None,
        "max_window_layers": 0 if config.window else config.num_layers,
        "layer_types": [_LAYER_KINDS[config.window > 0]] * config.num_layers,
    }


def _read_marian(known: Settings, tensors: Tensors) -> dict[str, Any]:
    known = {**known, "decoder_vocab_size": known.get("decoder_vocab_size") or known["vocab_size"]}
    pairs = [("decoder_vocab_size", "vocab_size")]
    pairs += [(f"decoder_{what}", f"encoder_{what}") for what in ("attention_heads", "ffn_dim")]
    for one, other in pairs:
        if known.get(one) != known.get(other):
            raise HubError(
                f"config.json has {one} unlike {other}; expected one value for both; use another model"
            )
    bias = tensors.get("final_logits_bias")
    activation = activation_of(known["activation_function"])
    return {"activation": activation, "head_bias": bias is not None and bool(bias.any())}


def _write_marian(config: ModelConfig) -> dict[str, Any]:
    return {
        "is_encoder_decoder": True,
        "activation_function": ACTIVATION_NAMES[config.activation],
        "decoder_attention_heads": config.num_heads,
        "decoder_ffn_dim": config.ffn_size,
        "decoder_vocab_size": config.vocab_size,
        "share_encoder_decoder_embeddings": True,
        "max_position_embeddings": config.max_positions or 4096,
        "forced_eos_token_id": config.eos_id,
    }


def _keys(text: str) -> dict[str, str]:
    """Our field -> their key, from "ours theirs, both_alike, …"."""
    pairs = [pair.split() for pair in text.split(",")]
    return {pair[0]: pair[-1] for pair in pairs}


_RMS = {"norm": "rms", "norm_placement": "pre"}
_LAYER = {"norm": "layer", "gated_ffn": False, "qkv_bias": True, "bias": True}
_MODERN = {"family": "decoder", "position": "rope", "gated_ffn": True, **_RMS}
_MODERN_KEYS = _keys(
    "vocab_size, hidden_size, num_layers num_hidden_layers, num_heads num_attention_heads, "
    "ffn_size intermediate_size, max_positions max_position_embeddings, norm_epsilon rms_norm_eps, "
    "dropout attention_dropout"
)
_MODERN_DEFAULTS = {
    "rms_norm_eps": 1e-6,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "max_window_layers": 28,
}

TABLE: dict[str, Row] = {
    "gpt2": Row(
        architecture="GPT2LMHeadModel",
        naming=names.GPT2,
        fixed={"family": "decoder", "position": "learned", "norm_placement": "pre", **_LAYER},
        keys=_keys(
            "vocab_size, hidden_size n_embd, num_layers n_layer, num_heads n_head, max_positions n_positions, "
            "norm_epsilon layer_norm_epsilon, attention_scale scale_attn_weights, dropout resid_pdrop"
        ),
        defaults={
            "layer_norm_epsilon": 1e-5,
            "scale_attn_weights": True,
            "resid_pdrop": 0.1,
            "activation_function": "gelu_new",
            "bos_token_id": 50256,
            "eos_token_id": 50256,
        },
        only={"scale_attn_by_inverse_layer_idx": (False,), "add_cross_attention": (False,)},
        read=_read_gpt2,
        write=_write_gpt2,
    ),
    "bert": Row(
        architecture="BertForMaskedLM",
        naming=names.BERT,
        fixed={
            "family": "encoder",
            "position": "learned",
            "norm_placement": "post",
            "embedding_norm": True,
            **_LAYER,
        },
        keys=_keys(
            "vocab_size, hidden_size, num_layers num_hidden_layers, num_heads num_attention_heads, "
            "ffn_size intermediate_size, max_positions max_position_embeddings, token_types type_vocab_size, "
            "norm_epsilon layer_norm_eps, dropout hidden_dropout_prob"
        ),
        defaults={
            "layer_norm_eps": 1e-12,
            "hidden_dropout_prob": 0.1,
            "hidden_act": "gelu",
            "pad_token_id": 0,
        },
        only={
            "is_decoder": (False,),
            "add_cross_attention": (False,),
            "tie_word_embeddings": (True,),
            "position_embedding_type": ("absolute", None),
        },
        read=_read_bert,
        write=_write_bert,
    ),
    "t5": Row(
        architecture="T5ForConditionalGeneration",
        naming=names.T5,
        fixed={"family": "encoder_decoder", "position": "relative", "attention_scale": False, **_RMS},
        keys=_keys(
            "vocab_size, hidden_size d_model, head_size d_kv, ffn_size d_ff, num_encoder_layers num_layers, "
            "num_layers num_decoder_layers, num_heads, relative_buckets relative_attention_num_buckets, "
            "relative_max_distance relative_attention_max_distance, norm_epsilon layer_norm_epsilon, "
            "dropout dropout_rate"
        ),
        defaults={
            "relative_attention_num_buckets": 32,
            "relative_attention_max_distance": 128,
            "layer_norm_epsilon": 1e-6,
            "dropout_rate": 0.1,
            "feed_forward_proj": "relu",
            "pad_token_id": 0,
            "eos_token_id": 1,
            "decoder_start_token_id": 0,
        },
        only={"is_encoder_decoder": (True,)},
        read=_read_t5,
        write=_write_t5,
        loose=("tie_embeddings",),
    ),
    "llama": Row(
        architecture="LlamaForCausalLM",
        naming=names.LLAMA,
        fixed={**_MODERN, "qk_norm": False},
        keys=_MODERN_KEYS,
        defaults={**_MODERN_DEFAULTS, "max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2},
        read=_read_llama,
        write=_write_llama,
    ),
    "qwen3": Row(
        architecture="Qwen3ForCausalLM",
        naming=names.LLAMA,
        fixed={**_MODERN, "qk_norm": True},
        keys=_MODERN_KEYS,
        defaults={**_MODERN_DEFAULTS, "max_position_embeddings": 32768, "head_dim": 128},
        only={"attention_bias": (False,)},
        read=_read_qwen3,
        write=_write_qwen3,
    ),
    "marian": Row(
        architecture="MarianMTModel",
        naming=names.MARIAN,
        fixed={
            "family": "encoder_decoder",
            "position": "sinusoidal",
            "norm_placement": "post",
            "norm_epsilon": 1e-5,  # torch's default: the architecture has no setting for it
            **_LAYER,
        },
        keys=_keys(
            "vocab_size, hidden_size d_model, ffn_size encoder_ffn_dim, num_encoder_layers encoder_layers, "
            "num_layers decoder_layers, num_heads encoder_attention_heads, max_positions max_position_embeddings, "
            "embedding_scale scale_embedding, dropout"
        ),
        defaults={
            "scale_embedding": False,
            "dropout": 0.1,
            "activation_function": "gelu",
            "max_position_embeddings": 1024,
            "pad_token_id": 58100,
            "eos_token_id": 0,
            "decoder_start_token_id": 58100,
        },
        only={
            "share_encoder_decoder_embeddings": (True,),
            "normalize_before": (False,),
            "normalize_embedding": (False,),
            "add_final_layer_norm": (False,),
            "is_encoder_decoder": (True,),
        },
        read=_read_marian,
        write=_write_marian,
        loose=("head_bias",),
    ),
}
