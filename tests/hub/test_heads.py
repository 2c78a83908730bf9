"""Task heads: the labels that transformers gives, in both directions, and heads that a file does not have."""

import json
import warnings
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor

from tests.reference import build_pair, exact, opener_of, sides
from trivium.errors import ConfigError, HubError
from trivium.hub.auto import load_model, save_model
from trivium.hub.family import read_config, row_of
from trivium.hub.names import canonical, to_ours
from trivium.model.config import Head, ModelConfig
from trivium.model.init import build_model
from trivium.model.mask import Side
from trivium.model.transformer import Transformer

READERS = ("bert", "roberta", "distilbert")
WRITERS = ("gpt2", "llama", "qwen2", "qwen3", "mistral")
REWRITERS = ("bart", "bart-scaled", "t5", "mt5", "t5-v1.1")
CASES: list[tuple[str, Head]] = [
    *((name, head) for name in (*READERS, *WRITERS) for head in ("sequence", "token", "span")),
    ("xlm-roberta", "sequence"),
    *((name, "sequence") for name in REWRITERS),
]


def theirs_of(model: torch.nn.Module, inputs: Side) -> Tensor:
    """transformers' logits in the shapes of `Transformer.classify`."""
    found = model(input_ids=inputs.ids, attention_mask=(inputs.segments > 0).long())
    return found.logits if "logits" in found else torch.stack([found.start_logits, found.end_logits], -1)


def texts(model: Transformer, lengths: list[int] | None = None) -> Side:
    """Ragged rows; for two stacks each ends as a text does, which is where transformers looks."""
    side, context = sides(model, lengths)
    if context is not None and model.config.eos_id is not None:
        ends = (side.segments > 0).sum(1) - 1
        side.ids[torch.arange(len(ends)), ends] = model.config.eos_id
    return side


def gap(one: Tensor, other: Tensor, inputs: Side) -> float:
    assert one.shape == other.shape
    difference = (one - other).abs()
    return float(difference.max() if one.dim() == 2 else difference[inputs.segments > 0].max())


@pytest.mark.parametrize(("name", "head"), CASES)
@torch.no_grad()
def test_labels(name: str, head: Head) -> None:
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-9)):
        pair = build_pair(name, dtype=dtype, head=head)
        inputs = texts(pair.ours)
        ours = pair.ours.classify(inputs)
        assert gap(theirs_of(pair.theirs, inputs), ours, inputs) <= tolerance
        assert ours.std() > 0.05


@pytest.mark.parametrize("name", READERS)
@torch.no_grad()
def test_pairs_of_sentences(name: str) -> None:
    """BERT is told which sentence a token is of; the others are asked the same way and do not mind."""
    pair = build_pair(name, head="sequence")
    inputs = texts(pair.ours, [11, 11])
    types = (torch.arange(11) > 4).long().expand(2, -1)
    told = {"token_type_ids": types} if name == "bert" else {}
    theirs = pair.theirs(input_ids=inputs.ids, **told).logits
    ours = pair.ours.classify(inputs, types_BT=types)
    assert float((theirs - ours).abs().max()) <= 1e-4
    assert torch.equal(ours, pair.ours.classify(inputs)) == (name != "bert")


@pytest.mark.parametrize(("name", "head"), CASES)
def test_loss_and_gradients(name: str, head: Head) -> None:
    pair = build_pair(name, head=head)
    # For spans transformers lets padding compete: rows without any.
    inputs = texts(pair.ours, [11] * 4 if head == "span" else None)
    generator = torch.Generator().manual_seed(1)
    count, mask = len(inputs.ids), (inputs.segments > 0).long()
    call = {"input_ids": inputs.ids, "attention_mask": mask}
    logits = pair.ours.classify(inputs)
    if head == "span":
        ends = torch.randint(0, 11, (count, 2), generator=generator)
        theirs = pair.theirs(**call, start_positions=ends[:, 0], end_positions=ends[:, 1]).loss
        first, last = (torch.nn.functional.cross_entropy(logits[..., end], ends[:, end]) for end in (0, 1))
        ours = (first + last) / 2
    else:
        shape = (count,) if head == "sequence" else inputs.ids.shape
        labels = torch.randint(0, 3, shape, generator=generator)
        labels = labels if head == "sequence" else labels.masked_fill(mask == 0, -100)
        theirs = pair.theirs(**call, labels=labels).loss
        ours = torch.nn.functional.cross_entropy(logits.reshape(-1, 3), labels.flatten(), ignore_index=-100)
    assert abs(theirs.item() - ours.item()) <= 1e-5
    theirs.backward()
    ours.backward()
    found = {key: each.grad for key, each in pair.theirs.named_parameters() if each.grad is not None}
    naming, shapes = row_of(pair.settings).naming, {key: each.shape for key, each in pair.ours.named_parameters()}
    expected = to_ours(naming, pair.ours.config, canonical(naming, found), shapes)
    for key, parameter in pair.ours.named_parameters():
        assert parameter.grad is not None
        size = max(float(expected[key].norm()), 1e-2)  # some are 0 but for rounding: a bias that every place shares
        assert float((parameter.grad - expected[key]).norm()) <= 1e-4 * size, key


