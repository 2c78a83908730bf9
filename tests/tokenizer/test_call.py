"""The call forms of Hugging Face's tokenizers: the same keys, values and shapes from the same folder."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tokenizer.test_folders import LINES
from tests.tokenizer.wild import FOLDERS, mixed_lines
from trivium import AutoTokenizer
from trivium.errors import ConfigError, DataError, RequestError
from trivium.tokenizer import Tokenizer

NAMES = ("bert-uncased", "gpt2", "roberta", "t5", "llama", "qwen2")
PAIRED = [("Who wrote it?", "The value of a list is an object. " * 3), ("一个", "模型从文本中学习"), ("", "x")]


@pytest.fixture(scope="module", params=NAMES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FOLDERS[request.param](tmp_path_factory.mktemp(request.param))


def open_both(folder: Path) -> tuple[Any, Tokenizer]:
    """transformers' AutoTokenizer of a folder, and ours."""
    from transformers import AutoTokenizer as Theirs

    theirs, ours = Theirs.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for each in (theirs, ours):
        if each.pad_token is None:
            each.pad_token = each.eos_token
    return theirs, ours


@pytest.fixture(scope="module")
def both(folder: Path) -> tuple[Any, Tokenizer]:
    return open_both(folder)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"add_special_tokens": False},
        {"padding": True},
        {"padding": "max_length", "max_length": 20, "truncation": True},
        {"truncation": True, "max_length": 7},
        {"truncation": "only_first", "max_length": 7, "return_offsets_mapping": True},
        {"padding": True, "pad_to_multiple_of": 8, "return_special_tokens_mask": True},
        {"truncation": True, "max_length": 9, "stride": 3, "return_overflowing_tokens": True},
        {"return_token_type_ids": True, "return_length": True, "return_attention_mask": False},
    ],
    ids=str,
)
def test_lists_of_texts(both: tuple[Any, Tokenizer], options: dict[str, Any]) -> None:
    theirs, ours = both
    lines = [*LINES, *mixed_lines(40, seed=2)]
    expected, found = theirs(lines, **options), ours(lines, **options)
    assert list(found.keys()) == list(expected.keys())
    for name in expected:
        assert found[name] == expected[name], name
    for line in LINES[:3]:
        assert found.data.keys() == ours(line, **options).keys()
        assert ours(line, **options).data == dict(theirs(line, **options))


@pytest.mark.parametrize(
    "options", [{}, {"truncation": "only_second", "max_length": 16}, {"truncation": True, "max_length": 9}], ids=str
)
def test_pairs(both: tuple[Any, Tokenizer], options: dict[str, Any]) -> None:
    theirs, ours = both
    first, second = [list(each) for each in zip(*PAIRED[:2], strict=True)]
    expected, found = theirs(first, second, **options), ours(first, second, **options)
    assert found.data == dict(expected)
    assert [found.sequence_ids(row) for row in (0, 1)] == [expected.sequence_ids(row) for row in (0, 1)]
    for a, b in PAIRED[:2]:
        expected, found = theirs(a, b, return_offsets_mapping=True), ours.pair(a, b)
        assert found.ids == expected["input_ids"] and found.offsets == expected["offset_mapping"]
        assert found.sides == expected.sequence_ids(0)
        assert found.types == theirs(a, b, return_token_type_ids=True)["token_type_ids"]


def test_tensors(both: tuple[Any, Tokenizer]) -> None:
    theirs, ours = both
    expected, found = theirs(LINES, return_tensors="pt", padding=True), ours(LINES, return_tensors="pt", padding=True)
    assert list(found) == list(expected)
    for name in expected:
        assert torch.equal(found[name], expected[name])
        assert found[name].dtype == torch.int64 and getattr(found, name) is found[name]
    assert found.to("cpu") is found and found.input_ids.device.type == "cpu"
    assert {**found}.keys() == {**expected}.keys()
    assert isinstance(ours("x", return_tensors="np")["input_ids"], np.ndarray)
    assert torch.equal(ours.encode(LINES[0], return_tensors="pt"), theirs.encode(LINES[0], return_tensors="pt"))
    with pytest.raises(RequestError, match=r"make no tensor of input_ids; expected equal lengths; pass padding=True"):
        ours(LINES, return_tensors="pt")
    with pytest.raises(AttributeError, match="has no pixels; expected one of input_ids"):
        _ = found.pixels


