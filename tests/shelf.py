"""A shelf of tiny starters, random weights: what stands for the real ones where only the plumbing is tested."""

from pathlib import Path

import pytest

from tests.generation.spelling import speaker
from trivium.hub.auto import save_model

# Name → the model that is tiny, and what its card says.
STARTERS = {
    "poet-zh": ("llama", {"pipeline_tag": "text-generation", "language": "zh", "tags": ["trivium"]}),
    "reader-en": ("bert", {"pipeline_tag": "fill-mask", "tags": ["trivium", "feature-extraction"]}),
    "summarizer-en": (
        "t5",
        {"language": "en", "pipeline_tag": "summarization", "tags": ["trivium", "text2text-generation"]},
    ),
}


def fill_shelf(folder: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> Path:
    """Make the starters of these names (all of them without) and let trivium find no others."""
    folder.mkdir(exist_ok=True)
    for name in names or STARTERS:
        network, card = STARTERS[name]
        model, tokenizer = speaker(name=network)
        save_model(model, folder / name, tokenizer=tokenizer, card=card)
    monkeypatch.setattr("trivium.hub.starters.starters_folder", lambda: folder)
    return folder