@pytest.mark.parametrize(("name", "head"), CASES)
@torch.no_grad()
def test_folders_travel_both_ways(name: str, head: Head, tmp_path: Path) -> None:
    pair = build_pair(name, head=head, dtype=torch.float64)
    inputs = texts(pair.ours)
    expected = pair.ours.classify(inputs)
    save_model(pair.ours, tmp_path / "ours")
    theirs, info = opener_of(pair.ours.config).from_pretrained(
        tmp_path / "ours", output_loading_info=True, dtype=torch.float64
    )
    assert not any(info.values()), info
    exact(theirs)
    assert gap(theirs_of(theirs.eval(), inputs), expected, inputs) <= 1e-9
    again = load_model(tmp_path / "ours", dtype="stored")
    assert again.config == pair.ours.config
    assert torch.equal(again.classify(inputs), expected)

    pair.theirs.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    ours = load_model(tmp_path / "theirs", dtype="stored")
    assert gap(ours.classify(inputs), expected, inputs) <= 1e-12
    assert ours.config == pair.ours.config
    settings = json.loads((tmp_path / "ours" / "config.json").read_text())
    original = json.loads((tmp_path / "theirs" / "config.json").read_text())
    if name not in ("xlm-roberta", "mt5"):  # a RoBERTa and a T5 v1.1 by another name
        assert settings["architectures"] == original["architectures"]


