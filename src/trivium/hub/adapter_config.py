"""PEFT's adapter_config.json: which plain LoRA it describes, read and written; everything beyond that is refused.

Knows names and numbers, no tensors (adapter.py). Patterns are other people's regular expressions: only those that are
an ending of a module's name are followed, none is ever run.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from trivium.errors import HubError
from trivium.folder import inside, read_json
from trivium.model.config import Head, ModelConfig

CONFIG = "adapter_config.json"
# Keys that do not change what a trained adapter computes, whatever they hold, and those that are read.
_HARMLESS = {
    *("auto_mapping", "base_model_name_or_path", "revision", "task_type", "peft_version", "inference_mode"),
    *("exclude_modules", "fan_in_fan_out", "layers_to_transform", "layers_pattern", "modules_to_save"),
    *("megatron_core", "loftq_config", "eva_config", "qalora_group_size", "runtime_config", "merge_weights"),
    *("peft_type", "target_modules", "r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern"),
    *("bias", "init_lora_weights"),
}
# Other beginnings (PiSSA, OLoRA, CorDA, LoftQ) change the weights of the base, too.
_BEGINNINGS = (True, False, None, "gaussian", "orthogonal", "eva")
_TASKS: dict[Head, str] = {
    "sequence": "SEQ_CLS",
    "token": "TOKEN_CLS",
    "span": "QUESTION_ANS",
    "none": "FEATURE_EXTRACTION",
}
_WRITERS = {"decoder": "CAUSAL_LM", "encoder_decoder": "SEQ_2_SEQ_LM"}


@dataclass(frozen=True)
class AdapterSettings:
    """What an adapter_config.json says: numbers, their exceptions by the end of a module's name, and whose they are.

    `targets` is empty where the file selects by more than endings of names; `base` is the model beneath, as text, and
    `head` the one that it was trained with.
    """

    rank: int
    alpha: float
    dropout: float
    ranks: Mapping[str, float]
    alphas: Mapping[str, float]
    targets: frozenset[str]
    base: str | None
    head: Head

    def rank_of(self, name: str) -> int:
        """R of the adapter beside a foreign module."""
        return int(_exception(self.ranks, name, self.rank))

    def scale_of(self, name: str) -> float:
        """α/r of the adapter beside a foreign module."""
        return _exception(self.alphas, name, self.alpha) / self.rank_of(name)


def read_adapter_config(folder: Path) -> AdapterSettings:
    """The settings in an adapter's folder; `HubError` for another method than plain LoRA and for impossible values."""
    found = read_json(inside(folder, CONFIG))
    if found.get("peft_type") != "LORA":
        _refuse("peft_type", found.get("peft_type"), "LORA")
    for key, value in found.items():
        if key not in _HARMLESS and value:
            _refuse(key, value, "plain LoRA, without it")
    if found.get("bias", "none") not in (None, "none"):
        _refuse("bias", found["bias"], "none")
    if found.get("init_lora_weights") not in _BEGINNINGS:
        _refuse("init_lora_weights", found["init_lora_weights"], "a beginning that leaves the base as it is")
    targets = found.get("target_modules")
    names = [each for each in targets if isinstance(each, str)] if isinstance(targets, list) else []
    chosen = (found.get(key) for key in ("layers_to_transform", "exclude_modules", "layers_pattern"))
    selects = any(each not in (None, "", []) for each in chosen)  # layer 0 is one
    base = found.get("base_model_name_or_path")
    return AdapterSettings(
        rank=int(_number("r", found.get("r", 8), whole=True)),
        alpha=_number("lora_alpha", found.get("lora_alpha", 8)),
        dropout=_number("lora_dropout", found.get("lora_dropout", 0.0)),
        ranks=_pattern("rank_pattern", found.get("rank_pattern"), whole=True),
        alphas=_pattern("alpha_pattern", found.get("alpha_pattern")),
        targets=frozenset(() if selects else names),
        base=base if isinstance(base, str) else None,
        head=next((head for head, task in _TASKS.items() if task == found.get("task_type")), "language"),
    )


