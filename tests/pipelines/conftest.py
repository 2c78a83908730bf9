"""Saved models of each family that speak a small tokenizer, and transformers' pipelines over the same folders."""

from pathlib import Path

import pytest

from tests.generation.spelling import speaker
from trivium.hub.auto import save_model


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One saved model of each family."""
    made = {}
    for name in ("llama", "gpt2", "t5", "bert"):
        model, tokenizer = speaker(name)
        made[name] = save_model(model, tmp_path_factory.mktemp("a folder") / name, tokenizer=tokenizer)
    return made
