"""The hub of the tests: what it serves, and that the guard really guards."""

import json
from pathlib import Path

import pytest

from tests.hub.server import Hub

GENERATE = """
from trivium import generate_text, load
model, tokenizer = load("gpt2")
print(model.config.family, len(generate_text(model, tokenizer, ["The value of a"])[0]) > 5)
"""
ELSEWHERE = """
import socket
try:
    socket.create_connection(("93.184.215.14", 80), 1)
except OSError as error:
    print(error)
"""


def test_short_names_are_served_under_their_full_ones(hub: Hub) -> None:
    assert hub.run(GENERATE).stdout == "decoder True\n"
    paths = [request.path for request in hub.asked]
    assert "/api/models/gpt2/revision/main" in paths and "/api/models/openai-community/gpt2/revision/main" in paths
    assert hub.run(GENERATE, HF_HUB_OFFLINE="1").stdout == "decoder True\n"
    assert len(hub.asked) == len(paths)


def test_what_is_served_is_what_transformers_saved(t5_folder: Path) -> None:
    from transformers import AutoTokenizer

    settings = json.loads((t5_folder / "config.json").read_text())
    assert settings["task_specific_params"]["summarization"]["prefix"] == "summarize: "
    assert AutoTokenizer.from_pretrained(t5_folder).decode([settings["decoder_start_token_id"]]) == "<pad>"


def test_no_process_reaches_another_machine(hub: Hub) -> None:
    with pytest.raises(AssertionError, match=r"another machine was asked for: '93.184.215.14'"):
        hub.run(ELSEWHERE)
