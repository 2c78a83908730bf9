"""Gaps are filled with what the encoder says, alone and beside other gaps."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

from tests.generation.spelling import speaker, tokenizer_for
from trivium.errors import ConfigError, RequestError
from trivium.generation import fill_mask
from trivium.model import Side, build_model


def test_candidates_are_the_likeliest_tokens_with_their_probabilities() -> None:
    model, tokenizer = speaker("bert")
    text = "Return the [MASK] of the array along the given [MASK]."
    gaps = fill_mask(model, tokenizer, text, top_k=4)
    ids = tokenizer.encode_control(text, add_special=True)
    places = [place for place, token in enumerate(ids) if token == tokenizer.mask_id]
    with torch.no_grad():
        expected = model.eval().head(model(Side.from_ids([ids]))).softmax(-1)[0, places]
    assert len(gaps) == len(places) == 2
    for gap, row in zip(gaps, expected, strict=True):
        best = row.topk(4)
        assert [fill.token for fill in gap] == best.indices.tolist()
        assert [fill.probability for fill in gap] == pytest.approx(best.values.tolist())
        assert [fill.token_text for fill in gap] == [tokenizer.token_text(fill.token) for fill in gap]


def test_a_sequence_shows_the_text_with_one_gap_filled() -> None:
    model, tokenizer = speaker("bert")
    text = "the [MASK] of the [MASK]."
    ids = tokenizer.encode_control(text)
    places = [place for place, token in enumerate(ids) if token == tokenizer.mask_id]
    for place, gap in zip(places, fill_mask(model, tokenizer, text, top_k=3), strict=True):
        for fill in gap:
            filled = [*ids[:place], fill.token, *ids[place + 1 :]]
            assert fill.sequence == tokenizer.decode(filled, skip_special=False).strip()
            assert fill.sequence.count("[MASK]") == 1


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece"])
def test_the_gap_of_a_word_takes_the_space_before_it(kind: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_for("encoder", kind)
    # An encoder learned from whole words replaced, each with its space: a stray space is what it never saw.
    words = tokenizer.encode("Return the length of the array")
    gap = tokenizer.encode_control("Return the [MASK] of the array")
    before = tokenizer.encode("Return the")
    assert gap[: len(before) + 1] == [*before, tokenizer.mask_id]
    assert gap[len(before) + 1 :] == words[-len(gap) + len(before) + 1 :]
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("Return the [MASK] of the array", add_special_tokens=False)["input_ids"] == gap


def test_filling_keeps_the_models_mode() -> None:
    model, tokenizer = speaker("bert")
    model.train()
    fill_mask(model, tokenizer, "the [MASK]")
    assert model.training


def test_more_candidates_than_tokens() -> None:
    model, tokenizer = speaker("bert")
    (gap,) = fill_mask(model, tokenizer, "[MASK]", top_k=10**6)
    assert len(gap) == model.config.vocab_size
    assert sum(fill.probability for fill in gap) == pytest.approx(1.0, abs=1e-4)


def test_what_cannot_be_filled_is_refused() -> None:
    model, tokenizer = speaker("bert")
    with pytest.raises(RequestError, match=r"no \[MASK\] in 'nothing"):
        fill_mask(model, tokenizer, "nothing to fill")
    with pytest.raises(RequestError, match=r"tokens; this model reads at most 64"):
        fill_mask(model, tokenizer, "[MASK]" + "!" * 100)
    with pytest.raises(ConfigError, match="needs an encoder"):
        fill_mask(build_model(replace(speaker("llama")[0].config)), tokenizer, "[MASK]")
