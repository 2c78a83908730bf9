"""LoRA against its formula: what it adds, what it trains, and that a merged model computes the same."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.families import TINY, context_for
from tests.reference import our_logits
from trivium.errors import ConfigError, HubError
from trivium.generation.packed import evaluation_copy, prepare_decoding
from trivium.generation.settings import SamplingConfig
from trivium.generation.write import generate
from trivium.hub.auto import save_model
from trivium.model.adapter import (
    AdaptedLinear,
    LoraConfig,
    adapted_linears,
    adapter_parameters,
    add_adapter,
    find_targets,
    has_adapter,
    merge_adapter,
)
from trivium.model.config import ModelConfig
from trivium.model.init import build_model
from trivium.model.mask import Side
from trivium.model.transformer import Transformer

SIDE = Side.from_ids([[5, 6, 7, 8, 9, 10], [11, 12, 13]])
EVERY = LoraConfig(rank=4, alpha=8.0, targets=("all",))


def logits(model: Transformer) -> Tensor:
    return our_logits(model, SIDE, context_for(model.config, SIDE))


def adapted(name: str, config: LoraConfig = EVERY, dtype: torch.dtype = torch.float32) -> tuple[Transformer, Tensor]:
    """A model with an adapter that does something, in evaluation mode, and what the model said before."""
    model = build_model(TINY[name], seed=3, dtype=dtype).eval()
    with torch.no_grad():
        before = logits(model)
    add_adapter(model, config, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        assert torch.equal(logits(model), before), "B is 0: the model is as it was"
        for part in adapted_linears(model).values():
            part.lora_b.normal_(0.0, 0.2, generator=generator)
    return model, before


@torch.no_grad()
def test_the_formula() -> None:
    linear = nn.Linear(6, 5).double()
    lora_a, lora_b, x = torch.randn(2, 6).double(), torch.randn(5, 2).double(), torch.randn(3, 4, 6).double()
    part = AdaptedLinear(linear, lora_a, lora_b, scale=1.5, dropout=0.0)
    expected = x @ (linear.weight + 1.5 * lora_b @ lora_a).T + linear.bias
    torch.testing.assert_close(part(x), expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(part.merged(), linear.weight + 1.5 * lora_b @ lora_a)


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_a_merged_model_computes_the_same(name: str) -> None:
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        model, before = adapted(name, dtype=dtype)
        names = [each for each, _ in build_model(TINY[name]).named_parameters()]
        expected, shared = logits(model), evaluation_copy(model)
        assert float((expected - before).abs().max()) > 0.05
        assert 0.0 < merge_adapter(model) <= tolerance
        assert float((logits(model) - expected).abs().max()) <= tolerance
        assert not has_adapter(model) and [each for each, _ in model.named_parameters()] == names
        assert all(each.requires_grad and each.dtype == dtype for each in model.parameters())
        assert not any(module.training for module in model.modules())
        assert torch.equal(logits(shared), expected), "copies keep the weights they share"


@pytest.mark.parametrize("name", TINY)
def test_only_the_adapter_is_trained(name: str) -> None:
    model, _ = adapted(name, LoraConfig(rank=3, targets=("query", "value", "ffn.up")))
    frozen = {key: each.clone() for key, each in model.named_parameters() if ".lora_" not in key}
    train(model, steps=2)
    layers = model.config.num_layers + model.config.num_encoder_layers
    attentions = layers + (model.config.num_layers if model.config.family == "encoder_decoder" else 0)
    wide, narrow = 32, model.config.num_kv_heads * model.config.head_size
    pairs = attentions * ((32 + wide) + (32 + narrow)) + layers * (32 + 48)
    assert sum(each.numel() for each in adapter_parameters(model).values()) == 3 * pairs
    for key, each in model.named_parameters():
        if ".lora_" in key:
            assert each.grad is not None and each.grad.abs().max() > 0, key
            assert key in adapter_parameters(model)
        else:
            assert each.grad is None and not each.requires_grad and torch.equal(each, frozen[key]), key


def train(model: Transformer, *, steps: int) -> list[float]:
    trained = [each for each in adapter_parameters(model).values() if each.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, lr=1e-2), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(logits(model)[0, :-1], SIDE.ids[0, 1:])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
def test_it_learns(name: str) -> None:
    model, _ = adapted(name)
    model.train()
    losses = train(model, steps=30)
    assert losses[-1] < losses[0] - 0.5


def test_checkpointed_activations_give_the_same_gradients() -> None:
    found = []
    for on in (False, True):
        model, _ = adapted("llama")
        model.train().set_checkpointing(on)
        logits(model).square().mean().backward()
        found.append([each.grad for each in adapter_parameters(model).values()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("beneath", [torch.float32, torch.bfloat16])
def test_mixed_precision_trains_in_float32(beneath: torch.dtype) -> None:
    model, exact = adapted("llama")[0], logits(adapted("llama")[0])
    if beneath == torch.bfloat16:
        for name, each in model.named_parameters():
            each.data = each.data.to(torch.float32 if ".lora_" in name else beneath)
    with torch.autocast("cpu", torch.bfloat16, enabled=beneath == torch.float32):
        found = logits(model)
    assert found.dtype == torch.bfloat16 and (found - exact).abs().mean() < 0.05 * exact.abs().max()
    found.float().square().mean().backward()
    for each in adapter_parameters(model).values():
        assert each.dtype == torch.float32 and each.grad is not None and each.grad.dtype == torch.float32


def test_dropout_is_for_training_only() -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(64, 8), torch.randn(1, 64)
    part = AdaptedLinear(linear, torch.randn(4, 64), torch.randn(8, 4), scale=0.5, dropout=0.5)
    many = part(x.expand(4000, -1)) - linear(x)  # the rest of the map has none
    error = (many.mean(0) - (part.merged() - linear.weight) @ x[0]) / (many.std(0) / 4000**0.5)
    assert many.std(0).min() > 0.5 and error.abs().max() < 4
    part.eval()
    assert torch.equal(part(x), part(x)) and (part(x.expand(9, -1)) - part(x)).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5", "bart"])
@pytest.mark.parametrize("beams", [1, 3])
def test_text_is_that_of_the_merged_model(name: str, beams: int) -> None:
    model, _ = adapted(name, dtype=torch.float64)
    plain = build_model(TINY[name], seed=3, dtype=torch.float64).eval()
    prompts, config = [[5, 6, 7, 8], [9, 10], [11]], SamplingConfig(max_new_tokens=24, num_beams=beams)
    written = [each.ids for each in generate(model, prompts, config)]
    assert has_adapter(model), "writing leaves the model as it is"
    merge_adapter(model)
    assert written == [each.ids for each in generate(model, prompts, config)]
    assert written != [each.ids for each in generate(plain, prompts, config)]


@pytest.mark.parametrize("rows", [1, 4])
@torch.no_grad()
def test_fast_maps_of_decoding_hold_the_adapter(rows: int) -> None:
    """Large enough for every layout that packed decoding has, tied head included."""
    sizes = {"vocab_size": 2400, "hidden_size": 256, "num_layers": 1, "num_heads": 4, "ffn_size": 1100}
    model = build_model(ModelConfig(family="decoder", **sizes)).eval()
    add_adapter(model, LoraConfig(targets=("all",)))
    for part in adapted_linears(model).values():
        part.lora_b.normal_(0.0, 0.1)
    side = Side.from_ids([[5, 6, 7]] * rows)
    expected = our_logits(model, side)
    prepared = prepare_decoding(model, rows, new_tokens=200)
    assert not has_adapter(prepared) and has_adapter(model)
    torch.testing.assert_close(our_logits(prepared, side), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_sixteen_bits_beneath() -> None:
    model = build_model(TINY["llama"], seed=3, dtype=torch.bfloat16).eval()
    add_adapter(model, EVERY)
    parts = adapted_linears(model).values()
    assert all(each.lora_a.dtype == each.lora_b.dtype == torch.float32 for each in parts)
    for part in parts:
        part.lora_b.normal_(0.0, 0.2)
    expected = logits(model)
    assert 1e-4 < merge_adapter(model) < 0.1
    assert expected.dtype == logits(model).dtype == torch.bfloat16
    assert float((logits(model) - expected).abs().mean()) < 0.02 * float(expected.abs().max())


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5"])
@torch.no_grad()
def test_a_merge_that_is_not_equal_is_taken_back(name: str) -> None:
    model, _ = adapted(name)
    model.train()
    parts = adapted_linears(model)
    next(iter(parts.values())).lora_a[0, 0] = float("nan")
    with pytest.raises(
        ConfigError, match=r"scores of the merged model differ by nan .*; expected at most .*; keep the"
    ):
        merge_adapter(model)
    last = list(parts.values())[-1]
    next(iter(parts.values())).lora_a[0, 0] = 0.0
    merged = last.merged
    last.merged = lambda: merged() * 1.01  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=r"differ by [\d.]+e-0[2-4] of the largest one; expected at most 1\.2e-04"):
        merge_adapter(model)
    assert adapted_linears(model) == parts and all(module.training for module in model.modules())


def test_targets_are_names_or_their_ends() -> None:
    model = build_model(TINY["t5"])
    assert len(find_targets(model, ("query",))) == 6  # two in each layer of the decoder
    assert len(find_targets(model, ("cross_attention.query", "decoder.layers.0.ffn.up"))) == 3
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    assert find_targets(model, ("all",)) == linears
    bert = build_model(TINY["bert"])
    assert not any("head" in name for name in find_targets(bert, ("all",)))
    assert find_targets(bert, ("head.transform",)) == ["head.transform"]


def test_equal_seeds_begin_equally() -> None:
    first, second, third = (build_model(TINY["gpt2"]) for _ in range(3))
    for model, seed in ((first, 1), (second, 1), (third, 2)):
        add_adapter(model, LoraConfig(), seed=seed)
    pairs = zip(*(adapter_parameters(model).items() for model in (first, second, third)), strict=True)
    for (key, one), (_, same), (_, other) in pairs:
        assert torch.equal(one, same) and torch.equal(one, other) == key.endswith("lora_b")


def test_what_cannot_be_done_is_said() -> None:
    model = build_model(TINY["gpt2"])
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigError, match=r"no linear map is named 'q_proj'; expected one of down, key, output, query"):
        add_adapter(model, LoraConfig(targets=("query", "q_proj")))
    assert all(each.requires_grad for each in model.parameters()) and before.keys() == model.state_dict().keys()
    for call in (merge_adapter, adapter_parameters):
        with pytest.raises(ConfigError, match=r"has no adapter; expected one; call add_adapter or load_adapter"):
            call(model)
    add_adapter(model, LoraConfig())
    with pytest.raises(ConfigError, match=r"has an adapter already; expected none; call merge_adapter first"):
        add_adapter(model, LoraConfig())
    with pytest.raises(HubError, match=r"has an adapter; expected it merged or saved alone; use merge_adapter"):
        save_model(model, "/nowhere")
    for wrong in ({"rank": 0}, {"alpha": float("nan")}, {"alpha": 0.0}, {"dropout": 1.0}):
        with pytest.raises(ConfigError, match=r"rank .* expected a positive count"):
            LoraConfig(**wrong)  # type: ignore[arg-type]
    for targets in ((), "query"):
        with pytest.raises(ConfigError, match=r"targets are .*; expected a tuple of names"):
            LoraConfig(targets=targets)  # type: ignore[arg-type]
