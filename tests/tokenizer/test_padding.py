"""Rows that were encoded one by one, as a batch: the same as transformers' `pad`, on both sides."""

from pathlib import Path

import pytest

from tests.tokenizer.test_call import open_both
from tests.tokenizer.wild import FOLDERS
from trivium.errors import ConfigError, RequestError


@pytest.mark.parametrize("name", ["bert-uncased", "gpt2", "llama"])
def test_rows_are_padded_as_transformers_does(name: str, tmp_path: Path) -> None:
    theirs, ours = open_both(FOLDERS[name](tmp_path))
    rows = [{key: list(value) for key, value in ours(text).items()} for text in ("The value of a list.", "x")]
    bare = [{"input_ids": [5, 6, 7]}, {"input_ids": [8]}]
    columns = {"input_ids": [[5], [6, 7]], "attention_mask": [[1], [1, 0]], "special_tokens_mask": [[0], [0, 1]]}
    for side in ("right", "left"):
        theirs.padding_side = ours.padding_side = side
        for given in (rows, bare, columns):
            for options in ({}, {"padding": "max_length", "max_length": 30}, {"pad_to_multiple_of": 8}):
                assert ours.pad(given, **options).data == dict(theirs.pad(given, **options)), (side, given, options)
    found, expected = ours.pad(rows, return_tensors="pt"), theirs.pad(rows, return_tensors="pt")
    assert {key: value.tolist() for key, value in found.items()} == {k: v.tolist() for k, v in expected.items()}


def test_what_cannot_be_padded_is_refused(tmp_path: Path) -> None:
    _, ours = open_both(FOLDERS["gpt2"](tmp_path))
    with pytest.raises(RequestError, match="rows of labels to pad; expected input_ids"):
        ours.pad([{"labels": [1]}])
    ours.pad_token = None
    with pytest.raises(ConfigError, match=r"has no pad_token; expected one; set tokenizer\.pad_token"):
        ours.pad([{"input_ids": [1]}, {"input_ids": [1, 2]}])
