"""The text that all tests of training share, prepared once."""

from pathlib import Path

import pytest

from tests.training.runs import settings_for, write_text
from trivium.training.pretraining import gather_materials
from trivium.training.recipe import load_recipe


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_text(tmp_path_factory.mktemp("text") / "text.jsonl")
    gather_materials(load_recipe(None, settings_for("decoder", path.parent / "run", path)))
    return path
