"""PEFT's adapter folders, in and out: adapter_config.json and adapter_model.safetensors, by the foreign modules' names.

Names come from the same table as those of whole models (names.py). Where one foreign map holds several of ours
(GPT-2's `c_attn`), its B is cut into theirs, which share its A; on the way out adapters of their own become blocks of
one. Never reads pickles and opens nothing but the folder that it is given: the base that it names is only text.
"""

import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from trivium.errors import ConfigError, HubError
from trivium.folder import read_json
from trivium.hub.adapter_config import CONFIG, AdapterSettings, endings, read_adapter_config, write_adapter_config
from trivium.hub.auto import load_model, load_model_config, load_tokenizer, read_generation, save_model
from trivium.hub.convert import inside, listing, read_tensors, replace_file, write_tensors
from trivium.hub.family import row_of, write_config
from trivium.hub.names import Naming, Rule, canonical, expand_rules, head_name
from trivium.hub.resolve import resolve_folder
from trivium.model.adapter import AdaptedLinear, adapt_linear, adapted_linears, has_adapter, merge_adapter
from trivium.model.config import ModelConfig
from trivium.model.transformer import Transformer

WEIGHTS, PICKLE = "adapter_model.safetensors", "adapter_model.bin"
_PREFIX = "base_model.model."  # PEFT's two wrappers
_HALVES = {".lora_A.weight": "lora_a", ".lora_B.weight": "lora_b"}


@dataclass(frozen=True)
class Low:
    """The adapter of one foreign map: A `(R, I)`, B `(O, R)` and the factor α/r."""

    lora_a: Tensor
    lora_b: Tensor
    scale: float


