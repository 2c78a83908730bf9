"""PEFT's adapter folders in both directions: equal logits, equal numbers of trained parameters, clear refusals."""

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.hub.test_heads import theirs_of
from tests.reference import Pair, build_pair, our_logits, sides, their_logits
from trivium.hub.adapter import load_adapter, save_adapter
from trivium.model.adapter import (
    LoraConfig,
    adapter_parameters,
    add_adapter,
    merge_adapter,
)
from trivium.model.config import Head
from trivium.model.transformer import Transformer

# peft 0.21 asks transformers 5.23 by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# What PEFT is asked to adapt, and the task that it is told.
THEIRS: list[tuple[str, Head, list[str] | str, str | None]] = [
    ("gpt2", "language", ["c_attn"], "CAUSAL_LM"),
    ("gpt2", "language", ["c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"], "CAUSAL_LM"),
    ("gpt2", "sequence", ["c_attn"], "SEQ_CLS"),
    ("gpt2", "none", ["c_attn"], "FEATURE_EXTRACTION"),
    ("llama", "language", ["q_proj", "v_proj"], "CAUSAL_LM"),
    ("llama", "sequence", "all-linear", "SEQ_CLS"),
    ("llama", "span", ["q_proj"], "QUESTION_ANS"),
    ("llama-bias", "language", "all-linear", "CAUSAL_LM"),
    ("qwen2", "language", ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], "CAUSAL_LM"),
    ("qwen3-tied", "language", r".*\.1\.self_attn\.(q|k)_proj", "CAUSAL_LM"),
    ("mistral", "token", ["q_proj"], "TOKEN_CLS"),
    ("bert", "language", ["query", "value"], None),
    ("bert", "language", "all-linear", None),
    ("bert", "sequence", ["query", "value"], "SEQ_CLS"),
    ("bert", "sequence", ["dense"], "SEQ_CLS"),  # the pooler, too
    ("bert", "token", ["query"], "TOKEN_CLS"),
    ("bert", "none", ["query", "intermediate.dense"], "FEATURE_EXTRACTION"),
    ("roberta", "sequence", ["query", "value"], "SEQ_CLS"),
    ("distilbert", "sequence", ["q_lin", "lin1"], "SEQ_CLS"),
    ("distilbert", "span", ["q_lin"], "QUESTION_ANS"),
    ("t5", "language", ["q", "v"], "SEQ_2_SEQ_LM"),
    ("t5", "language", ["EncDecAttention.q", "wi", "wo"], "SEQ_2_SEQ_LM"),
    ("t5-v1.1", "language", ["wi_0", "wi_1", "o"], "SEQ_2_SEQ_LM"),
    ("bart", "language", ["q_proj", "fc1", "fc2"], "SEQ_2_SEQ_LM"),
    ("marian", "language", ["v_proj", "out_proj"], "SEQ_2_SEQ_LM"),
]
OURS: list[tuple[str, Head, tuple[str, ...]]] = [
    ("gpt2", "language", ("query", "value")),
    ("gpt2", "language", ("all",)),
    ("gpt2", "language", ("query", "attention.output", "decoder.layers.1.ffn.up")),
    ("gpt2", "sequence", ("value",)),
    ("gpt2", "none", ("all",)),
    ("llama", "language", ("all",)),
    ("llama", "span", ("query",)),
    ("llama", "sequence", ("query", "value")),
    ("qwen3-tied", "language", ("query", "value")),
    ("bert", "language", ("query", "value")),
    ("bert", "language", ("ffn.down", "head.transform")),
    ("bert", "sequence", ("query", "value")),
    ("bert", "sequence", ("attention.output", "classifier.dense")),
    ("bert", "token", ("all",)),
    ("bert", "none", ("attention.output", "ffn.up", "ffn.down")),
    ("roberta", "sequence", ("all",)),
    ("roberta", "none", ("all",)),
    ("distilbert", "sequence", ("query", "value")),
    ("t5", "language", ("query", "value")),
    ("t5", "language", ("cross_attention.query", "ffn.down")),
    ("t5-v1.1", "language", ("all",)),
    ("bart", "language", ("query", "value")),
    ("marian-2017", "language", ("all",)),
]


def ours_of(pair: Pair, model: Transformer) -> Tensor:
    """Our logits, or hidden states without a head, of real tokens."""
    inputs, context = sides(model)
    if model.config.head == "language":
        found = our_logits(model, inputs, context)
    else:
        found = model(inputs) if model.config.head == "none" else model.classify(inputs)
    return found if found.dim() == 2 else found[inputs.segments > 0]


