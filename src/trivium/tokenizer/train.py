"""Learning a vocabulary from text, in bounded memory, the same file every time.

Trainers hold every distinct word of what they are given, and text without spaces is all distinct words. Here they
are given a uniform sample of at most `sample_bytes` (as in reservoir sampling, Vitter 1985), in pieces of at most
4,096 characters: 10 GB of input is read once, as a stream, and never held. What the trainer then needs for each
byte of the sample was measured: 4 bytes for English, 100 for Chinese without a space (2 GB at the default).

Of the library's trainers only BPE's is used. Its WordPiece and Unigram trainers number and prune in the order of a
randomly seeded hash table, so each run gives another file; its Unigram also spells worse (3.21 bytes a token where
ours has 3.71 and BPE 3.66: 2 MB of Python documentation, 4,096 tokens). Knows nothing of files or models.
"""

import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Literal

import numpy as np
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

from trivium.errors import ConfigError, DataError
from trivium.tokenizer.splitter import QWEN2_WORDS, split_words
from trivium.tokenizer.tokenizer import Tokenizer

Kind = Literal["bpe", "wordpiece", "unigram"]
PIECE_CHARACTERS = 4096
PIECE_OVERHEAD = 64  # bytes that Python needs to hold a piece, however short
COUNTED_BYTES = 10_000_000  # WordPiece and Unigram rank words, which needs less text than ranking merges
CHARACTER_LENGTH = 6  # a Chinese character's three bytes, each of which byte-level BPE writes as two
UNIGRAM_PIECE_LENGTH = 16  # as in SentencePiece; bytes here
# One layout for the three families, with ids that T5 (0, 1, 2) and BERT expect, so that one vocabulary serves all.
SPECIAL_TOKENS = {
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def train_tokenizer(
    texts: Iterable[str],
    *,
    kind: Kind = "bpe",
    vocab_size: int = 8192,
    num_sentinels: int = 64,
    single_characters: bool = False,
    prefix_space: bool = False,
    sample_bytes: int = 20_000_000,
    seed: int = 0,
) -> Tokenizer:
    """Learn a tokenizer from any iterable of text; equal texts and seed give an equal file.

    `bpe` (Sennrich et al. 2016, on bytes) and `unigram` (Kudo 2018, on bytes) give back any text exactly;
    `wordpiece` (BERT) lower-cases and strips accents as BERT's does. `num_sentinels` are T5's `<extra_id_0>` ….
    With `single_characters` no token of `bpe` holds two whole Chinese characters: a model of verse can count them.
    With `prefix_space` a text of `bpe` begins with a space that decoding takes away again, so that its first word has
    the token that it has elsewhere, as T5's and Llama's tokenizers do: what copies can copy the first word too.
    All kinds have the special tokens of all three families, so that one vocabulary serves them all; a small text
    may give fewer than `vocab_size` tokens. Raises `ConfigError` when `vocab_size` cannot hold the special tokens
    and the alphabet, `DataError` when there is no text.
    """
    train = {"bpe": _train_bpe, "unigram": _train_unigram, "wordpiece": _train_wordpiece}.get(kind)
    if train is None:
        raise ConfigError(f"{kind!r} is no kind of tokenizer; expected bpe, wordpiece or unigram; choose one")
    special = [*SPECIAL_TOKENS.values(), *(f"<extra_id_{index}>" for index in range(num_sentinels))]
    minimum = len(special) + 257
    if vocab_size < minimum:
        raise ConfigError(
            f"a vocabulary of {vocab_size} has no room for {len(special)} special tokens and an alphabet of 256; "
            f"expected at least {minimum}; raise vocab_size or lower num_sentinels"
        )
    if kind != "bpe":
        sample_bytes = min(sample_bytes, COUNTED_BYTES)
    sample = list(sample_texts(texts, sample_bytes=sample_bytes, seed=seed))
    if not sample:
        raise DataError("there is no text to learn a vocabulary from; expected some that is not empty; add text")
    for name, wanted in (("single_characters", single_characters), ("prefix_space", prefix_space)):
        if wanted and kind != "bpe":
            raise ConfigError(f"{name} with {kind}; expected bpe, which alone knows it; change one of them")
    if kind == "bpe":
        longest = CHARACTER_LENGTH if single_characters else None
        backend = _train_bpe(sample, vocab_size, special, longest, prefix_space=prefix_space)
    else:
        backend = train(sample, vocab_size, special)
    # Words carry the space before them, and so must the gap of one: the mask takes it over, as RoBERTa's does.
    spaced = SPECIAL_TOKENS["mask_token"] if kind != "wordpiece" else None
    backend.add_special_tokens(
        [AddedToken(text, special=True, normalized=False, lstrip=text == spaced) for text in special]
    )
    return Tokenizer(backend, dict(SPECIAL_TOKENS))


def sample_texts(texts: Iterable[str], *, sample_bytes: int, seed: int = 0) -> Iterator[str]:
    """All pieces of the texts while they fit in `sample_bytes` of memory, else a uniform sample of them, in order.

    Holds at most `sample_bytes` and one text; a piece is held as UTF-8 and costs 64 bytes more than its length.
    When the sample is full, half of it is thrown away at random and each later piece is kept with half the chance:
    every piece of the input is equally likely to stay. Half surrogate pairs, which no file can hold, are left out.
    """
    generator = random.Random(seed)
    held: list[bytes] = []
    size, chance = 0, 1.0
    for text in texts:
        for start in range(0, len(text), PIECE_CHARACTERS):
            if generator.random() >= chance:
                continue
            piece = text[start : start + PIECE_CHARACTERS].encode("utf-8", "ignore")
            held.append(piece)
            size += len(piece) + PIECE_OVERHEAD
            while size > sample_bytes and len(held) > 1:
                held = [each for each in held if generator.random() < 0.5]
                size = sum(map(len, held)) + PIECE_OVERHEAD * len(held)
                chance /= 2
    held.reverse()
    while held:  # given out one by one, so that a reader who keeps them all does not hold them twice
        yield held.pop().decode()


def _byte_level(model: models.BPE | models.Unigram) -> tokenizers.Tokenizer:
    """Words by Qwen2's pattern, then bytes as printable characters: nothing is unknown, everything comes back."""
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = split_words(QWEN2_WORDS)  # llama.cpp knows it by the name "qwen2"
    backend.decoder = decoders.ByteLevel()
    return backend


def _train_bpe(
    sample: list[str], vocab_size: int, special: list[str], longest: int | None = None, *, prefix_space: bool = False
) -> tokenizers.Tokenizer:
    backend = _byte_level(models.BPE())
    if prefix_space:
        backend.normalizer = normalizers.Prepend(" ")
        backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=longest,
        show_progress=False,
    )
    backend.train_from_iterator(sample, trainer)
    return backend