def save_adapter(model: Transformer, folder: str | Path, *, base: str | Path | None = None) -> Path:
    """Write the model's adapter, and its task head if it has one, as a folder that PEFT opens.

    `base` is what the folder names as the model beneath: a hub name or a path. Raises `ConfigError` for a model without
    an adapter or with more in training than such a folder holds, `HubError` when no published architecture expresses
    the model or the disk refuses.
    """
    adapted, naming, config = adapted_linears(model), _naming(model), model.config
    _check_trained(model)
    lows, heads = {}, {}
    own = _own_parameters(model)
    for rule in expand_rules(naming, config, own):
        name, modules = _spelled(naming, config, rule.theirs), _modules(rule)
        if rule.theirs.endswith(".weight") and not adapted.keys().isdisjoint(modules):
            sizes = [len(own[each]) for each in rule.ours]
            lows[name.removesuffix(".weight")] = _fuse([adapted.get(module) for module in modules], sizes)
        elif rule.ours[0].startswith("classifier.") and adapted.keys().isdisjoint(modules):
            heads[name] = own[rule.ours[0]]
    settings = write_adapter_config(
        config,
        {name: (len(low.lora_a), low.scale) for name, low in lows.items()},
        everything=_everything(naming, config),
        heads={name.rpartition(".")[0] for name in heads},
        dropout=max(module.dropout for module in adapted.values()),
    )
    settings["fan_in_fan_out"] = any(rule.transpose for rule in naming.rules)
    settings["base_model_name_or_path"] = None if base is None else str(base)
    tensors = {f"{name}.lora_A.weight": low.lora_a for name, low in lows.items()}
    tensors |= {f"{name}.lora_B.weight": low.lora_b for name, low in lows.items()} | heads
    folder, text = Path(folder), json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HubError(f"{folder} could not be written ({error}); expected a folder; choose another") from error
    replace_file(folder / CONFIG, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    write_tensors(folder / WEIGHTS, {_PREFIX + name: tensor for name, tensor in tensors.items()})
    return folder


def load_adapter(model: Transformer, name_or_folder: str | Path) -> None:
    """Put the adapter of a PEFT folder or hub name beside the model's weights, in place, with the task head it has.

    What the folder holds requires gradients then, all else is frozen; the mode (training, evaluation) stays. Raises
    `ConfigError` for a model that has an adapter already; `HubError`, before anything is changed, for another method
    than plain LoRA, a damaged folder, or an adapter that was made for another model.
    """
    if has_adapter(model):
        raise ConfigError("the model has an adapter already; expected none; call merge_adapter first")
    folder, naming, config = resolve_folder(name_or_folder), _naming(model), model.config
    settings = read_adapter_config(folder)
    lows, heads, problems = _sort(naming, settings, _read(folder))
    lows = {name: low for name, low in lows.items() if config.head != "none" or not _is_unread(naming, name)}
    rules = {rule.theirs: rule for rule in expand_rules(naming, config, _own_parameters(model))}
    problems["no linear map here"] = [name for name in lows if not _is_linear(model, rules.get(name))]
    problems["of another shape"] = [
        *(f"{name}: {found}" for name, low in lows.items() if (found := _misfit(model, rules.get(name), low))),
        *(f"{name}: {found}" for name, each in heads.items() if (found := _head_misfit(model, rules.get(name), each))),
    ]
    problems["trained in full, which only task heads are here"] = [
        name for name in heads if name not in rules or not rules[name].ours[0].startswith("classifier.")
    ]
    problems["missing"] += _missing(settings, naming, config, rules.values(), lows)
    if found := "; ".join(f"{what}: {listing(sorted(names))}" for what, names in problems.items() if names):
        base = "that it was made for" if settings.base is None else f"that it names, {settings.base[:99]!r}"
        raise HubError(
            f"the adapter in {folder} does not fit this model ({found}); expected its own; use the base {base}"
        )
    model.requires_grad_(False)
    for name, low in lows.items():
        _adapt(model, rules[name], low, settings.dropout)
    for name, tensor in heads.items():
        parameter = model.get_parameter(rules[name].ours[0])
        parameter.data.copy_(tensor)
        parameter.requires_grad_(True)


def merge_folder(base: str | Path, adapter: str | Path, out: str | Path) -> float:
    """Write a base with an adapter merged into it as an ordinary model folder, with tokenizer and decoding settings.

    All three are folders, the first two may be hub names. A task head that the adapter brings is put in place, with
    numbered labels unless the base names as many. Gives the largest difference between scores before and after, as a
    part of the largest (`merge_adapter`). Raises `HubError` or `ConfigError` when they do not fit.
    """
    folder = resolve_folder(base)
    (model, drawn), tokenizer = _open_base(folder, resolve_folder(adapter)), load_tokenizer(folder)
    load_adapter(model, adapter)
    if left := [name for name in drawn if not model.get_parameter(name).requires_grad]:
        raise HubError(
            f"neither {folder} nor the adapter in {adapter} has {listing(left)}; expected a whole task head; save the "
            "model with its head first, and merge into that"
        )
    difference = merge_adapter(model)
    tasks = read_json(inside(folder, "config.json")).get("task_specific_params")
    save_model(model, out, tokenizer=tokenizer, generation=read_generation(folder), tasks=tasks)
    return difference


def _open_base(base: Path, adapter: Path) -> tuple[Transformer, list[str]]:
    """The base, with the head that the adapter was trained with, and what of that was drawn: PEFT names no labels, only
    how many there are."""
    head = read_adapter_config(adapter).head
    full = {name: len(each) for name, each in _read(adapter).items() if ".lora_" not in name and each.dim() > 1}
    last = [rows for name, rows in full.items() if not name.endswith(("dense.weight", "pre_classifier.weight"))]
    rows, config = last[0] if len(last) == 1 else 0, load_model_config(base)
    is_there = config.head == head and (head == "span" or len(config.labels) == rows)
    if is_there or not rows or head not in ("sequence", "token", "span"):
        return load_model(base), []
    labels = None if head == "span" else [f"LABEL_{number}" for number in range(rows)]
    with warnings.catch_warnings():  # what is drawn is told apart here
        warnings.filterwarnings("ignore", message="the file has no fitting weights")
        model = load_model(base, head=head, labels=labels)
    naming = _naming(model)
    stored, rules = canonical(naming, read_tensors(base)), expand_rules(naming, model.config, _own_parameters(model))
    names = [rule.ours[0] for rule in rules if rule.theirs not in stored]
    return model, [name for name in names if name.startswith("classifier.")]


def _read(folder: Path) -> dict[str, Tensor]:
    if not (folder / WEIGHTS).exists():
        found = f"only {PICKLE}, a pickle that could run code" if (folder / PICKLE).exists() else f"no {WEIGHTS}"
        raise HubError(f"{folder} has {found}; expected {WEIGHTS}; save the adapter with a current peft")
    return read_tensors(inside(folder, WEIGHTS))


def _sort(
    naming: Naming, settings: AdapterSettings, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Low], dict[str, Tensor], dict[str, list[str]]]:
    """(adapters, what was trained in full, problems), by the canonical names of weights."""
    halves: dict[str, dict[str, Tensor]] = {}
    full, missing, odd = {}, [], []
    for key, tensor in tensors.items():
        name, ending = key.removeprefix(_PREFIX), key[-len(".lora_A.weight") :]
        if not key.startswith(_PREFIX) or not tensor.is_floating_point() or (".lora_" in key and ending not in _HALVES):
            odd.append(f"{key[:99]} ({str(tensor.dtype).removeprefix('torch.')})")
        elif ending in _HALVES:
            halves.setdefault(name.removesuffix(ending), {})[_HALVES[ending]] = tensor
        else:
            full[name] = tensor
    whole = {name: pair for name, pair in halves.items() if len(pair) == 2}
    missing = [f"the other half of {name}" for name in halves if name not in whole]
    missing += [] if whole else ["any adapter"]
    firsts = canonical(naming, {f"{name}.weight": pair["lora_a"] for name, pair in whole.items()})
    lows, wrong = {}, []
    for full_name, (name, pair) in zip(firsts, whole.items(), strict=True):
        low = lows[full_name] = Low(pair["lora_a"], pair["lora_b"], settings.scale_of(name))
        if low.lora_a.shape[:1] != (settings.rank_of(name),):
            wrong.append(f"{name} ({tuple(low.lora_a.shape)} for rank {settings.rank_of(name)})")
    problems = {"missing": missing, "of an unknown kind": odd, "of another rank than its config says": wrong}
    return lows, canonical(naming, full), problems


