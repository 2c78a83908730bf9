"""What holds for every test: no network, one thread a process unless more are asked for; and a hub of our own."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Before torch or the hub's client is imported, by this process or by one that a test starts.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    from tests.hub.server import Hub


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What transformers saved of a small GPT-2 that it trained on our text; not to be changed."""
    from tests.hub.shaped import make_gpt2

    return make_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="session")
def t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a small T5, with `task_specific_params` like those of `t5-small`; not to be changed."""
    from tests.hub.shaped import make_t5

    return make_t5(tmp_path_factory.mktemp("t5-small"))


@pytest.fixture
def hub(gpt2_folder: Path, t5_folder: Path, tmp_path: Path) -> "Iterator[Hub]":
    """A hub on this machine that serves `gpt2` and `t5-small`, under their full names too."""
    from tests.hub.server import serving

    folders = {"openai-community/gpt2": gpt2_folder, "google-t5/t5-small": t5_folder}
    with serving(folders, tmp_path / "home") as running:
        running.aliases |= {name.split("/")[1]: name for name in folders}
        yield running
