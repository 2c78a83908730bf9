"""Ids to text as they come: the pieces joined are the full decode."""

import random

from tokenizers import decoders

from tests.tokenizer.texts import MIXED, TEXTS, random_text
from trivium.tokenizer import DecodeStream, Tokenizer, train_tokenizer


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
