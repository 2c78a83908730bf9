"""A model folder and a text file to numbers, for each family."""

import dataclasses
from pathlib import Path

import pytest

from tests.families import TINY
from tests.training.runs import write_text
from trivium.data.source import read_documents
from trivium.errors import ConfigError, DataError
from trivium.evaluation.run import evaluate_file
from trivium.hub.auto import save_model
from trivium.model import build_model
from trivium.tokenizer import train_tokenizer

NAMES = {"decoder": "qwen3", "encoder": "bert", "encoder_decoder": "t5"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file and an untrained model folder of each family."""
    folder = tmp_path_factory.mktemp("evaluation")
    texts = [document.text for document in read_documents(write_text(folder / "text.jsonl", 40))]
    tokenizer = train_tokenizer(texts, vocab_size=400, num_sentinels=16)
    for family, name in NAMES.items():
        config = dataclasses.replace(TINY[name], vocab_size=tokenizer.vocab_size)
        model = build_model(config, seed=0)
        save_model(model, folder / family, tokenizer=tokenizer.dress_for(family))  # type: ignore[arg-type]
    return folder


@pytest.mark.parametrize("family", NAMES)
def test_a_file_is_scored_the_same_each_time(family: str, place: Path) -> None:
    one, other = (evaluate_file(place / family, place / "text.jsonl", seq_len=32) for _ in range(2))
    assert one == other
    assert one.tokens > 50
    assert 3 < one.loss < 9  # nothing is learned: about the logarithm of the vocabulary
    assert one.bits_per_byte > 0


def test_a_decoder_is_scored_on_every_token_once(place: Path) -> None:
    whole = evaluate_file(place / "decoder", place / "text.jsonl", seq_len=64)
    short = evaluate_file(place / "decoder", place / "text.jsonl", seq_len=16)
    assert whole.tokens == short.tokens


def test_what_cannot_be_scored_is_one_sentence(place: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing at .*missing.txt; expected a text file; check the path"):
        evaluate_file(place / "decoder", tmp_path / "missing.txt")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataError, match="no text to score"):
        evaluate_file(place / "decoder", tmp_path / "empty.txt")
    with pytest.raises(ConfigError, match="rows of 128 tokens for a model of 64 positions"):
        evaluate_file(place / "encoder", place / "text.jsonl", seq_len=128)