def test_encode_and_decode(both: tuple[Any, Tokenizer]) -> None:
    theirs, ours = both
    for line in [*LINES, *mixed_lines(100, seed=3)]:
        ids = theirs.encode(line)
        assert ours.encode(line) == ids
        assert ours.encode(line, add_special_tokens=False) == theirs.encode(line, add_special_tokens=False)
        assert ours.decode(ids) == theirs.decode(ids)
        assert ours.decode(torch.tensor(ids, dtype=torch.long), skip_special_tokens=True) == theirs.decode(
            ids, skip_special_tokens=True
        )
        assert ours.convert_ids_to_tokens(ids) == theirs.convert_ids_to_tokens(ids)
        assert ours.tokenize(line) == theirs.tokenize(line)
    rows = theirs(LINES, padding=True, return_tensors="pt")["input_ids"]
    assert ours.batch_decode(rows, skip_special_tokens=True) == theirs.batch_decode(rows, skip_special_tokens=True)
    assert ours.decode(5) == theirs.decode(5) and ours.decode(np.array([5, 6])) == theirs.decode([5, 6])
    assert ours.convert_tokens_to_ids(["a", "no such token at all"]) == theirs.convert_tokens_to_ids(
        ["a", "no such token at all"]
    )
    assert ours.convert_ids_to_tokens(4) == theirs.convert_ids_to_tokens(4)
    assert len(ours) == len(theirs) and ours.get_vocab() == theirs.get_vocab()
    with pytest.raises(RequestError, match="use batch_decode"):
        ours.decode(rows)


def test_words_and_targets(both: tuple[Any, Tokenizer]) -> None:
    theirs, ours = both
    words = [["The", "value", "of"], ["模型", "is"]]
    if getattr(theirs, "add_prefix_space", True) or "gpt2" not in theirs.name_or_path:
        expected, found = theirs(words, is_split_into_words=True), ours(words, is_split_into_words=True)
        assert found.data == dict(expected)
        assert [found.word_ids(row) for row in (0, 1)] == [expected.word_ids(row) for row in (0, 1)]
    expected, found = theirs(["a b"], text_target=["c d"]), ours(["a b"], text_target=["c d"])
    assert found.data == dict(expected) and "labels" in found


def test_names_of_special_tokens(both: tuple[Any, Tokenizer]) -> None:
    theirs, ours = both
    for role in ("pad", "bos", "eos", "unk", "cls", "sep", "mask"):
        assert getattr(ours, f"{role}_token_id") == getattr(theirs, f"{role}_token_id")
        assert getattr(ours, f"{role}_token") == getattr(theirs, f"{role}_token")


def test_sides_and_other_settings_as_attributes(folder: Path, tmp_path: Path) -> None:
    theirs, ours = open_both(folder)
    assert (ours.padding_side, ours.truncation_side) == (theirs.padding_side, theirs.truncation_side)
    for side in ("left", "right"):
        for each in (theirs, ours):
            each.padding_side = each.truncation_side = side
        for options in (
            {"padding": True},
            {"padding": True, "padding_side": "left"},
            {"truncation": True, "max_length": 6},
        ):
            assert ours(LINES, **options).data == dict(theirs(LINES, **options)), (side, options)
    assert ours.encode_plus(LINES[0]).data == ours.batch_encode_plus(LINES[0]).data == dict(theirs(LINES[0]))
    for each in (theirs, ours):
        each.model_max_length, each.pad_token_id = 5, 6
        each.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert ours(LINES[0], truncation=True).data == dict(theirs(LINES[0], truncation=True))
    assert (ours.model_max_length, ours.pad_token) == (5, theirs.pad_token)
    chat = [{"role": "user", "content": LINES[0]}]
    assert ours.apply_chat_template(chat, tokenize=False) == theirs.apply_chat_template(chat, tokenize=False)
    ours.padding_side = "left"
    ours.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert (again.padding_side, again.model_max_length, again.pad_token_id) == ("left", 5, 6)
    assert AutoTokenizer.from_pretrained(tmp_path, padding_side="right").padding_side == "right"


def test_what_people_ask_of_it(both: tuple[Any, Tokenizer]) -> None:
    theirs, ours = both
    assert ours.special_tokens_map == dict(theirs.special_tokens_map)
    assert ours.is_fast and ours.model_input_names == theirs.model_input_names
    assert set(ours.all_special_tokens) == set(theirs.all_special_tokens) - {"<new>"}  # of SentencePiece's users
    assert ours.convert_tokens_to_ids(ours.all_special_tokens) == ours.all_special_ids
    for line in LINES:
        tokens = theirs.tokenize(line, add_special_tokens=True)
        assert ours.tokenize(line, add_special_tokens=True) == tokens
        assert ours.convert_tokens_to_string(tokens) == theirs.convert_tokens_to_string(tokens)
        ids = theirs(line)["input_ids"]
        assert ours.decode(ids, True) == theirs.decode(ids, True) == ours.batch_decode([ids], True)[0]
    assert ours.tokenize("a", LINES[0]) == theirs.tokenize("a", LINES[0])
    for pair in (False, True):
        assert ours.num_special_tokens_to_add(pair) == theirs.num_special_tokens_to_add(pair)
    expected, found = theirs(LINES, padding=True), ours(LINES, padding=True)
    assert [found.char_to_token(0, at) for at in range(30)] == [expected.char_to_token(0, at) for at in range(30)]
    assert found.char_to_token(3) == expected.char_to_token(3)
    assert torch.equal(found.convert_to_tensors("pt")["input_ids"], torch.tensor(expected["input_ids"]))


