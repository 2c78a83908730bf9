"""Tokenizers: round trips, streams, roles, and the same ids as transformers gives from the same folder."""

import pydoc_data.topics
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tokenizers import decoders

from trivium.errors import ConfigError, DataError, HubError
from trivium.tokenizer import DecodeStream, Tokenizer, train_tokenizer
from trivium.tokenizer.train import sample_texts

TEXTS = list(pydoc_data.topics.topics.values())
MIXED = [
    "The quick brown fox's tail — 3.14159 times longer.",
    "自然语言处理是人工智能的一个方向。模型从文本中学习。",
    "def f(x):\n    return {'a': x ** 2}\t# comment",
    "emoji 👩‍👩‍👧‍👦 🇨🇳 ☕️ and\u200bzero width, \x00\x07 control",
    "  leading   and trailing  \n\n\r\n ",
    "naïve café Ωμέγα שלום नमस्ते",
    "",
]


def random_text(generator: random.Random, longest: int = 24) -> str:
    points = []
    for _ in range(generator.randrange(longest)):
        point = generator.choice(
            [generator.randrange(32, 127), generator.randrange(0x3000), generator.randrange(0x110000)]
        )
        points.append(chr(point) if not 0xD800 <= point < 0xE000 else " ")
    return "".join(points)


