"""What an encoder learns from: a row with some of its tokens or words hidden."""

import numpy as np
from numpy.random import Generator

from trivium.data.batch import Example, Ints
from trivium.data.objective import ObjectiveConfig, Vocabulary
from trivium.data.runs import frame, run_lengths


def masked(ids: Ints, segments: Ints, *, config: ObjectiveConfig, vocabulary: Vocabulary, rng: Generator) -> Example:
    """Masked language modelling (Devlin et al. 2018, §3.1), drawn anew at every call.

    `[CLS]` and `[SEP]` stand round every document piece, since each is a text of its own to the encoder;
    pieces with no token left are dropped. Exactly `round(mask_rate · n)` of the row's `n` ordinary tokens, at
    least one, are chosen; 80 % become the mask token, 10 % a random ordinary token, 10 % stay. With
    `whole_word`, words are chosen in random order, skipping those that would exceed the number, as in BERT's
    whole-word code.
    """
    keep = ids != vocabulary.end_id
    lengths = run_lengths(segments[keep])
    edge = np.ones((len(lengths), 1), dtype=np.int64)
    targets, segments = frame(ids[keep], lengths, before=edge * vocabulary.cls_id, after=edge * vocabulary.sep_id)
    candidates = np.flatnonzero(vocabulary.ordinary[targets])
    number = min(max(round(config.mask_rate * len(candidates)), 1), len(candidates))
    if config.whole_word:
        chosen = _choose_words(targets, candidates, number, vocabulary=vocabulary, rng=rng)
    else:
        chosen = rng.permutation(candidates)[:number]
    inputs, weights = targets.copy(), np.zeros(len(targets), dtype=np.float32)
    weights[chosen] = 1.0
    draw = rng.random(len(chosen))
    inputs[chosen[draw < config.mask_replace]] = vocabulary.mask_id
    swapped = chosen[(draw >= config.mask_replace) & (draw < config.mask_replace + config.mask_random)]
    inputs[swapped] = rng.choice(vocabulary.ordinary_ids, len(swapped))
    return Example(inputs, segments, targets, weights)


def _choose_words(ids: Ints, candidates: Ints, number: int, *, vocabulary: Vocabulary, rng: Generator) -> Ints:
    """Positions of whole words, `number` tokens or as few less as random order allows; at least one word."""
    ordinary = vocabulary.ordinary[ids]
    starts = vocabulary.word_starts[ids] | ~ordinary
    starts[1:] |= ~ordinary[:-1]
    sizes = run_lengths(starts.cumsum()[candidates]).tolist()
    number = max(number, min(sizes, default=0))
    taken, total = np.zeros(len(sizes), dtype=bool), 0
    for word in rng.permutation(len(sizes)).tolist():
        if total + sizes[word] <= number:
            taken[word] = True
            total += sizes[word]
    chosen: Ints = candidates[np.repeat(taken, sizes)]
    return chosen
