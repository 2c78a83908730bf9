"""New tokens: the same ids as transformers gives them, text that stays text, and folders that keep them."""

from pathlib import Path

import pytest

from tests.tokenizer.test_call import open_both
from tests.tokenizer.wild import FOLDERS
from trivium import AutoTokenizer
from trivium.errors import ConfigError


@pytest.mark.parametrize("name", ["bert-uncased", "gpt2", "t5", "llama"])
def test_added_tokens_are_transformers(name: str, tmp_path: Path) -> None:
    both = theirs, ours = open_both(FOLDERS[name](tmp_path / "first"))
    line = "a <zz> b<yy> [PP] <e1> the<e1>"
    for given in (["<zz>", "<yy>"], ["<zz>"], "<xx>"):
        assert ours.add_tokens(given) == theirs.add_tokens(given)
    roles = {"pad_token": "[PP]", "additional_special_tokens": ["<e1>"]}
    assert ours.add_special_tokens(roles) == theirs.add_special_tokens(roles) == 2
    assert len(ours) == len(theirs) and ours.pad_token_id == theirs.pad_token_id == ours.convert_tokens_to_ids("[PP]")
    ours.save_pretrained(tmp_path / "second")
    ids = theirs(line)["input_ids"]
    for each in (*both, AutoTokenizer.from_pretrained(tmp_path / "second")):
        assert each(line)["input_ids"] == ids and each.decode(ids) == theirs.decode(ids)
        assert each(["a", line], padding=True).data == dict(theirs(["a", line], padding=True))
    assert not set(ours(line, split_special_tokens=True)["input_ids"]) & {ours.pad_token_id, len(ours) - 1}
    with pytest.raises(ConfigError, match="no special token is called end_token; expected pad_token"):
        ours.add_special_tokens({"end_token": "x"})
