"""T27 and T25: the cache changes nothing, nor does company, for every family."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.families import TINY
from trivium.generation import SamplingConfig, decode, decode_step, generate, prefill
from trivium.generation.decode import group_lengths
from trivium.model import ModelConfig, Side, Transformer, build_model

WRITERS = {name: config for name, config in TINY.items() if config.family != "encoder"} | {
    "window": replace(TINY["qwen3"], window=5),
    "multi-query": replace(TINY["llama"], num_kv_heads=1),
    "t5-v1.1": replace(TINY["t5"], activation="gelu_tanh", gated_ffn=True, tie_embeddings=False),
}
LENGTHS = [7, 1, 12, 3]


def model_of(config: ModelConfig, dtype: torch.dtype = torch.float64) -> Transformer:
    return build_model(config, seed=3, dtype=dtype).eval()


def rows_of(lengths: list[int], seed: int = 0, vocab: int = 64) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, vocab, (length,), generator=generator).tolist() for length in lengths]


def context_of(config: ModelConfig, rows: int) -> Side | None:
    lengths = [5, 9, 2, 11][:rows]
    return Side.from_ids(rows_of(lengths, seed=9)) if config.family == "encoder_decoder" else None


@torch.no_grad()
def recompute(model: Transformer, rows: list[list[int]], context: Side | None) -> Tensor:
    """Scores after the last token of each row, without any cache."""
    side = Side.from_ids(rows)
    hidden_BTD = model(side, context)
    ends = torch.tensor([len(row) - 1 for row in rows])
    return model.head(hidden_BTD[torch.arange(len(rows)), ends][:, None])[:, 0]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("lengths", [LENGTHS, [6, 6]], ids=["ragged", "even"])
def test_cached_steps_equal_full_recompute(name: str, lengths: list[int]) -> None:
    model, rows = model_of(WRITERS[name]), rows_of(lengths)
    context = context_of(model.config, len(rows))
    cache, logits_BV = prefill(model, Side.from_ids(rows), context=context, capacity=max(lengths) + 9)
    for ids in rows_of([9] * len(rows), seed=1):
        torch.testing.assert_close(logits_BV, recompute(model, rows, context), rtol=0, atol=1e-12)
        step = [(ids[0] + row) % 64 for row in range(len(rows))]
        rows = [[*row, token] for row, token in zip(rows, step, strict=True)]
        logits_BV = decode_step(model, cache, torch.tensor(step))
    torch.testing.assert_close(logits_BV, recompute(model, rows, context), rtol=0, atol=1e-12)
    assert cache.lengths.tolist() == [len(row) for row in rows]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("chunk_tokens", [1, 2, 5, 11, 12, 100])
def test_any_split_of_a_prefill_is_the_same(name: str, chunk_tokens: int) -> None:
    model, rows = model_of(WRITERS[name]), rows_of(LENGTHS)
    side, context = Side.from_ids(rows), context_of(model.config, len(rows))
    cache, logits_BV = prefill(model, side, context=context, capacity=13, chunk_tokens=chunk_tokens)
    torch.testing.assert_close(logits_BV, recompute(model, rows, context), rtol=0, atol=1e-12)
    logits_BV = decode_step(model, cache, torch.tensor([5, 6, 7, 8]))
    rows = [[*row, token] for row, token in zip(rows, [5, 6, 7, 8], strict=True)]
    torch.testing.assert_close(logits_BV, recompute(model, rows, context), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", WRITERS)
def test_slots_can_be_reordered_repeated_and_dropped(name: str) -> None:
    model, rows = model_of(WRITERS[name]), rows_of(LENGTHS)
    context = context_of(model.config, len(rows))
    cache, _ = prefill(model, Side.from_ids(rows), context=context, capacity=20)
    slots = torch.tensor([2, 0, 2])
    cache, rows = cache.select(slots), [[*rows[slot], 5] for slot in slots]
    if context is not None:
        context = Side(context.ids[slots], context.positions[slots], context.segments[slots])
    logits_BV = decode_step(model, cache, torch.tensor([5, 5, 5]))
    torch.testing.assert_close(logits_BV, recompute(model, rows, context), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("do_sample", [False, True], ids=["greedy", "sampled"])
def test_a_ragged_batch_writes_what_each_prompt_writes_alone(name: str, do_sample: bool) -> None:
    model = model_of(replace(WRITERS[name], eos_id=7))
    prompts = rows_of([7, 1, 12, 3, 3, 20, 2, 9])
    config = SamplingConfig(max_new_tokens=12, do_sample=do_sample, seed=5, logprobs=True)
    together = generate(model, prompts, config)
    for index, (prompt, result) in enumerate(zip(prompts, together, strict=True)):
        alone = generate(model, [prompt], config, seeds=[5 + index])[0]
        assert (alone.ids, alone.finish_reason) == (result.ids, result.finish_reason)
        assert alone.logprobs == pytest.approx(result.logprobs, abs=1e-5)


@pytest.mark.torture
@pytest.mark.parametrize("name", WRITERS)
def test_batches_of_any_shape_write_what_each_prompt_writes_alone(name: str) -> None:
    model, chance = model_of(replace(WRITERS[name], eos_id=7)), torch.Generator().manual_seed(0)
    config, alone = SamplingConfig(max_new_tokens=16), dict[tuple[int, ...], list[int]]()
    for batch in range(25):
        count = int(torch.randint(1, 33, (), generator=chance))
        prompts = rows_of(torch.randint(1, 40, (count,), generator=chance).tolist(), seed=batch % 8)
        for prompt, result in zip(prompts, generate(model, prompts, config), strict=True):
            key = tuple(prompt)
            if key not in alone:
                alone[key] = generate(model, [prompt], config)[0].ids
            assert result.ids == alone[key]


@pytest.mark.parametrize("name", WRITERS)
def test_logprobs_are_those_of_a_full_pass(name: str) -> None:
    model, prompt = model_of(WRITERS[name]), rows_of([6])[0]
    result = generate(model, [prompt], SamplingConfig(max_new_tokens=5, do_sample=True, logprobs=True))[0]
    two = model.config.family == "encoder_decoder"
    read = [0] if two else prompt
    side = Side.from_ids([[*read, *result.ids]])
    with torch.no_grad():
        scores = model.head(model(side, Side.from_ids([prompt]) if two else None)).log_softmax(-1)[0]
    expected = [float(scores[len(read) - 1 + step, token]) for step, token in enumerate(result.ids)]
    assert result.logprobs == pytest.approx(expected, abs=1e-5)


def test_the_cache_is_as_large_as_it_must_be_and_no_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    from trivium.model import Cache

    made, allocate = [], Cache.allocate.__func__

    def watch(cls, config, slots, capacity, *, like):  # type: ignore[no-untyped-def]
        made.append((slots, capacity))
        return allocate(cls, config, slots, capacity, like=like)

    monkeypatch.setattr(Cache, "allocate", classmethod(watch))
    generate(model_of(TINY["llama"]), rows_of([3, 8]), SamplingConfig(max_new_tokens=5))
    generate(model_of(TINY["t5"]), rows_of([3, 8]), SamplingConfig(max_new_tokens=5))
    assert made == [(2, 8 + 5 - 1), (2, 1 + 5 - 1)]


def test_a_selected_cache_holds_what_was_filled_and_numbers_besides() -> None:
    """Slots of different lengths go on after a selection; memory that nothing has written must not reach a sum."""
    model = build_model(TINY["llama"])
    rows = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14]]
    cache, _ = prefill(model, Side.from_ids(rows), capacity=40)
    chosen = [2, 0, 1, 1]
    picked = cache.select(torch.tensor(chosen))
    assert picked.keys.shape[3] == 40 and torch.equal(picked.keys[:, 1, :, :5], cache.keys[:, 0, :, :5])
    picked.keys[:, :, :, picked.filled :] = float("nan")  # as fresh memory may be
    picked.values[:, :, :, picked.filled :] = float("nan")
    texts = [list(rows[slot]) for slot in chosen]
    for token in (20, 21, 22):
        logits = decode_step(model, picked, torch.full((4,), token))
        for text in texts:
            text.append(token)
        for row, text in enumerate(texts):
            side = Side.from_ids([text])
            torch.testing.assert_close(logits[row], model.head(model(side))[0, -1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("num_beams", [1, 3])
def test_reading_prompts_in_groups_changes_nothing(name: str, num_beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = model_of(WRITERS[name]), rows_of([3, 12, 1, 7, 11])
    config = SamplingConfig(max_new_tokens=9, num_beams=num_beams, logprobs=True)
    whole = generate(model, prompts, config)
    monkeypatch.setattr(decode, "group_lengths", lambda lengths: group_lengths(lengths, tokens=1))
    for one, other in zip(whole, generate(model, prompts, config), strict=True):
        assert one.ids == other.ids
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-12)


def test_groups_waste_little() -> None:
    assert group_lengths([3, 9, 4]) == [[0, 1, 2]]
    assert group_lengths([10, 400, 390, 12, 300], tokens=50) == [[1, 2], [4], [3, 0]]
    assert group_lengths([10, 10], tokens=0) == [[0, 1]]


def test_texts_with_unequal_numbers_of_beams_are_written_as_alone() -> None:
    """Few tokens are left to each text, fewer to those whose source has some of them."""
    model = model_of(TINY["t5"])
    prompts = [[10, 11, 12, 20], [20, 21], [10, 20, 22, 23, 24], [11, 10]]
    allowed = (10, 11, 12, 13)
    config = SamplingConfig(
        max_new_tokens=6,
        num_beams=4,
        encoder_no_repeat_ngram_size=1,
        suppress_tokens=tuple(each for each in range(model.config.vocab_size) if each not in allowed),
    )
    alone = [generate(model, [prompt], config)[0] for prompt in prompts]
    together = generate(model, prompts, config)
    assert [each.ids for each in together] == [each.ids for each in alone]
    assert [each.score for each in together] == pytest.approx([each.score for each in alone], abs=1e-12)