def _train_unigram(sample: list[str], vocab_size: int, special: list[str]) -> tokenizers.Tokenizer:
    """Start from twice as many pieces as wanted; count how they spell the words best; drop the least missed; repeat.

    Kudo 2018 with the best spelling (Viterbi) where the paper weighs them all, and BPE's merges as first candidates.
    A piece is missed by count × (its log probability − that of its best spelling by others).
    """
    room = vocab_size - len(special)
    spelling = _train_bpe(sample, 2 * room, [], UNIGRAM_PIECE_LENGTH)
    counts = _count_words(sample, spelling)
    pieces, model = sorted(spelling.get_vocab()), spelling.model
    while True:
        uses = _count_pieces(counts, model)
        total = sum(max(uses[piece], 0.5) for piece in pieces)
        scores = {piece: round(math.log(max(uses[piece], 0.5) / total), 6) for piece in pieces}
        if len(pieces) <= room:
            break
        missed = {
            piece: uses[piece] * (scores[piece] - _score_by_others(piece, scores)) if len(piece) > 1 else math.inf
            for piece in pieces
        }
        pieces.sort(key=lambda piece: (-missed[piece], piece))
        pieces = pieces[: max(room, len(pieces) * 3 // 4)]
        model = models.Unigram([("<unk>", 0.0), *((piece, scores[piece]) for piece in pieces)], unk_id=0)
    pieces.sort(key=lambda piece: (-scores[piece], piece))
    learned = [*((text, 0.0) for text in special), *((piece, scores[piece]) for piece in pieces)]
    return _byte_level(models.Unigram(learned, unk_id=special.index("<unk>")))


def _score_by_others(piece: str, scores: dict[str, float]) -> float:
    """Log probability of the best spelling of a piece by shorter ones; single bytes are always among them."""
    best = [0.0, *[-math.inf] * len(piece)]
    for end in range(1, len(piece) + 1):
        for start in range(1 if end == len(piece) else 0, end):
            score = scores.get(piece[start:end])
            if score is not None:
                best[end] = max(best[end], best[start] + score)
    return best[-1]


def _train_wordpiece(sample: list[str], vocab_size: int, special: list[str]) -> tokenizers.Tokenizer:
    """Pieces that BPE merges, counted at the beginning and inside of words; the most frequent make the vocabulary."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.train_from_iterator(sample, trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False))
    pieces, characters = Counter[str](), Counter[str]()
    words = _count_words(sample, backend)
    for (word, count), tokens in zip(words.items(), _spell(words, backend.model), strict=True):
        for index, piece in enumerate(tokens):
            pieces[piece if index == 0 else f"##{piece}"] += count
        for index, character in enumerate(word):
            characters[character if index == 0 else f"##{character}"] += count
    room = vocab_size - len(special)
    chosen = dict.fromkeys(sorted(characters, key=lambda text: (-characters[text], text))[: room // 2])
    for piece in sorted(pieces, key=lambda text: (-pieces[text], text)):
        if len(chosen) < room:
            chosen.setdefault(piece)
    vocabulary = {text: index for index, text in enumerate(dict.fromkeys([*special, *chosen]))}
    backend.model = models.WordPiece(vocabulary, unk_token="<unk>")
    backend.decoder = decoders.WordPiece()
    return backend


def _count_words(sample: list[str], like: tokenizers.Tokenizer) -> dict[str, int]:
    """How often each word occurs after this tokenizer's normaliser and pre-tokenizer, in the order of the words."""
    counter = tokenizers.Tokenizer(models.WordLevel(unk_token="?"))
    if like.normalizer is not None:
        counter.normalizer = like.normalizer
    counter.pre_tokenizer = like.pre_tokenizer
    counter.train_from_iterator(sample, trainers.WordLevelTrainer(vocab_size=2**31, show_progress=False))
    counts = np.zeros(counter.get_vocab_size(), dtype=np.int64)
    for start in range(0, len(sample), 256):
        found = counter.encode_batch_fast(sample[start : start + 256], add_special_tokens=False)
        ids = np.fromiter(chain.from_iterable(each.ids for each in found), dtype=np.int64)
        counts += np.bincount(ids, minlength=len(counts))
    return {word: int(counts[index]) for word, index in sorted(counter.get_vocab().items())}


def _count_pieces(counts: dict[str, int], model: models.Model) -> Counter[str]:
    """How often each piece is used where the model spells each word its best way."""
    uses = Counter[str]()
    for count, pieces in zip(counts.values(), _spell(counts, model), strict=True):
        for piece in pieces:
            uses[piece] += count
    return uses


def _spell(words: Iterable[str], model: models.Model) -> Iterator[list[str]]:
    """Each word's pieces, by way of their ids: encode_batch_fast leaves the texts of tokens empty."""
    backend = tokenizers.Tokenizer(model)
    texts = {index: text for text, index in backend.get_vocab().items()}
    waiting = list(words)
    for start in range(0, len(waiting), 10_000):
        batch = backend.encode_batch_fast(waiting[start : start + 10_000], add_special_tokens=False)
        yield from ([texts[index] for index in each.ids] for each in batch)
