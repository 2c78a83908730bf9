"""What a model is asked to do with a row of text: pure functions from token ids to one `Example`.

A row is `ids` and `segments` (document pieces numbered from 1, see pack.py). Every document ends with one end
token, which data/shards.py writes; a piece that a row's edge cut off has none. What becomes of it:

| objective | who | a piece `a b c <end>` becomes |
|---|---|---|
| causal | decoder | each position belongs to its target's document, so an end token also opens the next one |
| prefix | decoder | causal, with weight 0 on a random prefix of each piece |
| prefix | encoder–decoder | context `a b <end>`, targets `c <end>` |
| masked | encoder | `[CLS] a b c [SEP]`, as an encoder reads at inference |
| span corruption | encoder–decoder | context `a <0> c <end>`, targets `<0> b <1> <end>` |

All numpy, no loop over tokens; chance comes only from the generator that is passed in, see `example_rng`.
Knows nothing of files, order or batches.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.random import Generator, Philox
from numpy.typing import NDArray

from trivium.data.batch import Example, Ints
from trivium.errors import ConfigError

if TYPE_CHECKING:
    from trivium.tokenizer import Tokenizer

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class ObjectiveConfig:
    """Which objective, and its rates: BERT's 15 % masked, 80/10/10; T5's 15 % noise in spans of 3 on average.

    `with_context` sends prefix-LM's prefix to an encoder. Raises `ConfigError` for rates out of range.
    """

    name: Literal["causal", "masked", "span_corruption", "prefix"] = "causal"
    mask_rate: float = 0.15
    mask_replace: float = 0.8  # of the chosen tokens: become the mask token
    mask_random: float = 0.1  # become a random ordinary token; the rest stay
    whole_word: bool = False
    noise_density: float = 0.15
    mean_span: float = 3.0
    with_context: bool = False

    def __post_init__(self) -> None:
        for name in ("mask_rate", "noise_density"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected a rate between 0 and 1; change it")
        if self.mean_span < 1.0:
            raise ConfigError(f"mean_span is {self.mean_span}; expected at least 1 token; raise it")
        if min(self.mask_replace, self.mask_random) < 0 or self.mask_replace + self.mask_random > 1:
            raise ConfigError(
                f"mask_replace {self.mask_replace} and mask_random {self.mask_random} do not add up; "
                "expected two rates whose sum is at most 1; lower one"
            )

    @property
    def has_context(self) -> bool:
        """Whether examples carry a second side for an encoder beside a decoder."""
        return self.name == "span_corruption" or (self.name == "prefix" and self.with_context)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The ids that objectives need, and two tables over the vocabulary, each `(vocab_size,)` of bool.

    `end_id` closes every document in the shards. `ordinary` is False for special tokens, which are never
    masked and never drawn as a replacement. `word_starts` is True for tokens that begin a word. `start_id`
    begins every decoder sequence of an encoder–decoder (T5: the pad token).
    """

    pad_id: int
    end_id: int
    ordinary: Bools
    word_starts: Bools
    mask_id: int = -1
    cls_id: int = -1
    sep_id: int = -1
    sentinel_ids: tuple[int, ...] = ()
    start_id: int = -1  # -1: the pad token

    @classmethod
    def from_tokenizer(cls, tokenizer: "Tokenizer", *, start_id: int | None = None) -> "Vocabulary":
        """Read the ids off a tokenizer; a kind of token that it lacks is -1 until an objective asks for it.

        The end token is the tokenizer's eos, or its sep where it has none, as in data/shards.py.
        Raises `ConfigError` if it has neither.
        """
        roles = ("pad_id", "bos_id", "eos_id", "unk_id", "mask_id", "cls_id", "sep_id")
        ids = {role: -1 if (found := getattr(tokenizer, role)) is None else int(found) for role in roles}
        end_id = ids["eos_id"] if ids["eos_id"] >= 0 else ids["sep_id"]
        if end_id < 0:
            raise ConfigError("the tokenizer has neither an eos nor a sep token; expected one to end documents; add it")
        ordinary = np.ones(tokenizer.vocab_size, dtype=bool)
        special = [*ids.values(), *tokenizer.sentinel_ids, *tokenizer.control_ids]
        ordinary[[token for token in special if token >= 0]] = False
        return cls(
            pad_id=ids["pad_id"] if ids["pad_id"] >= 0 else end_id,
            end_id=end_id,
            ordinary=ordinary,
            word_starts=tokenizer.word_starts(),
            mask_id=ids["mask_id"],
            cls_id=ids["cls_id"],
            sep_id=ids["sep_id"],
            sentinel_ids=tuple(tokenizer.sentinel_ids),
            start_id=-1 if start_id is None else start_id,
        )

    @cached_property
    def ordinary_ids(self) -> Ints:
        """The ids that a random replacement is drawn from."""
        return np.flatnonzero(self.ordinary)

    def need(self, *roles: str) -> None:
        """Raise `ConfigError` if the tokenizer has no token for one of these roles."""
        for role in roles:
            if getattr(self, role) in (-1, ()):
                raise ConfigError(
                    f"the tokenizer has no token for {role}, which this objective needs; "
                    "train one for this family of model, or choose another objective"
                )


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
    lengths = _runs(example.input_segments)
    cuts = _split_points(lengths, rng)
    offsets = np.arange(len(example.targets)) - np.repeat(_begins(lengths), lengths)
    weights = (offsets >= np.repeat(cuts, lengths)).astype(np.float32)
    return Example(example.input_ids, example.input_segments, example.targets, weights)


