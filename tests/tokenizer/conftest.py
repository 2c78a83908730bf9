"""A small tokenizer of each kind."""

import pytest

from tests.tokenizer.texts import TEXTS
from trivium.tokenizer import Tokenizer, train_tokenizer


@pytest.fixture(scope="module", params=["bpe", "unigram", "wordpiece"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return train_tokenizer(TEXTS[:15], kind=request.param, vocab_size=1200, num_sentinels=8)
