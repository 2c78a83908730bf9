"""Which published architectures trivium speaks: from a config.json to `ModelConfig` and back, by the rows of table.py.

Does not know tensor names (names.py) or files (auto.py), and runs no code of a model folder: `auto_map` is not
even looked at.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch

from trivium.errors import ConfigError, HubError
from trivium.hub.convert import listing
from trivium.hub.settings import ACTIVATION_NAMES, Kind, Settings, essential, typed
from trivium.hub.table import LEFT_OUT, TABLE, Row, Tensors
from trivium.model.config import Activation, Head, ModelConfig, Problem

_KINDS: dict[Any, Kind] = {
    int: "count",
    float: "number",
    bool: "flag",
    int | None: "id",
    Activation: "activation",
}
_FIELD_KINDS = {item.name: _KINDS.get(item.type, "count") for item in fields(ModelConfig)}

# How the names of classes end; the first language ending of a row is its own.
_LANGUAGE = r"(LMHeadModel|ForMaskedLM|ForCausalLM|ForConditionalGeneration|MTModel|ForPreTraining)$"
_ENDINGS: dict[Head, str] = {
    "sequence": "ForSequenceClassification",
    "token": "ForTokenClassification",
    "span": "ForQuestionAnswering",
    "none": "Model",
}
_PROBLEMS: dict[Problem, str] = {
    "single": "single_label_classification",
    "multi": "multi_label_classification",
    "regression": "regression",
}


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
    chosen |= _read_head(row, settings, tensors)
    return ModelConfig(**{**chosen, **row.fixed, **row.read({**settings, **chosen}, tensors)})


def write_config(config: ModelConfig, *, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """The object for a config.json that transformers 4 and 5 read as this model; `HubError` if none can."""
    return _written(choose(config), config) | {"dtype": str(dtype).removeprefix("torch.")}


def choose(config: ModelConfig) -> str:
    """The model_type that expresses a config completely: reading back what it would write gives the config again.

    Raises `HubError` that lists what stands in the way of the nearest one.
    """
    lost = {model_type: _lost(model_type, config) for model_type in TABLE}
    nearest = min(lost, key=lambda model_type: (lost[model_type][0], len(lost[model_type][1])))
    if lost[nearest][1]:
        raise HubError(
            f"no published architecture expresses this model: the nearest, {nearest}, cannot have "
            f"{listing(lost[nearest][1])}; change these fields to save it as a Hugging Face folder"
        )
    return nearest


def row_of(settings: Settings) -> Row:
    """The row of a config.json; `HubError` for a model_type that is not in the table."""
    model_type = settings.get("model_type")
    if isinstance(model_type, str) and model_type in LEFT_OUT:
        raise HubError(
            f"config.json has model_type {model_type!r}, which trivium leaves out: {LEFT_OUT[model_type]}; "
            f"expected one of {', '.join(TABLE)}; use another model"
        )
    if not isinstance(model_type, str) or model_type not in TABLE:
        known = ", ".join(TABLE)
        raise HubError(f"config.json has model_type {model_type!r}; expected one of {known}; use another model")
    return TABLE[model_type]


def architecture_of(row: Row, head: Head) -> str:
    """The class of transformers that opens this architecture with that head."""
    return re.sub(_LANGUAGE, "", row.architecture) + _ENDINGS[head] if head in _ENDINGS else row.architecture


def label_settings(labels: Sequence[str] | None, problem: Problem | None) -> dict[str, Any]:
    """How a config.json names the classes and the kind of problem; other classes make a stored kind void."""
    kind = {"problem_type": None if problem is None else _PROBLEMS[problem]}
    if labels is None:
        return kind
    names = {"id2label": {str(index): label for index, label in enumerate(labels)}, "num_labels": None}
    return kind | names | {"label2id": {label: index for index, label in enumerate(labels)}}


def _read_head(row: Row, settings: Settings, tensors: Tensors) -> dict[str, Any]:
    head = _head_of(row, settings, tensors)
    if head not in ("language", "none") and not any(head in rule.heads for rule in row.naming.rules):
        raise HubError(
            f"config.json names {architecture_of(row, head)}; expected a class whose head trivium has; "
            "use another model, or load this one with head='language'"
        )
    if head not in ("sequence", "token"):
        return {"head": head}
    labels, stored = _read_labels(settings), settings.get("problem_type")
    problem = next((ours for ours, theirs in _PROBLEMS.items() if theirs == stored), None)
    if problem is None and stored is not None:
        found = f"config.json sets problem_type={stored!r}"
        raise HubError(f"{found}; expected one of {', '.join(_PROBLEMS.values())}; correct it")
    # transformers, too, takes one class without a word for a number.
    return {"head": head, "labels": labels, "problem": problem or ("single" if len(labels) > 1 else "regression")}


def _head_of(row: Row, settings: Settings, tensors: Tensors) -> Head:
    """By the class in the config; without one, a file that has none of BERT's transform has no head."""
    classes = settings.get("architectures")
    if not classes or not isinstance(classes, list):
        marks = {rule.theirs for rule in row.naming.rules if rule.ours[0].startswith("head.transform")}
        return "none" if marks and tensors and not marks & tensors.keys() else "language"
    name = str(classes[0])
    for head, ending in _ENDINGS.items():
        if name == architecture_of(row, "none") if head == "none" else name.endswith(ending):
            return head
    if re.search(_LANGUAGE, name) is None:
        expected = "expected a class for a language model, for labels of texts or tokens, for answers, or headless"
        raise HubError(f"config.json names {name[:99]!r}; {expected}; choose with head=…, as in head='none'")
    return "language"


