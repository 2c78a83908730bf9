"""The fast forms of a linear map are linear maps, and preparing a model changes nothing about it."""

import pytest
import torch
import torch.nn.functional as F

from trivium.generation import SamplingConfig, generate, prepare_decoding
from trivium.generation.packed import PackedLinear, PlainLinear, SplitLinear
from trivium.model import ModelConfig, Side, Transformer, build_model

# Large enough that every form is taken; an odd vocabulary does not split evenly.
WIDE = ModelConfig("decoder", vocab_size=2051, hidden_size=256, num_layers=1, num_heads=4, ffn_size=1024, bias=True)
PAIR = ModelConfig(
    *("encoder_decoder", 2051, 256, 1, 4, 1024),
    num_encoder_layers=1,
    position="relative",
    head_scale=True,
    attention_scale=False,
    decoder_start_id=0,
)


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


def forms_of(model: Transformer) -> set[str]:
    return {type(module).__name__ for module in model.modules() if type(module).__name__.endswith("Linear")}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 3), (2, 40), (5,)])
@pytest.mark.parametrize(("outputs", "threads"), [(12, 3), (13, 3), (2, 4)])
@pytest.mark.parametrize("turned", [False, True])
def test_a_split_map_is_the_map(turned: bool, bias: bool, shape: tuple[int, ...], outputs: int, threads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(outputs, 6, generator=generator), torch.randn(*shape, 6, generator=generator)
    offset = torch.randn(outputs, generator=generator) if bias else None
    found = SplitLinear(weight, offset, threads, turned=turned)(x)
    torch.testing.assert_close(found, F.linear(x, weight, offset))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (2, 40)])
def test_a_packed_map_is_the_map(bias: bool, shape: tuple[int, ...]) -> None:
    if not torch._C._has_mkldnn:
        pytest.skip("this PyTorch has no oneDNN")
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(33, 6, generator=generator), torch.randn(*shape, 6, generator=generator)
    offset = torch.randn(33, generator=generator) if bias else None
    with torch.inference_mode():
        torch.testing.assert_close(PackedLinear(weight, offset)(x), F.linear(x, weight, offset))


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("config", [WIDE, PAIR], ids=["decoder", "encoder_decoder"])
def test_a_prepared_model_computes_the_same(config: ModelConfig, rows: int) -> None:
    model = build_model(config, seed=1).eval()
    side = Side.from_ids([[5 + row] for row in range(rows)])
    context = Side.from_ids([[5, 6, 7]] * rows) if config.family == "encoder_decoder" else None
    prepared = prepare_decoding(model, rows)
    with torch.inference_mode():
        expected, found = model.head(model(side, context)), prepared.head(prepared(side, context))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert ("PackedLinear" if rows > 1 and torch._C._has_mkldnn else "SplitLinear") in forms_of(prepared)


def test_preparing_copies_no_weight_for_one_row_and_leaves_the_model_alone() -> None:
    model = build_model(WIDE)
    prepared = prepare_decoding(model, 1)
    assert (model.training, prepared.training) == (True, False)
    assert forms_of(model) == {"Linear"}
    with torch.no_grad():
        model.decoder.layers[0].ffn.up.weight.zero_()
    assert not prepared.decoder.layers[0].ffn.up.parts_PIO.any()
    again = prepare_decoding(prepared, 4)
    assert again.head is not model.head
    assert forms_of(again) == forms_of(prepared)


def test_short_answers_and_small_models_are_not_worth_a_copy() -> None:
    assert "PackedLinear" not in forms_of(prepare_decoding(build_model(WIDE), 4, new_tokens=8))
    small = ModelConfig("decoder", vocab_size=64, hidden_size=32, num_layers=1, num_heads=4, ffn_size=64)
    assert forms_of(prepare_decoding(build_model(small), 4)) == {"PlainLinear"}
    assert PlainLinear(torch.ones(2, 3), None)(torch.ones(3)).tolist() == [3.0, 3.0]


@pytest.mark.parametrize(("rows", "new_tokens", "expected"), [(1, 96, True), (1, 95, False), (3, 96, False)])
def test_a_high_matrix_is_turned_for_one_row_that_writes_enough(rows: int, new_tokens: int, expected: bool) -> None:
    model = build_model(WIDE)
    prepared = prepare_decoding(model, rows, new_tokens=new_tokens)
    split = [module for module in prepared.modules() if isinstance(module, SplitLinear)]
    own = [module for module in split if module.parts_PIO.is_contiguous()]
    assert any(module.weight.data_ptr() == model.head.vocabulary.data_ptr() for module in own) == expected
    assert not any(module.weight.shape[0] < 4 * module.weight.shape[1] for module in own)


def test_a_prepared_model_writes_what_the_model_writes() -> None:
    model = build_model(WIDE, seed=2)
    prompts, config = [[5, 6], [7]], SamplingConfig(max_new_tokens=20)
    assert generate(prepare_decoding(model, 2), prompts, config) == generate(model, prompts, config)


def test_without_onednn_nothing_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._C, "_has_mkldnn", False)
    assert "PackedLinear" not in forms_of(prepare_decoding(build_model(WIDE), 4))


def test_float64_stays_exact() -> None:
    prepared = prepare_decoding(build_model(WIDE, dtype=torch.float64), 4)
    assert "PackedLinear" not in forms_of(prepared)
