"""Learning a vocabulary from text, in bounded memory.

Trainers count every distinct word of what they are given, and text without spaces is all distinct words, so
memory grows with the input. Here they are given a uniform sample of at most `sample_bytes` (reservoir sampling,
Vitter 1985) of pieces of at most 4 KiB, so 10 GB of input is read once, as a stream, and never held; 200 MB are
more than enough to rank some ten thousand merges.
"""

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

from trivium.errors import ConfigError
from trivium.tokenizer.tokenizer import Tokenizer

Kind = Literal["bpe", "wordpiece", "unigram"]
PIECE_CHARACTERS = 4096
# One layout for the three families, with ids that T5 (0, 1, 2) and BERT expect, so that one vocabulary serves all.
SPECIAL_TOKENS = {
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
# Qwen2's word boundaries, which llama.cpp knows by the name "qwen2": words with one leading mark, single digits.
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_tokenizer(
    texts: Iterable[str],
    *,
    kind: Kind = "bpe",
    vocab_size: int = 8192,
    num_sentinels: int = 64,
    sample_bytes: int = 200_000_000,
    seed: int = 0,
) -> Tokenizer:
    """Learn a tokenizer from any iterable of text; equal texts and seed give an equal one.

    `bpe` (Sennrich et al. 2016, on bytes) and `unigram` (Kudo 2018, on bytes) give back any text exactly;
    `wordpiece` (BERT) lower-cases and strips accents as BERT's does. `num_sentinels` are T5's `<extra_id_0>` ….
    Raises `ConfigError` when `vocab_size` cannot hold the special tokens and the alphabet.
    """
    special = [*SPECIAL_TOKENS.values(), *(f"<extra_id_{index}>" for index in range(num_sentinels))]
    minimum = len(special) + 256
    if vocab_size < minimum + 1:
        raise ConfigError(
            f"a vocabulary of {vocab_size} has no room for {len(special)} special tokens and 256 bytes; "
            f"expected at least {minimum + 1}; raise vocab_size or lower num_sentinels"
        )
    if kind == "unigram":
        sample_bytes = min(sample_bytes, 20_000_000)  # its suffix array takes some fifty bytes a byte
    if kind == "wordpiece":
        sample_bytes = min(sample_bytes, 20_000_000)  # its words are counted one by one in Python
    sample = sample_texts(texts, sample_bytes=sample_bytes, seed=seed)
    train = {"bpe": _train_bpe, "unigram": _train_unigram, "wordpiece": _train_wordpiece}.get(kind)
    if train is None:
        raise ConfigError(f"{kind!r} is no kind of tokenizer; expected bpe, wordpiece or unigram; choose one")
    backend = train(sample, vocab_size, special)
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    return Tokenizer(backend, dict(SPECIAL_TOKENS))


def sample_texts(texts: Iterable[str], *, sample_bytes: int, seed: int = 0) -> Iterator[str]:
    """All pieces of the texts while they fit in `sample_bytes` of UTF-8, else a uniform sample of them, in order.

    Holds at most `sample_bytes` and one text. When the sample is full, half of it is thrown away at random and
    each later piece is kept with half the chance: every piece of the input is equally likely to stay.
    """
    generator = random.Random(seed)
    held: list[str] = []
    size, chance = 0, 1.0
    for text in texts:
        for start in range(0, len(text), PIECE_CHARACTERS):
            if generator.random() >= chance:
                continue
            piece = text[start : start + PIECE_CHARACTERS]
            held.append(piece)
            size += len(piece.encode("utf-8", "ignore"))
            while size > sample_bytes and len(held) > 1:
                held = [each for each in held if generator.random() < 0.5]
                size = sum(len(each.encode("utf-8", "ignore")) for each in held)
                chance /= 2
    yield from held


def _byte_level(model: models.BPE | models.Unigram) -> tokenizers.Tokenizer:
    """Words by Qwen2's pattern, then bytes as printable characters: nothing is unknown, everything comes back."""
    backend = tokenizers.Tokenizer(model)
    words = pre_tokenizers.Split(tokenizers.Regex(QWEN2_WORDS), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([words, to_bytes])
    backend.decoder = decoders.ByteLevel()
    return backend


def _train_bpe(sample: Iterator[str], vocab_size: int, special: list[str]) -> tokenizers.Tokenizer:
    backend = _byte_level(models.BPE())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(sample, trainer)
    return backend


def _train_unigram(sample: Iterator[str], vocab_size: int, special: list[str]) -> tokenizers.Tokenizer:
    backend = _byte_level(models.Unigram())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=alphabet,
        unk_token="<unk>",
        show_progress=False,
    )
    backend.train_from_iterator(sample, trainer)
    # The library sums, and scores unseen bytes, in the order of a randomly seeded hash table: the last digits, and
    # those scores, differ from run to run.
    pieces = [(text, round(score, 3)) for text, score in json.loads(backend.to_str())["model"]["vocab"]]
    lowest = min(score for text, score in pieces[len(special) :] if len(text) > 1)
    floored = [(text, score if score >= lowest else lowest - 10.0) for text, score in pieces[len(special) :]]
    ordered = sorted(floored, key=lambda piece: (-piece[1], piece[0]))
    model = models.Unigram([*pieces[: len(special)], *ordered], unk_id=special.index("<unk>"))
    return _byte_level(model)


def _train_wordpiece(sample: Iterator[str], vocab_size: int, special: list[str]) -> tokenizers.Tokenizer:
    """Pieces that BPE merges, counted at the beginning and inside of words; the most frequent make the vocabulary.

    The library's own WordPiece trainer numbers its alphabet in the order of a randomly seeded hash table, and so
    gives another file each time.
    """
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in sample:
        words.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    merger = tokenizers.Tokenizer(models.BPE())
    merger.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    repeated = (word for word in sorted(words) for _ in range(min(words[word], 1000)))
    merger.train_from_iterator(repeated, trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False))
    pieces, characters = Counter[str](), Counter[str]()
    for word, count in words.items():
        for index, piece in enumerate(merger.encode(word).tokens):
            pieces[piece if index == 0 else f"##{piece}"] += count
        for index, character in enumerate(word):
            characters[character if index == 0 else f"##{character}"] += count
    room = vocab_size - len(special)
    alphabet = sorted(characters, key=lambda text: (-characters[text], text))[: room // 2]
    chosen = dict.fromkeys(alphabet)
    for piece in sorted(pieces, key=lambda text: (-pieces[text], text)):
        if len(chosen) < room:
            chosen.setdefault(piece)
    vocabulary = {text: index for index, text in enumerate([*special, *chosen])}
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    backend.normalizer, backend.pre_tokenizer = normalizer, splitter
    backend.decoder = decoders.WordPiece()
    return backend
