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
        unequal = [name for name in sources[1:] if not _equal(tensors[name], tensor)]
        wrong += [f"{name} (differs from {sources[0]})" for name in unequal]
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
    for rule in _expand(naming, config, tensors):
        parts = [tensors[name] for name in rule.ours]
        tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
        tensor = tensor.T if rule.transpose and tensor.dim() == 2 else tensor
        tensor = tensor[None] if rule.row else tensor
        copies = rule.aliases if rule.copy_untied and not config.tie_embeddings else ()
        theirs.update(dict.fromkeys((rule.theirs, *copies), tensor))
        left.difference_update(rule.ours)
    if left:
        found = f"this architecture has no place for {listing(sorted(left))}"
        raise HubError(f"{found}; expected parameters that it knows; save the model as another model_type")
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


def _rules(text: str, *, prefix: str = "") -> tuple[Rule, ...]:
    """Rules for weight and bias of each module in "theirs ours, …".

    `@` stands for the layer, `+` joins what one foreign tensor holds, a third word T says that it is transposed.
    """
    rules = []
    for theirs, ours, *transpose in (entry.split() for entry in text.split(",")):
        first, *others = ours.replace("@", "layers.{layer}").split("+")
        modules = [first, *(first.rpartition(".")[0] + "." + other for other in others)]
        for kind in ("weight", "bias"):
            name = (prefix + theirs).replace("@", "{layer}") + f".{kind}"
            rules.append(Rule(name, tuple(f"{module}.{kind}" for module in modules), transpose=bool(transpose)))
    return tuple(rules)


def _table(theirs: str, *aliases: str, copy_untied: bool = False) -> Rule:
    return Rule(theirs, ("embedding.tokens.weight",), aliases=aliases, copy_untied=copy_untied)


_HEAD = Rule("lm_head.weight", ("head.weight",))

GPT2 = Naming(
    prefix="transformer.",
    ignored=(r"\.attn\.(masked_)?bias$",),
    rules=(
        _HEAD,
        *_rules(
            """wte embedding.tokens, wpe embedding.positions, ln_f decoder.norm,
            h.@.ln_1 decoder.@.attention_norm, h.@.ln_2 decoder.@.ffn_norm,
            h.@.attn.c_attn decoder.@.attention.query+key+value T, h.@.attn.c_proj decoder.@.attention.output T,
            h.@.mlp.c_fc decoder.@.ffn.up T, h.@.mlp.c_proj decoder.@.ffn.down T""",
            prefix="transformer.",
        ),
    ),
)

