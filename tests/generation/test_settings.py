"""Settings: values without a meaning are refused, and later sources win over earlier ones."""

import math

import pytest

from trivium.errors import ConfigError
from trivium.generation.settings import SamplingConfig, combine_settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0; expected at least 1"),
        ({"temperature": 0.0}, "do_sample=false"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"min_p": 2.0}, "min_p is 2.0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"no_repeat_ngram_size": -2}, "no_repeat_ngram_size is -2"),
        ({"num_beams": 0}, "num_beams is 0"),
        ({"length_penalty": math.inf}, "length_penalty is inf"),
        ({"early_stopping": "soon"}, "early_stopping is 'soon'"),
        ({"stop": ("",)}, "empty string"),
        ({"num_beams": 2, "do_sample": True}, "not both"),
        ({"typical_p": 0.0}, "typical_p is 0.0"),
        ({"presence_penalty": math.inf}, "presence_penalty is inf"),
        ({"frequency_penalty": math.nan}, "frequency_penalty is nan"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"num_return_sequences": 0}, "num_return_sequences is 0"),
        ({"num_return_sequences": 2}, "at most as many as beams, or sampling"),
        ({"num_return_sequences": 3, "num_beams": 2}, "with num_beams=2"),
        ({"suppress_tokens": (-1,)}, r"suppress_tokens is \(-1,\); expected token ids"),
        ({"eos_token_id": ("a",)}, "eos_token_id is"),
        ({"bad_words_ids": [[]]}, "empty list"),
    ],
)
def test_values_without_a_meaning_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SamplingConfig(**values)


def test_one_stop_string_needs_no_tuple() -> None:
    assert SamplingConfig(stop="end").stop == SamplingConfig(stop=["end"]).stop == ("end",)


def test_one_id_needs_no_tuple_and_json_lists_become_tuples() -> None:
    config = SamplingConfig(eos_token_id=3, forced_eos_token_id=4, bad_words_ids=[[1], [2, 3]], suppress_tokens=[5])
    assert (config.eos_token_id, config.forced_eos_token_id, config.suppress_tokens) == ((3,), (4,), (5,))
    assert config.bad_words_ids == ((1,), (2, 3))
    assert hash(config)


@pytest.mark.parametrize(
    ("folder", "call", "expected"),
    [
        ({}, {}, {}),
        ({"num_beams": 4, "length_penalty": 2.0}, {"num_beams": 2}, {"num_beams": 2, "length_penalty": 2.0}),
        ({"max_length": 200}, {}, {"max_length": 200}),
        ({"max_length": 200}, {"max_new_tokens": 9}, {"max_new_tokens": 9}),
        ({"max_new_tokens": 9}, {"max_length": 200}, {"max_length": 200}),
        ({"max_new_tokens": 9, "max_length": 20}, {}, {"max_new_tokens": 9}),
        ({"min_length": 5}, {"min_new_tokens": 2}, {"min_new_tokens": 2}),
        ({"do_sample": True, "temperature": 0.5}, {"num_beams": 3}, {"num_beams": 3, "temperature": 0.5}),
        ({"num_beams": 3}, {"do_sample": True}, {"do_sample": True}),
        ({"num_beams": 3}, {"do_sample": False}, {"num_beams": 3}),
        ({"top_k": 5}, {"top_k": None}, {"top_k": 5}),
        ({}, {"stop_strings": ["a"]}, {"stop": ("a",)}),
    ],
    ids=str,
)
def test_a_call_wins_over_a_folder(folder: dict, call: dict, expected: dict) -> None:
    assert combine_settings(folder, call) == SamplingConfig(**expected)


def test_an_unknown_setting_is_named_with_its_nearest() -> None:
    with pytest.raises(ConfigError, match="has no option max_tokens; expected for example max_new_tokens"):
        combine_settings({}, {"max_tokens": 3})
