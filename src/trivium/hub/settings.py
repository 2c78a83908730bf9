"""Values in other people's config files: checked types, names of activations, rotary positions.

Knows single settings. Which architecture has which of them is family.py's business.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

from trivium.errors import HubError
from trivium.model.config import Activation, RopeScaling

Settings = Mapping[str, Any]  # the object in a config.json, completed with the architecture's defaults
Kind = Literal["count", "number", "flag", "id", "activation"]

# Their names of activations; of several names for one of ours the first is written.
_ACTIVATIONS: dict[str, Activation] = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
ACTIVATION_NAMES = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}

# What each kind of rotary scaling uses: our field -> their key.
_ROPE_KEYS: dict[str, dict[str, str]] = {
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "original_positions": "original_max_position_embeddings",
        "low_frequency_factor": "low_freq_factor",
        "high_frequency_factor": "high_freq_factor",
    },
    "yarn": {
        "factor": "factor",
        "original_positions": "original_max_position_embeddings",
        "beta_fast": "beta_fast",
        "beta_slow": "beta_slow",
    },
}


def typed(known: Settings, key: str, kind: Kind, absent: Any = None) -> Any:
    """A setting, checked to be of its kind and of a size that a model can have; `HubError` if it is not.

    A `count` is an int below 2³¹ (null counts as 0: to be derived), an `id` a count, null, or the first of several.
    """
    value = known.get(key, absent)
    if kind == "activation":
        return activation_of(value)
    if kind == "flag":
        if isinstance(value, bool):
            return value
    elif kind in ("count", "id"):
        if value is None:
            return None if kind == "id" else 0
        if kind == "id" and isinstance(value, list) and value:
            value = value[0]  # several end tokens: all of them are in generation_config.json
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31:
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf:
        return float(value)
    raise HubError(f"config.json sets {key}={value!r}; expected a sensible {kind}; use another model")


def activation_of(name: object) -> Activation:
    """Our name of an activation; `HubError` for one that the core does not have."""
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise HubError(f"config.json asks for activation {name!r}; expected {known}; use another model")
    return _ACTIVATIONS[name]


def read_rope(known: Settings) -> dict[str, Any]:
    """Theta and scaling from version 5's `rope_parameters` or version 4's `rope_theta` and `rope_scaling`."""
    rope = known.get("rope_scaling") or known.get("rope_parameters") or {}
    rope = rope if isinstance(rope, dict) else {"rope_type": rope}
    kind = rope.get("rope_type", rope.get("type", "default"))
    partial = rope.get("partial_rotary_factor", known.get("partial_rotary_factor"))
    odd = [key for key in ("attention_factor", "mscale", "mscale_all_dim") if rope.get(key) is not None]
    plain = partial in (None, 1) and not odd and rope.get("truncate") is not False
    if kind not in ("default", *_ROPE_KEYS) or not plain:
        expected = f"{', '.join(('default', *_ROPE_KEYS))} over the whole head"
        raise HubError(f"config.json asks for rotary positions {rope!r}; expected {expected}; use another model")
    theta = typed(rope, "rope_theta", "number", known.get("rope_theta", 10_000.0))
    if kind == "default":
        return {"rope_theta": theta, "rope_scaling": None}
    original = rope.get("original_max_position_embeddings") or known.get("max_position_embeddings")
    rope = {**rope, "original_max_position_embeddings": original}
    used = {
        name: typed(rope, key, "count" if name == "original_positions" else "number")
        for name, key in _ROPE_KEYS[kind].items()
        if rope.get(key) is not None or not name.startswith("beta_")
    }
    if used["factor"] < 1:
        raise HubError(f"config.json has a rope factor of {used['factor']}; expected at least 1; correct it")
    return {"rope_theta": theta, "rope_scaling": RopeScaling(kind=kind, **used)}


def write_rope(theta: float, scaling: RopeScaling | None) -> dict[str, Any]:
    """Both spellings: version 5 of transformers reads `rope_parameters`, version 4 and others the older pair."""
    if scaling is None:
        rope: dict[str, Any] = {"rope_type": "default"}
    else:
        keys = _ROPE_KEYS[scaling.kind]
        rope = {"rope_type": scaling.kind} | {theirs: getattr(scaling, ours) for ours, theirs in keys.items()}
    return {
        "rope_parameters": rope | {"rope_theta": theta},
        "rope_theta": theta,
        "rope_scaling": rope if scaling else None,
    }


def essential(value: Any) -> Any:
    """A config field without the parts that its kind of rotary scaling never looks at, for comparisons."""
    if not isinstance(value, RopeScaling):
        return value
    used = {name: getattr(value, name) for name in _ROPE_KEYS[value.kind]}
    return RopeScaling(kind=value.kind, **used)
