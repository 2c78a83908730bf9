"""T23: the same numbers as transformers, and folders that travel both ways, for every shape in the table."""

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.reference import PAIRS, Pair, build_pair, exact, opener_of, our_logits, sides, their_logits
from trivium.errors import ConfigError, HubError
from trivium.hub.auto import assemble, load_model, save_model
from trivium.hub.family import row_of
from trivium.hub.names import canonical, to_ours
from trivium.model.mask import Side
from trivium.model.transformer import Transformer

NAMES = sorted(PAIRS)


@pytest.fixture
def complaints(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What transformers logs as a warning, which it does not propagate by itself."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.WARNING, "transformers")
    yield caplog
    logger.removeHandler(caplog.handler)


def gap(one: Tensor, other: Tensor, inputs: Side) -> float:
    """The largest difference at positions that are not padding."""
    return float((one - other).abs()[inputs.segments > 0].max())


def reopened(folder: Path, model: Transformer, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """transformers' reading of a folder, without a single missing, unexpected or mismatched key."""
    theirs, info = opener_of(model.config).from_pretrained(folder, output_loading_info=True, dtype=dtype)
    assert not any(info.values()), info
    return theirs.eval()


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_logits(name: str) -> None:
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-9)):
        pair = build_pair(name, dtype=dtype)
        inputs, context = sides(pair.ours)
        theirs, ours = their_logits(pair, inputs, context), our_logits(pair.ours, inputs, context)
        assert ours.dtype == dtype
        assert gap(theirs, ours, inputs) <= tolerance
        assert theirs.std() > 0.05  # the comparison compares something


def their_loss(pair: Pair, inputs: Side, context: Side | None, targets: Tensor) -> Tensor:
    """transformers' own loss for targets aligned with the logits, -100 where nothing is learned."""
    mask = (inputs.segments > 0).long()
    if context is not None:
        sources = {"input_ids": context.ids, "attention_mask": (context.segments > 0).long()}
        return pair.theirs(**sources, decoder_input_ids=inputs.ids, decoder_attention_mask=mask, labels=targets).loss
    labels = targets
    if pair.ours.config.family == "decoder":  # shifts by itself
        labels = torch.cat([torch.full_like(targets[:, :1], -100), targets[:, :-1]], 1)
    return pair.theirs(input_ids=inputs.ids, attention_mask=mask, labels=labels).loss


def our_loss(model: Transformer, inputs: Side, context: Side | None, targets: Tensor) -> Tensor:
    logits = our_logits(model, inputs, context)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)


