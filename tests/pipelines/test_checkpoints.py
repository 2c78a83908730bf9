"""A real sentence encoder through the pipeline (tests/hub/test_checkpoints.py says how to get it)."""

import pytest
import torch
import transformers

from tests.hub.test_checkpoints import MINILM, checkpoint
from trivium import pipeline


@pytest.mark.checkpoints
@torch.no_grad()
def test_similarity_finds_the_paraphrase() -> None:
    folder = checkpoint(MINILM)
    texts = ["A man is eating food.", "Someone eats a meal.", "The stock market fell sharply today."]
    words = transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    model = transformers.AutoModel.from_pretrained(folder).eval()
    means = torch.cat([model(**words(text, return_tensors="pt")).last_hidden_state.mean(1) for text in texts])
    expected = torch.cosine_similarity(means[:1], means[1:]).tolist()
    found = pipeline("sentence-similarity", model=folder)(texts[0], texts[1:])
    assert found == pytest.approx(expected, abs=1e-4)
    assert found[0] > 0.5 > 0.2 > found[1]
