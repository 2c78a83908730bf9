"""What a decoder learns from: each next token of a row, or those after a random prefix."""

import numpy as np
from numpy.random import Generator

from trivium.data.batch import Example, Ints
from trivium.data.runs import run_lengths, split_points, starts_of


def causal(ids: Ints, segments: Ints) -> Example:
    """Predict each next token (Bengio et al. 2003, Radford et al. 2018): `n` tokens give `n - 1` positions.

    A position belongs to the document of its *target*: the end token of one document is the first input of
    the next, as in GPT-2, so no position is wasted and a model can begin from the end token alone. The first
    document of a row, and a piece of one that the row before it left over, begin without it.
    """
    weights = np.ones(max(len(ids) - 1, 0), dtype=np.float32)
    return Example(ids[:-1], segments[1:], ids[1:], weights)


def prefix(ids: Ints, segments: Ints, *, rng: Generator) -> Example:
    """Causal, but nothing is learned on a random prefix of each piece (Raffel et al. 2020, §3.2.1).

    The decoder stays causal over the prefix, which has at least one target; a piece of one target has no
    prefix.
    """
    example = causal(ids, segments)
    lengths = run_lengths(example.input_segments)
    cuts = split_points(lengths, rng)
    offsets = np.arange(len(example.targets)) - np.repeat(starts_of(lengths), lengths)
    weights = (offsets >= np.repeat(cuts, lengths)).astype(np.float32)
    return Example(example.input_ids, example.input_segments, example.targets, weights)
