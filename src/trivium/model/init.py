"""How weights begin: every rule in one function, with its source.

| architecture | embeddings | matrices | outputs of residual branches | source |
|---|---|---|---|---|
| relative positions (T5) | 1 | fan-in^-½, queries × head_size^-½ | fan-in^-½ | Raffel et al. 2020, Mesh TensorFlow |
| sinusoidal (2017) | D^-½ | Xavier uniform | Xavier uniform | Vaswani et al. 2017, Glorot and Bengio 2010 |
| LayerNorm (GPT-2, BERT) | 0.02 | 0.02 | 0.02 / √(2 layers) for a decoder | Radford et al. 2019, Devlin et al. 2018 |
| RMSNorm + RoPE (modern) | 1 / √D | fan-in^-½ | 0 with `zero_outputs`, else fan-in^-½ / √(2 layers) | nanoGPT speedruns |

Norms begin at 1, biases at 0. Numbers are standard deviations of a normal distribution unless said otherwise.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivium.errors import ConfigError
from trivium.model.config import ModelConfig
from trivium.model.layer import FeedForward
from trivium.model.transformer import Block, Transformer

RESIDUAL_OUTPUTS = ("attention.output.weight", "ffn.down.weight")


def build_model(
    config: ModelConfig,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    zero_outputs: bool = False,
) -> Transformer:
    """A model with fresh weights: built on the meta device, materialised once in place, then initialised."""
    with torch.device("meta"):
        model = Transformer(config)
    model = model.to(dtype).to_empty(device=device)
    initialize(model, seed=seed, zero_outputs=zero_outputs)
    return model


@torch.no_grad()
def initialize(model: Transformer, *, seed: int = 0, zero_outputs: bool = False) -> None:
    """Fill every parameter by the table above; equal seeds give equal weights on equal devices.

    `zero_outputs` starts every residual branch at 0, so that the untrained model is its embedding and its head
    (what `set_unigram_start` relies on).
    """
    generator = torch.Generator(device=next(model.parameters()).device).manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif parameter.dim() == 1:
            parameter.fill_(1.0)
        elif zero_outputs and name.endswith(RESIDUAL_OUTPUTS):
            parameter.zero_()
        elif model.config.position == "sinusoidal" and not name.startswith("embedding."):
            nn.init.xavier_uniform_(parameter, generator=generator)
        else:
            parameter.normal_(0.0, _deviation(name, parameter, model.config), generator=generator)


def _deviation(name: str, parameter: Tensor, config: ModelConfig) -> float:
    fan_in = float(parameter.shape[1] ** -0.5)
    depth = float((2 * config.num_layers) ** -0.5) if config.family == "decoder" else 1.0
    if config.position == "relative":
        if name.startswith(("embedding.", "head.")):
            return 1.0
        return fan_in * float(config.head_size**-0.5 if "query" in name else 1.0)
    if config.position == "sinusoidal":
        return float(config.hidden_size**-0.5)
    residual = depth if name.endswith(RESIDUAL_OUTPUTS) else 1.0
    return (0.02 if config.norm == "layer" else fan_in) * residual


@torch.no_grad()
def set_unigram_start(model: Transformer, log_frequencies: Tensor) -> None:
    """Make the untrained model predict each token by its frequency, `(vocab_size,)` of log probabilities.

    With a head bias it is the bias. Without one, two directions of the residual stream are reserved: the first is
    constant in every embedding; an untied head keeps the log frequencies along it. A tied head cannot (its row is
    also the embedding), so there the log frequencies lie along the second direction, into which the last
    feed-forward block writes a constant that it reads from the first. Training may change all of it.
    Raises `ConfigError` if the frequencies do not fit the vocabulary.
    """
    if log_frequencies.shape != (model.config.vocab_size,):
        raise ConfigError(
            f"{tuple(log_frequencies.shape)} log frequencies for a vocabulary of {model.config.vocab_size}; "
            "expected one per token; count them over the training tokens with the same tokenizer"
        )
    if model.head.bias is not None:
        model.head.bias.copy_(log_frequencies)
        return
    scores_V = (log_frequencies - log_frequencies.mean()).to(model.head.vocabulary.dtype)
    if model.config.tie_embeddings:
        _start_tied(model, scores_V)
    else:
        _start_untied(model, scores_V)


def _start_untied(model: Transformer, scores_V: Tensor) -> None:
    """Axis 0 carries a constant as strong as a token's whole content; the head reads only that axis at first."""
    tokens, head = model.embedding.tokens.weight, model.head.vocabulary
    size = model.config.hidden_size
    tokens[:, 0] = tokens[:, 1:].std() * size**0.5
    after_norm = F.rms_norm(tokens, (size,), eps=model.config.norm_epsilon)[:, 0].mean()
    head.zero_()
    head[:, 0] = scores_V / after_norm