def prefix_context(ids: Ints, segments: Ints, *, vocabulary: Vocabulary, rng: Generator) -> Example:
    """An encoder reads a uniformly random prefix of each piece and the end token, a decoder writes the rest.

    A piece of one token is left out; a piece keeps its own end token, or gets none where the row cut it.
    """
    lengths = _runs(segments)
    keep = np.repeat(lengths > 1, lengths)
    ids, lengths = ids[keep], lengths[lengths > 1]
    cuts = _split_points(lengths, rng)
    first = np.arange(len(ids)) - np.repeat(_begins(lengths), lengths) < np.repeat(cuts, lengths)
    ends = np.full((len(lengths), 1), vocabulary.end_id)
    context, context_segments = _frame(ids[first], cuts, after=ends)
    numbers = np.arange(1, len(lengths) + 1)
    return _sequence_to_sequence(context, context_segments, ids[~first], np.repeat(numbers, lengths - cuts), vocabulary)


def masked(ids: Ints, segments: Ints, *, config: ObjectiveConfig, vocabulary: Vocabulary, rng: Generator) -> Example:
    """Masked language modelling (Devlin et al. 2018, §3.1), drawn anew at every call.

    `[CLS]` and `[SEP]` stand round every document piece, since each is a text of its own to the encoder;
    pieces with no token left are dropped. Exactly `round(mask_rate · n)` of the row's `n` ordinary tokens, at
    least one, are chosen; 80 % become the mask token, 10 % a random ordinary token, 10 % stay. With
    `whole_word`, words are chosen in random order, skipping those that would exceed the number, as in BERT's
    whole-word code.
    """
    keep = ids != vocabulary.end_id
    lengths = _runs(segments[keep])
    edge = np.ones((len(lengths), 1), dtype=np.int64)
    targets, segments = _frame(ids[keep], lengths, before=edge * vocabulary.cls_id, after=edge * vocabulary.sep_id)
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
    sizes = _runs(starts.cumsum()[candidates]).tolist()
    number = max(number, min(sizes, default=0))
    taken, total = np.zeros(len(sizes), dtype=bool), 0
    for word in rng.permutation(len(sizes)).tolist():
        if total + sizes[word] <= number:
            taken[word] = True
            total += sizes[word]
    chosen: Ints = candidates[np.repeat(taken, sizes)]
    return chosen


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
    lengths = _runs(segments[keep])
    ids = ids[keep][np.repeat(lengths > 1, lengths)]
    lengths = lengths[lengths > 1]
    noise_sizes, span_counts = noise_counts(lengths, config)
    if len(lengths) and span_counts.max() >= len(vocabulary.sentinel_ids):
        raise ConfigError(
            f"{span_counts.max()} spans in a text and {len(vocabulary.sentinel_ids)} sentinel tokens; "
            "expected one more than spans; train the tokenizer with more sentinels or shorten the rows"
        )
    noise = noise_mask(lengths, noise_sizes, span_counts, rng)
    begins = noise & _changes(noise)
    sentinels = np.asarray(vocabulary.sentinel_ids, dtype=np.int64)
    number_in_piece = begins.cumsum() - 1 - np.repeat(_begins(span_counts), lengths)
    ends = np.full((len(lengths), 1), vocabulary.end_id)
    kept = ~noise | begins
    shown = np.where(begins, sentinels[number_in_piece], ids)[kept]
    context, context_segments = _frame(shown, lengths - noise_sizes + span_counts, after=ends)
    # A span's first token is written twice, and the first copy is overwritten by the sentinel.
    source = np.flatnonzero(noise).repeat(1 + begins[noise])
    first_copy = ~_changes(source[::-1])[::-1]
    written = np.where(first_copy, sentinels[number_in_piece[source]], ids[source])
    closing = np.concatenate([sentinels[span_counts][:, None], ends], axis=1)
    targets, target_segments = _frame(written, noise_sizes + span_counts, after=closing)
    return _sequence_to_sequence(context, context_segments, targets, target_segments, vocabulary)


