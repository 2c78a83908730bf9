"""What each published architecture calls our parameters: one table per family, read in both directions.

Knows names, transposes and concatenations. Does not know config files (family.py) or file formats (convert.py).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trivium.errors import HubError
from trivium.hub.convert import listing
from trivium.model.config import ModelConfig


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

    @property
    def is_table(self) -> bool:
        """Whether this is the token embedding, which a tied head shares."""
        return self.ours == ("embedding.tokens.weight",)


@dataclass(frozen=True)
class Naming:
    """The tensors of one architecture: rules, what a headless class leaves out, what holds nothing learned."""

    rules: tuple[Rule, ...]
    prefix: str = ""  # AutoModel saves without it
    outside: tuple[str, ...] = ("lm_head.",)  # names that never had the prefix
    ignored: tuple[str, ...] = ()  # patterns: buffers that are a function of the config, heads we do not have


def canonical(naming: Naming, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the names of the full class, `prefix` included, TensorFlow's gamma and beta renamed."""
    full: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not name.startswith((naming.prefix, *naming.outside)):
            name = naming.prefix + name
        name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
        if name in full:
            raise HubError(f"two tensors are both {name}; expected one; remove the stale one from the file")
        full[name] = tensor
    return full


def to_ours(
    naming: Naming, config: ModelConfig, tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """Parameters by our names, shaped as `shapes` says, from tensors under canonical foreign names.

    Raises `HubError` that lists what is missing, left over, or of another shape: every tensor is accounted for.
    """
    ours: dict[str, Tensor] = {}
    missing, wrong, left = [], [], set(tensors)
    for rule in _expand(naming, config, shapes):
        sources = [name for name in (rule.theirs, *rule.aliases) if name in tensors]
        left.difference_update(sources)
        if not sources:
            missing.append(rule.theirs)
            continue
        tensor = tensors[sources[0]]
        wrong += [
            f"{name} (differs from {sources[0]})" for name in sources[1:] if not _equal(tensors[name], tensor)
        ]
        if not tensor.is_floating_point():
            wrong.append(f"{sources[0]} ({tensor.dtype})")
            continue
        if rule.transpose and tensor.dim() == 2:
            tensor = tensor.T
        if rule.row and tensor.shape[:1] == (1,):
            tensor = tensor[0]
        sizes = [shapes[name][0] for name in rule.ours]
        if tensor.shape != torch.Size((sum(sizes), *shapes[rule.ours[0]][1:])):
            wrong.append(f"{sources[0]} {tuple(tensor.shape)}")
            continue
        ours.update(zip(rule.ours, tensor.split(sizes), strict=True))
    extra = sorted(name for name in left if not any(re.search(pattern, name) for pattern in naming.ignored))
    problems = {"missing": missing, "unexpected": extra, "of another shape, type or content": wrong}
    if found := "; ".join(f"{what}: {listing(names)}" for what, names in problems.items() if names):
        raise HubError(
            f"tensors do not fit the config.json beside them ({found}); expected exactly those of the architecture; "
            "use a folder whose two files belong together"
        )
    return ours


def to_theirs(naming: Naming, config: ModelConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Foreign tensors from all our parameters; `HubError` lists those for which the architecture has no place."""
    theirs: dict[str, Tensor] = {}
    left = set(tensors)
    for rule in _expand(naming, config, tensors):
        parts = [tensors[name] for name in rule.ours]
        tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
        tensor = tensor.T if rule.transpose and tensor.dim() == 2 else tensor
        tensor = tensor[None] if rule.row else tensor
        copies = rule.aliases if rule.copy_untied and not config.tie_embeddings else ()
        theirs.update(dict.fromkeys((rule.theirs, *copies), tensor))
        left.difference_update(rule.ours)
    if left:
        raise HubError(
            f"this architecture has no place for {listing(sorted(left))}; expected parameters that it knows; "
            "save the model as another model_type"
        )
    return theirs


def _expand(naming: Naming, config: ModelConfig, ours: Mapping[str, object]) -> list[Rule]:
    """The rules of this config, layer by layer, for those parameters that the model has."""
    rules = []
    for rule in naming.rules:
        if rule.gated is not None and rule.gated != config.gated_ffn:
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


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)


def _each(modules: Mapping[str, str | tuple[str, ...]], *, transpose: bool = False) -> tuple[Rule, ...]:
    """Rules for the weight and the bias of each module, from `theirs -> ours`."""
    return tuple(
        Rule(f"{theirs}.{kind}", tuple(f"{name}.{kind}" for name in _tuple(ours)), transpose=transpose)
        for theirs, ours in modules.items()
        for kind in ("weight", "bias")
    )


def _tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


_HEAD = Rule("lm_head.weight", ("head.weight",))
_D, _E = "decoder.layers.{layer}", "encoder.layers.{layer}"

GPT2 = Naming(
    prefix="transformer.",
    ignored=(r"\.attn\.(masked_)?bias$",),
    rules=_each(
        {
            "transformer.wte": "embedding.tokens",
            "transformer.wpe": "embedding.positions",
            "transformer.h.{layer}.ln_1": f"{_D}.attention_norm",
            "transformer.h.{layer}.ln_2": f"{_D}.ffn_norm",
            "transformer.ln_f": "decoder.norm",
        }
    )
    + (_HEAD,)
    + _each(
        {
            "transformer.h.{layer}.attn.c_attn": tuple(
                f"{_D}.attention.{x}" for x in ("query", "key", "value")
            ),
            "transformer.h.{layer}.attn.c_proj": f"{_D}.attention.output",
            "transformer.h.{layer}.mlp.c_fc": f"{_D}.ffn.up",
            "transformer.h.{layer}.mlp.c_proj": f"{_D}.ffn.down",
        },
        transpose=True,
    ),
)

_BERT_LAYER = "bert.encoder.layer.{layer}"
BERT = Naming(
    prefix="bert.",
    outside=("cls.",),
    # The pooler and the next-sentence head serve classification; a masked language model has neither.
    ignored=(r"\.position_ids$", r"^bert\.pooler\.", r"^cls\.seq_relationship\."),
    rules=(
        Rule(
            "bert.embeddings.word_embeddings.weight",
            ("embedding.tokens.weight",),
            aliases=("cls.predictions.decoder.weight",),
        ),
        Rule("cls.predictions.bias", ("head.bias",), aliases=("cls.predictions.decoder.bias",)),
        *_each(
            {
                "bert.embeddings.position_embeddings": "embedding.positions",
                "bert.embeddings.token_type_embeddings": "embedding.token_types",
                "bert.embeddings.LayerNorm": "embedding.norm",
                f"{_BERT_LAYER}.attention.self.query": f"{_E}.attention.query",
                f"{_BERT_LAYER}.attention.self.key": f"{_E}.attention.key",
                f"{_BERT_LAYER}.attention.self.value": f"{_E}.attention.value",
                f"{_BERT_LAYER}.attention.output.dense": f"{_E}.attention.output",
                f"{_BERT_LAYER}.attention.output.LayerNorm": f"{_E}.attention_norm",
                f"{_BERT_LAYER}.intermediate.dense": f"{_E}.ffn.up",
                f"{_BERT_LAYER}.output.dense": f"{_E}.ffn.down",
                f"{_BERT_LAYER}.output.LayerNorm": f"{_E}.ffn_norm",
                "cls.predictions.transform.dense": "head.transform",
                "cls.predictions.transform.LayerNorm": "head.norm",
            }
        ),
    ),
)

_PARTS = {"q": "query", "k": "key", "v": "value", "o": "output"}


def _t5_stack(stack: str, ffn: int) -> tuple[Rule, ...]:
    theirs, ours = f"{stack}.block.{{layer}}.layer", f"{stack}.layers.{{layer}}"
    dense = f"{theirs}.{ffn}.DenseReluDense"
    return (
        *_each({f"{theirs}.0.SelfAttention.{k}": f"{ours}.attention.{v}" for k, v in _PARTS.items()}),
        *_each({f"{theirs}.1.EncDecAttention.{k}": f"{ours}.cross_attention.{v}" for k, v in _PARTS.items()}),
        *_each(
            {
                f"{theirs}.0.layer_norm": f"{ours}.attention_norm",
                f"{theirs}.1.layer_norm": f"{ours}.cross_norm",
                f"{theirs}.{ffn}.layer_norm": f"{ours}.ffn_norm",
                f"{dense}.wo": f"{ours}.ffn.down",
                f"{dense}.wi_0": f"{ours}.ffn.gate",
                f"{stack}.final_layer_norm": f"{stack}.norm",
                f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias": f"{stack}.relative_bias",
            }
        ),
        Rule(f"{dense}.wi.weight", (f"{ours}.ffn.up.weight",), gated=False),
        Rule(f"{dense}.wi_1.weight", (f"{ours}.ffn.up.weight",), gated=True),
    )


T5 = Naming(
    # The first T5 files carried a bias table that their own cross-attention never read.
    ignored=(r"^decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.",),
    rules=(
        Rule(
            "shared.weight",
            ("embedding.tokens.weight",),
            aliases=("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
        ),
        _HEAD,
        *_t5_stack("encoder", 1),
        *_t5_stack("decoder", 2),
    ),
)

_LLAMA_LAYER = "model.layers.{layer}"
LLAMA = Naming(
    prefix="model.",
    ignored=(r"\.rotary_emb\.inv_freq$",),
    rules=(
        _HEAD,
        *_each({f"{_LLAMA_LAYER}.self_attn.{k}_proj": f"{_D}.attention.{v}" for k, v in _PARTS.items()}),
        *_each({f"{_LLAMA_LAYER}.mlp.{x}_proj": f"{_D}.ffn.{x}" for x in ("gate", "up", "down")}),
        *_each(
            {
                "model.embed_tokens": "embedding.tokens",
                f"{_LLAMA_LAYER}.self_attn.q_norm": f"{_D}.attention.query_norm",
                f"{_LLAMA_LAYER}.self_attn.k_norm": f"{_D}.attention.key_norm",
                f"{_LLAMA_LAYER}.input_layernorm": f"{_D}.attention_norm",
                f"{_LLAMA_LAYER}.post_attention_layernorm": f"{_D}.ffn_norm",
                "model.norm": "decoder.norm",
            }
        ),
    ),
)


def _marian_stack(stack: str) -> tuple[Rule, ...]:
    theirs, ours = f"model.{stack}.layers.{{layer}}", f"{stack}.layers.{{layer}}"
    parts = {**_PARTS, "out": "output"}
    del parts["o"]
    return (
        *_each({f"{theirs}.self_attn.{k}_proj": f"{ours}.attention.{v}" for k, v in parts.items()}),
        *_each({f"{theirs}.encoder_attn.{k}_proj": f"{ours}.cross_attention.{v}" for k, v in parts.items()}),
        *_each(
            {
                f"{theirs}.self_attn_layer_norm": f"{ours}.attention_norm",
                f"{theirs}.encoder_attn_layer_norm": f"{ours}.cross_norm",
                f"{theirs}.fc1": f"{ours}.ffn.up",
                f"{theirs}.fc2": f"{ours}.ffn.down",
                f"{theirs}.final_layer_norm": f"{ours}.ffn_norm",
            }
        ),
    )


MARIAN = Naming(
    prefix="model.",
    outside=("lm_head.", "final_logits_bias"),
    ignored=(r"\.embed_positions\.weight$", r"^final_logits_bias$"),
    rules=(
        Rule(
            "model.shared.weight",
            ("embedding.tokens.weight",),
            aliases=("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"),
            copy_untied=True,
        ),
        Rule("final_logits_bias", ("head.bias",), row=True),
        _HEAD,
        *_marian_stack("encoder"),
        *_marian_stack("decoder"),
    ),
)
