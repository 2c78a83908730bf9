"""T23: the tokens that transformers' `generate` writes, greedily and with beams, on ragged batches.

A search has near-ties too, at the edge between the beams that go on and those that don't, long before any final
score shows it: that margin is recorded from our own search, whose rules are the same.
"""

import math
from typing import Any

import pytest
import torch
from transformers import DynamicCache, EncoderDecoderCache, GenerationConfig

from tests.generation.identical import assert_identical, trim
from tests.reference import Pair, build_pair, our_logits, random_rows
from trivium.generation import SamplingConfig, generate
from trivium.generation.beam import Beam, Search
from trivium.generation.rules import Past, apply_rules
from trivium.model import Side

PROMPTS = [50, pytest.param(500, marks=pytest.mark.torture)]
NEW = 16
# An untrained encoder–decoder repeats one token for ever; forbidding that makes fifty different texts of it.
LIVELY = {"no_repeat_ngram_size": 1}
MODELS = ["gpt2", "llama", "mistral", "qwen2", "qwen3", "qwen3-window", "t5", "t5-v1.1", "mt5", "marian-2017", "marian"]
MODELS += ["bart", "pegasus"]


def prompts_of(count: int) -> list[list[int]]:
    lengths = torch.randint(1, 14, (count,), generator=torch.Generator().manual_seed(0)).tolist()
    return random_rows(lengths, seed=1)


def their_tokens(pair: Pair, prompts: list[list[int]], **options: Any) -> tuple[list[list[int]], list[float]]:
    """What transformers writes: left-padded for a decoder, as it wants them; with its sequence scores."""
    two = pair.ours.config.family == "encoder_decoder"
    longest = max(map(len, prompts))
    fill = [[0] * (longest - len(row)) for row in prompts]
    ids = [row + pad if two else pad + row for row, pad in zip(prompts, fill, strict=True)]
    seen = [[1] * len(row) + pad if two else pad + [1] * len(row) for row, pad in zip(prompts, fill, strict=True)]
    config = GenerationConfig(
        max_new_tokens=NEW,
        pad_token_id=0,
        eos_token_id=pair.ours.config.eos_id,
        decoder_start_token_id=pair.ours.config.decoder_start_id,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    # Theirs would size an encoder–decoder's cache by its encoder's layers and fail where the decoder has more.
    cache = {"past_key_values": EncoderDecoderCache(DynamicCache(), DynamicCache())} if two else {}
    found = pair.theirs.generate(
        torch.tensor(ids), attention_mask=torch.tensor(seen), generation_config=config, **cache
    )
    scores = found.sequences_scores.tolist() if options.get("num_beams", 1) > 1 else []
    return trim(found.sequences, 1 if two else longest, config.eos_token_id), scores


def liveliness(pair: Pair) -> dict[str, Any]:
    return LIVELY if pair.ours.config.family == "encoder_decoder" else {}


def greedy_gap(pair: Pair, prompts: list[list[int]], rows: list[list[int]], row: int, step: int) -> float:
    """How far the reference's best token leads at a step."""
    two = pair.ours.config.family == "encoder_decoder"
    read = [pair.ours.config.decoder_start_id] if two else prompts[row]
    history = [*read, *rows[row][:step]]
    context = Side.from_ids([prompts[row]]) if two else None
    logits = our_logits(pair.ours, Side.from_ids([history]), context)[:, -1]
    best = apply_rules(logits, [Past(history)], SamplingConfig(**liveliness(pair))).topk(2).values[0]
    return float(best[0] - best[1])


def watch_margins(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Fills in, per prompt in order, the smallest lead of a beam that went on over one that did not."""
    margins: dict[int, float] = {}
    advance = Search.advance

    def watch(search: Search, ranked: list[tuple[int, Beam]]) -> list[int]:
        scores, edge = [beam.score for _, beam in ranked], search.config.num_beams
        leads = [high - low for high, low in zip(scores[edge - 1 :], scores[edge:], strict=False)]
        margins[id(search)] = min([margins.get(id(search), math.inf), *leads])
        return advance(search, ranked)

    monkeypatch.setattr(Search, "advance", watch)
    return margins


@pytest.mark.parametrize("count", PROMPTS)
@pytest.mark.parametrize("name", MODELS)
def test_greedy_tokens_are_transformers(name: str, count: int) -> None:
    pair, prompts = build_pair(name, sharp=1.5), prompts_of(count)
    options = liveliness(pair)
    theirs, _ = their_tokens(pair, prompts, do_sample=False, **options)
    ours = [r.ids for r in generate(pair.ours, prompts, SamplingConfig(max_new_tokens=NEW, **options))]
    assert_identical(ours, theirs, lambda row, step: greedy_gap(pair, prompts, theirs, row, step))
    assert len({tuple(row) for row in ours}) > count // 4, "all alike: this would prove little"


@pytest.mark.parametrize(
    ("num_beams", "length_penalty", "early_stopping"),
    [(4, 1.0, False), (3, 0.4, True), (2, 2.0, "never"), (3, -0.5, "never"), (4, 0.0, True)],
)
@pytest.mark.parametrize("count", PROMPTS)
@pytest.mark.parametrize("name", MODELS)
def test_beam_tokens_are_transformers(
    name: str,
    count: int,
    num_beams: int,
    length_penalty: float,
    early_stopping: bool | str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair, prompts, margins = build_pair(name, sharp=1.5), prompts_of(count), watch_margins(monkeypatch)
    options: dict[str, Any] = {
        "num_beams": num_beams,
        "length_penalty": length_penalty,
        "early_stopping": early_stopping,
        **liveliness(pair),
    }
    theirs, scores = their_tokens(pair, prompts, **options)
    found = generate(pair.ours, prompts, SamplingConfig(max_new_tokens=NEW, **options))
    ours = [result.ids for result in found]
    smallest = list(margins.values())
    # Scores are sums of up to 16 logarithms that agree to 1e-4 each.
    assert_identical(ours, theirs, lambda row, _: smallest[row], tolerance=1e-3)
    for result, ids, score in zip(found, theirs, scores, strict=True):
        assert result.ids != ids or result.score == pytest.approx(score, abs=1e-4)
    assert len({tuple(row) for row in theirs}) > count // 4, "all alike: this would prove little"


@pytest.mark.parametrize("options", [{"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 2}], ids=str)
@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_rules_that_look_back_are_transformers(name: str, num_beams: int, options: dict[str, Any]) -> None:
    pair, prompts = build_pair(name, sharp=1.5), prompts_of(20)
    # A prompt of one token: transformers counts padding as history in no_repeat_ngram_size.
    prompts = [row[:1] for row in prompts]
    theirs, _ = their_tokens(pair, prompts, num_beams=num_beams, **options)
    config = SamplingConfig(max_new_tokens=NEW, num_beams=num_beams, **options)
    ours = [result.ids for result in generate(pair.ours, prompts, config)]
    assert ours == theirs