@pytest.fixture(scope="module", params=["bpe", "unigram", "wordpiece"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return train_tokenizer(TEXTS[:15], kind=request.param, vocab_size=1200, num_sentinels=8)


def assert_round_trips(tokenizer: Tokenizer, count: int) -> None:
    generator = random.Random(0)
    texts = [random_text(generator) for _ in range(count)]
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert tokenizer.decode(ids, skip_special=False) == text


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_any_text_comes_back_exactly(kind: str) -> None:
    tokenizer = train_tokenizer([*TEXTS[:10], *MIXED], kind=kind, vocab_size=700, num_sentinels=4)
    assert_round_trips(tokenizer, 20_000)
    for text in MIXED:
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.torture
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_million_texts_come_back_exactly(kind: str) -> None:
    assert_round_trips(train_tokenizer(TEXTS[:10], kind=kind, vocab_size=700, num_sentinels=4), 1_000_000)


def test_wordpiece_gives_back_normalised_text() -> None:
    tokenizer = train_tokenizer(TEXTS[:15], kind="wordpiece", vocab_size=1200, num_sentinels=0)
    assert tokenizer.decode(tokenizer.encode("The VALUES of an object")) == "the values of an object"
    letters = sorted({text for text in tokenizer.backend.get_vocab() if len(text) == 1 and text.isprintable()})
    inside = [letter for letter in letters if f"##{letter}" in tokenizer.backend.get_vocab()]
    generator = random.Random(0)
    for _ in range(1000):  # WordPiece does not keep where spaces were
        text = " ".join("".join(generator.choices(inside, k=generator.randrange(1, 9))) for _ in range(5)).upper()
        normal = tokenizer.backend.normalizer.normalize_str(text)
        assert tokenizer.decode(tokenizer.encode(text)).replace(" ", "") == normal.replace(" ", "")


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


def test_half_a_surrogate_pair_is_refused_by_name(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"half of a surrogate pair .* at character 3; expected Unicode.*replace it"):
        tokenizer.encode("abc\ud83d")
    with pytest.raises(DataError, match="half of a surrogate pair"):
        tokenizer.encode_control("\ud83d")
    train_tokenizer(["enough text\ud800"], vocab_size=300, num_sentinels=0)


def test_streaming_equals_the_full_decode(tokenizer: Tokenizer) -> None:
    generator = random.Random(1)
    for text in [*MIXED, *(random_text(generator) for _ in range(200)), TEXTS[40][:2000]]:
        ids = tokenizer.encode(text)
        stream = DecodeStream(tokenizer)
        assert "".join([*(stream.push(each) for each in ids), stream.flush()]) == tokenizer.decode(ids)


def test_streaming_through_any_decoder_that_makes_characters_of_bytes() -> None:
    tokenizer = train_tokenizer(TEXTS[:5], vocab_size=400, num_sentinels=0)
    tokenizer.backend.decoder = decoders.Sequence([decoders.ByteLevel()])
    nested = Tokenizer(tokenizer.backend)
    assert not nested.byte_level
    for text in MIXED:
        ids = nested.encode(text)
        stream = DecodeStream(nested)
        assert "".join([*(stream.push(each) for each in ids), stream.flush()]) == text


def test_streaming_random_ids_equals_the_full_decode(tokenizer: Tokenizer) -> None:
    generator = random.Random(2)
    for _ in range(100):
        ids = [generator.randrange(tokenizer.vocab_size) for _ in range(30)]
        stream = DecodeStream(tokenizer)
        assert "".join([*(stream.push(each) for each in ids), stream.flush()]) == tokenizer.decode(ids)


def test_special_tokens_in_text_stay_text(tokenizer: Tokenizer) -> None:
    for special in [*tokenizer.special_tokens.values(), "<extra_id_0>"]:
        assert not set(tokenizer.encode(f"a {special} b")) & (tokenizer.control_ids - {tokenizer.unk_id})
    assert tokenizer.mask_id in tokenizer.encode_control("a [MASK] b")


def test_roles_and_their_ids(tokenizer: Tokenizer) -> None:
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 1, 2)
    assert len(tokenizer.sentinel_ids) == 8 and tokenizer.sentinel_ids == sorted(tokenizer.sentinel_ids)
    assert tokenizer.bos_id is None
    dressed = tokenizer.dress_for("encoder").encode("a list", add_special=True)
    assert dressed[0] == tokenizer.cls_id and dressed[-1] == tokenizer.sep_id
    assert tokenizer.dress_for("encoder_decoder").encode("a list", add_special=True)[-1] == tokenizer.eos_id
    assert tokenizer.dress_for("decoder").encode("a list", add_special=True) == tokenizer.encode("a list")


@pytest.mark.parametrize("family", ["encoder", "decoder", "encoder_decoder"])
def test_transformers_reads_the_folder_and_gives_the_same_ids(
    tmp_path: Path, tokenizer: Tokenizer, family: str
) -> None:
    from transformers import AutoTokenizer

    dressed = tokenizer.dress_for(family)  # type: ignore[arg-type]
    dressed.save(tmp_path)
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path), Tokenizer.load(tmp_path)
    generator = random.Random(3)
    for text in [*MIXED, *(random_text(generator) for _ in range(300)), *(topic[:500] for topic in TEXTS[:20])]:
        ids = ours.encode(text, add_special=True)
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids)
    assert (theirs.pad_token_id, theirs.eos_token_id, theirs.mask_token_id) == (0, 1, tokenizer.mask_id)


def test_words_begin_where_words_begin(tokenizer: Tokenizer) -> None:
    starts = tokenizer.word_starts()
    ids = tokenizer.encode("uncharacteristically verbose")
    assert starts.dtype == np.bool_ and starts.shape == (tokenizer.vocab_size,)
    assert starts[ids].sum() <= 2 < len(ids)
    assert starts[[*tokenizer.control_ids]].all()


def test_a_chinese_character_is_one_word_however_it_is_spelled() -> None:
    tokenizer = train_tokenizer(TEXTS[:10], vocab_size=500, num_sentinels=0)
    ids = tokenizer.encode("模型")
    assert len(ids) == 6 and tokenizer.word_starts()[ids].tolist() == [True, False, False] * 2
    assert not tokenizer.word_starts()[tokenizer.encode("é")].any()  # a letter inside a word


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


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(HubError, match="cannot be read"):
        Tokenizer.load(tmp_path)


def test_the_report_counts(tokenizer: Tokenizer) -> None:
    report = tokenizer.measure(TEXTS[:3])
    assert report.bytes == sum(len(text.encode()) for text in TEXTS[:3])
    assert 1 < report.bytes_per_token < 10 and report.tokens_per_second > 0
