"""Tokenizers: round trips, roles, and the same ids as transformers gives from the same folder."""

import random
from pathlib import Path

import pytest

from tests.tokenizer.texts import MIXED, TEXTS, random_text
from trivium.errors import DataError, HubError
from trivium.tokenizer import Tokenizer, train_tokenizer


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


def test_half_a_surrogate_pair_is_refused_by_name(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"half of a surrogate pair .* at character 3; expected Unicode.*replace it"):
        tokenizer.encode("abc\ud83d")
    with pytest.raises(DataError, match="half of a surrogate pair"):
        tokenizer.encode_control("\ud83d")
    train_tokenizer(["enough text\ud800"], vocab_size=300, num_sentinels=0)


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