def refuse_alone(folder: Path) -> None:
    """Raise `HubError` for a folder that holds an adapter and no model; what is beneath is for the user to choose."""
    if (folder / CONFIG).exists() and not (folder / "config.json").exists():
        base = str(read_json(inside(folder, CONFIG)).get("base_model_name_or_path"))[:99]
        typed = base if re.fullmatch(r"[\w./@-]+", base) else "BASE"  # it may be pasted into a shell
        advice = f"open that model, then load_adapter, or: trivium convert {typed} --adapter {folder} --out DIR"
        raise HubError(f"{folder} holds an adapter of {base!r}, no model; expected config.json and weights; {advice}")


def write_adapter_config(
    config: ModelConfig,
    adapters: Mapping[str, tuple[int, float]],
    *,
    everything: Collection[str],
    heads: Collection[str],
    dropout: float,
) -> dict[str, Any]:
    """The object for an adapter_config.json: rank and α/r by foreign module, told by the shortest endings of names.

    `everything` is all modules of the architecture, which endings must not take for adapted; `heads` are the modules
    that were trained in full.
    """
    ranks = {name: rank for name, (rank, _) in adapters.items()}
    alphas = {name: _whole(rank * scale) for name, (rank, scale) in adapters.items()}
    rank, alpha = (Counter(each.values()).most_common(1)[0][0] for each in (ranks, alphas))
    return {
        "peft_type": "LORA",
        "task_type": _TASKS.get(config.head, _WRITERS.get(config.family)),
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "bias": "none",
        "inference_mode": True,
        "init_lora_weights": True,
        "target_modules": shortest(adapters, everything),
        # One that stands outside the layers is named by its root: PEFT would wrap `classifier` and what is in it.
        "modules_to_save": sorted({_root(name) for name in heads}) or None,
        "rank_pattern": _exceptions(ranks, rank),
        "alpha_pattern": _exceptions(alphas, alpha),
    }


def shortest(names: Collection[str], everything: Collection[str]) -> list[str]:
    """The shortest endings, in whole parts, that all of `names` have and nothing else of `everything` has."""
    others = {ending for name in everything if name not in names for ending in endings(name)}
    return sorted({next((each for each in endings(name) if each not in others), name) for name in names})


def endings(name: str) -> Iterator[str]:
    """The ends of a module's name in whole parts, the shortest first, itself last."""
    parts = name.split(".")
    yield from (".".join(parts[-count:]) for count in range(1, len(parts) + 1))


def _exceptions(values: Mapping[str, float], usual: float) -> dict[str, float]:
    found: dict[str, float] = {}
    for value in sorted(set(values.values()) - {usual}):
        own = {name for name, each in values.items() if each == value}
        found |= dict.fromkeys(shortest(own, values), value)
    return found


def _exception(exceptions: Mapping[str, float], name: str, usual: float) -> float:
    for pattern, value in exceptions.items():
        whole = pattern.startswith("^")
        if name == pattern[1:] if whole else f".{name}".endswith(f".{pattern}"):
            return value
    return usual


def _root(name: str) -> str:
    root = name.partition(".")[0]
    return root if root in ("classifier", "pre_classifier", "score", "qa_outputs") else name


def _whole(value: float) -> float:
    """α, free of the rounding of α/r · r where it was a whole number."""
    return round(value) if math.isclose(value, round(value), rel_tol=1e-12) else value


def _number(key: str, value: Any, *, whole: bool = False) -> float:
    """A positive number, or dropout's probability."""
    if isinstance(value, int if whole else int | float) and not isinstance(value, bool):
        if 0.0 <= value < 1.0 if key == "lora_dropout" else 0.0 < value <= 1e9:
            return float(value)
    _refuse(key, value, "a sensible number")


def _pattern(key: str, found: Any, *, whole: bool = False) -> dict[str, float]:
    if not isinstance(found or {}, dict) or len(found or {}) > 10_000:
        _refuse(key, found, "an object of names and numbers, at most 10,000")
    exceptions = {}
    for name, value in (found or {}).items():
        plain = name.replace("\\.", ".").removesuffix("$")
        if re.fullmatch(r"\^?[\w.]+", plain) is None:
            _refuse(key, name, "module names or their ends, no other regular expressions")
        exceptions[plain] = _number(f"{key} {plain}", value, whole=whole)
    return exceptions


def _refuse(key: str, value: Any, expected: str) -> NoReturn:
    raise HubError(f"{CONFIG} sets {key}={str(value)[:60]!r}; expected {expected}; use another adapter")