@torch.no_grad()
def test_labels_and_problems_are_kept(tmp_path: Path) -> None:
    pair = build_pair("bert", head="sequence")
    assert pair.ours.config.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert pair.ours.config.problem == "single"
    pair.theirs.config.id2label = {0: "no", 1: "yes", 2: "非"}
    pair.theirs.config.label2id = {"no": 0, "yes": 1, "非": 2}
    pair.theirs.config.problem_type = "multi_label_classification"
    pair.theirs.save_pretrained(tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs")
    assert (ours.config.labels, ours.config.problem) == (("no", "yes", "非"), "multi")
    save_model(ours, tmp_path / "ours")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "ours")
    assert config.id2label == {0: "no", 1: "yes", 2: "非"}
    assert config.label2id == {"no": 0, "yes": 1, "非": 2}
    assert config.problem_type == "multi_label_classification"
    card = (tmp_path / "ours" / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    assert "AutoModelForSequenceClassification" in card


def test_one_class_is_a_number() -> None:
    config = build_pair("bert", head="sequence").settings | {"id2label": {"0": "LABEL_0"}, "num_labels": 1}
    assert read_config(config).problem == "regression"


@torch.no_grad()
def test_a_head_that_the_file_lacks_begins_at_random_and_is_named(tmp_path: Path) -> None:
    pair = build_pair("bert")
    save_model(pair.ours, tmp_path)
    with pytest.warns(UserWarning, match=r"classifier\.dense\.weight, .*output\.bias: they begin at random"):
        model = load_model(tmp_path, head="sequence", labels=["bad", "good"])
    assert model.config.labels == ("bad", "good")
    inputs = texts(model)
    assert torch.equal(model(inputs), pair.ours(inputs))  # the encoder is the file's
    assert model.classify(inputs).shape == (4, 2)
    assert 0.01 < float(model.classifier.output.weight.std()) < 0.03  # type: ignore[union-attr]
    save_model(model, tmp_path / "tuned")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a head that is there is used, and nothing is said
        again = load_model(tmp_path / "tuned", head="sequence", labels=["schlecht", "gut"])
    assert torch.equal(again.classify(inputs), model.classify(inputs))
    assert again.config.labels == ("schlecht", "gut")
    assert load_model(tmp_path / "tuned", problem="multi").config.problem == "multi"
    with pytest.warns(UserWarning, match=r"weights for classifier\.output\.weight, classifier\.output\.bias:"):
        other = load_model(tmp_path / "tuned", labels=["a", "b", "c"])
    assert other.classify(inputs).shape == (4, 3)
    assert torch.equal(other.classifier.dense.weight, model.classifier.dense.weight)  # type: ignore[union-attr]


@torch.no_grad()
def test_every_head_of_every_family_from_a_language_model(tmp_path: Path) -> None:
    for name in (*READERS, *WRITERS, *REWRITERS):
        save_model(build_pair(name).ours, tmp_path / name)
        shapes = (("sequence", (4, 2)), ("token", (4, 17, 2)), ("span", (4, 17, 2)))
        for head, shape in shapes[: 1 if name in REWRITERS else 3]:
            with pytest.warns(UserWarning, match=r"no fitting weights for classifier\."):
                model = load_model(tmp_path / name, head=head)  # type: ignore[arg-type]
            inputs = texts(model)
            assert model.classify(inputs).shape == shape
        if name in REWRITERS:
            with pytest.raises(HubError, match=r"ForTokenClassification; expected a class whose head trivium has"):
                load_model(tmp_path / name, head="token")
        bare = load_model(tmp_path / name, head="none")
        with pytest.raises(ConfigError, match="a model with head none has no labels"):
            bare.classify(inputs)


@torch.no_grad()
def test_the_pooler_of_a_headless_bert_serves_its_classifier(tmp_path: Path) -> None:
    """BertModel with a pooler, as sentence encoders are saved, and without one."""
    pair = build_pair("bert", head="none")
    pair.theirs.save_pretrained(tmp_path / "pooled")
    inputs = texts(pair.ours)
    assert torch.equal(load_model(tmp_path / "pooled")(inputs), pair.ours(inputs))
    with pytest.warns(UserWarning, match=r"weights for classifier\.output\.weight, classifier\.output\.bias:"):
        model = load_model(tmp_path / "pooled", head="sequence")
    assert torch.equal(model.classifier.dense.weight, pair.theirs.pooler.dense.weight)  # type: ignore[union-attr]
    bare = transformers.BertModel(pair.theirs.config, add_pooling_layer=False)
    bare.save_pretrained(tmp_path / "bare")
    assert load_model(tmp_path / "bare").config.head == "none"


def test_a_file_without_the_head_that_its_config_promises_is_damaged(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_model(build_pair("roberta", head="token").ours, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["classifier.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(HubError, match=r"missing: classifier\.bias"):
        load_model(tmp_path)


def test_heads_that_no_model_can_have() -> None:
    small = {"vocab_size": 9, "hidden_size": 8, "num_layers": 1, "num_heads": 2, "ffn_size": 8}
    with pytest.raises(ConfigError, match="head sequence without labels"):
        ModelConfig(family="decoder", head="sequence", **small)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="head span on an encoder_decoder"):
        ModelConfig(family="encoder_decoder", num_encoder_layers=1, head="span", **small)  # type: ignore[arg-type]
    model = build_model(ModelConfig(family="decoder", **small))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a model with head language has no labels"):
        model.classify(Side.from_ids([[1, 2]]))


@torch.no_grad()
def test_padding_changes_no_label() -> None:
    for name in ("gpt2", "bert", "bart", "t5"):
        model = build_pair(name, head="sequence").ours
        inputs = texts(model)
        together = model.classify(inputs)
        for row, length in enumerate([9, 17, 1, 13]):
            alone = Side.from_ids([inputs.ids[row, :length].tolist()])
            assert float((model.classify(alone) - together[row]).abs().max()) <= 1e-5


def test_dropout_of_heads_is_only_in_training() -> None:
    model = build_pair("bert", head="token").ours
    assert model.classifier is not None
    model.classifier.dropout = 0.5
    inputs = texts(model)
    assert torch.equal(model.classify(inputs), model.classify(inputs))
    model.train()
    assert not torch.equal(model.classify(inputs), model.classify(inputs))


@torch.no_grad()
def test_what_the_first_files_left_out(tmp_path: Path) -> None:
    """Configs of 2019 name neither class nor model_type, and may list two classes beside a head of three."""
    pair = build_pair("bert", head="sequence")
    pair.theirs.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    del stored["model_type"]
    stored |= {"num_labels": 3, "id2label": {"0": "LABEL_0", "1": "LABEL_1"}}
    path.write_text(json.dumps(stored))
    model = load_model(tmp_path)
    assert model.config == pair.ours.config
    save_model(build_pair("roberta").ours, tmp_path)
    stored = json.loads(path.read_text())
    del stored["model_type"], stored["architectures"]
    path.write_text(json.dumps(stored))
    assert load_model(tmp_path).config == build_pair("roberta").ours.config
