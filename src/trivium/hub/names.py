"""What each published architecture calls our parameters: one table per family, read in both directions.

Knows names, transposes and concatenations. Does not know config files (family.py) or file formats (convert.py).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from trivium.errors import HubError
from trivium.hub.convert import listing
from trivium.model.config import Head, ModelConfig
from trivium.model.position import sinusoids


@dataclass(frozen=True)
class Rule:
    """One foreign tensor: the parameters of ours that it holds, one after another along the output axis."""

    theirs: str
    ours: tuple[str, ...]
    transpose: bool = False  # GPT-2's Conv1D keeps (in, out)
    row: bool = False  # Marian's head bias is (1, vocabulary)
    gated: bool | None = None  # only for feed-forwards with, or without, a gate
    aliases: tuple[str, ...] = ()  # other names of the same tensor, which must agree where they appear
    copy_untied: bool = False  # the aliases have to be written too when the head is not tied
    copy_unscaled: bool = False  # a tied head has to be written if not scaled: version 4 takes any other for scaled
    heads: tuple[Head, ...] = ()  # only for models with one of these heads
    before: Callable[[ModelConfig], int] | None = None  # rows of a table that stand before position 0

    @property
    def is_table(self) -> bool:
        """Whether this is the token embedding, which a tied head shares."""
        return self.ours == ("embedding.tokens.weight",)

    def is_used(self, head: Head) -> bool:
        """Whether a model with this head has the parameters."""
        return head in (self.heads or (("language",) if self.ours[0].startswith("head.") else (head,)))


@dataclass(frozen=True)
class Naming:
    """The tensors of one architecture: rules, what a headless class leaves out, what holds nothing learned."""

    rules: tuple[Rule, ...]
    prefix: str = ""  # AutoModel saves without it
    prefixes: Mapping[Head, str] = field(default_factory=dict)  # what the classes of some heads have instead
    sinusoids: tuple[str, ...] = ()  # tables that the file must hold though they are no weights
    ignored: tuple[str, ...] = ()  # patterns: buffers that are a function of the config, heads we do not have


def canonical(naming: Naming, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the names of the full class, `prefix` included, TensorFlow's gamma and beta renamed."""
    full: dict[str, Tensor] = {}
    outside = {_root(rule.theirs) for rule in naming.rules if not rule.theirs.startswith(naming.prefix)}
    for name, tensor in tensors.items():
        if other := next((each for each in naming.prefixes.values() if name.startswith(each)), ""):
            name = naming.prefix + name.removeprefix(other)
        elif not name.startswith(naming.prefix) and _root(name) not in outside:
            name = naming.prefix + name
        name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
        if name in full:
            raise HubError(f"two tensors are both {name}; expected one; remove the stale one from the file")
        full[name] = tensor
    return full


def to_ours(
    naming: Naming,
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, torch.Size],
    *,
    fresh_head: bool = False,
) -> dict[str, Tensor]:
    """Parameters by our names, shaped as `shapes` says, from tensors under canonical foreign names.

    Raises `HubError` that lists what is missing, left over, or of another shape: every tensor is accounted for, those
    of a head that `config` does not want too. With `fresh_head` the head's own may be absent or of another shape, and
    are then not in the result.
    """
    ours: dict[str, Tensor] = {}
    missing, wrong, left = [], [], set(tensors)
    for rule in naming.rules:
        if not rule.is_used(config.head):
            left.difference_update((rule.theirs, *rule.aliases))
    for rule in expand_rules(naming, config, shapes):
        sources = [name for name in (rule.theirs, *rule.aliases) if name in tensors]
        left.difference_update(sources)
        spare = fresh_head and rule.ours[0].startswith(("head.", "classifier."))
        if not sources:
            missing += [] if spare else [rule.theirs]
            continue
        tensor = tensors[sources[0]]
        unequal = [name for name in sources[1:] if not _equal(tensors[name], tensor)]
        wrong += [f"{name} (differs from {sources[0]})" for name in unequal]
        if not tensor.is_floating_point():
            wrong.append(f"{sources[0]} ({tensor.dtype})")
            continue
        tensor = _turned(rule, config, tensor)
        sizes = [shapes[name][0] for name in rule.ours]
        if tensor.shape != torch.Size((sum(sizes), *shapes[rule.ours[0]][1:])):
            wrong += [] if spare else [f"{sources[0]} {tuple(tensors[sources[0]].shape)}"]
            continue
        ours.update(zip(rule.ours, torch.split(tensor, sizes), strict=True))
    extra = sorted(name for name in left if not any(re.search(pattern, name) for pattern in naming.ignored))
    problems = {"missing": missing, "unexpected": extra, "of another shape, type or content": wrong}
    if found := "; ".join(f"{what}: {listing(names)}" for what, names in problems.items() if names):
        expected = "expected exactly those of the architecture; use a folder whose two files belong together"
        raise HubError(f"tensors do not fit the config.json beside them ({found}); {expected}")
    return ours