def test_settings_travel(both: tuple[Any, Tokenizer], tmp_path: Path) -> None:
    theirs, ours = both
    ours.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path, model_max_length=5)
    assert again.pad_token == ours.pad_token and again.calls == "transformers"
    assert len(again("The value of a list is an object.", truncation=True)["input_ids"]) == 5
    copy = pickle.loads(pickle.dumps(ours))
    assert copy.encode(LINES[0]) == theirs.encode(LINES[0])


def test_ours_stays_ours(tmp_path: Path) -> None:
    """What load gives has our own defaults: no special tokens added, none read in a text, none shown."""
    FOLDERS["bert-uncased"](tmp_path)
    ours, theirs = Tokenizer.load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert ours.mask_id not in ours.encode("a [MASK] b") and ours.mask_id in theirs.encode("a [MASK] b")
    assert ours.mask_id in ours("a [MASK] b")["input_ids"]
    assert ours.mask_id not in ours("a [MASK] b", split_special_tokens=True)["input_ids"]
    assert ours.decode([ours.cls_id, 30]) == theirs.decode([ours.cls_id, 30], skip_special_tokens=True)
    assert ours.encode("a", add_special_tokens=True) == theirs.encode("a") == ours.encode("a", add_special=True)
    assert ours.mask_id not in ours.pair("a [MASK] b").ids and ours.mask_id in ours.pair("a [MASK] b", control=True).ids


def test_spaces_before_punctuation(tmp_path: Path) -> None:
    from transformers import AutoTokenizer as Theirs

    FOLDERS["t5"](tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"clean_up_tokenization_spaces": true}')
    ours, theirs = AutoTokenizer.from_pretrained(tmp_path), Theirs.from_pretrained(tmp_path)
    ids = theirs("It is , I 'm sure , so . Do n't you ?")["input_ids"]
    assert ours.decode(ids) == theirs.decode(ids) and " ," not in ours.decode(ids)
    assert ours.decode(ids, clean_up_tokenization_spaces=False) == theirs.decode(
        ids, clean_up_tokenization_spaces=False
    )


def test_what_is_refused(tmp_path: Path) -> None:
    FOLDERS["gpt2"](tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"has no pad_token; expected one; set tokenizer.pad_token, for example"):
        tokenizer(["a", "b c"], padding=True)
    with pytest.raises(ConfigError, match="the vocabulary does not have; expected one of its tokens"):
        tokenizer.pad_token = "[no]"
    with pytest.raises(ConfigError, match="call has no paddding; expected one of add_special_tokens"):
        tokenizer("a", paddding=True)
    with pytest.raises(ConfigError, match="truncation is 'all'; expected one of"):
        tokenizer("a", truncation="all")
    with pytest.raises(ConfigError, match="padding_side is 'up'; expected one of"):
        tokenizer("a", padding_side="up")
    with pytest.raises(ConfigError, match="padding_side is 'up'; expected right or left; choose one"):
        tokenizer.padding_side = "up"
    with pytest.raises(
        ConfigError, match=r"id of pad_token was set to 10000000; expected one below \d+; choose another"
    ):
        tokenizer.pad_token_id = 10_000_000
    with pytest.raises(ConfigError, match="return_tensors is 'tf'; expected 'pt', 'np' or None"):
        tokenizer("a", return_tensors="tf")
    with pytest.raises(ConfigError, match="padding='max_length' without max_length"):
        tokenizer("a", padding="max_length")
    with pytest.raises(ConfigError, match=r"from_pretrained has no colour; expected revision"):
        AutoTokenizer.from_pretrained(tmp_path, colour="red")
    for wrong in (5, [5], None, {"text": "a"}):
        with pytest.raises(RequestError, match="expected a text or a list of texts"):
            tokenizer(wrong)
    with pytest.raises(RequestError, match="2 texts with 1 pairs; expected as many"):
        tokenizer(["a", "b"], ["c"])
    with pytest.raises(DataError, match="half of a surrogate pair"):
        tokenizer("\ud83d")
    with pytest.raises(DataError, match="half of a surrogate pair"):
        tokenizer.pair("a", "\ud83d")
    with pytest.warns(UserWarning, match="texts are cut there; say truncation=True"):
        assert len(tokenizer("The value of a list", max_length=3)["input_ids"]) == 3


def test_calls_leave_the_tokenizer_as_it_was(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDERS["t5"](tmp_path))
    before = tokenizer.backend.to_str()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer(LINES, padding=True, truncation=True, max_length=5, return_tensors="pt", split_special_tokens=True)
    assert tokenizer.backend.to_str() == before and tokenizer.backend.padding is None
