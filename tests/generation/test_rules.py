"""The rules that look back, each held to transformers' processor of the same name on random scores."""

import math

import pytest
import torch
from torch import Tensor
from transformers.generation import logits_process as theirs

from trivium.generation.rules import (
    Past,
    apply_rules,
    forbid_early_end,
    forbid_repeated_ngrams,
    forbid_words,
    force_ends,
    penalize_presence,
    penalize_repetition,
    suppress,
)
from trivium.generation.settings import SamplingConfig

ROWS, VOCABULARY = 5, 40


def scores(rows: int = ROWS, vocab: int = VOCABULARY, seed: int = 0) -> Tensor:
    return 3 * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))


def histories(length: int, vocab: int = VOCABULARY, seed: int = 1) -> Tensor:
    return torch.randint(0, vocab, (ROWS, length), generator=torch.Generator().manual_seed(seed))


def pasts(ids: Tensor, *, start: int = 1, limit: int = 99, eos: tuple[int, ...] = (2, 3)) -> list[Past]:
    return [Past(row, start, limit, eos) for row in ids.tolist()]


@pytest.mark.parametrize("penalty", [0.7, 1.3, 10.0])
def test_repetition_penalty_equals_transformers(penalty: float) -> None:
    logits_BV = scores()
    histories = torch.randint(0, 40, (5, 12), generator=torch.Generator().manual_seed(1))
    expected = theirs.RepetitionPenaltyLogitsProcessor(penalty)(histories, logits_BV)
    assert torch.equal(penalize_repetition(logits_BV, histories.tolist(), penalty), expected)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 2, 30])
def test_no_repeat_ngram_equals_transformers(size: int, length: int) -> None:
    logits_BV = scores(vocab=4)
    histories = torch.randint(0, 4, (5, length), generator=torch.Generator().manual_seed(2))
    if size <= length + 1:
        expected = theirs.NoRepeatNGramLogitsProcessor(size)(histories, logits_BV.clone())
    else:
        expected = logits_BV
    assert torch.equal(forbid_repeated_ngrams(logits_BV, histories.tolist(), size), expected)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_ngrams_of_the_source_equal_transformers(size: int) -> None:
    logits_BV, written, source = scores(vocab=6), histories(4, 6), histories(30, 6, seed=3)
    expected = theirs.EncoderNoRepeatNGramLogitsProcessor(size, source)(written, logits_BV)
    found = forbid_repeated_ngrams(logits_BV, written.tolist(), size, sources=source.tolist())
    assert torch.equal(found, expected)
    assert expected.isinf().any()


@pytest.mark.parametrize("length", [1, 3, 8])
def test_bad_words_equal_transformers(length: int) -> None:
    logits_BV, ids = scores(vocab=6), histories(length, 6)
    words = [[1], [2], [0, 4], [5, 3], [4, 4, 0], [0, 1, 2, 3]]
    expected = theirs.NoBadWordsLogitsProcessor(words, eos_token_id=[2, 3])(ids, logits_BV)
    assert torch.equal(forbid_words(logits_BV, pasts(ids), words), expected)


@pytest.mark.parametrize(("least", "length"), [(0, 4), (3, 4), (4, 4), (9, 12), (10, 12)])
def test_the_end_must_wait_as_in_transformers(least: int, length: int) -> None:
    logits_BV, ids, ends = scores(), histories(length), torch.tensor([2, 3])
    expected = theirs.MinLengthLogitsProcessor(least, ends)(ids, logits_BV) if least else logits_BV
    assert torch.equal(forbid_early_end(logits_BV, pasts(ids), SamplingConfig(min_length=least)), expected)
    start = 3
    expected = theirs.MinNewTokensLengthLogitsProcessor(start, least, ends)(ids, logits_BV)
    found = forbid_early_end(logits_BV, pasts(ids, start=start), SamplingConfig(min_new_tokens=least))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("length", [1, 2, 8, 9])
def test_forced_ends_equal_transformers(length: int) -> None:
    logits_BV, ids = scores(), histories(length)
    expected = theirs.ForcedBOSTokenLogitsProcessor(7)(ids, logits_BV)
    expected = theirs.ForcedEOSTokenLogitsProcessor(9, [2, 3])(ids, expected)
    config = SamplingConfig(forced_bos_token_id=7, forced_eos_token_id=(2, 3))
    assert torch.equal(force_ends(logits_BV, pasts(ids, limit=8), config), expected)


@pytest.mark.parametrize("forced", [None, 7])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_suppressed_tokens_equal_transformers(length: int, forced: int | None) -> None:
    logits_BV, ids = scores(), histories(length)
    expected = theirs.SuppressTokensLogitsProcessor([4, 5])(ids, logits_BV)
    expected = theirs.SuppressTokensAtBeginLogitsProcessor([6], 1 + (forced is not None))(ids, expected)
    config = SamplingConfig(suppress_tokens=(4, 5), begin_suppress_tokens=(6,), forced_bos_token_id=forced)
    assert torch.equal(suppress(logits_BV, pasts(ids), config), expected)


def test_presence_and_frequency_count_new_tokens_only() -> None:
    logits_BV = torch.zeros(2, 5)
    found = penalize_presence(logits_BV, [[1, 1, 3], []], 0.5, 0.25)
    assert found.tolist() == [[0.0, -1.0, 0.0, -0.75, 0.0], [0.0] * 5]
    config = SamplingConfig(presence_penalty=0.5, frequency_penalty=0.25)
    past = [Past([4, 4, 1, 1, 3], start=2), Past([1], start=1)]
    assert torch.equal(apply_rules(logits_BV, past, config), found)


def test_all_rules_compose_in_transformers_order() -> None:
    logits_BV, ids = scores(vocab=12), histories(9, 12)
    ends = torch.tensor([2, 3])
    expected = logits_BV.clone()
    for rule in (
        theirs.RepetitionPenaltyLogitsProcessor(1.3),
        theirs.NoRepeatNGramLogitsProcessor(2),
        theirs.NoBadWordsLogitsProcessor([[1], [2, 3]], [2, 3]),
        theirs.MinLengthLogitsProcessor(20, ends),
        theirs.ForcedEOSTokenLogitsProcessor(10, [2]),
        theirs.SuppressTokensLogitsProcessor([5]),
    ):
        expected = rule(ids, expected)
    config = SamplingConfig(
        repetition_penalty=1.3,
        no_repeat_ngram_size=2,
        bad_words_ids=((1,), (2, 3)),
        min_length=20,
        forced_eos_token_id=(2,),
        suppress_tokens=(5,),
    )
    assert torch.equal(apply_rules(logits_BV, pasts(ids, limit=9), config), expected)


def test_rules_leave_their_scores_alone_and_none_costs_nothing() -> None:
    logits_BV = scores()
    before, past = logits_BV.clone(), pasts(histories(1))
    assert apply_rules(logits_BV, past, SamplingConfig()) is logits_BV
    everything = SamplingConfig(
        repetition_penalty=2.0,
        presence_penalty=1.0,
        no_repeat_ngram_size=1,
        encoder_no_repeat_ngram_size=1,
        bad_words_ids=((1,),),
        min_length=9,
        forced_bos_token_id=3,
        suppress_tokens=(4,),
    )
    assert apply_rules(logits_BV, past, everything).isinf().any()
    assert torch.equal(logits_BV, before)
    assert not math.isnan(float(apply_rules(logits_BV, past, everything).amax()))
