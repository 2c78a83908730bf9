"""Learning a vocabulary: the same file twice, every byte in it, bounded memory, what is refused."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.tokenizer.texts import TEXTS
from trivium.errors import ConfigError, DataError
from trivium.tokenizer import Tokenizer, train_tokenizer
from trivium.tokenizer.stream import DecodeStream
from trivium.tokenizer.train import sample_texts


def test_training_twice_gives_the_same_file(tmp_path: Path, tokenizer: Tokenizer) -> None:
    again = train_tokenizer(TEXTS[:15], kind=tokenizer.kind, vocab_size=1200, num_sentinels=8)
    tokenizer.save(tmp_path / "one")
    again.save(tmp_path / "two")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_what_is_learned_spells_well() -> None:
    # A trainer that counts nothing is deterministic too: each kind has to use what it read. A Unigram of uniform
    # scores has 2.0 bytes a token here, ours 3.9, BPE 3.5.
    spelled = {
        kind: train_tokenizer(TEXTS[:15], kind=kind, vocab_size=1200, num_sentinels=8)  # type: ignore[arg-type]
        .measure(TEXTS[:15])
        .bytes_per_token
        for kind in ("bpe", "unigram", "wordpiece")
    }
    assert spelled["bpe"] > 3 and spelled["unigram"] > spelled["bpe"] and spelled["wordpiece"] > spelled["bpe"]


def test_every_byte_is_in_the_vocabulary() -> None:
    for kind in ("bpe", "unigram"):
        tokenizer = train_tokenizer(["a"], kind=kind, vocab_size=300, num_sentinels=0)  # type: ignore[arg-type]
        ids = tokenizer.encode("".join(map(chr, range(0x250))))
        assert tokenizer.unk_id not in ids and tokenizer.vocab_size >= 256 + 6


def test_single_characters_keeps_chinese_characters_apart() -> None:
    verses = ["床前明月光，疑是地上霜。\n举头望明月，低头思故乡。\n"] * 50 + ["moonlight before my bed\n"] * 50

    def most_characters(tokenizer: Tokenizer) -> int:
        tokens = [tokenizer.decode([place]) for place in range(tokenizer.vocab_size)]
        return max(sum("\u4e00" <= each <= "\u9fff" for each in token) for token in tokens)

    apart = train_tokenizer(verses, vocab_size=600, num_sentinels=0, single_characters=True)
    assert most_characters(apart) == 1
    assert most_characters(train_tokenizer(verses, vocab_size=600, num_sentinels=0)) > 1
    for text in ("明月光，低头moonlight", "床前没有的字：龘 👩", *verses[:1]):
        assert apart.decode(apart.encode(text)) == text
    with pytest.raises(ConfigError, match="single_characters with unigram; expected bpe"):
        train_tokenizer(verses, kind="unigram", vocab_size=600, num_sentinels=0, single_characters=True)


def test_the_sample_is_bounded_and_uniform() -> None:
    seen = list(sample_texts((f"{number:08d}" for number in range(100_000)), sample_bytes=200_000))
    assert sum(64 + len(text) for text in seen) <= 200_000 and len(seen) > 100
    assert 40_000 < np.mean([int(text) for text in seen]) < 60_000
    endless_line = list(sample_texts(["x" * 1_000_000], sample_bytes=100_000))
    assert max(map(len, endless_line)) <= 4096


@pytest.mark.parametrize(
    "line", ["short\n", "a longer line of English text\n" * 40, "没有空格的中文" * 300, "é👩" * 5000]
)
def test_the_bytes_held_do_not_grow_with_the_input(line: str) -> None:
    given = 0

    def endless() -> Iterator[str]:
        nonlocal given
        while given < 2_000_000:
            given += len(line.encode())
            yield f"{given}{line}"

    tracemalloc.start()
    try:
        held = sample_texts(endless(), sample_bytes=200_000)
        first = next(held)  # everything was read
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Halving copies the list, of 8 bytes a piece, and one text of at most 30 kB is in hand.
    assert first and given >= 2_000_000 and peak < 320_000


def test_no_text_is_refused(tokenizer: Tokenizer) -> None:
    for texts in ([], [""]):
        with pytest.raises(DataError, match=r"no text to learn a vocabulary from.*add text"):
            train_tokenizer(texts, kind=tokenizer.kind, vocab_size=400, num_sentinels=0)  # type: ignore[arg-type]


def test_a_vocabulary_too_small_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"vocabulary of 200 .* expected at least 327; raise vocab_size"):
        train_tokenizer(["text"], vocab_size=200)
    with pytest.raises(ConfigError, match="expected bpe, wordpiece or unigram"):
        train_tokenizer(["text"], kind="letters")  # type: ignore[arg-type]
    train_tokenizer(["text"], vocab_size=327)


def test_prefix_space_gives_the_first_word_the_token_that_it_has_elsewhere(tmp_path: Path) -> None:
    texts = ["a library for files", "the library of the file", "files for the library"] * 30
    plain, spaced = (
        train_tokenizer(texts, vocab_size=420, num_sentinels=4, prefix_space=wanted) for wanted in (False, True)
    )
    inside, first = (spaced.encode(text, add_special_tokens=False) for text in ("a library", "library"))
    assert inside[-len(first) :] == first
    inside, first = (plain.encode(text, add_special_tokens=False) for text in ("a library", "library"))
    assert inside[-len(first) :] != first
    from transformers import AutoTokenizer

    spaced.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("library", " two  spaces ", "", "(a) 春眠 \n\n the file", "  ", "é"):
        ids = again.encode(text)
        assert ids == spaced.encode(text) == theirs.encode(text)
        assert again.decode(ids) == theirs.decode(ids, skip_special_tokens=True) == text
        stream = DecodeStream(again)
        assert "".join(stream.push(each) for each in ids) + stream.flush() == text
    with pytest.raises(ConfigError, match="prefix_space with wordpiece; expected bpe"):
        train_tokenizer(texts, kind="wordpiece", vocab_size=420, prefix_space=True)
