"""Text as it is written: streams equal whole answers, and nothing of a stop string ever comes out."""

import random

import pytest

from tests.generation.spelling import TEXTS, speaker, tokenizer_for
from trivium.errors import ConfigError
from trivium.generation import SamplingConfig, generate, generate_text, stream_text
from trivium.generation.stream import TextStream

WRITERS = ["llama", "gpt2", "t5"]


@pytest.mark.parametrize("do_sample", [False, True])
@pytest.mark.parametrize("name", WRITERS)
def test_a_stream_joined_is_the_whole_answer(name: str, do_sample: bool) -> None:
    model, tokenizer = speaker(name)
    for seed, text in enumerate(TEXTS):
        config = SamplingConfig(max_new_tokens=30, do_sample=do_sample, seed=seed)
        pieces = list(stream_text(model, tokenizer, text, config))
        (whole,) = generate_text(model, tokenizer, [text], config)
        assert "".join(pieces) == whole
        assert all(pieces), "an empty piece tells nothing"


@pytest.mark.parametrize("name", WRITERS)
def test_a_stop_string_ends_the_text_before_it(name: str) -> None:
    model, tokenizer = speaker(name)
    for seed in range(12):
        plain = SamplingConfig(max_new_tokens=24, do_sample=True, seed=seed)
        prompt = [tokenizer.encode(TEXTS[0], add_special=True)]
        (whole,) = generate(model, prompt, plain, tokenizer=tokenizer)
        assert whole.text is not None
        start = random.Random(seed).randrange(max(len(whole.text) - 3, 1))
        stop = whole.text[start : start + 3]
        config = SamplingConfig(max_new_tokens=24, do_sample=True, seed=seed, stop=(stop, "never written"))
        (stopped,) = generate(model, prompt, config, tokenizer=tokenizer)
        assert stopped.text == whole.text.partition(stop)[0]
        assert stopped.finish_reason == "stop"
        assert whole.ids[: len(stopped.ids)] == stopped.ids
        assert "".join(stream_text(model, tokenizer, TEXTS[0], config)) == stopped.text


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece"])
def test_nothing_that_may_belong_to_a_stop_string_is_released(kind: str) -> None:
    tokenizer, chance = tokenizer_for("decoder", kind), random.Random(0)
    for _ in range(60):
        text = chance.choice(TEXTS)
        ids = tokenizer.encode(text)
        whole = tokenizer.decode(ids)
        stops = []
        for _ in range(chance.randrange(3)):
            start = chance.randrange(len(whole))
            stops.append(whole[start : start + chance.randint(1, 6)])
        stream = TextStream(tokenizer, stops)
        given = ""
        for token in ids:
            given += stream.push(token)
            assert not any(stop in given for stop in stops)
            if stream.stopped:
                break
        assert stream.flush().startswith(given)
        first = min([whole.find(stop) for stop in stops], default=len(whole))
        # Of two stop strings the one that is complete first counts, though the other may begin earlier.
        assert whole.startswith(stream.text)
        assert len(stream.text) >= first
        if len(stops) < 2:
            assert stream.text == whole[:first]


def test_what_was_held_back_comes_out_at_the_end() -> None:
    tokenizer = tokenizer_for("decoder")
    stream = TextStream(tokenizer, ["axis of evil"])
    given = "".join(stream.push(token) for token in tokenizer.encode("the given axis o"))
    assert given == "the given "
    assert stream.flush() == "the given axis o"
    assert not stream.stopped


def test_rows_of_a_batch_stop_each_for_itself() -> None:
    model, tokenizer = speaker("llama")
    config = SamplingConfig(max_new_tokens=16, do_sample=True, stop=("e", "a"))
    together = generate_text(model, tokenizer, TEXTS, config)
    prompts = tokenizer.encode_batch(TEXTS, add_special=True)
    for row, prompt in enumerate(prompts):
        (alone,) = generate(model, [prompt], config, tokenizer=tokenizer, seeds=[row])
        assert together[row] == alone.text
        assert not set(together[row]) & {"e", "a"}


def test_beams_do_not_stream() -> None:
    model, tokenizer = speaker("llama")
    with pytest.raises(ConfigError, match=r"num_beams=3.*generate_text"):
        next(stream_text(model, tokenizer, "x", SamplingConfig(num_beams=3)))


def test_the_mode_of_the_model_is_kept() -> None:
    model, tokenizer = speaker("t5")
    model.train()
    generate_text(model, tokenizer, TEXTS[:1], SamplingConfig(max_new_tokens=2))
    list(stream_text(model, tokenizer, TEXTS[0], SamplingConfig(max_new_tokens=2)))
    assert model.training
