"""Vectors: transformers' hidden states, and cosines of their means."""

from pathlib import Path

import pytest
import torch
import transformers

from tests.generation.spelling import TEXTS
from trivium import pipeline
from trivium.errors import ConfigError, RequestError


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_features_equal_transformers(name: str, folders: dict[str, Path]) -> None:
    ours = pipeline("feature-extraction", model=folders[name])
    theirs = transformers.pipeline("feature-extraction", model=str(folders[name]), device="cpu")
    for text, found in zip(TEXTS, ours(TEXTS, batch_size=2), strict=True):
        expected = torch.tensor(theirs(text))
        assert torch.tensor(found).shape == expected.shape
        torch.testing.assert_close(torch.tensor(found), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(torch.tensor(ours(text)), expected, atol=1e-5, rtol=0)
    assert ours(TEXTS[0], return_tensors=True).shape == torch.tensor(theirs(TEXTS[0])).shape


def test_an_encoder_decoder_gives_what_its_encoder_read(t5_folder: Path) -> None:
    reader = transformers.AutoTokenizer.from_pretrained(t5_folder)
    model = transformers.T5EncoderModel.from_pretrained(t5_folder)
    with torch.no_grad():
        expected = model(**reader(TEXTS[0], return_tensors="pt")).last_hidden_state
    found = pipeline("feature-extraction", model=t5_folder)(TEXTS[0], return_tensors=True)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_similarity_is_the_cosine_of_pooled_states(pooling: str, folders: dict[str, Path]) -> None:
    ours, features = (pipeline(task, model=folders["bert"]) for task in ("sentence-similarity", "feature-extraction"))
    hidden = [features(text, return_tensors=True)[0] for text in TEXTS]
    pooled = torch.stack([each.mean(0) if pooling == "mean" else each[0] for each in hidden])
    expected = torch.cosine_similarity(pooled[:1], pooled[1:]).tolist()
    options = {} if pooling == "mean" else {"pooling": "cls"}
    found = ours(TEXTS[0], TEXTS[1:], **options)
    assert found == pytest.approx(expected, abs=1e-5)
    asked = {"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}
    assert ours(**asked, **options) == ours(asked, **options) == found
    assert ours([asked, asked], batch_size=1, **options) == [pytest.approx(found, abs=1e-5)] * 2
    assert ours(TEXTS[0], TEXTS[:1], **options) == [pytest.approx(1.0, abs=1e-5)]


def test_what_it_cannot_do_is_said(folders: dict[str, Path]) -> None:
    ours = pipeline("sentence-similarity", model=folders["bert"])
    with pytest.raises(ConfigError, match="pooling is 'max'"):
        ours(TEXTS[0], TEXTS[1:], pooling="max")
    with pytest.raises(RequestError, match="source_sentence and sentences"):
        ours({"source_sentence": "a"})
    features = pipeline("feature-extraction", model=folders["bert"])
    with pytest.raises(RequestError, match="this model reads at most 64"):
        features(TEXTS[0] * 9)
    assert len(features(TEXTS[0] * 9, truncation=True)[0]) == 64
