"""What a small model is given to begin with: how often tokens occur, what follows what, and where to look.

In a budget of minutes a model spends most of its time on finding these out. They are written into ordinary weights
right after initialisation, and training may change all of them. Knows tokens only as rows of a table.

Legend: V vocabulary, D hidden size, R rank.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from trivium.errors import ConfigError
from trivium.model.transformer import Block, Transformer

COPY_MATCH, COPY_STRENGTH = 8.0, 9.0  # logits of one matching token in attention, of the copied one in the head


@torch.no_grad()
def set_unigram_start(model: Transformer, log_frequencies: Tensor) -> None:
    """Make the untrained model predict each token by its frequency, `(vocab_size,)` of log probabilities.

    With a head bias it is the bias. An untied head without one keeps the log frequencies along axis 0, which is
    constant in every embedding, as strong as a token's whole content; built with `zero_outputs`, the blocks leave it
    there. Raises `ConfigError` if the frequencies do not fit, or the head is tied and has no bias to put them in.
    """
    config, head = model.config, model.head
    if log_frequencies.shape != (config.vocab_size,):
        raise ConfigError(
            f"{tuple(log_frequencies.shape)} log frequencies for a vocabulary of {config.vocab_size}; "
            "expected one per token; count them over the training tokens with the same tokenizer"
        )
    if head.bias is not None:
        head.bias.copy_(log_frequencies)
        return
    if head.weight is None:
        raise ConfigError("a tied head without bias cannot hold token frequencies; untie it or set unigram_start=false")
    tokens = model.embedding.tokens.weight
    tokens[:, 0] = tokens[:, 1:].std() * config.hidden_size**0.5
    head.weight.zero_()
    head.weight[:, 0] = (log_frequencies - log_frequencies.mean()) / _constant(model).mean()


@torch.no_grad()
def set_bigram_start(model: Transformer, left_VR: Tensor, right_VR: Tensor) -> None:
    """Let the current token speak for the next one: add `left[current] · right[next]` to the logits at the start.

    The factors are those of log P(next | current) / P(next), whose factorisation is what word embeddings learn (Levy
    and Goldberg 2014). They fill the content axes of embedding and head; call after `set_unigram_start`, on a model
    with an untied head built with `zero_outputs`. Rank beyond the content axes is cut.
    """
    assert model.head.weight is not None
    tokens, head = model.embedding.tokens.weight, model.head.weight
    content = content_axes(model)
    rank = min(left_VR.shape[1], content.stop - content.start)
    axes = slice(content.start, content.start + rank)
    known = left_VR.abs().sum(1) > 0
    before = _constant(model).mean()
    size = tokens[:, content].std()
    left = left_VR[:, :rank] * (size / left_VR[known, :rank].std())
    tokens[known, content] = 0.0
    tokens[known, axes] = left[known]
    # The constant is made to outweigh the content, so that the norm divides every token by nearly the same.
    tokens[:, 0] = 2 * tokens[:, content].norm(dim=1).mean()
    head[:, 0] *= before / _constant(model).mean()
    normed = F.rms_norm(tokens, (model.config.hidden_size,), eps=model.config.norm_epsilon)[:, axes]
    gain = (normed[known] * left_VR[known, :rank]).sum() / left_VR[known, :rank].square().sum()
    head[:, axes] = right_VR[:, :rank] / gain


def content_axes(model: Transformer) -> slice:
    """The axes of the residual stream that are a token's own: not the constant, nor what `set_gap_start` reserves."""
    config = model.config
    reserved = 2 * config.head_size if config.family == "encoder_decoder" and has_gap_start(model) else 0
    return slice(2 if reserved else 1, config.hidden_size - reserved)


def has_gap_start(model: Transformer) -> bool:
    """Whether this model is large enough for `set_gap_start`: four heads, and as wide as they are together."""
    return model.config.num_heads >= 4 and model.config.hidden_size >= 4 * model.config.head_size


def _constant(model: Transformer) -> Tensor:
    """What the last norm makes of axis 0 when the blocks add nothing, for each token."""
    size = model.config.hidden_size
    return F.rms_norm(model.embedding.tokens.weight, (size,), eps=model.config.norm_epsilon)[:, 0]


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
    if not has_gap_start(model):
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


@torch.no_grad()
def set_left_start(model: Transformer) -> None:
    """Let the token before a gap speak for the gap's first token, as `set_bigram_start` lets each for the next.

    One head of the last cross-attention finds, by the code of the sentinel that was just written, the place before it
    and carries the first content axes, which hold most of the bigrams, into the same axes here. Call after both other
    starts; a model too small for `set_gap_start` is left alone.
    """
    assert model.decoder is not None
    if not has_gap_start(model):
        return
    size, content = model.config.head_size, content_axes(model)
    cross = cast(Block, model.decoder.layers[-1]).cross_attention
    assert cross is not None
    rows, axes = slice(3 * size, 4 * size), slice(content.start, content.start + size)
    # The code of what stands here, not of the last sentinel: within a gap its own tokens speak. Sharp: 0.85 · 2.
    cross.query.weight[rows] = 1.7 * cast(Block, model.decoder.layers[0]).attention.value.weight[:size]
    cross.value.weight[rows] = 0.0
    cross.value.weight[rows, axes] = torch.eye(size, device=cross.value.weight.device)
    cross.output.weight[:, rows] = 0.0
    # The encoder's last norm made every token's root mean square 1; the stream here is not normed yet.
    scale = model.embedding.tokens.weight.square().mean(1).sqrt().median()
    cross.output.weight[axes, rows] = scale * torch.eye(size, device=scale.device)


