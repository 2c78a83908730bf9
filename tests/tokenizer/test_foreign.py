"""Tokenizers as they are in the wild: the same ids and the same text as transformers', whatever the files."""

import unicodedata
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.tokenizer.wild import FOLDERS, SHIPPED, SPECIAL, marian, mixed_lines, piece_model
from trivium.errors import HubError
from trivium.tokenizer import Tokenizer


def open_both(folder: Path) -> tuple[Any, Tokenizer]:
    from transformers import AutoTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the oracle
        return AutoTokenizer.from_pretrained(folder), Tokenizer.load(folder)


def assert_equal(folder: Path, count: int) -> None:
    theirs, ours = open_both(folder)
    assert ours.vocab_size == len(theirs)
    for role in ("pad", "bos", "eos", "unk", "cls", "sep", "mask"):
        assert getattr(ours, f"{role}_id") == getattr(theirs, f"{role}_token_id"), role
    lines = mixed_lines(count)
    expected = theirs(lines)["input_ids"]
    for line, ids in zip(lines, expected, strict=True):
        assert ours.encode_control(line, add_special=True) == ids, line
    for skip in (True, False):
        for ids in expected:
            assert ours.decode(ids, skip_special=skip) == theirs.decode(
                ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False
            )
    pair = theirs("First of two.", "The second.")
    assert ours.backend.encode("First of two.", "The second.").ids == pair["input_ids"]


def plain_lines(count: int) -> list[str]:
    """Lines for SentencePiece, which marks no tokens in a text.

    What normalises on our side is the fast library; it looks at whole grapheme clusters, so characters that extend one
    (accents, joiners) may be normalised otherwise, as in transformers' fast tokenizers.
    """
    lines = [line for line in mixed_lines(count) if not any(special in line for special in SPECIAL)]
    joining = ("Mn", "Mc", "Me", "Cf", "Lo")  # Lo: Hangul's parts, and Thai and Lao vowels; but not Chinese
    return [
        line
        for line in lines
        if not any(unicodedata.category(each) in joining and not "\u4e00" <= each <= "\u9fff" for each in line)
    ]


def assert_spelled(folder: Path, count: int) -> None:
    import sentencepiece

    theirs = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    ours = Tokenizer.load(folder)
    assert (ours.vocab_size, ours.unk_id, ours.eos_id) == (len(theirs), theirs.unk_id(), theirs.eos_id())
    lines = plain_lines(count)
    assert len(lines) > count // 4
    for line, ids in zip(lines, theirs.encode(lines), strict=True):
        found = ours.encode(line)
        if found != ids:  # two spellings that are equally good
            scores = [sum(theirs.get_score(each) for each in spelling) for spelling in (found, ids)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-3) and ours.decode(found) == theirs.decode(ids), line
        if theirs.unk_id() not in ids:  # which it shows as ⁇
            assert ours.decode(ids) == theirs.decode(ids)


def assert_marian(folder: Path, count: int) -> None:
    from transformers import MarianTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of punctuation that the oracle would make plain with one package more
        theirs, ours = MarianTokenizer.from_pretrained(folder), Tokenizer.load(folder)
    assert (ours.vocab_size, ours.pad_id, ours.eos_id) == (len(theirs), theirs.pad_token_id, theirs.eos_token_id)
    lines = plain_lines(count)
    for line in [*lines, ">>zho<< Hello world", *(f">>zho<< {line}" for line in lines[:50])]:
        ids = theirs(line)["input_ids"]
        found = ours.encode_control(line, add_special=True)
        if found != ids:  # two spellings that are equally good
            scores = [
                sum(theirs.spm_source.get_score(theirs.spm_source.piece_to_id(text)) for text in pieces)
                for pieces in map(theirs.convert_ids_to_tokens, (found, ids))
            ]
            assert scores[0] == pytest.approx(scores[1], abs=1e-3) and ours.decode(found) == ours.decode(ids), line
        if ours.unk_id not in ids:
            assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_marian_reads_as_transformers(tmp_path: Path) -> None:
    assert_marian(marian(tmp_path), 2000)
    (tmp_path / "target_vocab.json").write_text("{}")
    with pytest.raises(HubError, match="a vocabulary for each language; expected one for both"):
        Tokenizer.load(tmp_path)


@pytest.mark.torture
def test_marian_reads_100_000_lines_as_transformers(tmp_path: Path) -> None:
    assert_marian(marian(tmp_path), 100_000)


@pytest.mark.parametrize("name", FOLDERS)
def test_ids_and_text_are_transformers(name: str, tmp_path: Path) -> None:
    assert_equal(FOLDERS[name](tmp_path / name), 2000)


@pytest.mark.parametrize("name", SHIPPED)
def test_ids_and_text_of_shipped_vocabularies_are_transformers(name: str, tmp_path: Path) -> None:
    assert_equal(SHIPPED[name](tmp_path / name), 2000)


@pytest.mark.torture
@pytest.mark.parametrize("name", [*FOLDERS, *SHIPPED])
def test_ids_and_text_of_100_000_lines_are_transformers(name: str, tmp_path: Path) -> None:
    assert_equal({**FOLDERS, **SHIPPED}[name](tmp_path / name), 100_000)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("byte_fallback", [False, True])
def test_pieces_of_an_unknown_class_are_spelled_as_sentencepiece_does(
    kind: str, byte_fallback: bool, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.model").write_bytes(piece_model(kind, byte_fallback))
    assert_spelled(tmp_path, 2000)


@pytest.mark.torture
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_pieces_of_100_000_lines_are_spelled_as_sentencepiece_does(kind: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(piece_model(kind, True))
    assert_spelled(tmp_path, 100_000)


def test_a_saved_copy_is_equal_and_needs_none_of_the_older_files(tmp_path: Path) -> None:
    for name in ("bert-added", "gpt2-entries", "roberta", "t5", "llama"):
        first = Tokenizer.load(FOLDERS[name](tmp_path / name))
        first.save(tmp_path / "again" / name)
        theirs, second = open_both(tmp_path / "again" / name)
        assert second.special_tokens == first.special_tokens and second.control_ids == first.control_ids
        for line in mixed_lines(200, seed=1):
            ids = first.encode_control(line, add_special=True)
            assert second.encode_control(line, add_special=True) == ids == theirs(line)["input_ids"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tokenizer.model", b"\x0a\xff", "is damaged .*expected a SentencePiece model"),
        ("tokenizer.model", b"IQ== 0\nIg== 1\n", "a tiktoken file; expected a SentencePiece model; get the folder's"),
        ("tokenizer.model", b"", "has 0 pieces"),
        ("vocab.txt", b"\xff\xfe", "cannot be read"),
        ("spiece.model", b"\x0a\x06\x0a\x01a\x15\x00\x00", "is damaged"),
        ("README.md", b"", "has no tokenizer.json; expected that, vocab.txt"),
    ],
)
def test_broken_files_are_refused(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(HubError, match=words) as caught:
        Tokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FOLDERS)
def test_special_tokens_in_a_text_stay_text(name: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(FOLDERS[name](tmp_path / name))
    control = tokenizer.control_ids - {tokenizer.unk_id if "bert" in name or name.endswith("chinese") else None}
    special = [tokenizer.backend.id_to_token(number) for number in sorted(tokenizer.control_ids)]
    assert special
    for text in [*special, *(f"a{each}b {each} " for each in special), "".join(special)]:
        for ids in (
            tokenizer.encode(text),
            tokenizer(text, split_special_tokens=True, add_special_tokens=False)["input_ids"],
        ):
            assert not set(ids) & (control - {tokenizer.unk_id} if name in ("t5", "mt5") else control), text