def to_theirs(naming: Naming, config: ModelConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Foreign tensors from all our parameters; `HubError` lists those for which the architecture has no place."""
    theirs: dict[str, Tensor] = {}
    left = set(tensors)
    for rule in expand_rules(naming, config, tensors):
        parts = [tensors[name] for name in rule.ours]
        tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
        tensor = tensor.T if rule.transpose and tensor.dim() == 2 else tensor
        tensor = tensor[None] if rule.row else tensor
        if rule.before is not None:  # zeros where no position ever looks
            tensor = torch.cat([tensor.new_zeros(rule.before(config), *tensor.shape[1:]), tensor])
        copies = rule.aliases if rule.copy_untied and not config.tie_embeddings else ()
        if rule.copy_unscaled and config.tie_embeddings and not config.head_scale and config.head == "language":
            copies = ("lm_head.weight",)
        name = rule.theirs if rule.heads else head_name(naming, config.head, rule.theirs)
        theirs.update(dict.fromkeys((name, *copies), tensor))
        left.difference_update(rule.ours)
    for name in naming.sinusoids:
        places, table = torch.arange(config.max_positions or 1024), tensors["embedding.tokens.weight"]
        theirs[name] = sinusoids(places, config.hidden_size, table.dtype)
    if any(".lora_" in name for name in left):
        raise HubError("the model has an adapter; expected it merged or saved alone; use merge_adapter or save_adapter")
    if left:
        found = f"this architecture has no place for {listing(sorted(left))}"
        raise HubError(f"{found}; expected parameters that it knows; save the model as another model_type")
    return theirs


def head_name(naming: Naming, head: Head, name: str) -> str:
    """A canonical name as the class for this head spells it."""
    other = naming.prefixes.get(head)
    return other + name.removeprefix(naming.prefix) if other and name.startswith(naming.prefix) else name


def expand_rules(naming: Naming, config: ModelConfig, ours: Mapping[str, object]) -> list[Rule]:
    """The rules of this config, layer by layer, for those parameters that the model has (names of ours)."""
    rules = []
    for rule in naming.rules:
        if (rule.gated is not None and rule.gated != config.gated_ffn) or not rule.is_used(config.head):
            continue
        two_stacks = config.family == "encoder_decoder" and rule.ours[0].startswith("encoder.")
        layers = config.num_encoder_layers if two_stacks else config.num_layers
        for layer in range(layers) if "{layer}" in rule.theirs else (0,):
            names = tuple(name.format(layer=layer) for name in rule.ours)
            if not all(name in ours for name in names):
                continue
            aliases = rule.aliases + (("lm_head.weight",) if rule.is_table and config.tie_embeddings else ())
            rules.append(replace(rule, theirs=rule.theirs.format(layer=layer), ours=names, aliases=aliases))
    return rules


def _turned(rule: Rule, config: ModelConfig, tensor: Tensor) -> Tensor:
    """A foreign tensor in our orientation, as a view."""
    if rule.transpose and tensor.dim() == 2:
        tensor = tensor.T
    if rule.row and tensor.shape[:1] == (1,):
        tensor = tensor[0]
    return tensor if rule.before is None else tensor[rule.before(config) :]


def _root(name: str) -> str:
    return name.partition(".")[0]


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