def _is_unread(naming: Naming, name: str) -> bool:
    """Whether hidden states do without it: PEFT adapts the pooler of a model without a head, too."""
    other = any(rule.theirs == name and not rule.is_used("none") for rule in naming.rules)
    return other or any(re.search(pattern, name) for pattern in naming.ignored)


def _is_linear(model: Transformer, rule: Rule | None) -> bool:
    return rule is not None and all(isinstance(_module(model, name), nn.Linear) for name in _modules(rule))


def _misfit(model: Transformer, rule: Rule | None, low: Low) -> str:
    """Both shapes, where A or B does not belong to the map."""
    if rule is None or not _is_linear(model, rule):
        return ""
    shapes = [cast(nn.Linear, _module(model, name)).weight.shape for name in _modules(rule)]
    outputs, inputs = sum(shape[0] for shape in shapes), shapes[0][1]
    a, b = tuple(low.lora_a.shape), tuple(low.lora_b.shape)
    if len(a) == len(b) == 2 and (b[0], a[1]) == (outputs, inputs) and a[0] == b[1]:
        return ""
    return f"A {a} and B {b} for {inputs} inputs and {outputs} outputs"


def _head_misfit(model: Transformer, rule: Rule | None, tensor: Tensor) -> str:
    shape = None if rule is None else model.get_parameter(rule.ours[0]).shape
    return "" if shape is None or shape == tensor.shape else f"{tuple(tensor.shape)} for {tuple(shape)}"


def _missing(
    settings: AdapterSettings, naming: Naming, config: ModelConfig, rules: Iterable[Rule], lows: Mapping[str, Low]
) -> list[str]:
    """Maps of the blocks that the config says are adapted: made for a model of fewer layers, perhaps."""
    found = []
    for rule in rules:
        if rule.theirs not in lows and rule.theirs.endswith(".weight") and ".layers." in rule.ours[0]:
            name = _spelled(naming, config, rule.theirs).removesuffix(".weight")
            found += [] if settings.targets.isdisjoint(endings(name)) else [name]
    return found