def peers_of(pair: Pair, theirs: Any) -> Tensor:
    inputs, context = sides(pair.ours)
    if pair.ours.config.head == "language":
        found = their_logits(Pair(pair.name, theirs, pair.ours, pair.settings), inputs, context)
    elif pair.ours.config.head == "none":
        found = theirs(input_ids=inputs.ids, attention_mask=(inputs.segments > 0).long()).last_hidden_state
    else:
        found = theirs_of(theirs, inputs)
    return found if found.dim() == 2 else found[inputs.segments > 0]


@torch.no_grad()
def stir(parameters: dict[str, Any]) -> None:
    """Random values, so that an adapter does something."""
    generator = torch.Generator().manual_seed(5)
    for name, each in parameters.items():
        if "lora_b" in name.lower() or "lora_" not in name:
            each.add_(torch.randn(each.shape, generator=generator, dtype=each.dtype) * 0.2)


def their_adapter(pair: Pair, targets: list[str] | str, task: str | None, **options: Any) -> Any:
    """PEFT's model around a copy of theirs, its trained parameters random."""
    settings = {"r": 4, "lora_alpha": 6, "fan_in_fan_out": pair.name == "gpt2"} | options
    config = peft.LoraConfig(target_modules=targets, task_type=task, **settings)
    model = peft.get_peft_model(copy.deepcopy(pair.theirs), config).eval()
    stir({name: each for name, each in model.named_parameters() if each.requires_grad})
    return model


def count(model: Transformer) -> int:
    return sum(each.numel() for each in model.parameters() if each.requires_grad)


@pytest.mark.parametrize(("name", "head", "targets", "task"), THEIRS)
@torch.no_grad()
def test_what_peft_saved(name: str, head: Head, targets: list[str] | str, task: str | None, tmp_path: Path) -> None:
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        pair = build_pair(name, head=head, dtype=dtype)
        theirs = their_adapter(pair, targets, task)
        expected, before = peers_of(pair, theirs), ours_of(pair, pair.ours)
        theirs.save_pretrained(tmp_path / str(dtype))
        load_adapter(pair.ours, tmp_path / str(dtype))
        found = ours_of(pair, pair.ours)
        assert float((found - expected).abs().max()) <= tolerance
        assert float((found - before).abs().max()) > 0.05
        assert count(pair.ours) == theirs.get_nb_trainable_parameters()[0]
        merge_adapter(pair.ours)
        assert float((ours_of(pair, pair.ours) - found).abs().max()) <= tolerance
        # What they merge is what we merge.
        assert float((ours_of(pair, pair.ours) - peers_of(pair, theirs.merge_and_unload())).abs().max()) <= tolerance


@pytest.mark.parametrize(("name", "head", "targets"), OURS)
@torch.no_grad()
def test_what_peft_opens(name: str, head: Head, targets: tuple[str, ...], tmp_path: Path) -> None:
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        pair = build_pair(name, head=head, dtype=dtype)
        again = copy.deepcopy(pair.ours)
        add_adapter(pair.ours, LoraConfig(rank=4, alpha=6.0, targets=targets))
        stir(adapter_parameters(pair.ours))
        folder = save_adapter(pair.ours, tmp_path / str(dtype), base="org/base")
        expected = ours_of(pair, pair.ours)
        theirs = peft.PeftModel.from_pretrained(copy.deepcopy(pair.theirs), folder, is_trainable=True).eval()
        missing = set(load_file(folder / WEIGHTS)) ^ set(
            peft.get_peft_model_state_dict(theirs, save_embedding_layers=False)
        )
        assert not missing, missing
        assert float((peers_of(pair, theirs) - expected).abs().max()) <= tolerance
        trained = theirs.get_nb_trainable_parameters()[0]
        if name != "gpt2":  # whose blocks of zeros are counted there
            assert trained == count(pair.ours)
        assert theirs.peft_config["default"].base_model_name_or_path == "org/base"
        load_adapter(again, folder)
        assert torch.equal(ours_of(pair, again), expected)
        mine, other = adapter_parameters(pair.ours), adapter_parameters(again)
        assert mine.keys() == other.keys() and all(torch.equal(each, other[key]) for key, each in mine.items())
