"""Other names in the same sentence: an augmentation that teaches to copy instead of to remember.

Of the tokens that source and target of an example share, some are replaced, alike on both sides, by tokens that others
share. Who has read “an image viewer for dogs” and “an image viewer for Prolog” cannot answer by heart what a package is
for; it has to look. A few tokens of the source alone change too, or what changed would show where to look: this is for
answers that repeat their source, not for translations. A form of the data recombination of Jia and Liang (2016) without
a grammar. Knows tokens only as numbers.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trivium.data.batch import Example, Ints

COMMON = 0.02  # the share of sources beyond which a token is a word of the language and stays what it is
SHARED, OTHER = 0.7, 0.2  # how many of the rare tokens that both sides have, and that only the source has, change


class Swapper:
    """Swaps tokens in a share of the examples, by a generator that the caller gives.

    The pool of replacements is what rare tokens the two sides of an example share, as often as they do. Rare is what is
    rare in each of the `sets` that has it: what stands before all sources of a small one is no name. Tokens of equal
    `kinds`, `(vocab_size,)`, take each other's place, such as word starts that of word starts; those of kind 0 stay.
    """

    def __init__(self, sets: Sequence[Sequence[Example]], kinds: Ints, *, share: float) -> None:
        self.share = share
        self.rare = kinds > 0
        for examples in sets:
            counts = np.zeros(len(kinds), dtype=np.int64)
            for example in examples:
                counts[np.unique(source_of(example))] += 1
            self.rare &= counts <= max(COMMON * len(examples), 1.0)
        shared = [np.intersect1d(source_of(each), _target_of(each)) for examples in sets for each in examples]
        pool = np.concatenate([each[self.rare[each]] for each in shared]) if shared else np.zeros(0, dtype=np.int64)
        self.kinds = kinds
        self.pools = {int(kind): pool[kinds[pool] == kind] for kind in np.unique(kinds)}

    def swap(self, example: Example, rng: np.random.Generator) -> Example:
        """The example, or one with other tokens in the same places."""
        if rng.random() >= self.share:
            return example
        source, target = source_of(example), _target_of(example)
        table = np.arange(len(self.kinds))
        for token in np.unique(source[self.rare[source]]):
            pool = self.pools[int(self.kinds[token])]
            if len(pool) and rng.random() < (SHARED if token in target else OTHER):
                table[token] = pool[rng.integers(len(pool))]
        context = example.context_ids
        return replace(
            example,
            input_ids=table[example.input_ids],
            targets=table[example.targets],
            context_ids=None if context is None else table[context],
        )


def source_of(example: Example) -> Ints:
    """What is read: the encoder's side, or of a decoder's row what it does not learn."""
    return example.input_ids[example.weights == 0] if example.context_ids is None else example.context_ids


def _target_of(example: Example) -> Ints:
    return example.targets[example.weights > 0]