def make_targets(inputs: Side, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(4, 61, inputs.ids.shape, generator=generator)
    targets[:, -1] = -100  # a decoder of transformers has no target for the last position
    return targets.masked_fill(inputs.segments == 0, -100)


def trained_by_transformers(pair: Pair) -> list[Tensor]:
    """The tensors to compare in training: the bias of Marian and BART is a buffer there and a parameter here."""
    found = [parameter for parameter in pair.theirs.parameters() if parameter.requires_grad]
    if pair.ours.head.bias is not None and pair.settings["model_type"] in ("marian", "bart", "pegasus"):
        found.append(pair.theirs.final_logits_bias.requires_grad_())
    return found


def their_gradients(pair: Pair) -> dict[str, Tensor]:
    """transformers' gradients under our names."""
    found = dict(pair.theirs.named_parameters()) | dict(pair.theirs.named_buffers())
    gradients = {name: tensor.grad for name, tensor in found.items() if tensor.grad is not None}
    naming = row_of(pair.settings).naming
    shapes = {name: parameter.shape for name, parameter in pair.ours.named_parameters()}
    return to_ours(naming, pair.ours.config, canonical(naming, gradients), shapes)


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients(name: str) -> None:
    pair = build_pair(name)
    trained_by_transformers(pair)
    inputs, context = sides(pair.ours)
    targets = make_targets(inputs, seed=1)
    theirs, ours = their_loss(pair, inputs, context, targets), our_loss(pair.ours, inputs, context, targets)
    assert abs(theirs.item() - ours.item()) <= 1e-5
    theirs.backward()
    ours.backward()
    expected = their_gradients(pair)
    for key, parameter in pair.ours.named_parameters():
        assert parameter.grad is not None
        size = max(float(expected[key].norm()), 1e-3)  # key biases have none but rounding
        assert float((parameter.grad - expected[key]).norm()) <= 1e-4 * size, key


@pytest.mark.parametrize("name", NAMES)
def test_twenty_steps_of_adamw(name: str) -> None:
    pair = build_pair(name)
    theirs = torch.optim.AdamW(trained_by_transformers(pair), lr=1e-3)
    ours = torch.optim.AdamW(pair.ours.parameters(), lr=1e-3)
    losses = []
    inputs, context = sides(pair.ours)
    targets = make_targets(inputs, seed=0)
    for _ in range(21):
        both = their_loss(pair, inputs, context, targets), our_loss(pair.ours, inputs, context, targets)
        losses.append([loss.item() for loss in both])
        for optimizer, loss in zip((theirs, ours), both, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert abs(losses[-1][0] - losses[-1][1]) <= 1e-5
    assert losses[0][0] - losses[-1][0] > 0.02  # it learned


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_ours_opens_in_transformers(name: str, tmp_path: Path, complaints: pytest.LogCaptureFixture) -> None:
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-9)):
        pair = build_pair(name, dtype=dtype)
        save_model(pair.ours, tmp_path)
        theirs = reopened(tmp_path, pair.ours, dtype)
        again = load_model(tmp_path, dtype="stored")
        assert again.config == pair.ours.config
        inputs, context = sides(pair.ours)
        expected = our_logits(pair.ours, inputs, context)
        assert torch.equal(our_logits(again, inputs, context), expected)
        if dtype == torch.float64:
            exact(theirs)
        found = their_logits(Pair(name, theirs, pair.ours, {}), inputs, context)
        assert gap(found, expected, inputs) <= tolerance
    assert not complaints.records


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_theirs_opens_here(name: str, tmp_path: Path) -> None:
    pair = build_pair(name)
    pair.theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    ours = load_model(tmp_path)
    inputs, context = sides(ours)
    assert gap(our_logits(ours, inputs, context), their_logits(pair, inputs, context), inputs) <= 1e-4
    assert ours.config == pair.ours.config


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5", "t5-v1.1", "llama-llama3", "qwen3-tied", "marian-2017"])
@torch.no_grad()
def test_folders_of_headless_classes_open_with_the_same_hidden_states(name: str, tmp_path: Path) -> None:
    pair = build_pair(name)
    save_model(pair.ours, tmp_path / "full")
    transformers.AutoModel.from_pretrained(tmp_path / "full").save_pretrained(tmp_path / "base")
    base = load_model(tmp_path / "base")
    inputs, context = sides(base)
    assert torch.equal(base(inputs, context), pair.ours(inputs, context))
    save_model(base, tmp_path / "again")  # without inventing a head
    assert load_model(tmp_path / "again").config == base.config
    assert base.config.head_transform is False


def test_a_headless_folder_has_no_logits(tmp_path: Path) -> None:
    save_model(build_pair("llama").ours, tmp_path / "full")
    transformers.AutoModel.from_pretrained(tmp_path / "full").save_pretrained(tmp_path / "base")
    base = load_model(tmp_path / "base")
    inputs, _ = sides(base)
    with pytest.raises(ConfigError, match="a model with head none scores no tokens"):
        our_logits(base, inputs, None)
    with pytest.warns(UserWarning, match=r"no fitting weights for head.weight"):
        fresh = load_model(tmp_path / "base", head="language")
    assert our_logits(fresh, inputs).std() > 0.05


