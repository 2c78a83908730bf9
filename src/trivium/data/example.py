"""One packed row under its objective, with chance that depends on (seed, epoch, row) alone."""

from numpy.random import Generator, Philox

from trivium.data.batch import Example, Ints
from trivium.data.continuation import causal, prefix
from trivium.data.masking import masked
from trivium.data.objective import ObjectiveConfig, Vocabulary
from trivium.data.rewriting import prefix_context, span_corruption


def example_rng(seed: int, epoch: int, index: int) -> Generator:
    """Each example's own generator: Philox, which counts (Salmon et al. 2011) and so has nothing to store."""
    mask = (1 << 64) - 1
    return Generator(Philox(key=[seed & mask, 0x7472697669756D], counter=[0, 0, index & mask, epoch & mask]))


def make_example(
    ids: Ints, segments: Ints, *, config: ObjectiveConfig, vocabulary: Vocabulary, rng: Generator
) -> Example:
    """Apply the configured objective to one packed row, two arrays `(n,)`."""
    if config.name == "causal":
        return causal(ids, segments)
    if config.name == "masked":
        return masked(ids, segments, config=config, vocabulary=vocabulary, rng=rng)
    if config.name == "span_corruption":
        return span_corruption(ids, segments, config=config, vocabulary=vocabulary, rng=rng)
    if config.with_context:
        return prefix_context(ids, segments, vocabulary=vocabulary, rng=rng)
    return prefix(ids, segments, rng=rng)
