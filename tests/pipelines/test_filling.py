"""fill-mask is transformers' in candidates, scores and shapes."""

from pathlib import Path
from typing import Any

import pytest
import transformers

from tests.generation.spelling import TEXTS
from trivium import pipeline
from trivium.errors import ConfigError, RequestError

ONE, TWO = "Return the [MASK] of the array.", "the [MASK] of the [MASK]"


@pytest.fixture(scope="module")
def pair(folders: dict[str, Path]) -> tuple[Any, Any]:
    return pipeline("fill-mask", model=folders["bert"]), transformers.pipeline("fill-mask", model=str(folders["bert"]))


def same(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs) and len(ours) == len(theirs)
    for mine, reference in zip(ours, theirs, strict=True):
        if isinstance(reference, list):
            same(mine, reference)
        else:
            assert mine.keys() == reference.keys()
            assert mine["score"] == pytest.approx(reference["score"], abs=1e-5)
            assert (mine["token"], mine["sequence"]) == (reference["token"], reference["sequence"])


def test_equals_transformers(pair: tuple[Any, Any]) -> None:
    ours, reference = pair
    for inputs in (ONE, [ONE], [ONE, "a [MASK]"]):
        same(ours(inputs, top_k=3), reference(inputs, top_k=3))
        same(ours(inputs), reference(inputs))
    assert [[fill["token"] for fill in gap] for gap in ours(TWO)] == [
        [fill["token"] for fill in gap] for gap in reference(TWO)
    ]
    targets = [ours.tokenizer.token_text(token) for token in (60, 70, 80)]
    same(ours(ONE, targets=targets), reference(ONE, targets=targets))
    same(ours(ONE, targets=targets, top_k=2), reference(ONE, targets=targets, top_k=2))


def test_batches_and_iterables_give_the_same(pair: tuple[Any, Any]) -> None:
    ours = pair[0]
    texts = [f"{text} [MASK] {text[:index]}" for index, text in enumerate(TEXTS)] + [TWO]
    alone = [ours(text) for text in texts]
    for found in (ours(texts, batch_size=2), list(ours(iter(texts)))):
        for mine, reference in zip(found, alone, strict=True):
            assert str(mine).count("sequence") == str(reference).count("sequence")
            same(mine, reference)


def test_long_texts_are_refused_or_cut(pair: tuple[Any, Any]) -> None:
    ours = pair[0]
    long = ONE + TEXTS[0] * 9
    with pytest.raises(RequestError, match=r"the text has \d+ tokens; this model reads at most 64"):
        ours(long)
    assert ours(long, truncation=True)[0]["sequence"].startswith("Return the")
    with pytest.raises(RequestError, match=r"there is no \[MASK\]"):
        ours(TEXTS[0] * 9 + ONE, truncation=True)


def test_what_it_cannot_do_is_said(pair: tuple[Any, Any]) -> None:
    ours = pair[0]
    with pytest.raises(ConfigError, match="fill-mask has no option num_beams; expected for example"):
        ours(ONE, num_beams=3)
    with pytest.raises(ConfigError, match=r"the target .* is \d+ tokens"):
        ours(ONE, targets=["unpronounceable"])
    with pytest.raises(ConfigError, match="targets is empty"):
        ours(ONE, targets=[])
