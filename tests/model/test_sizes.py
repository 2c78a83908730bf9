"""Published sizes: counted without allocating, equal to transformers' own counts, near to the papers'."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.families import TINY, context_for
from tests.hub.test_family import CONFIGS
from trivium.errors import ConfigError
from trivium.hub.family import write_config
from trivium.model import ModelConfig, Side, Transformer
from trivium.model.sizes import PRESETS, count_flops, count_parameters, plan_model

# In millions, as the papers print them; GPT-2's own table was corrected by its authors (117 and 345 are 124 and 355).
PUBLISHED = {
    "transformer-base": 65,
    "transformer-big": 213,
    "bert-base": 110,
    "bert-large": 340,
    "gpt2": 124,
    "gpt2-medium": 355,
    "gpt2-large": 774,
    "gpt2-xl": 1558,
    "gpt3-125m": 125,
    "gpt3-350m": 350,
    "gpt3-760m": 760,
    "gpt3-1.3b": 1_300,
    "gpt3-2.7b": 2_700,
    "gpt3-6.7b": 6_700,
    "gpt3-13b": 13_000,
    "gpt3-175b": 175_000,
    "t5-small": 60,
    "t5-base": 220,
    "t5-large": 770,
    "t5-3b": 2_800,
    "t5-11b": 11_000,
}
SHAPES: dict[str, ModelConfig] = {
    **TINY,
    **{f"{name} of the hub": config for name, config in CONFIGS.items()},
    **{
        f"{name} with head {head}": replace(CONFIGS[name], head=head, labels=("a", "b", "c"))  # type: ignore[arg-type]
        for name in ("bert", "llama", "gpt2", "distilbert")
        for head in ("sequence", "token", "span", "none")
    },
}


def learned(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_the_count_is_what_a_model_has(name: str) -> None:
    with torch.device("meta"):
        model = Transformer(SHAPES[name])
    assert count_parameters(SHAPES[name]) == learned(model)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_published_sizes(name: str) -> None:
    """Exactly what transformers builds from the same settings, and within 5 % of the paper's rounded figure."""
    settings = write_config(PRESETS[name])
    config = transformers.AutoConfig.for_model(**settings)
    with torch.device("meta"):
        theirs = getattr(transformers, settings["architectures"][0])(config)
    count = count_parameters(PRESETS[name])
    assert count == learned(theirs)
    assert count == pytest.approx(PUBLISHED[name] * 1e6, rel=0.05)


def test_every_size_is_compared_with_its_paper() -> None:
    assert set(PUBLISHED) == set(PRESETS)
    exact = {name: count_parameters(PRESETS[name]) for name in ("gpt2", "gpt2-xl", "t5-small", "t5-11b", "gpt3-175b")}
    assert exact == {
        "gpt2": 124_439_808,
        "gpt2-xl": 1_557_611_200,
        "t5-small": 60_506_624,
        "t5-11b": 11_307_321_344,
        "gpt3-175b": 174_604_259_328,
    }


@pytest.mark.parametrize("name", sorted(SHAPES))
@torch.no_grad()
def test_operations_are_those_that_run(name: str) -> None:
    config = replace(SHAPES[name], window=0)
    model = Transformer(config).eval()
    inputs = Side.from_ids([list(range(1, 25))])
    # Spelled out as matrix products, which the counter knows; it knows nothing of the fused kernel of a CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        if config.head in ("language", "none"):
            hidden = model(inputs, context_for(config, inputs))
            if config.head == "language":
                model.head(hidden)
        else:
            model.classify(inputs)
    assert count_flops(config, 24) == counter.get_total_flops()


def test_operations_per_token_are_six_per_parameter() -> None:
    """Kaplan et al. 2020: about 6 N, the attention over the sequence on top; half of that where each token sees one
    of two stacks."""
    plan = plan_model("gpt3-175b")
    attention = 12 * 96 * 2048 * 12288
    embedded = (50257 + 2048) * 12288
    expected = 6 * (plan.parameters - embedded + 50257 * 12288) + attention
    assert plan.training_flops_per_token == pytest.approx(expected, rel=1e-3)
    assert plan_model("t5-11b", seq_len=1).training_flops_per_token == pytest.approx(3 * 11.3e9, rel=0.05)
    assert plan_model("gpt2", seq_len=128).training_flops_per_token < plan_model("gpt2").training_flops_per_token


def test_memory() -> None:
    plan = plan_model(PRESETS["gpt2"])
    assert (plan.weight_bytes, plan.training_bytes) == (4 * 124_439_808, 16 * 124_439_808)


def test_a_wrong_name() -> None:
    with pytest.raises(ConfigError, match=r"no size 'gpt3-175'; expected one of .*did you mean gpt3-175b\?"):
        plan_model("gpt3-175")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "trivium", "plan", *words], capture_output=True, text=True)


def test_command(tmp_path: Path) -> None:
    found = json.loads(run("gpt3-175b", "--json").stdout)
    assert found["parameters"] == 174_604_259_328
    assert found["weight_bytes"] == 4 * found["parameters"]
    shown = run("gpt3-175b").stdout
    assert "174,604,259,328" in shown
    assert "650.5 GiB" in shown
    (tmp_path / "config.json").write_text(json.dumps(write_config(PRESETS["bert-base"])))
    assert json.loads(run(str(tmp_path), "--json").stdout)["parameters"] == 109_514_298
    wrong = run("gpt5")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: there is no size 'gpt5'; expected one of transformer-base")