def _adapt(model: Transformer, rule: Rule, low: Low, dropout: float) -> None:
    modules = _modules(rule)
    weights = [cast(nn.Linear, model.get_submodule(name)).weight for name in modules]
    dtype = torch.promote_types(weights[0].dtype, torch.float32)
    lora_a, lora_b = (each.to(weights[0].device, dtype, copy=True) for each in (low.lora_a, low.lora_b))
    for name, own in zip(modules, _divide(lora_a, lora_b, [len(weight) for weight in weights]), strict=True):
        if own is not None:
            adapt_linear(model, name, *own, scale=low.scale, dropout=dropout)


def _divide(lora_a: Tensor, lora_b: Tensor, sizes: Sequence[int]) -> list[tuple[Tensor, Tensor] | None]:
    """A and B of each of our maps in one foreign map: what `_fuse` put together, taken apart again, else one shared A.

    Either computes the same; trained on, each has as many parameters as where it came from.
    """
    blocks = torch.split(lora_b, list(sizes))
    used = [(block != 0).any(0) for block in blocks]
    if len(blocks) > 1 and int(torch.stack(used).sum(0).max()) == 1:  # no direction of A is read by two maps
        return [
            (lora_a[own], block[:, own].contiguous()) if own.any() else None
            for own, block in zip(used, blocks, strict=True)
        ]
    shared = nn.Parameter(lora_a)
    return [(shared, block.clone()) for block in blocks]


def _fuse(parts: Sequence[AdaptedLinear | None], sizes: Sequence[int]) -> Low:
    """One adapter for maps that are one in the file: B's are rows over a shared A, else blocks beside stacked A's."""
    own = [part for part in parts if part is not None]
    first = own[0]
    shared = all(part.lora_a is first.lora_a for part in own)
    lora_a = first.lora_a.detach() if shared else torch.cat([part.lora_a.detach() for part in own])
    lora_b = lora_a.new_zeros(sum(sizes), len(lora_a))
    row = column = 0
    for part, size in zip(parts, sizes, strict=True):
        if part is not None:
            lora_b[row : row + size, column : column + part.rank] = part.lora_b.detach() * (part.scale / first.scale)
            column += 0 if shared else part.rank
        row += size
    return Low(lora_a, lora_b, first.scale)


def _check_trained(model: Transformer) -> None:
    others = [
        name
        for name, each in model.named_parameters()
        if each.requires_grad and ".lora_" not in name and not name.startswith("classifier.")
    ]
    if others:
        expected = "an adapter's folder holds adapters and task heads only"
        raise ConfigError(f"{listing(others)} require gradients, too; {expected}; freeze them, or merge and save_model")


def _naming(model: Transformer) -> Naming:
    return row_of(write_config(model.config)).naming


def _own_parameters(model: Transformer) -> dict[str, Tensor]:
    """The model's parameters as they are without an adapter."""
    return {name: each.detach() for name, each in model.named_parameters() if ".lora_" not in name}


def _everything(naming: Naming, config: ModelConfig) -> set[str]:
    """The modules of every class of this architecture, as this model's class spells them."""
    layers = range(max(config.num_layers, config.num_encoder_layers))
    names = {rule.theirs.format(layer=layer) for rule in naming.rules for layer in layers}
    return {_spelled(naming, config, name).rpartition(".")[0] for name in names}


def _spelled(naming: Naming, config: ModelConfig, name: str) -> str:
    """A canonical name as the class of transformers has it that this model is opened with."""
    return name.removeprefix(naming.prefix) if config.head == "none" else head_name(naming, config.head, name)


def _modules(rule: Rule) -> list[str]:
    return [name.rpartition(".")[0] for name in rule.ours]


def _module(model: Transformer, name: str) -> nn.Module | None:
    return model.get_submodule(name) if name else None