def noise_counts(lengths: Ints, config: ObjectiveConfig) -> tuple[Ints, Ints]:
    """How many noise tokens and how many spans each text of `lengths` ≥ 2 gets, as T5's code counts them."""
    noise = np.clip(np.rint(lengths * config.noise_density).astype(np.int64), 1, np.maximum(lengths - 1, 1))
    spans = np.maximum(np.rint(noise / config.mean_span).astype(np.int64), 1)
    return noise, np.minimum(spans, np.maximum(lengths - noise, 1))


def noise_mask(lengths: Ints, noise_sizes: Ints, span_counts: Ints, rng: Generator) -> Bools:
    """Which tokens of texts laid end to end are noise: uniform over masks that begin with a kept token."""
    spans = _compose(noise_sizes, span_counts, rng)
    # One token too many, in one part more than spans, then taken off the last part: that one may be empty.
    gaps = _compose(lengths - noise_sizes + 1, span_counts + 1, rng)
    gaps[np.cumsum(span_counts + 1) - 1] -= 1
    parts = 2 * span_counts + 1
    odd = (np.arange(parts.sum()) - np.repeat(_begins(parts), parts)) % 2 == 1
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
    inputs[_changes(target_segments)] = start
    weights = np.ones(len(targets), dtype=np.float32)
    return Example(inputs, target_segments, targets, weights, context, context_segments)


def _frame(ids: Ints, lengths: Ints, *, before: Ints | None = None, after: Ints | None = None) -> tuple[Ints, Ints]:
    """Put fixed tokens `(pieces, k)` round each piece; the new ids and their segments, numbered from 1."""
    nothing = np.empty((len(lengths), 0), dtype=np.int64)
    before, after = nothing if before is None else before, nothing if after is None else after
    full = lengths + before.shape[1] + after.shape[1]
    out = np.empty(full.sum(), dtype=np.int64)
    begins, ends = _begins(full), full.cumsum()
    out[np.arange(len(ids)) + np.repeat(begins + before.shape[1] - _begins(lengths), lengths)] = ids
    out[begins[:, None] + np.arange(before.shape[1])] = before
    out[ends[:, None] - after.shape[1] + np.arange(after.shape[1])] = after
    return out, np.repeat(np.arange(1, len(lengths) + 1), full)


def _compose(totals: Ints, parts: Ints, rng: Generator) -> Ints:
    """Cut each total into so many positive parts, all ways equally likely; the sizes laid end to end."""
    group = np.repeat(np.arange(len(totals)), totals)
    begins = _begins(totals)
    keys = rng.random(len(group))
    keys[begins] = -1.0  # a group's first item always begins a part
    rank = np.arange(len(group)) - np.repeat(begins, totals)
    opens = np.zeros(len(group), dtype=bool)
    opens[np.lexsort((keys, group))] = rank < np.repeat(parts, totals)
    return _sizes(opens)


def _split_points(lengths: Ints, rng: Generator) -> Ints:
    """For each length a uniform size from 1 to length − 1 of its first part; 0 where nothing can be split."""
    return np.where(lengths > 1, rng.integers(1, np.maximum(lengths, 2)), 0)


def _runs(segments: Ints) -> Ints:
    """The lengths of runs of equal numbers."""
    return _sizes(_changes(segments))


def _changes(numbers: Ints | Bools) -> Bools:
    """Where a number differs from the one before it, the first place included."""
    changes = np.ones(len(numbers), dtype=bool)
    np.not_equal(numbers[1:], numbers[:-1], out=changes[1:])
    return changes


def _sizes(opens: Bools) -> Ints:
    """The sizes of the parts that open at the marked places, the first place among them."""
    # np.diff with values for the ends is three times slower at such lengths: it was a fourth of the time.
    bounds = np.flatnonzero(opens)
    sizes = np.empty_like(bounds)
    sizes[:-1] = bounds[1:] - bounds[:-1]
    sizes[-1:] = len(opens) - bounds[-1:]
    return sizes


def _begins(lengths: Ints) -> Ints:
    """Where each piece begins when pieces of these lengths are laid end to end."""
    return lengths.cumsum() - lengths
