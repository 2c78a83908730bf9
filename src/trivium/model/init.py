"""How weights begin: every rule in one function, with its source.

| architecture | embeddings | matrices | outputs of residual branches | source |
|---|---|---|---|---|
| relative positions (T5) | 1 | fan-in^-½, queries × head_size^-½ | fan-in^-½ | Raffel et al. 2020, Mesh TensorFlow |
| sinusoidal (2017) | D^-½ | Xavier uniform | Xavier uniform | Vaswani et al. 2017, Glorot and Bengio 2010 |
| LayerNorm (GPT-2, BERT) | 0.02 | 0.02 | 0.02 / √(2 layers) in decoders | Radford et al. 2019, Devlin et al. 2018 |
| RMSNorm + RoPE (modern) | 1 / √D | fan-in^-½ | 0 if `zero_outputs`, else fan-in^-½ / √(2 layers) | nanoGPT speedruns |

Norms begin at 1, biases at 0. Numbers are standard deviations of a normal distribution unless said otherwise.
"""

from collections.abc import Sequence
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
def set_gap_start(model: Transformer, sentinels: Sequence[int], *, seed: int = 0) -> None:
    """Begin a T5-type encoder–decoder with attention that already finds the gap it is asked about.

    A small model spends its first hours on discovering where to look; here the look is given and what to make of it is
    learned. The residual stream has a content part and two parts of one head's size. In the encoder each place
    receives the codes of its two neighbours, one in either part. In the decoder each place receives the code of the
    last sentinel, and cross-attention meets with it the sentinel's own place, the place after and the place before
    (`sentinels` are the ids; a model with less than four heads, or narrower than four of them, is left alone).
    Codes are random projections; outputs of cross-attention begin at 0. Training may change all of it.
    """
    assert model.encoder is not None and model.decoder is not None
    config, tokens = model.config, model.embedding.tokens.weight
    size, width = config.head_size, config.hidden_size
    if config.num_heads < 4 or width < 4 * size:
        return
    content, after, before = slice(2, width - 2 * size), slice(-2 * size, -size), slice(-size, width)
    generator = torch.Generator(device=tokens.device).manual_seed(seed + 1)
    # Small embeddings, since every reader normalises them and small ones learn faster at the same rate.
    scale = width**-0.5
    tokens *= scale
    tokens[:, -2 * size :] = 0.0
    tokens[:, 0] = tokens[:, 1:].std() * width**0.5  # a constant, for queries that ask the same everywhere
    tokens[:, 1] = 0.0
    tokens[list(sentinels), 1] = 3.0 * scale
    code = torch.zeros(size, width, device=tokens.device)
    inside = torch.randn(size, width - 2 * size - 2, generator=generator, device=tokens.device)
    code[:, content] = inside / inside.shape[1] ** 0.5

    def read(part: slice) -> Tensor:
        reading = torch.zeros(size, width, device=tokens.device)
        reading[:, part] = torch.eye(size, device=tokens.device)
        return reading

    first = cast(Block, model.encoder.layers[0]).attention
    _look_nearby(model)
    for head, part in ((0, before), (1, after)):
        rows = slice(head * size, (head + 1) * size)
        first.query.weight[rows] = 0.0
        first.value.weight[rows] = code
        first.output.weight[:, rows] = scale * read(part).T
    carrier = cast(Block, model.decoder.layers[0]).attention
    for linear, axis, strength in ((carrier.query, 0, 0.8), (carrier.key, 1, 0.8)):
        linear.weight[:size] = 0.0
        linear.weight[0, axis] = strength
    carrier.value.weight[:size] = code
    carrier.output.weight[:, :size] = scale * read(before).T
    for block in model.decoder.layers:
        cross = cast(Block, block).cross_attention
        assert cross is not None
        for head, place in enumerate((code, code, read(before), read(after))):
            rows = slice(head * size, (head + 1) * size)
            cross.query.weight[rows] = 0.85 * read(before)
            cross.key.weight[rows] = 0.85 * place


def _look_nearby(model: Transformer) -> None:
    """Relative biases: the encoder's heads see the neighbours, the decoder's first head what is recent."""
    assert model.encoder is not None and model.decoder is not None
    assert model.encoder.relative_bias is not None and model.decoder.relative_bias is not None
    half = model.config.relative_buckets // 2
    both, back = model.encoder.relative_bias.weight, model.decoder.relative_bias.weight
    both.zero_()
    back.zero_()
    # Bucket n is n steps back; a bidirectional stack keeps n steps ahead at half + n.
    for head, (bucket, strength) in enumerate(((1, 10.0), (half + 1, 10.0), (2, 4.0), (half + 2, 4.0))):
        both[bucket, head] = strength
    back[:, 0] = -torch.arange(len(back), dtype=back.dtype)
    back[1, 1], back[2, 2] = 4.0, 4.0


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