@pytest.mark.parametrize("name", ["gpt2", "t5-v1.1", "marian-2017"])
@torch.no_grad()
def test_untied_heads(name: str, tmp_path: Path, complaints: pytest.LogCaptureFixture) -> None:
    """A head of its own survives in the file; transformers keeps it, though for T5 it says that it should not be."""
    pair = build_pair(name)
    head = torch.nn.Parameter(pair.theirs.lm_head.weight.detach().flip(0) * 1.5)
    pair.theirs.lm_head.weight = head
    settings = {**pair.settings, "tie_word_embeddings": False}
    ours = assemble(settings, {key: tensor.clone() for key, tensor in pair.theirs.state_dict().items()})
    assert not ours.config.tie_embeddings
    inputs, context = sides(ours)
    expected = our_logits(ours, inputs, context)
    assert gap(their_logits(pair, inputs, context), expected, inputs) <= 1e-4

    save_model(ours, tmp_path)
    theirs = reopened(tmp_path, ours)
    assert gap(their_logits(Pair(name, theirs, ours, {}), inputs, context), expected, inputs) <= 1e-4
    again = load_model(tmp_path)
    assert again.config == ours.config
    assert torch.equal(our_logits(again, inputs, context), expected)
    assert bool(complaints.records) == name.startswith("t5")


# Tensors that older versions of transformers wrote a second time, because both names were one parameter.
TWICE = {
    "gpt2": {"lm_head.weight": "transformer.wte.weight"},
    "bert": {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    "roberta": {
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    },
    "distilbert": {"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"},
    "t5": {
        "lm_head.weight": "shared.weight",
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
    },
    "qwen3-tied": {"lm_head.weight": "model.embed_tokens.weight"},
    "bart": {
        "lm_head.weight": "model.shared.weight",
        "model.encoder.embed_tokens.weight": "model.shared.weight",
        "model.decoder.embed_tokens.weight": "model.shared.weight",
    },
}


@pytest.mark.parametrize("name", sorted(TWICE))
@torch.no_grad()
def test_tensors_under_two_names(name: str, tmp_path: Path) -> None:
    """They may be there or not, and must agree: one that differs is a damaged file, or a head of its own."""
    pair = build_pair(name)
    save_model(pair.ours, tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    inputs, context = sides(pair.ours)
    for copy, original in TWICE[name].items():
        save_file({**tensors, copy: tensors[original].clone()}, path)
        assert torch.equal(our_logits(load_model(tmp_path), inputs, context), our_logits(pair.ours, inputs, context)), (
            copy
        )
        save_file({**tensors, copy: tensors[original] + 1}, path)
        if copy == "lm_head.weight":
            assert not load_model(tmp_path).config.tie_embeddings
        else:
            with pytest.raises(HubError, match=r"differs from"):
                load_model(tmp_path)


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5", "bart"])
def test_what_transformers_trained_and_saved(name: str, tmp_path: Path) -> None:
    """A hundred steps on real text, spelled in 57 letters: continue it, fill it, or repeat it."""
    pair = build_pair(name)
    letters = 4 + torch.tensor(list(Path(argparse.__file__).read_bytes())) % 57
    optimizer = torch.optim.AdamW(pair.theirs.parameters(), lr=3e-3)
    losses = []
    for step in range(100):
        rows = letters[step * 320 : (step + 1) * 320].view(8, 40)
        inputs = Side.from_ids(rows.tolist())
        if pair.ours.config.family == "encoder_decoder":
            start = torch.full_like(rows[:, :1], pair.ours.config.decoder_start_id or 0)
            read = Side.from_ids(torch.cat([start, rows[:, :-1]], 1).tolist())
            loss = their_loss(pair, read, inputs, rows)
        elif pair.ours.config.family == "encoder":
            hidden = torch.rand(rows.shape, generator=torch.Generator().manual_seed(step)) < 0.2
            loss = their_loss(pair, Side.from_ids(rows.masked_fill(hidden, 3).tolist()), None, rows)
        else:
            loss = their_loss(pair, inputs, None, torch.cat([rows[:, 1:], rows[:, :1]], 1))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 1  # it learned
    pair.theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    inputs, context = sides(ours)
    with torch.no_grad():
        expected, found = their_logits(pair, inputs, context), our_logits(ours, inputs, context)
    assert gap(found, expected, inputs) <= 1e-4
    assert torch.equal(found[inputs.segments > 0].argmax(-1), expected[inputs.segments > 0].argmax(-1))
