"""Folders: what transformers opens of ours with equal ids, and what it saved that opens here."""

import copy
import json
import pickle
import pydoc_data.topics
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from tokenizers import SentencePieceBPETokenizer, SentencePieceUnigramTokenizer

from trivium.errors import ConfigError, HubError
from trivium.tokenizer import DecodeStream, Tokenizer, train_tokenizer

TEXTS = list(pydoc_data.topics.topics.values())[:15]
LINES = [
    "The quick brown fox's tail — 3.14159 times longer.",
    "自然语言处理。模型 learns 从文本中学习。",
    "def f(x):\n    return {'a': x ** 2}\t# comment",
    "emoji 👩‍👩‍👧‍👦 🇨🇳 ☕️, café ÀÉ",
    "  leading   and trailing  \n\n\r\n ",
    "Don't do n't 's . , ! ?",
    "",
    " ",
]


def _own_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    model = json.loads(train_tokenizer(TEXTS, vocab_size=900, num_sentinels=0).backend.to_str())["model"]
    pieces = [text for text in model["vocab"] if text not in ("<pad>", "</s>", "<unk>", "[CLS]", "[SEP]", "[MASK]")]
    pieces.append("<|endoftext|>")
    return {text: index for index, text in enumerate(pieces)}, [tuple(pair) for pair in model["merges"]]


def _gpt2() -> Any:
    from transformers import GPT2TokenizerFast

    vocabulary, merges = _own_vocabulary()
    return GPT2TokenizerFast(vocab=vocabulary, merges=merges)


def _qwen() -> Any:
    from transformers import Qwen2TokenizerFast

    vocabulary, merges = _own_vocabulary()
    return Qwen2TokenizerFast(vocab=vocabulary, merges=merges)


def _bert() -> Any:
    from transformers import BertTokenizerFast

    trained = train_tokenizer(TEXTS, kind="wordpiece", vocab_size=900, num_sentinels=0)
    pieces = sorted(set(trained.backend.get_vocab()) - set(trained.special_tokens.values()))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return BertTokenizerFast(vocab={text: index for index, text in enumerate([*special, *pieces])})


def _t5() -> Any:
    from transformers import T5TokenizerFast

    trained = SentencePieceUnigramTokenizer()
    trained.train_from_iterator(
        TEXTS, vocab_size=700, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    pieces = json.loads(trained.to_str())["model"]["vocab"]
    return T5TokenizerFast(vocab=[tuple(piece) for piece in pieces], extra_ids=10)


def _llama() -> Any:
    from transformers import LlamaTokenizerFast

    trained = SentencePieceBPETokenizer()
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    trained.train_from_iterator(
        TEXTS, vocab_size=900, special_tokens=["<unk>", "<s>", "</s>", *fallback], show_progress=False
    )
    model = json.loads(trained.to_str())["model"]
    return LlamaTokenizerFast(
        vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]], add_bos_token=True
    )


MAKERS = {"gpt2": _gpt2, "qwen": _qwen, "bert": _bert, "t5": _t5, "llama": _llama}


