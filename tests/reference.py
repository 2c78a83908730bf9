"""Pairs of equal models for parity tests: transformers' own, with every weight random, and ours made from it.

`build_pair("llama")` gives both; `PAIRS` names all. Norms and biases are random too, so that none hides.
"""

import types
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from trivium.hub.auto import assemble
from trivium.hub.table import TABLE
from trivium.model.config import Head, ModelConfig
from trivium.model.mask import Side
from trivium.model.transformer import Transformer

VOCABULARY = 61

_SMALL = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_MODERN = {
    **_SMALL,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
}
_BERT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
_T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 24,
    "d_kv": 8,
    "d_ff": 40,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
}
_MARIAN = {
    **_SMALL,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 64,
    "dropout": 0.0,
    # Marian starts with padding, whose embedding transformers never trains: a start of its own shows every gradient.
    "decoder_start_token_id": 3,
    "forced_eos_token_id": None,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
_YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 16}

# name -> (model_type, settings); every shape that the table claims.
PAIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": (
        "gpt2",
        {**_SMALL, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
        | {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    ),
    "bert": ("bert", _BERT),
    # One token type, and positions that begin after the id of padding; the tests' padding is 0 everywhere.
    "roberta": ("roberta", {**_BERT, "type_vocab_size": 1, "pad_token_id": 0}),
    "xlm-roberta": ("xlm-roberta", {**_BERT, "type_vocab_size": 1, "pad_token_id": 0}),
    "distilbert": (
        "distilbert",
        {"vocab_size": VOCABULARY, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 40}
        | {"max_position_embeddings": 64, "dropout": 0.0, "attention_dropout": 0.0},
    ),
    "t5": ("t5", _T5),
    "mt5": ("mt5", {**_T5, "tie_word_embeddings": False}),
    "t5-v1.1": ("t5", {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "llama": ("llama", _MODERN),
    "llama-linear": (
        "llama",
        {**_MODERN, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0}},
    ),
    "llama-llama3": ("llama", {**_MODERN, "rope_parameters": _LLAMA3, "tie_word_embeddings": True}),
    "llama-yarn": ("llama", {**_MODERN, "rope_parameters": _YARN}),
    "llama-bias": ("llama", {**_MODERN, "attention_bias": True, "mlp_bias": True}),
    "mistral": ("mistral", {**_MODERN, "sliding_window": 5}),
    "mistral-full": (
        "mistral",
        {**_MODERN, "sliding_window": None, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 12},
    ),
    "qwen2": ("qwen2", _MODERN),
    "qwen2-wide": ("qwen2", {**_MODERN, "head_dim": 12}),
    "qwen2-tied-window": (
        "qwen2",
        {**_MODERN, "tie_word_embeddings": True, "use_sliding_window": True, "sliding_window": 5}
        | {"max_window_layers": 0},
    ),
    "qwen3": ("qwen3", {**_MODERN, "head_dim": 12}),
    "qwen3-tied": ("qwen3", {**_MODERN, "head_dim": 12, "tie_word_embeddings": True}),
    "qwen3-window": (
        "qwen3",
        {**_MODERN, "head_dim": 12, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0},
    ),
    "marian": ("marian", {**_MARIAN, "scale_embedding": True, "activation_function": "swish"}),
    "bart": ("bart", {**_MARIAN, "activation_function": "gelu"}),
    "pegasus": ("pegasus", {**_MARIAN, "activation_function": "relu", "scale_embedding": True}),
    "bart-scaled": ("bart", {**_MARIAN, "activation_function": "relu", "scale_embedding": True}),
    "marian-2017": ("marian", {**_MARIAN, "scale_embedding": True, "activation_function": "relu"}),
}

# What opens each head, and the loss that comes with it, in the order of `Head`.
OPENERS = {
    "sequence": transformers.AutoModelForSequenceClassification,
    "token": transformers.AutoModelForTokenClassification,
    "span": transformers.AutoModelForQuestionAnswering,
    "none": transformers.AutoModel,
}
LANGUAGE_OPENERS = {
    "decoder": transformers.AutoModelForCausalLM,
    "encoder": transformers.AutoModelForMaskedLM,
    "encoder_decoder": transformers.AutoModelForSeq2SeqLM,
}


@dataclass(frozen=True)
class Pair:
    """transformers' model, the same in ours, and the object of the config.json that it would save."""

    name: str
    theirs: Any
    ours: Transformer
    settings: dict[str, Any]


def opener_of(config: ModelConfig) -> Any:
    """transformers' Auto class for a model of ours."""
    return OPENERS.get(config.head, LANGUAGE_OPENERS[config.family])


def build_pair(
    name: str, *, seed: int = 0, dtype: torch.dtype = torch.float32, sharp: float = 1.0, head: Head = "language"
) -> Pair:
    """Both models of one of `PAIRS`, in evaluation mode; `sharp` > 1 scales matrices for less even predictions."""
    model_type, options = PAIRS[name]
    family = TABLE[model_type].fixed["family"]
    labels = {"num_labels": 3} if head in ("sequence", "token") else {}
    settings = transformers.AutoConfig.for_model(model_type, **options, **labels)
    theirs = OPENERS.get(head, LANGUAGE_OPENERS[family]).from_config(settings)
    theirs.config.architectures = [type(theirs).__name__]
    randomise(theirs, seed=seed, sharp=sharp)
    for module in theirs.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # heads have one of their own
    if name in ("marian", "bart", "pegasus") and head == "language":
        theirs.final_logits_bias.normal_(generator=torch.Generator().manual_seed(seed))
    theirs = theirs.to(dtype).eval()
    if dtype == torch.float64:
        exact(theirs)
    settings = theirs.config.to_dict()
    # Cloned: `assemble` takes tensors over, and training one model must not train the other.
    tensors = {key: tensor.clone() for key, tensor in theirs.state_dict().items()}
    return Pair(name, theirs, assemble(settings, tensors), settings)


@torch.no_grad()
def randomise(model: nn.Module, *, seed: int, sharp: float = 1.0) -> None:
    """Random values for every parameter: norms around 1, biases around 0, matrices by fan-in."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue  # Marian's sinusoids
        parameter.normal_(generator=generator)
        if parameter.dim() == 1:
            parameter.mul_(0.2).add_(0.0 if name.endswith("bias") else 1.0)
        elif "relative_attention_bias" not in name:
            parameter.mul_(sharp * 0.7 * parameter.shape[-1] ** -0.5)


def exact(model: nn.Module) -> None:
    """Compute in float64 what transformers rounds to float32 in any model: norms and positions."""
    for module in model.modules():
        kind = type(module).__name__
        if kind.endswith(("RMSNorm", "T5LayerNorm")):
            module.forward = types.MethodType(_norm, module)
        elif kind.endswith("RotaryEmbedding"):
            module.forward = types.MethodType(_rotary, module)
        elif kind in ("MarianSinusoidalPositionalEmbedding", "PegasusSinusoidalPositionalEmbedding"):
            count, size = module.weight.shape
            angle = torch.arange(count, dtype=torch.float64)[:, None] / 10000 ** (
                torch.arange(0, size, 2, dtype=torch.float64) / size
            )
            module.weight.data = torch.cat([angle.sin(), angle.cos()], -1)


def _norm(self: Any, hidden_states: Tensor) -> Tensor:
    variance = hidden_states.pow(2).mean(-1, keepdim=True)
    return self.weight * hidden_states * torch.rsqrt(variance + self.variance_epsilon)


def _rotary(self: Any, _: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
    from trivium.hub.family import read_config
    from trivium.model.position import rotary_frequencies

    # The frequencies are checked against theirs in float32; here only their rounding is taken out.
    frequencies, factor = rotary_frequencies(read_config(self.config.to_dict()))
    torch.testing.assert_close(self.inv_freq.double(), frequencies, rtol=1e-6, atol=0)
    angle = position_ids[..., None].double() * frequencies
    angle = torch.cat([angle, angle], -1)
    return angle.cos() * factor, angle.sin() * factor


def random_rows(lengths: list[int], *, seed: int = 0) -> list[list[int]]:
    """Rows of ordinary token ids (no special ones) of the given lengths."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(4, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def their_logits(pair: Pair, inputs: Side, context: Side | None = None) -> Tensor:
    """transformers' logits `(B, T, V)` for our sides."""
    if context is None:
        return pair.theirs(input_ids=inputs.ids, attention_mask=(inputs.segments > 0).long()).logits
    return pair.theirs(
        input_ids=context.ids,
        attention_mask=(context.segments > 0).long(),
        decoder_input_ids=inputs.ids,
        decoder_attention_mask=(inputs.segments > 0).long(),
    ).logits


def our_logits(model: Transformer, inputs: Side, context: Side | None = None) -> Tensor:
    """Our logits `(B, T, V)`."""
    return model.head(model(inputs, context))


def sides(model: Transformer, lengths: list[int] | None = None, *, seed: int = 0) -> tuple[Side, Side | None]:
    """Ragged, padded inputs for a model, with a context of other lengths where it needs one."""
    lengths = lengths or [9, 17, 1, 13]
    inputs = Side.from_ids(random_rows(lengths, seed=seed))
    if model.config.family != "encoder_decoder":
        return inputs, None
    return inputs, Side.from_ids(random_rows([21 - length for length in lengths], seed=seed + 1))
