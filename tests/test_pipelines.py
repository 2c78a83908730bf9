"""`pipeline` has Hugging Face's call form and result shapes, and on our folders its answers too."""

from pathlib import Path

import pytest
import transformers

from tests.generation.spelling import TEXTS, speaker
from trivium import pipeline
from trivium.errors import ConfigError
from trivium.hub.auto import save_model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One saved model of each family."""
    made = {}
    for name in ("llama", "t5", "bert"):
        model, tokenizer = speaker(name)
        made[name] = save_model(model, tmp_path_factory.mktemp("a folder") / name, tokenizer=tokenizer)
    return made


def theirs(task: str, folder: Path) -> transformers.Pipeline:
    return transformers.pipeline(task, model=str(folder), device="cpu")


def test_text_generation_equals_transformers(folders: dict[str, Path]) -> None:
    options = {"max_new_tokens": 8, "do_sample": False}
    ours, reference = pipeline("text-generation", model=folders["llama"]), theirs("text-generation", folders["llama"])
    assert ours(TEXTS[0], **options) == reference(TEXTS[0], **options)
    assert ours(TEXTS[:2], **options) == reference(TEXTS[:2], **options)
    short = {**options, "return_full_text": False}
    assert ours(TEXTS[0], **short) == reference(TEXTS[0], **short)


def test_fill_mask_equals_transformers(folders: dict[str, Path]) -> None:
    ours, reference = pipeline("fill-mask", model=folders["bert"]), theirs("fill-mask", folders["bert"])
    text = "Return the [MASK] of the array."
    for found, expected in zip(ours(text, top_k=3), reference(text, top_k=3), strict=True):
        assert found.keys() == expected.keys()
        assert found["token"] == expected["token"]
        assert found["score"] == pytest.approx(expected["score"], abs=1e-5)
        assert found["sequence"] == expected["sequence"]
    assert len(ours(text)) == len(reference(text)) == 5
    two = "the [MASK] of the [MASK]"
    assert [len(gap) for gap in ours(two, top_k=2)] == [len(gap) for gap in reference(two, top_k=2)] == [2, 2]
    assert [gap[0]["token"] for gap in ours(two)] == [gap[0]["token"] for gap in reference(two)]
    assert len(ours([text, text])) == len(reference([text, text])) == 2


def test_text2text_generation_answers(folders: dict[str, Path]) -> None:
    ours = pipeline("text2text-generation", model=folders["t5"])
    options = {"max_new_tokens": 6, "num_beams": 3}
    (one,) = ours(TEXTS[0], **options)
    assert one.keys() == {"generated_text"}
    # transformers 4, the last that had this task, gave one dict per text of a list.
    both = ours(TEXTS[:2], **options)
    assert both == [one, ours([TEXTS[1]], **options)[0]]
    model, tokenizer = transformers.AutoModelForSeq2SeqLM, transformers.AutoTokenizer
    reader = tokenizer.from_pretrained(folders["t5"])
    inputs = reader(TEXTS[0], return_tensors="pt")
    written = model.from_pretrained(folders["t5"]).generate(inputs["input_ids"], **options)
    assert one["generated_text"] == reader.decode(written[0], skip_special_tokens=True)


def test_sampling_is_reproducible(folders: dict[str, Path]) -> None:
    ours = pipeline("text-generation", model=folders["llama"])
    first, again, other = (ours(TEXTS[0], do_sample=True, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_what_it_cannot_do_is_said(folders: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="no task 'summon'; expected one of text-generation"):
        pipeline("summon", model=folders["llama"])
    with pytest.raises(ConfigError, match="family decoder; fill-mask needs encoder"):
        pipeline("fill-mask", model=folders["llama"])
    with pytest.raises(ConfigError, match=r"has no option max_tokens; expected for example max_new_tokens"):
        pipeline("text-generation", model=folders["llama"])(TEXTS[0], max_tokens=3)
    with pytest.raises(ConfigError, match=r"fill-mask has no option num_beams; expected for example top_k"):
        pipeline("fill-mask", model=folders["bert"])("[MASK]", num_beams=3)
    assert pipeline("text-generation", model=folders["llama"])([]) == []
