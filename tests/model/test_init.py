"""How weights begin."""

import pytest
import torch

from tests.families import TINY, context_for
from trivium.errors import ConfigError
from trivium.model import Side, build_model
from trivium.model.start import set_unigram_start


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
