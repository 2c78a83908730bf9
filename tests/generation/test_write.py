"""When a row ends, what is refused, and that nothing is left behind."""

from dataclasses import replace

import pytest
import torch

from tests.families import TINY
from trivium.errors import ConfigError, RequestError
from trivium.generation import Generation, SamplingConfig, generate
from trivium.model import build_model

GPT2, T5 = TINY["gpt2"], TINY["t5"]
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]


def write(**options: object) -> list[Generation]:
    return generate(build_model(GPT2), PROMPTS, SamplingConfig(**options))


def test_no_prompts_no_answers() -> None:
    assert generate(build_model(GPT2), []) == []
    assert generate(build_model(GPT2), [], SamplingConfig(num_beams=2)) == []


def test_the_end_token_ends_a_row_and_is_among_its_ids() -> None:
    plain = generate(build_model(GPT2), PROMPTS, SamplingConfig(max_new_tokens=8))
    assert [(len(row.ids), row.finish_reason) for row in plain] == [(8, "length")] * 3
    end = plain[0].ids[3]
    ended = generate(build_model(replace(GPT2, eos_id=end)), PROMPTS, SamplingConfig(max_new_tokens=8))
    for before, after in zip(plain, ended, strict=True):
        if end in before.ids:
            assert after.finish_reason == "eos"
            assert after.ids == before.ids[: before.ids.index(end) + 1]
        else:
            assert after == before


def test_any_of_several_end_tokens_ends_a_row() -> None:
    plain = generate(build_model(GPT2), PROMPTS, SamplingConfig(max_new_tokens=8))
    ends = (plain[0].ids[3], plain[2].ids[5])
    ended = generate(build_model(GPT2), PROMPTS, SamplingConfig(max_new_tokens=8, eos_token_id=ends))
    for before, after in zip(plain, ended, strict=True):
        at = next((at for at, token in enumerate(before.ids) if token in ends), 7)
        assert after.ids == before.ids[: at + 1]
    assert ended[0].finish_reason == ended[2].finish_reason == "eos"


def test_max_length_counts_what_the_decoder_has_read() -> None:
    rows = generate(build_model(GPT2), PROMPTS, SamplingConfig(max_length=9))
    assert [len(row.ids) for row in rows] == [9 - len(prompt) for prompt in PROMPTS]
    rows = generate(build_model(T5), PROMPTS, SamplingConfig(max_length=9))
    assert [len(row.ids) for row in rows] == [8, 8, 8]


def test_equal_seeds_write_equal_texts_and_others_do_not() -> None:
    first, again, other = (write(do_sample=True, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert [row.ids for row in first] != [row.ids for row in other]


def test_a_seed_belongs_to_its_row() -> None:
    config, model = SamplingConfig(do_sample=True), build_model(GPT2)
    same = generate(model, [PROMPTS[0]] * 3, config, seeds=[7, 8, 7])
    assert same[0] == same[2] != same[1]
    assert generate(model, PROMPTS[1:2], config, seeds=[1])[0] == generate(model, PROMPTS, config)[1]


def test_generating_leaves_the_model_and_the_global_random_state_alone() -> None:
    model = build_model(replace(GPT2, dropout=0.5))
    model.train()
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    first, second = (generate(model, PROMPTS, SamplingConfig(do_sample=True)) for _ in range(2))
    assert first == second, "dropout was on"
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    loss = model.head(model.decode(_side())).sum()
    loss.backward()  # nothing became an inference tensor


def _side():  # type: ignore[no-untyped-def]
    from trivium.model import Side

    return Side.from_ids(PROMPTS)


def test_learned_positions_cut_an_answer_and_refuse_a_prompt() -> None:
    model, config = build_model(GPT2), SamplingConfig(max_new_tokens=50)
    ragged = generate(model, [[5] * 60, [5] * 64, [5] * 3], config)
    assert [(len(row.ids), row.finish_reason) for row in ragged] == [(5, "length"), (1, "length"), (50, "length")]
    alone = generate(model, [[5] * 3], config)[0]
    assert ragged[2].ids == alone.ids
    beams = generate(model, [[5] * 60, [5] * 64], replace(config, num_beams=2))
    assert [len(row.ids) for row in beams] == [5, 1]
    with pytest.raises(RequestError, match=r"65 tokens; this model's positions end at 64; shorten"):
        generate(model, [[5] * 65])


def test_positions_without_a_table_have_no_end() -> None:
    result = generate(build_model(T5), [[5] * 300], SamplingConfig(max_new_tokens=100))
    assert len(result[0].ids) == 100


@pytest.mark.parametrize(
    ("prompts", "options", "error", "message"),
    [
        ([[]], {}, RequestError, "prompt is empty"),
        ([[5, 64]], {}, RequestError, r"ids from 5 to 64 in a prompt; expected 0 to 63"),
        ([[-1]], {}, RequestError, "ids from -1"),
        ([[5]], {"seeds": [1, 2]}, RequestError, "2 seeds for 1 prompts"),
        ([[5]], {"config": SamplingConfig(stop=("x",))}, ConfigError, "without a tokenizer"),
        ([[5]], {"config": SamplingConfig(stop=("x",), num_beams=2)}, ConfigError, "without a tokenizer"),
        (
            [[5]],
            {"config": SamplingConfig(suppress_tokens=(1, 64))},
            ConfigError,
            "suppress_tokens holds 64; .* below 64",
        ),
        ([[5]], {"config": SamplingConfig(bad_words_ids=((1,), (2, 99)))}, ConfigError, "bad_words_ids holds 99"),
        ([[5] * 9], {"config": SamplingConfig(max_length=9)}, RequestError, "9 tokens and max_length=9 counts them"),
        (
            [[5]],
            {"seeds": [1, 2, 3], "config": SamplingConfig(do_sample=True, num_return_sequences=2)},
            RequestError,
            "3 seeds for 1 prompts of 2 texts each",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused(
    prompts: list[list[int]], options: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        generate(build_model(GPT2), prompts, **options)


def test_an_encoder_does_not_write() -> None:
    with pytest.raises(ConfigError, match=r"an encoder was asked to write.*fill_mask"):
        generate(build_model(TINY["bert"]), [[5]])


def test_beams_of_one_step_and_of_a_tiny_vocabulary() -> None:
    tiny = build_model(replace(GPT2, vocab_size=3))
    found = generate(tiny, [[1], [2, 0]], SamplingConfig(num_beams=8, max_new_tokens=3, logprobs=True))
    for row in found:
        assert len(row.ids) == len(row.logprobs or []) == 3
        # Eight beams over three tokens see all 27 texts: the best one cannot be missed.
        assert row.score == pytest.approx(sum(row.logprobs or []) / 3, abs=1e-5)
    assert len(generate(tiny, [[1]], SamplingConfig(num_beams=2, max_new_tokens=1))[0].ids) == 1


def test_a_beam_that_repeats_nothing_runs_dry() -> None:
    model = build_model(replace(GPT2, vocab_size=4))
    config = SamplingConfig(num_beams=3, max_new_tokens=9, no_repeat_ngram_size=1)
    (row,) = generate(model, [[0]], config)
    assert sorted(row.ids) == [1, 2, 3]