@torch.no_grad()
def set_copy_start(model: Transformer, log_frequencies: Tensor, *, seed: int = 0) -> None:
    """Begin a T5-type encoder–decoder with a circuit that copies from what it reads.

    Finding out that a summary repeats its source takes a small model hours; induction heads (Olsson et al. 2022) are
    written down in a minute. The residual stream has two parts of one head's size: a token's own random code, and the
    code of what stood before it. In the encoder two heads fill the second part from one and from two places back. In
    the decoder the own code and, turned alike, the one before it are the query of the first cross-attention, which so
    finds where these two tokens stand in the source and carries the code of the next one into the second part, which
    the head reads. Frequencies lie along axis 0 as in `set_unigram_start`, `(vocab_size,)` of log probabilities.
    Training may change all of it. Raises `ConfigError` for a model with less than two heads, not as wide as three of
    them, or with a tied head.
    """
    config, size, width = model.config, model.config.head_size, model.config.hidden_size
    tokens, head = model.embedding.tokens.weight, model.head.weight
    if model.encoder is None or model.decoder is None or head is None or config.position != "relative":
        raise ConfigError(
            "copy_start needs a T5-type encoder–decoder with an untied head; "
            f"found family {config.family} with {config.position} positions; set copy_start=false"
        )
    if config.num_heads < 2 or width < 3 * size:
        raise ConfigError(
            f"copy_start needs two heads and a width of at least three heads; found {config.num_heads} heads of {size} "
            f"in width {width}; choose another size or set copy_start=false"
        )
    assert model.encoder.relative_bias is not None and model.decoder.relative_bias is not None
    own, before = slice(width - 2 * size, width - size), slice(width - size, width)
    generator = torch.Generator().manual_seed(seed + 3)

    def draw_codes(columns: int) -> Tensor:
        return F.normalize(torch.randn(config.vocab_size, columns, generator=generator), dim=1).to(tokens.device)

    code, eye = draw_codes(size), torch.eye(size, device=tokens.device)
    # Rows as long as T5's, so that steps of the usual rate move them little. Squared lengths of the parts, in units
    # of one code: content 1, own 1, constant ½; two places back weigh half.
    unit, constant, pair = (width / 1.5) ** 0.5, 0.7, 0.7
    tokens.zero_()
    tokens[:, own] = unit * code
    tokens[:, 1 : own.start] = unit * draw_codes(own.start - 1)
    tokens[:, 0] = unit * constant

    def read(part: slice) -> Tensor:
        reading = torch.zeros(size, width, device=tokens.device)
        reading[:, part] = eye
        return reading

    def grow(parts: float) -> float:
        """What a norm multiplies a stream by that is so long."""
        return float(width**0.5 / (unit * parts**0.5))

    turn = torch.linalg.qr(torch.randn(size, size, generator=generator))[0].to(tokens.device)
    both, back = model.encoder.relative_bias.weight, model.decoder.relative_bias.weight
    both.zero_()
    back.zero_()
    both[1, 0], both[2, 1], back[1, 0] = 10.0, 10.0, 10.0
    first, writer = cast(Block, model.encoder.layers[0]).attention, cast(Block, model.decoder.layers[0]).attention
    for attention, number, part, change in ((first, 0, before, eye), (first, 1, before, turn), (writer, 0, own, turn)):
        rows = slice(number * size, (number + 1) * size)
        attention.query.weight[rows] = 0.0
        attention.key.weight[rows] = 0.0
        attention.value.weight[rows] = read(own)
        weight = (1.0 if change is eye else pair) / grow(2.5)
        attention.output.weight[:, rows] = weight * (read(part).T @ change)
    source, query = grow(4.0), grow(3.0)
    sharpness = (COPY_MATCH / (source * query * unit**2)) ** 0.5
    for number, block in enumerate(model.decoder.layers):
        cross = cast(Block, block).cross_attention
        assert cross is not None
        cross.value.weight[:size] = read(own)
        cross.output.weight[:, :size] = 2.0 / source * read(before).T
        if number == 0:
            cross.query.weight[:size] = sharpness * read(own)
            cross.key.weight[:size] = sharpness * read(before)
    last = grow(7.0)
    head.zero_()
    head[:, before] = code * COPY_STRENGTH / (2.0 * unit * last)
    head[:, 0] = (log_frequencies - log_frequencies.mean()) / (unit * constant * last)


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
