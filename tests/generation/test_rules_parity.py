"""T23 for the rules together: `generate` writes transformers' tokens, greedily and with beams, under each setting."""

from typing import Any

import pytest
import torch
from transformers import DynamicCache, EncoderDecoderCache, GenerationConfig, LogitsProcessorList

from tests.generation.spelling import TEXTS, speaker
from tests.reference import Pair, build_pair, random_rows
from trivium.generation import SamplingConfig, generate

NEW, PROMPTS = 12, random_rows([5] * 12, seed=1)
ENDS = (2, 17, 33)
OPTIONS: list[dict[str, Any]] = [
    {"min_new_tokens": 6, "eos_token_id": ENDS},
    {"min_length": 9, "eos_token_id": ENDS},
    {"max_length": 9, "no_repeat_ngram_size": 2},
    {"forced_eos_token_id": 2, "repetition_penalty": 1.2},
    {"forced_bos_token_id": 11, "no_repeat_ngram_size": 1},
    {"suppress_tokens": (4, 5, 6, 20), "begin_suppress_tokens": (7, 8, 30), "repetition_penalty": 0.9},
    {"bad_words_ids": ((9,), (10, 12), (40, 41)), "no_repeat_ngram_size": 3},
    {"encoder_no_repeat_ngram_size": 1},
    {"eos_token_id": ENDS, "length_penalty": 2.0},
]


def their_rows(pair: Pair, prompts: list[list[int]], **options: Any) -> list[list[int]]:
    """What transformers writes after prompts of equal length, each row up to its end."""
    two = pair.ours.config.family == "encoder_decoder"
    settings = {"eos_token_id": pair.ours.config.eos_id, "max_new_tokens": NEW, **options}
    if "max_length" in options:
        del settings["max_new_tokens"]
    settings = {name: _plain(value) for name, value in settings.items()}
    start = pair.ours.config.decoder_start_id
    config = GenerationConfig(pad_token_id=0, decoder_start_token_id=start, **settings)
    cache = {"past_key_values": EncoderDecoderCache(DynamicCache(), DynamicCache())} if two else {}
    ids = torch.tensor(prompts)
    found = pair.theirs.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config, **cache)
    ends = set(options.get("eos_token_id", (pair.ours.config.eos_id,)))
    rows = found[:, 1 if two else len(prompts[0]) :].tolist()
    return [row[: next((at + 1 for at, token in enumerate(row) if token in ends), len(row))] for row in rows]


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _lively(name: str) -> dict[str, Any]:
    """An untrained encoder–decoder repeats one token for ever."""
    return {"no_repeat_ngram_size": 1} if name == "t5" else {}


def unpadded(row: list[int], other: list[int]) -> list[int]:
    return row[: len(other)] if not any(row[len(other) :]) else row


CASES = [(name, options) for name in ("gpt2", "t5") for options in OPTIONS]
CASES.remove(("gpt2", {"encoder_no_repeat_ngram_size": 1}))  # a decoder has no encoder


@pytest.mark.parametrize(
    ("name", "options"), CASES, ids=lambda value: value if isinstance(value, str) else "-".join(value)
)
@pytest.mark.parametrize("num_beams", [1, 3])
def test_tokens_are_transformers(name: str, num_beams: int, options: dict[str, Any]) -> None:
    pair = build_pair(name, sharp=1.5)
    options = _lively(name) | options
    theirs = their_rows(pair, PROMPTS, num_beams=num_beams, **options)
    found = generate(pair.ours, PROMPTS, SamplingConfig(**{"max_new_tokens": NEW, "num_beams": num_beams, **options}))
    ours = [row.ids for row in found]
    assert ours == [unpadded(row, mine) for row, mine in zip(theirs, ours, strict=True)]
    plain = generate(pair.ours, PROMPTS, SamplingConfig(max_new_tokens=NEW, num_beams=num_beams, **_lively(name)))
    assert ours != [row.ids for row in plain], "the setting changed nothing: this proves little"


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_the_best_beams_are_transformers_in_order(name: str) -> None:
    pair, options = build_pair(name, sharp=1.5), {"num_beams": 4, "num_return_sequences": 3, "no_repeat_ngram_size": 2}
    theirs = their_rows(pair, PROMPTS, **options)
    found = generate(pair.ours, PROMPTS, SamplingConfig(max_new_tokens=NEW, **options))
    ours = [row.ids for row in found]
    assert len(ours) == 3 * len(PROMPTS)
    assert ours == [unpadded(row, mine) for row, mine in zip(theirs, ours, strict=True)]
    scores = [row.score for row in found]
    assert all(scores[at] >= scores[at + 1] for at in range(len(scores) - 1) if at % 3 != 2)
    assert len({tuple(row) for row in ours}) > 2 * len(PROMPTS)


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_additive_penalties_in_the_loop_are_those_of_a_processor(name: str) -> None:
    """transformers has no such settings; a processor of its kind that subtracts counts must write the same."""
    pair = build_pair(name, sharp=1.5)
    two = pair.ours.config.family == "encoder_decoder"
    start = 1 if two else len(PROMPTS[0])

    def penalize(ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        counts = torch.zeros_like(logits).scatter_add_(1, ids[:, start:], torch.ones(ids[:, start:].shape))
        return logits - 0.7 * (counts > 0) - 0.4 * counts

    config = GenerationConfig(
        max_new_tokens=NEW, pad_token_id=0, eos_token_id=2, decoder_start_token_id=pair.ours.config.decoder_start_id
    )
    ids = torch.tensor(PROMPTS)
    cache = {"past_key_values": EncoderDecoderCache(DynamicCache(), DynamicCache())} if two else {}
    theirs = pair.theirs.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        generation_config=config,
        logits_processor=LogitsProcessorList([penalize]),
        **cache,
    )
    settings = SamplingConfig(max_new_tokens=NEW, presence_penalty=0.7, frequency_penalty=0.4, eos_token_id=2)
    ours = [row.ids for row in generate(pair.ours, PROMPTS, settings)]
    assert ours == [unpadded(row, mine) for row, mine in zip(theirs[:, start:].tolist(), ours, strict=True)]


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_several_samples_are_the_samples_of_as_many_prompts(name: str) -> None:
    model, tokenizer = speaker(name)
    prompts = tokenizer.encode_batch(TEXTS, add_special=True)
    config = SamplingConfig(max_new_tokens=10, do_sample=True, num_return_sequences=3, logprobs=True)
    together = generate(model, prompts, config, tokenizer=tokenizer)
    repeated = [prompt for prompt in prompts for _ in range(3)]
    apart = generate(model, repeated, SamplingConfig(max_new_tokens=10, do_sample=True, logprobs=True))
    assert [row.ids for row in together] == [row.ids for row in apart]
    assert together[0].ids != together[1].ids


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_beams_end_at_the_first_token_that_completes_a_stop_string(name: str) -> None:
    model, tokenizer = speaker(name)
    prompts = tokenizer.encode_batch(TEXTS, add_special=True)
    options: dict[str, Any] = {"max_new_tokens": 10, "num_beams": 3, "no_repeat_ngram_size": 1}
    stops = 0
    for stop in "aeio":
        found = generate(model, prompts, SamplingConfig(stop=(stop, "never"), **options), tokenizer=tokenizer)
        for row in found:
            whole = tokenizer.decode(row.ids)
            assert (stop in whole) == (row.finish_reason == "stop")
            assert whole.partition(stop)[0] == row.text
            assert stop not in tokenizer.decode(row.ids[:-1])
            stops += row.finish_reason == "stop"
    assert stops
