"""What each published architecture calls our parameters: one `Naming` per family of names, in both directions.

Data only; names.py applies it, family.py says which model_type has which.
"""

from dataclasses import replace

from trivium.hub.names import Naming, Rule
from trivium.model.config import Head


def _rules(text: str, *, prefix: str = "", heads: tuple[Head, ...] = ()) -> tuple[Rule, ...]:
    """Rules for weight and bias of each module in "theirs ours, …", for models with certain `heads` only.

    `@` stands for the layer, `+` joins what one foreign tensor holds, a third word T says that it is transposed.
    """
    rules = []
    for theirs, ours, *transpose in (entry.split() for entry in text.split(",")):
        first, *others = ours.replace("@", "layers.{layer}").split("+")
        modules = [first, *(first.rpartition(".")[0] + "." + other for other in others)]
        for kind in ("weight", "bias"):
            name = (prefix + theirs).replace("@", "{layer}") + f".{kind}"
            parameters = tuple(f"{module}.{kind}" for module in modules)
            rules.append(Rule(name, parameters, transpose=bool(transpose), heads=heads))
    return tuple(rules)


def _table(theirs: str, *aliases: str, copy_untied: bool = False, copy_unscaled: bool = False) -> Rule:
    tokens = ("embedding.tokens.weight",)
    return Rule(theirs, tokens, aliases=aliases, copy_untied=copy_untied, copy_unscaled=copy_unscaled)


_HEAD = Rule("lm_head.weight", ("head.weight",))
_SEQUENCE: tuple[Head, ...] = ("sequence",)
_TOKEN: tuple[Head, ...] = ("token",)
_BOTH: tuple[Head, ...] = ("sequence", "token")
_DENSE = _rules("dense classifier.dense, out_proj classifier.output", prefix="classification_head.", heads=_SEQUENCE)
_SPAN = _rules("qa_outputs classifier.output", heads=("span",))

GPT2 = Naming(
    prefix="transformer.",
    ignored=(r"\.attn\.(masked_)?bias$",),
    rules=(
        _HEAD,
        *_rules("score classifier.output", heads=_SEQUENCE),
        *_rules("classifier classifier.output", heads=_TOKEN),
        *_SPAN,
        *_rules(
            """wte embedding.tokens, wpe embedding.positions, ln_f decoder.norm,
            h.@.ln_1 decoder.@.attention_norm, h.@.ln_2 decoder.@.ffn_norm,
            h.@.attn.c_attn decoder.@.attention.query+key+value T, h.@.attn.c_proj decoder.@.attention.output T,
            h.@.mlp.c_fc decoder.@.ffn.up T, h.@.mlp.c_proj decoder.@.ffn.down T""",
            prefix="transformer.",
        ),
    ),
)


def _bert_stack(prefix: str) -> tuple[Rule, ...]:
    """Embeddings but the tokens' and positions', and all layers."""
    return (
        *_rules("token_type_embeddings embedding.token_types, LayerNorm embedding.norm", prefix=f"{prefix}embeddings."),
        *_rules(
            """@.attention.self.query encoder.@.attention.query, @.attention.self.key encoder.@.attention.key,
            @.attention.self.value encoder.@.attention.value, @.attention.output.dense encoder.@.attention.output,
            @.attention.output.LayerNorm encoder.@.attention_norm, @.intermediate.dense encoder.@.ffn.up,
            @.output.dense encoder.@.ffn.down, @.output.LayerNorm encoder.@.ffn_norm""",
            prefix=f"{prefix}encoder.layer.",
        ),
    )


