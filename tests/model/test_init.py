"""How weights begin."""

from dataclasses import replace

import pytest
import torch

from tests.families import TINY, context_for
from trivium.errors import ConfigError
from trivium.model import ModelConfig, Side, build_model
from trivium.model.start import (
    set_bigram_start,
    set_copy_start,
    set_gap_start,
    set_left_start,
    set_unigram_start,
)

REWRITER = ModelConfig(
    family="encoder_decoder",
    vocab_size=44,
    hidden_size=128,
    num_layers=2,
    num_encoder_layers=2,
    num_heads=4,
    ffn_size=64,
    position="relative",
    attention_scale=False,
    tie_embeddings=False,
    decoder_start_id=0,
)


@pytest.mark.parametrize("name", TINY)
def test_equal_seeds_give_equal_weights(name: str) -> None:
    one, two, other = (
        build_model(TINY[name], seed=1),
        build_model(TINY[name], seed=1),
        build_model(TINY[name], seed=2),
    )
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert all(parameter.isfinite().all() for parameter in one.parameters())


@pytest.mark.parametrize("name", ["qwen3", "bert"])
def test_unigram_start_predicts_frequencies(name: str) -> None:
    config = TINY[name]
    log_frequencies = (torch.randn(config.vocab_size, generator=torch.Generator().manual_seed(0)) * 2).log_softmax(0)
    model = build_model(config, zero_outputs=config.family != "encoder")
    set_unigram_start(model, log_frequencies)
    side = Side.from_ids([[3, 4, 5, 6, 7], [8, 9, 10, 11, 12]])
    predicted = model.head(model(side, context_for(config, side))).log_softmax(-1)
    divergence = (log_frequencies.exp() * (log_frequencies - predicted)).sum(-1)
    uniform = (log_frequencies.exp() * (log_frequencies + torch.tensor(config.vocab_size).log())).sum()
    assert divergence.mean() < 0.05 * uniform


def test_frequencies_of_another_vocabulary_are_refused() -> None:
    with pytest.raises(ConfigError, match="same tokenizer"):
        set_unigram_start(build_model(TINY["qwen3"]), torch.zeros(7))


@pytest.mark.parametrize("name", TINY)
def test_recomputed_activations_give_equal_gradients(name: str) -> None:
    config, side = TINY[name], Side.from_ids([[3, 4, 5, 6], [7, 8, 9, 10]])
    gradients = []
    for on in (False, True):
        model = build_model(config, seed=3)
        model.set_checkpointing(on)
        torch.manual_seed(0)
        model.head(model(side, context_for(config, side))).square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert (plain is None) == (recomputed is None)
        assert plain is None or torch.equal(plain, recomputed)


def test_the_token_before_a_gap_speaks_for_the_first_in_it() -> None:
    """In a made language each token is followed by the next one: the untrained model continues what stands before."""
    sentinels, words, size = [1, 2, 3], range(4, 44), 44
    config = replace(REWRITER, vocab_size=size)
    model = build_model(config, zero_outputs=True)
    set_gap_start(model, sentinels)
    set_unigram_start(model, torch.full((size,), 1 / size).log())
    generator = torch.Generator().manual_seed(0)
    left, right = torch.zeros(size, 30), torch.zeros(size, 30)
    left[list(words)] = torch.randn(len(words), 30, generator=generator)
    for word in words[1:]:
        right[word] = left[word - 1]

    asked = torch.randint(5, 42, (20, 4), generator=generator)

    def share_right() -> tuple[float, float]:
        """How often the guess right after a sentinel follows the word before the gap; within a gap, its own word."""
        first, inside = 0, 0
        for one, two, three, filled in asked.tolist():
            context = Side.from_ids([[20, one, 1, 40, two, 2, 12, three, 3, 33]])
            with torch.no_grad():
                scores = model.head(model(Side.from_ids([[0, 1, filled, 2, 10, 3]]), context))[0]
            found = scores.argmax(-1).tolist()
            inside += found[2] == filled + 1
            first += sum(found[place] == word + 1 for place, word in ((1, one), (3, two), (5, three)))
        return first / asked[:, :3].numel(), inside / len(asked)

    set_bigram_start(model, left, right)
    first, inside = share_right()
    assert first < 0.2 and inside > 0.7
    set_left_start(model)
    first, inside = share_right()
    assert first > 0.7 and inside > 0.7


def test_copy_start_goes_on_where_the_source_does() -> None:
    size, head_size = 300, 32
    config = replace(REWRITER, vocab_size=size, hidden_size=3 * head_size, num_heads=3, num_kv_heads=3)
    model = build_model(config, zero_outputs=True)
    flat = torch.full((size,), 1 / size).log()
    set_copy_start(model, flat)
    generator = torch.Generator().manual_seed(0)
    sources = torch.stack([torch.randperm(size - 3, generator=generator)[:60] + 3 for _ in range(20)])
    with torch.no_grad():
        scores = model.head(model(Side.from_ids(sources[:, 20:30].tolist()), Side.from_ids(sources.tolist())))
    right = (scores.argmax(-1) == sources[:, 21:31]).float()
    assert right[:, 1:].mean() > 0.8  # two tokens to find the place by

    with pytest.raises(ConfigError, match="at least three heads"):
        set_copy_start(build_model(replace(config, hidden_size=2 * head_size, num_heads=2, num_kv_heads=2)), flat)
    with pytest.raises(ConfigError, match="found family decoder"):
        set_copy_start(build_model(TINY["qwen3"]), flat)
