"""Which tokens begin a word."""

import numpy as np

from tests.tokenizer.texts import TEXTS
from trivium.tokenizer import Tokenizer, train_tokenizer


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