@pytest.fixture(scope="module", params=MAKERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as transformers saves it for a tokenizer of this type."""
    path = tmp_path_factory.mktemp(request.param)
    MAKERS[request.param]().save_pretrained(path)
    return path


def test_what_transformers_saved_opens_with_equal_ids_text_and_roles(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    theirs, ours = AutoTokenizer.from_pretrained(folder), Tokenizer.load(folder)
    assert ours.vocab_size == len(theirs)
    sentinels = [f"<extra_id_{number}>" for number in range(10 if "t5" in folder.name else 0)]
    assert ours.sentinel_ids == theirs.convert_tokens_to_ids(sentinels)
    for role in ("pad", "bos", "eos", "unk", "cls", "sep", "mask"):
        assert getattr(ours, f"{role}_id") == getattr(theirs, f"{role}_token_id"), role
    ours.save(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for line in LINES:
        ids = theirs(line)["input_ids"]
        assert ours.encode(line, add_special=True) == ids == again(line)["input_ids"]
        for skip in (True, False):
            assert ours.decode(ids, skip_special=skip) == theirs.decode(ids, skip_special_tokens=skip)


def test_control_tokens_typed_in_a_text_stay_text(folder: Path) -> None:
    # T5's model finds `</s>` among its own pieces, whatever the library's switch says.
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.control_ids
    written = [tokenizer.backend.id_to_token(number) for number in tokenizer.control_ids]
    for special in written:
        for text in (special, f"a {special} b{special}", f"{special}{special}"):
            assert not set(tokenizer.encode(text)) & (tokenizer.control_ids - {tokenizer.unk_id}), text
    for name in ("pad_token", "eos_token", "mask_token"):
        if special := tokenizer.special_tokens.get(name):
            assert tokenizer.backend.token_to_id(special) in tokenizer.encode_control(f"a {special} b")


def test_streams_equal_the_full_decode(folder: Path) -> None:
    tokenizer, generator = Tokenizer.load(folder), random.Random(0)
    drawn = [[generator.randrange(tokenizer.vocab_size) for _ in range(30)] for _ in range(150)]
    for ids in [*drawn, *(tokenizer.encode(line * 3) for line in LINES)]:
        stream = DecodeStream(tokenizer)
        assert "".join([*(stream.push(each) for each in ids), stream.flush()]) == tokenizer.decode(ids)


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece"])
def test_the_folder_of_each_model_type_opens_in_transformers(tmp_path: Path, kind: Any) -> None:
    from transformers import AutoConfig, AutoTokenizer

    trained = train_tokenizer(TEXTS, kind=kind, vocab_size=700, num_sentinels=4)
    families: dict[str, Any] = {"bert": "encoder", "t5": "encoder_decoder", "marian": "encoder_decoder"}
    families |= dict.fromkeys(("gpt2", "llama", "qwen3"), "decoder")
    for model_type, family in families.items():
        ours = trained.dress_for(family)
        ours.save(tmp_path / model_type)
        AutoConfig.for_model(model_type).save_pretrained(tmp_path / model_type)
        theirs = AutoTokenizer.from_pretrained(tmp_path / model_type)
        assert ("token_type_ids" in theirs("x")) == (family == "encoder")  # T5's and Qwen's generate refuse them
        for line in [*LINES, "a [MASK] </s> <extra_id_1>"]:
            ids = ours.encode_control(line, add_special=True)
            assert theirs(line)["input_ids"] == ids
            assert theirs.decode(ids) == ours.decode(ids, skip_special=False)


def test_dressing_what_others_made(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    MAKERS["llama"]().save_pretrained(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode("x", add_special=True)[0] == tokenizer.bos_id
    dressed = tokenizer.dress_for("decoder")
    dressed.save(tmp_path / "dressed")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "dressed")
    assert theirs("x")["input_ids"] == dressed.encode("x", add_special=True) == tokenizer.encode("x")
    with pytest.raises(ConfigError, match=r"no cls_token and no sep_token.*choose a tokenizer of that family"):
        tokenizer.dress_for("encoder")


def test_roles_are_never_guessed_from_ordinary_tokens(tmp_path: Path) -> None:
    vocabulary, merges = _own_vocabulary()
    vocabulary |= {"[MASK]": len(vocabulary)}
    from transformers import GPT2TokenizerFast

    GPT2TokenizerFast(vocab=vocabulary, merges=merges).save_pretrained(tmp_path)
    assert Tokenizer.load(tmp_path).mask_id is None


def test_copies_and_threads_keep_control_tokens_out() -> None:
    tokenizer = train_tokenizer(TEXTS[:5], vocab_size=400, num_sentinels=2)
    for same in (pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        assert same.encode("a [MASK] b") == tokenizer.encode("a [MASK] b")
    found: list[list[int]] = []

    def encode_text() -> None:
        found.extend(tokenizer.encode("a [MASK] b") for _ in range(200))

    def encode_control() -> None:
        for _ in range(200):
            assert tokenizer.mask_id in tokenizer.encode_control("a [MASK] b")

    threads = [threading.Thread(target=work) for work in (encode_text, encode_control) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 400 and all(tokenizer.mask_id not in ids for ids in found)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", "{", "cannot be read"),
        ("tokenizer.json", "[]", "cannot be read"),
        ("tokenizer.json", '{"model": {"type": "BPE", "vocab": {"a": 2000000000}, "merges": []}}', "without gaps"),
        ("tokenizer_config.json", "[]", "holds a list; expected a JSON object"),
        ("tokenizer_config.json", "\ud800", "is not readable"),
    ],
)
def test_broken_folders_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    train_tokenizer(TEXTS[:2], vocab_size=300, num_sentinels=0).save(tmp_path)
    (tmp_path / name).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(HubError, match=message):
        Tokenizer.load(tmp_path)


def test_names_of_python_files_are_not_passed_on(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS[:2], vocab_size=300, num_sentinels=0)
    tokenizer.settings["auto_map"] = {"AutoTokenizer": ["evil.Tokenizer", None]}
    tokenizer.save(tmp_path)
    assert "auto_map" not in (tmp_path / "tokenizer_config.json").read_text()
