"""A folder's decoding settings: those that transformers writes are read, others refused or announced."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from trivium.errors import HubError
from trivium.generation.settings import combine_settings
from trivium.hub.auto import read_generation
from trivium.hub.decoding import read_task

SET = {
    "max_length": 142,
    "min_length": 56,
    "num_beams": 4,
    "length_penalty": 2.0,
    "early_stopping": True,
    "no_repeat_ngram_size": 3,
    "forced_bos_token_id": 0,
    "forced_eos_token_id": 2,
    "eos_token_id": [2, 5],
    "bad_words_ids": [[7], [8, 9]],
    "suppress_tokens": [1, 4],
}


def write(folder: Path, name: str = "generation_config.json", **values: Any) -> Path:
    (folder / name).write_text(json.dumps(values), encoding="utf-8")
    return folder


def test_what_transformers_saves_is_read(tmp_path: Path) -> None:
    transformers.GenerationConfig(**SET, pad_token_id=1, decoder_start_token_id=2).save_pretrained(tmp_path)
    found = read_generation(tmp_path)
    assert found == SET | {
        "forced_eos_token_id": (2,),
        "eos_token_id": (2, 5),
        "bad_words_ids": ((7,), (8, 9)),
        "suppress_tokens": (1, 4),
    }
    config = combine_settings(found, {"num_beams": 2})
    assert (config.num_beams, config.max_length, config.eos_token_id) == (2, 142, (2, 5))


def test_a_folder_of_before_generation_configs_has_them_in_its_config(tmp_path: Path) -> None:
    write(tmp_path, "config.json", model_type="bart", num_beams=4, min_length=None, vocab_size=9, eos_token_id=2)
    assert read_generation(tmp_path) == {"num_beams": 4, "eos_token_id": (2,)}
    write(tmp_path, num_beams=2)
    assert read_generation(tmp_path) == {"num_beams": 2}


def test_task_parameters_carry_a_prefix(tmp_path: Path) -> None:
    tasks = {"summarization": {"prefix": "summarize: ", "num_beams": 4}, "translation": {"max_length": 300}}
    write(tmp_path, "config.json", task_specific_params=tasks)
    assert read_task(tmp_path, "summarization") == tasks["summarization"]
    assert read_task(tmp_path, "translation") == {"max_length": 300}
    assert read_task(tmp_path, "text-generation") == {}
    write(tmp_path, "config.json", task_specific_params=None)
    assert read_task(tmp_path, "summarization") == {}


@pytest.mark.parametrize("tasks", [["summarization"], {"summarization": 3}, {"summarization": {"prefix": 3}}], ids=str)
def test_task_parameters_of_another_form_are_refused(tmp_path: Path, tasks: Any) -> None:
    write(tmp_path, "config.json", task_specific_params=tasks)
    with pytest.raises(HubError, match="task_specific_params of no known form"):
        read_task(tmp_path, "summarization")


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": "hot"},
        {"num_beams": 2.5},
        {"num_beams": -1},
        {"num_beams": 1001},
        {"num_return_sequences": 10**6},
        {"top_p": True},
        {"do_sample": 1},
        {"early_stopping": "soon"},
        {"eos_token_id": ["a"]},
        {"eos_token_id": True},
        {"bad_words_ids": [[]]},
        {"bad_words_ids": 3},
        {"stop_strings": [1]},
        {"temperature": float("inf")},
    ],
    ids=str,
)
def test_values_of_another_type_are_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    with pytest.raises(HubError, match=f"sets {next(iter(values))}="):
        read_generation(write(tmp_path, **values))


def test_what_is_not_computed_is_announced(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"asks for diversity_penalty=0.5, which trivium does not compute"):
        read_generation(write(tmp_path, diversity_penalty=0.5, num_beam_groups=1, guidance_scale=None))


def test_no_file_leads_out_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    write(tmp_path, "secret.json", num_beams=3)
    (folder / "generation_config.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(HubError, match="outside itself"):
        read_generation(folder)