def _read_labels(settings: Settings) -> tuple[str, ...]:
    names, count = settings.get("id2label"), typed(settings, "num_labels", "count")
    if names is None or (count and isinstance(names, dict) and len(names) != count):  # old files kept a stale list
        count = count or 2
        return tuple(f"LABEL_{index}" for index in range(min(count, 10**6)))
    found = {str(key): str(name) for key, name in names.items()} if isinstance(names, dict) else {}
    if not found or found.keys() != {str(index) for index in range(len(found))}:
        raise HubError("config.json has an id2label without the numbers from 0 on; expected one name each; correct it")
    return tuple(found[str(index)] for index in range(len(found)))


def complete(settings: Settings, names: Iterable[str]) -> Settings:
    """The settings with the model_type that the first configs did not name, told by the first part of tensor names."""
    if settings.get("model_type") is not None:
        return settings
    roots = {name.partition(".")[0] + "." for name in names} - {"model."}  # which many have
    found = [model_type for model_type, row in TABLE.items() if row.naming.prefix in roots]
    return {**settings, "model_type": found[0]} if found else settings


def _written(model_type: str, config: ModelConfig) -> dict[str, Any]:
    row = TABLE[model_type]
    written: dict[str, Any] = {"architectures": [architecture_of(row, config.head)], "model_type": model_type}
    if config.head in ("sequence", "token"):
        written |= label_settings(config.labels, config.problem if config.head == "sequence" else None)
        del written["num_labels"]
    for key, (name, _) in row.keys.items():
        value = getattr(config, name)
        if name == "decoder_start_id" and value is None:
            value = config.pad_id  # readers need one; choose() sees that it was not ours
        written[key] = ACTIVATION_NAMES[value] if name == "activation" else value
    return written | row.write(config)


def _lost(model_type: str, config: ModelConfig) -> tuple[bool, list[str]]:
    """The fields that would come back changed from this model_type, as `field=value`.

    Before them, whether it refuses at once, which hides what else it cannot have.
    """
    row = TABLE[model_type]
    if row.fixed["family"] != config.family:
        return True, [item.name for item in fields(config)]
    try:
        back = read_config(_written(model_type, config))
    except ConfigError:
        return True, [item.name for item in fields(config)]
    except HubError as error:
        return True, [str(error)]
    return False, [
        f"{item.name}={getattr(config, item.name)!r}"
        for item in fields(config)
        if item.name not in (*row.loose, *_idle(config))
        and essential(getattr(config, item.name)) != essential(getattr(back, item.name))
    ]


def _idle(config: ModelConfig) -> set[str]:
    """Fields that do not change what this model computes: of another kind of positions, or a limit of length."""
    idle = set() if config.position == "learned" else {"max_positions"}
    idle |= set() if config.position == "rope" else {"rope_theta", "rope_scaling"}
    idle |= {"labels"} if config.head not in ("sequence", "token") else set()
    idle |= {"problem"} if config.head != "sequence" else set()
    idle |= set() if config.head == "language" else {"tie_embeddings", "head_transform", "head_bias", "head_scale"}
    return idle | (set() if config.position == "relative" else {"relative_buckets", "relative_max_distance"})


def _is_tied(chosen: Mapping[str, Any], settings: Settings, tensors: Tensors) -> bool:
    """Whether the head is the embedding: as the config says, unless the file holds two different tables."""
    rules = row_of(settings).naming.rules
    table = next((tensors[rule.theirs] for rule in rules if rule.is_table and rule.theirs in tensors), None)
    head = tensors.get("lm_head.weight")
    same = head is None or (table is not None and head.shape == table.shape and torch.equal(head, table))
    # transformers 5 ties every T5, whatever its config says, whose file has no other head.
    return same and (bool(chosen["tie_embeddings"]) or (settings["model_type"] in ("t5", "mt5") and bool(tensors)))
