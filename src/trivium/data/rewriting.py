"""What an encoder–decoder learns from: a piece cut in two, or spans of it hidden and spelled out."""

import numpy as np
from numpy.random import Generator

from trivium.data.batch import Example, Ints
from trivium.data.objective import ObjectiveConfig, Vocabulary
from trivium.data.runs import Bools, changes, compose, frame, run_lengths, split_points, starts_of
from trivium.errors import ConfigError


def prefix_context(ids: Ints, segments: Ints, *, vocabulary: Vocabulary, rng: Generator) -> Example:
    """An encoder reads a uniformly random prefix of each piece and the end token, a decoder writes the rest.

    A piece of one token is left out; a piece keeps its own end token, or gets none where the row cut it.
    """
    lengths = run_lengths(segments)
    keep = np.repeat(lengths > 1, lengths)
    ids, lengths = ids[keep], lengths[lengths > 1]
    cuts = split_points(lengths, rng)
    first = np.arange(len(ids)) - np.repeat(starts_of(lengths), lengths) < np.repeat(cuts, lengths)
    ends = np.full((len(lengths), 1), vocabulary.end_id)
    context, context_segments = frame(ids[first], cuts, after=ends)
    numbers = np.arange(1, len(lengths) + 1)
    return _sequence_to_sequence(context, context_segments, ids[~first], np.repeat(numbers, lengths - cuts), vocabulary)


def span_corruption(
    ids: Ints, segments: Ints, *, config: ObjectiveConfig, vocabulary: Vocabulary, rng: Generator
) -> Example:
    """Sentinels replace random spans of the context, targets spell the spans (Raffel et al. 2020, §3.1.4).

    Each document piece is corrupted on its own and both sides carry its number. Of its `n` tokens `round(0.15
    n)` are noise, in `round(noise / 3)` spans, at least one of each; all such masks that begin with a kept
    token and keep spans apart are equally likely (T5's code has them end with noise as well: a gap would
    always close the text). Targets are `<0> span <1> span … <k>` and the end token: the last sentinel is in
    the paper's figure 2 and not in T5's code. Pieces of fewer than two tokens cannot be corrupted and are
    dropped. Every piece of the context ends with the end token, one that the row cut too.
    """
    keep = ids != vocabulary.end_id
    lengths = run_lengths(segments[keep])
    ids = ids[keep][np.repeat(lengths > 1, lengths)]
    lengths = lengths[lengths > 1]
    noise_sizes, span_counts = noise_counts(lengths, config)
    if len(lengths) and span_counts.max() >= len(vocabulary.sentinel_ids):
        raise ConfigError(
            f"{span_counts.max()} spans in a text and {len(vocabulary.sentinel_ids)} sentinel tokens; "
            "expected one more than spans; train the tokenizer with more sentinels or shorten the rows"
        )
    noise = noise_mask(lengths, noise_sizes, span_counts, rng)
    begins = noise & changes(noise)
    sentinels = np.asarray(vocabulary.sentinel_ids, dtype=np.int64)
    number_in_piece = begins.cumsum() - 1 - np.repeat(starts_of(span_counts), lengths)
    ends = np.full((len(lengths), 1), vocabulary.end_id)
    kept = ~noise | begins
    shown = np.where(begins, sentinels[number_in_piece], ids)[kept]
    context, context_segments = frame(shown, lengths - noise_sizes + span_counts, after=ends)
    # A span's first token is written twice, and the first copy is overwritten by the sentinel.
    source = np.flatnonzero(noise).repeat(1 + begins[noise])
    first_copy = ~changes(source[::-1])[::-1]
    written = np.where(first_copy, sentinels[number_in_piece[source]], ids[source])
    closing = np.concatenate([sentinels[span_counts][:, None], ends], axis=1)
    targets, target_segments = frame(written, noise_sizes + span_counts, after=closing)
    return _sequence_to_sequence(context, context_segments, targets, target_segments, vocabulary)


def noise_counts(lengths: Ints, config: ObjectiveConfig) -> tuple[Ints, Ints]:
    """How many noise tokens and how many spans each text of `lengths` ≥ 2 gets, as T5's code counts them."""
    noise = np.clip(np.rint(lengths * config.noise_density).astype(np.int64), 1, np.maximum(lengths - 1, 1))
    spans = np.maximum(np.rint(noise / config.mean_span).astype(np.int64), 1)
    return noise, np.minimum(spans, np.maximum(lengths - noise, 1))


def noise_mask(lengths: Ints, noise_sizes: Ints, span_counts: Ints, rng: Generator) -> Bools:
    """Which tokens of texts laid end to end are noise: uniform over masks that begin with a kept token."""
    spans = compose(noise_sizes, span_counts, rng)
    # One token too many, in one part more than spans, then taken off the last part: that one may be empty.
    gaps = compose(lengths - noise_sizes + 1, span_counts + 1, rng)
    gaps[np.cumsum(span_counts + 1) - 1] -= 1
    parts = 2 * span_counts + 1
    odd = (np.arange(parts.sum()) - np.repeat(starts_of(parts), parts)) % 2 == 1
    sizes = np.empty(len(odd), dtype=np.int64)
    sizes[odd], sizes[~odd] = spans, gaps
    return np.repeat(odd, sizes)


def raw_length(seq_len: int, config: ObjectiveConfig) -> tuple[int, int]:
    """How many tokens of one text fill a corrupted context of `seq_len`, and the length of its targets.

    T5's `random_spans_helper`, the end token counted on both sides; the targets have one sentinel more, the
    last. Raises `ConfigError` if no text fits.
    """
    lengths = np.arange(2, int((seq_len + 2) / (1 - config.noise_density)) + 3)
    noise, spans = noise_counts(lengths, config)
    fitting = np.flatnonzero(lengths - noise + spans + 1 <= seq_len)
    if not len(fitting):
        raise ConfigError(f"seq_len {seq_len} holds no corrupted text; expected at least 3; raise it")
    return int(lengths[fitting[-1]]), int((noise + spans)[fitting[-1]]) + 2


def _sequence_to_sequence(
    context: Ints, context_segments: Ints, targets: Ints, target_segments: Ints, vocabulary: Vocabulary
) -> Example:
    """The decoder's inputs are its targets one step later, each document beginning with the start token."""
    inputs = np.empty_like(targets)
    inputs[1:] = targets[:-1]
    start = vocabulary.start_id if vocabulary.start_id >= 0 else vocabulary.pad_id
    inputs[changes(target_segments)] = start
    weights = np.ones(len(targets), dtype=np.float32)
    return Example(inputs, target_segments, targets, weights, context, context_segments)
