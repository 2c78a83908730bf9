"""The rules of choosing a token, held to transformers' processors and to closed forms."""

import math

import pytest
import torch
from transformers.generation import logits_process as theirs

from trivium.generation.rules import Past, forbid_repeated_ngrams, penalize_repetition
from trivium.generation.sample import (
    choose,
    draw,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical,
    restrict,
    token_logprobs,
)
from trivium.generation.settings import SamplingConfig


def scores(rows: int = 5, vocab: int = 40, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("top_k", [1, 3, 40, 100])
def test_top_k_equals_transformers(top_k: int) -> None:
    logits_BV = scores()
    assert torch.equal(keep_top_k(logits_BV, top_k), theirs.TopKLogitsWarper(top_k)(None, logits_BV))


def test_top_k_keeps_ties() -> None:
    kept = keep_top_k(torch.tensor([[1.0, 2.0, 2.0, 0.0]]), 1)
    assert kept.isfinite().tolist() == [[False, True, True, False]]


@pytest.mark.parametrize("top_p", [1e-6, 0.2, 0.5, 0.9, 0.999])
def test_top_p_equals_transformers(top_p: float) -> None:
    logits_BV = scores()
    assert torch.equal(keep_top_p(logits_BV, top_p), theirs.TopPLogitsWarper(top_p)(None, logits_BV))


@pytest.mark.parametrize("min_p", [1e-4, 0.05, 0.5, 1.0])
def test_min_p_equals_transformers(min_p: float) -> None:
    logits_BV = scores()
    assert torch.equal(keep_min_p(logits_BV, min_p), theirs.MinPLogitsWarper(min_p)(None, logits_BV))


@pytest.mark.parametrize("mass", [1e-6, 0.2, 0.5, 0.9, 0.999])
def test_typical_p_equals_transformers(mass: float) -> None:
    logits_BV = scores()
    logits_BV[1, :20] = -math.inf
    assert torch.equal(keep_typical(logits_BV, mass), theirs.TypicalLogitsWarper(mass)(None, logits_BV))


def test_rules_compose_in_transformers_order() -> None:
    logits_BV = scores()
    config = SamplingConfig(do_sample=True, temperature=0.7, top_k=20, top_p=0.8, min_p=0.02, typical_p=0.7)
    expected = logits_BV
    for rule in (
        theirs.TemperatureLogitsWarper(0.7),
        theirs.TopKLogitsWarper(20),
        theirs.TopPLogitsWarper(0.8),
        theirs.MinPLogitsWarper(0.02),
        theirs.TypicalLogitsWarper(0.7),
    ):
        expected = rule(None, expected)
    assert torch.equal(restrict(logits_BV, config), expected)


def test_rules_leave_their_input_alone() -> None:
    logits_BV = scores()
    before = logits_BV.clone()
    penalize_repetition(logits_BV, [[1]] * 5, 2.0)
    forbid_repeated_ngrams(logits_BV, [[1, 1]] * 5, 1)
    restrict(logits_BV, SamplingConfig(do_sample=True, temperature=0.5, top_k=2, top_p=0.5, min_p=0.1))
    assert torch.equal(logits_BV, before)


def test_draw_follows_the_distribution() -> None:
    logits = torch.tensor([0.5, 0.2, -math.inf, 0.3]).log()
    logits[2] = -math.inf
    grid = (torch.arange(1000) + 0.5) / 1000
    picks = draw(logits.expand(1000, 4), grid)
    expected = logits.softmax(-1)
    assert (picks.bincount(minlength=4) / 1000 - expected).abs().max() <= 1e-3


def test_draw_at_the_edges_never_takes_a_ruled_out_token() -> None:
    logits_BV = torch.tensor([[-math.inf, 0.0, 0.0, -math.inf]] * 2)
    assert draw(logits_BV, torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist() == [1, 2]


@pytest.mark.parametrize("top_k", [0, 7])
def test_a_row_draws_the_same_alone_and_in_company(top_k: int) -> None:
    logits_BV = scores(rows=6)
    config = SamplingConfig(do_sample=True, top_k=top_k, top_p=0.95)
    together = choose(logits_BV, [Past([])] * 6, config, generators(*range(6)))
    alone = [choose(logits_BV[i : i + 1], [Past([])], config, generators(i)) for i in range(6)]
    assert together.tolist() == [int(pick) for pick in alone]


def test_both_ways_of_top_k_reach_the_same_tokens() -> None:
    logits_BV = scores(rows=1).expand(400, -1)
    config = SamplingConfig(do_sample=True, top_k=3, top_p=0.9)
    allowed = set(restrict(logits_BV[:1], config)[0].isfinite().nonzero()[:, 0].tolist())
    picks = choose(logits_BV, [Past([])] * 400, config, generators(*range(400)))
    assert set(picks.tolist()) == allowed


def test_greedy_is_the_best_allowed_token() -> None:
    logits_BV = torch.tensor([[1.0, 3.0, 2.0]])
    assert choose(logits_BV, [Past([1])], SamplingConfig(), []).tolist() == [1]
    assert choose(logits_BV, [Past([1])], SamplingConfig(repetition_penalty=2.0), []).tolist() == [2]
    assert choose(logits_BV, [Past([1])], SamplingConfig(no_repeat_ngram_size=1), []).tolist() == [2]


def test_token_logprobs_are_those_of_the_model() -> None:
    logits_BV, ids_B = scores(), torch.tensor([3, 1, 4, 1, 5])
    expected = logits_BV.log_softmax(-1)[torch.arange(5), ids_B]
    assert torch.equal(token_logprobs(logits_BV, ids_B), expected)