BERT = Naming(
    prefix="bert.",
    outside=("cls.",),
    # The pooler and the next-sentence head serve classification; a masked language model has neither.
    ignored=(r"\.position_ids$", r"^bert\.pooler\.", r"^cls\.seq_relationship\."),
    rules=(
        _table("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
        Rule("cls.predictions.bias", ("head.bias",), aliases=("cls.predictions.decoder.bias",)),
        *_rules("dense head.transform, LayerNorm head.norm", prefix="cls.predictions.transform."),
        *_rules(
            """position_embeddings embedding.positions, token_type_embeddings embedding.token_types,
            LayerNorm embedding.norm""",
            prefix="bert.embeddings.",
        ),
        *_rules(
            """@.attention.self.query encoder.@.attention.query, @.attention.self.key encoder.@.attention.key,
            @.attention.self.value encoder.@.attention.value, @.attention.output.dense encoder.@.attention.output,
            @.attention.output.LayerNorm encoder.@.attention_norm, @.intermediate.dense encoder.@.ffn.up,
            @.output.dense encoder.@.ffn.down, @.output.LayerNorm encoder.@.ffn_norm""",
            prefix="bert.encoder.layer.",
        ),
    ),
)


def _t5_stack(stack: str, ffn: int) -> tuple[Rule, ...]:
    """One stack; its feed-forward is sublayer `ffn`, and only the decoder has the cross-attention named here."""
    theirs, up = (
        f"{stack}.block.{{layer}}.layer.{ffn}.DenseReluDense",
        f"{stack}.layers.{{layer}}.ffn.up.weight",
    )
    return (
        Rule(f"{theirs}.wi.weight", (up,), gated=False),
        Rule(f"{theirs}.wi_1.weight", (up,), gated=True),
        *_rules(
            f"""0.SelfAttention.q {stack}.@.attention.query, 0.SelfAttention.k {stack}.@.attention.key,
            0.SelfAttention.v {stack}.@.attention.value, 0.SelfAttention.o {stack}.@.attention.output,
            1.EncDecAttention.q {stack}.@.cross_attention.query, 1.EncDecAttention.k {stack}.@.cross_attention.key,
            1.EncDecAttention.v {stack}.@.cross_attention.value, 1.EncDecAttention.o {stack}.@.cross_attention.output,
            0.layer_norm {stack}.@.attention_norm, 1.layer_norm {stack}.@.cross_norm,
            {ffn}.layer_norm {stack}.@.ffn_norm, {ffn}.DenseReluDense.wi_0 {stack}.@.ffn.gate,
            {ffn}.DenseReluDense.wo {stack}.@.ffn.down""",
            prefix=f"{stack}.block.@.layer.",
        ),
        *_rules(
            f"""final_layer_norm {stack}.norm,
            block.0.layer.0.SelfAttention.relative_attention_bias {stack}.relative_bias""",
            prefix=f"{stack}.",
        ),
    )


T5 = Naming(
    # The first T5 files carried a bias table that their own cross-attention never read.
    ignored=(r"^decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.",),
    rules=(
        _table("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
        _HEAD,
        *_t5_stack("encoder", 1),
        *_t5_stack("decoder", 2),
    ),
)

LLAMA = Naming(
    prefix="model.",
    ignored=(r"\.rotary_emb\.inv_freq$",),
    rules=(
        _HEAD,
        *_rules("embed_tokens embedding.tokens, norm decoder.norm", prefix="model."),
        *_rules(
            """self_attn.q_proj decoder.@.attention.query, self_attn.k_proj decoder.@.attention.key,
            self_attn.v_proj decoder.@.attention.value, self_attn.o_proj decoder.@.attention.output,
            self_attn.q_norm decoder.@.attention.query_norm, self_attn.k_norm decoder.@.attention.key_norm,
            mlp.gate_proj decoder.@.ffn.gate, mlp.up_proj decoder.@.ffn.up, mlp.down_proj decoder.@.ffn.down,
            input_layernorm decoder.@.attention_norm, post_attention_layernorm decoder.@.ffn_norm""",
            prefix="model.layers.@.",
        ),
    ),
)


def _marian_stack(stack: str) -> tuple[Rule, ...]:
    return _rules(
        f"""self_attn.q_proj {stack}.@.attention.query, self_attn.k_proj {stack}.@.attention.key,
        self_attn.v_proj {stack}.@.attention.value, self_attn.out_proj {stack}.@.attention.output,
        encoder_attn.q_proj {stack}.@.cross_attention.query, encoder_attn.k_proj {stack}.@.cross_attention.key,
        encoder_attn.v_proj {stack}.@.cross_attention.value, encoder_attn.out_proj {stack}.@.cross_attention.output,
        self_attn_layer_norm {stack}.@.attention_norm, encoder_attn_layer_norm {stack}.@.cross_norm,
        fc1 {stack}.@.ffn.up, fc2 {stack}.@.ffn.down, final_layer_norm {stack}.@.ffn_norm""",
        prefix=f"model.{stack}.layers.@.",
    )


MARIAN = Naming(
    prefix="model.",
    outside=("lm_head.", "final_logits_bias"),
    ignored=(r"\.embed_positions\.weight$", r"^final_logits_bias$"),
    rules=(
        _table(
            "model.shared.weight",
            "model.encoder.embed_tokens.weight",
            "model.decoder.embed_tokens.weight",
            copy_untied=True,
        ),
        _HEAD,
        Rule("final_logits_bias", ("head.bias",), row=True),
        *_marian_stack("encoder"),
        *_marian_stack("decoder"),
    ),
)