def _start_tied(model: Transformer, scores_V: Tensor) -> None:
    """Axis 0 is constant in every row, axis 1 holds the scores; the last block turns the first into the second.

    The content starts small (0.3) and the written constant large (20), so that the current token neither
    predicts itself nor disturbs the constant. Blocks are blind to axis 1 at first.
    """
    assert model.decoder is not None and model.decoder.norm is not None
    config, tokens = model.config, model.embedding.tokens.weight
    content, written = 0.3, 20.0
    tokens *= content / tokens.std()
    tokens[:, 0] = content * config.hidden_size**0.5
    size = (2 * config.hidden_size * content**2 + written**2) ** 0.5
    tokens[:, 1] = scores_V * size / written / (model.head.scale * config.hidden_size**0.5)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight") and ".layers." in name and parameter.shape == (config.hidden_size,):
            parameter[1] = 0.0
    ffn = cast(FeedForward, model.decoder.layers[-1].ffn)
    unit_D = torch.zeros_like(tokens[0])
    unit_D[0] = 1.0
    for linear in (ffn.up, ffn.gate):
        if linear is not None:
            linear.weight[0] = unit_D
    seen = F.rms_norm(tokens, (config.hidden_size,), eps=config.norm_epsilon)[:, 0].mean()
    answer = ffn.activation(seen) * (seen if ffn.gate is not None else 1.0)
    ffn.down.weight[:, 0] = 0.0
    ffn.down.weight[1, 0] = written / answer


@torch.no_grad()
def set_copy_start(model: Transformer, *, seed: int = 0, nearness: float = 4.0, match: float = 0.56) -> None:
    """Begin a T5-type encoder–decoder with attention that already looks where text is usually found.

    Heads of both stacks prefer the neighbour before, the one after, or both (relative biases of `nearness`), and
    cross-attention begins with equal query and key maps, so that a decoder's sentinel finds the encoder's: what
    Trockman and Kolter (2023) call mimetic initialisation. Training may change all of it.
    """
    assert model.encoder is not None and model.decoder is not None
    assert model.encoder.relative_bias is not None and model.decoder.relative_bias is not None
    heads, half = model.config.num_heads, model.config.relative_buckets // 2
    # Bucket n is n steps back; a bidirectional stack keeps n steps ahead at half + n.
    for table, buckets in (
        (model.encoder.relative_bias.weight, (1, half + 1, 2, half + 2)),
        (model.decoder.relative_bias.weight, (1, 2)),
    ):
        table.zero_()
        for number, bucket in enumerate(buckets):
            table[bucket, number % heads] = nearness
    generator = torch.Generator(device=model.embedding.tokens.weight.device).manual_seed(seed + 1)
    for block in model.decoder.layers:
        cross = cast(Block, block).cross_attention
        assert cross is not None
        cross.query.weight.normal_(0.0, match * model.config.hidden_size**-0.5, generator=generator)
        if cross.key.weight.shape == cross.query.weight.shape:
            cross.key.weight.copy_(cross.query.weight)


@torch.no_grad()
def set_neighbour_start(model: Transformer, *, seed: int = 0, sharpness: float = 1.2) -> None:
    """Begin a BERT-type encoder with heads that look at the neighbours of a token.

    Learned positions say nothing of nearness at first, and a small encoder spends its first thousands of steps on
    finding that out. Here the first `head_size` dimensions of the stream hold waves of the position, and the heads of
    every block turn them by −1, +1, −2, +2 … places, so that each query meets the key at that distance (as sinusoids
    allow, Vaswani et al. 2017, §3.5). Tokens keep the other dimensions. Training may change all of it.
    """
    assert model.encoder is not None and model.embedding.positions is not None
    config, size = model.config, model.config.head_size
    generator = torch.Generator(device=model.embedding.tokens.weight.device).manual_seed(seed + 2)
    waves = torch.rand(size // 2, generator=generator).sort().values * torch.pi
    angle = torch.arange(config.max_positions)[:, None] * waves
    tokens, positions = model.embedding.tokens.weight, model.embedding.positions.weight
    width = config.hidden_size
    tokens.normal_(0.0, (width - size) ** -0.5, generator=generator)
    tokens[:, :size] = 0.0
    positions.zero_()
    positions[:, :size] = torch.cat([angle.cos(), angle.sin()], dim=1) * (2 / size) ** 0.5
    for block in model.encoder.layers:
        attention = cast(Block, block).attention
        for head in range(config.num_heads):
            offset = (head // 2 + 1) * (1 if head % 2 else -1)
            cosine, sine = torch.diag((waves * offset).cos()), torch.diag((waves * offset).sin())
            turn = torch.cat([torch.cat([cosine, -sine], 1), torch.cat([sine, cosine], 1)], 0)
            rows = slice(head * size, (head + 1) * size)
            for linear, value in ((attention.query, turn), (attention.key, torch.eye(size))):
                linear.weight[rows] = 0.0
                linear.weight[rows, :size] = value * sharpness
        attention.value.weight.normal_(0.0, width**-0.5, generator=generator)