BERT = Naming(
    prefix="bert.",
    ignored=(r"\.position_ids$", r"^cls\.seq_relationship\."),  # the next-sentence head of pretraining
    rules=(
        _table("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
        Rule("cls.predictions.bias", ("head.bias",), aliases=("cls.predictions.decoder.bias",)),
        *_rules("dense head.transform, LayerNorm head.norm", prefix="cls.predictions.transform."),
        *_rules("bert.pooler.dense classifier.dense", heads=_SEQUENCE),
        *_rules("classifier classifier.output", heads=_BOTH),
        *_SPAN,
        Rule("bert.embeddings.position_embeddings.weight", ("embedding.positions.weight",)),
        *_bert_stack("bert."),
    ),
)

ROBERTA = Naming(
    prefix="roberta.",
    # No class of RoBERTa but the headless one has a pooler, and none ever trained it.
    ignored=(r"\.position_ids$", r"^roberta\.pooler\."),
    rules=(
        _table("roberta.embeddings.word_embeddings.weight", "lm_head.decoder.weight"),
        Rule("lm_head.bias", ("head.bias",), aliases=("lm_head.decoder.bias",)),
        *_rules("dense head.transform, layer_norm head.norm", prefix="lm_head."),
        *_rules("dense classifier.dense, out_proj classifier.output", prefix="classifier.", heads=_SEQUENCE),
        *_rules("classifier classifier.output", heads=_TOKEN),
        *_SPAN,
        Rule(
            "roberta.embeddings.position_embeddings.weight",
            ("embedding.positions.weight",),
            before=lambda config: config.pad_id + 1,
        ),
        *_bert_stack("roberta."),
    ),
)

DISTILBERT = Naming(
    prefix="distilbert.",
    ignored=(r"\.position_ids$",),
    rules=(
        _table("distilbert.embeddings.word_embeddings.weight", "vocab_projector.weight"),
        Rule("vocab_projector.bias", ("head.bias",)),
        *_rules("vocab_transform head.transform, vocab_layer_norm head.norm"),
        *_rules("pre_classifier classifier.dense", heads=_SEQUENCE),
        *_rules("classifier classifier.output", heads=_BOTH),
        *_SPAN,
        *_rules("position_embeddings embedding.positions, LayerNorm embedding.norm", prefix="distilbert.embeddings."),
        *_rules(
            """@.attention.q_lin encoder.@.attention.query, @.attention.k_lin encoder.@.attention.key,
            @.attention.v_lin encoder.@.attention.value, @.attention.out_lin encoder.@.attention.output,
            @.sa_layer_norm encoder.@.attention_norm, @.ffn.lin1 encoder.@.ffn.up, @.ffn.lin2 encoder.@.ffn.down,
            @.output_layer_norm encoder.@.ffn_norm""",
            prefix="distilbert.transformer.layer.",
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
    prefixes={"sequence": "transformer."},
    # The first T5 files carried a bias table that their own cross-attention never read.
    ignored=(r"^decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.",),
    rules=(
        _table("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", copy_unscaled=True),
        _HEAD,
        *_DENSE,
        *_t5_stack("encoder", 1),
        *_t5_stack("decoder", 2),
    ),
)

LLAMA = Naming(
    prefix="model.",
    prefixes={"span": "transformer."},
    ignored=(r"\.rotary_emb\.inv_freq$",),
    rules=(
        _HEAD,
        *_rules("score classifier.output", heads=_BOTH),
        *_SPAN,
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


MISTRAL = replace(LLAMA, prefixes={})


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


_TWO_STACKS = (
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
)

MARIAN = Naming(
    prefix="model.",
    ignored=(r"\.embed_positions\.weight$", r"^final_logits_bias$"),
    rules=_TWO_STACKS,
)

PEGASUS = replace(
    MARIAN,
    sinusoids=("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight"),
    rules=(
        *_TWO_STACKS,
        *_rules("encoder.layer_norm encoder.norm, decoder.layer_norm decoder.norm", prefix="model."),
    ),
)


def _bart_places(stack: str, ours: str) -> tuple[Rule, ...]:
    positions = f"{ours}.positions.weight"
    return (
        Rule(f"model.{stack}.embed_positions.weight", (positions,), before=lambda config: 2),
        *_rules(f"layernorm_embedding {ours}.norm", prefix=f"model.{stack}."),
    )


BART = Naming(
    prefix="model.",
    ignored=(r"^final_logits_bias$", r"^model\.(encoder|decoder)\.version$"),
    rules=(*_TWO_STACKS, *_DENSE, *_bart_places("encoder", "embedding.context"), *_bart_places("decoder", "embedding")),
)
