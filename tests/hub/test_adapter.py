"""PEFT's adapter folders in both directions: equal logits, equal numbers of trained parameters, clear refusals."""

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.hub.test_heads import theirs_of
from tests.reference import Pair, build_pair, our_logits, sides, their_logits
from tests.training.tuned import make_model, make_tokenizer
from trivium.errors import ConfigError, HubError, TriviumError
from trivium.hub.adapter import load_adapter, merge_folder, save_adapter
from trivium.hub.adapter_config import read_adapter_config, shortest
from trivium.hub.auto import load, load_model, read_generation
from trivium.model.adapter import (
    LoraConfig,
    adapted_linears,
    adapter_parameters,
    add_adapter,
    has_adapter,
    merge_adapter,
)
from trivium.model.config import Head
from trivium.model.mask import Side
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
    ("bert", "none", "all-linear", "FEATURE_EXTRACTION"),  # with a pooler that nothing here reads
    ("roberta", "none", ["dense"], "FEATURE_EXTRACTION"),
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
    import peft  # ten seconds: not for every process that collects tests

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
        pooler = 4 * (32 + 32) if head == "none" and "intermediate.dense" not in targets and name != "gpt2" else 0
        assert count(pair.ours) + pooler == theirs.get_nb_trainable_parameters()[0]
        merge_adapter(pair.ours)
        assert float((ours_of(pair, pair.ours) - found).abs().max()) <= tolerance
        # What they merge is what we merge.
        assert float((ours_of(pair, pair.ours) - peers_of(pair, theirs.merge_and_unload())).abs().max()) <= tolerance


@pytest.mark.parametrize(("name", "head", "targets"), OURS)
@torch.no_grad()
def test_what_peft_opens(name: str, head: Head, targets: tuple[str, ...], tmp_path: Path) -> None:
    import peft

    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        pair = build_pair(name, head=head, dtype=dtype)
        again = copy.deepcopy(pair.ours)
        add_adapter(pair.ours, LoraConfig(rank=4, alpha=6.0, targets=targets))
        stir(adapter_parameters(pair.ours))
        folder = save_adapter(pair.ours, tmp_path / str(dtype), base="org/base")
        expected = ours_of(pair, pair.ours)
        theirs = peft.PeftModel.from_pretrained(copy.deepcopy(pair.theirs), folder, is_trainable=True).eval()
        keys = set(load_file(folder / WEIGHTS)) ^ set(
            peft.get_peft_model_state_dict(theirs, save_embedding_layers=False)
        )
        assert not keys, keys
        assert float((peers_of(pair, theirs) - expected).abs().max()) <= tolerance
        trained = theirs.get_nb_trainable_parameters()[0]
        if name != "gpt2":  # whose blocks of zeros are counted there
            assert trained == count(pair.ours)
        assert theirs.peft_config["default"].base_model_name_or_path == "org/base"
        load_adapter(again, folder)
        assert torch.equal(ours_of(pair, again), expected)
        mine, other = adapter_parameters(pair.ours), adapter_parameters(again)
        assert mine.keys() == other.keys() and all(torch.equal(each, other[key]) for key, each in mine.items())


@pytest.mark.parametrize(
    ("name", "head", "targets", "task"),
    [
        ("gpt2", "language", ["c_attn"], "CAUSAL_LM"),  # one A for three maps, there and here
        ("llama", "language", ["q_proj", "v_proj"], "CAUSAL_LM"),
        ("t5", "language", ["q", "wo"], "SEQ_2_SEQ_LM"),
        ("distilbert", "sequence", ["q_lin"], "SEQ_CLS"),
    ],
)
def test_training_goes_the_same_way(name: str, head: Head, targets: list[str], task: str, tmp_path: Path) -> None:
    pair = build_pair(name, head=head, dtype=torch.float64)
    theirs = their_adapter(pair, targets, task)
    theirs.save_pretrained(tmp_path)
    load_adapter(pair.ours, tmp_path)
    optimizers, goal = (
        [],
        torch.randn(peers_of(pair, theirs).shape, generator=torch.Generator().manual_seed(0)).double(),
    )
    for model in (theirs, pair.ours):
        trained = [each for each in model.parameters() if each.requires_grad]
        optimizers.append(torch.optim.AdamW(trained, lr=1e-2))
    for _ in range(5):
        losses = []
        for found in (peers_of(pair, theirs), ours_of(pair, pair.ours)):
            losses.append((found - goal).square().mean())
            losses[-1].backward()
        assert abs((losses[0] - losses[1]).detach().item()) <= 1e-10
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    with torch.no_grad():
        assert float((peers_of(pair, theirs) - ours_of(pair, pair.ours)).abs().max()) <= 1e-8


@torch.no_grad()
def test_ranks_and_alphas_by_name(tmp_path: Path) -> None:
    import peft

    pair = build_pair("llama")
    again = copy.deepcopy(pair.ours)
    patterns = {
        "rank_pattern": {"v_proj": 2, "^model.layers.0.self_attn.q_proj": 5},
        "alpha_pattern": {r"layers\.1\.self_attn\.q_proj": 3, "k_proj": 11},
    }
    theirs = their_adapter(pair, ["q_proj", "v_proj", "k_proj", "up_proj"], "CAUSAL_LM", **patterns)
    theirs.save_pretrained(tmp_path / "theirs")
    load_adapter(pair.ours, tmp_path / "theirs")
    expected = ours_of(pair, pair.ours)
    assert float((expected - peers_of(pair, theirs)).abs().max()) <= 1e-5
    assert {each.rank for each in adapted_linears(pair.ours).values()} == {2, 4, 5}

    folder = save_adapter(pair.ours, tmp_path / "ours")
    settings = json.loads((folder / CONFIG).read_text())
    assert settings["rank_pattern"] == {"v_proj": 2, "0.self_attn.q_proj": 5}
    assert settings["alpha_pattern"] == {"k_proj": 11, "1.self_attn.q_proj": 3}
    assert settings["target_modules"] == ["k_proj", "q_proj", "up_proj", "v_proj"]
    back = peft.PeftModel.from_pretrained(copy.deepcopy(pair.theirs), folder).eval()
    assert float((peers_of(pair, back) - expected).abs().max()) <= 1e-5
    load_adapter(again, folder)
    assert torch.equal(ours_of(pair, again), expected)


def test_endings_tell_exactly_what_is_adapted() -> None:
    everything = {"a.0.q", "a.1.q", "b.0.q", "b.0.k", "x.out.dense", "y.dense"}
    assert shortest({"a.0.q", "a.1.q", "b.0.q"}, everything) == ["q"]
    assert shortest({"a.0.q", "a.1.q"}, everything) == ["1.q", "a.0.q"]
    assert shortest({"x.out.dense"}, everything) == ["out.dense"]
    assert shortest({"y.dense", "b.0.k"}, everything) == ["k", "y.dense"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Transformer, Path]:
    """A sequence classifier of BERT's kind, without its adapter, and the folder of that."""
    model = build_pair("bert", head="sequence").ours
    plain = copy.deepcopy(model)
    add_adapter(model, LoraConfig(rank=4))
    return plain, save_adapter(model, tmp_path_factory.mktemp("adapter"), base="bert-base-uncased")


def settings_with(**changes: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        settings = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(settings | changes))

    return spoil


def tensors_with(**changes: Tensor | None) -> Callable[[Path], None]:
    """Other tensors, or none, under names in which `__` stands for a dot."""

    def spoil(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS) | {key.replace("__", "."): each for key, each in changes.items()}
        save_file({key: each for key, each in tensors.items() if each is not None}, folder / WEIGHTS)

    return spoil


def outside(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).rename(folder.parent / f"outside-{name}")
        (folder / name).symlink_to(folder.parent / f"outside-{name}")

    return spoil


def only_pickle(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


QUERY = "base_model__model__bert__encoder__layer__0__attention__self__query"
REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "rslora": (settings_with(use_rslora=True), r"sets use_rslora='True'; expected plain LoRA, without it; use another"),
    "dora": (settings_with(use_dora=True), r"sets use_dora='True'; expected plain LoRA"),
    "method": (settings_with(peft_type="IA3"), r"sets peft_type='IA3'; expected LORA"),
    "no method": (settings_with(peft_type=None), r"sets peft_type='None'; expected LORA"),
    "bias": (settings_with(bias="lora_only"), r"sets bias='lora_only'; expected none"),
    "pissa": (settings_with(init_lora_weights="pissa_niter_4"), r"init_lora_weights='pissa_niter_4'; expected a begin"),
    "list": (settings_with(init_lora_weights=[1]), r"init_lora_weights='\[1\]'; expected a beginning"),
    "tokens": (settings_with(trainable_token_indices=[1]), r"sets trainable_token_indices='\[1\]'; expected plain"),
    "replication": (settings_with(layer_replication=[[0, 2]]), r"sets layer_replication=.*; expected plain LoRA"),
    "future": (settings_with(a_new_way={"x": 1}), r"sets a_new_way=.*; expected plain LoRA"),
    "rank 0": (settings_with(r=0), r"sets r='0'; expected a sensible number"),
    "rank text": (settings_with(r="8"), r"sets r='8'; expected a sensible number"),
    "rank flag": (settings_with(r=True), r"sets r='True'; expected a sensible number"),
    "alpha nan": (settings_with(lora_alpha=float("nan")), r"sets lora_alpha='nan'; expected a sensible number"),
    "alpha huge": (settings_with(lora_alpha=1e300), r"sets lora_alpha='1e\+300'; expected a sensible"),
    "dropout": (settings_with(lora_dropout=1), r"sets lora_dropout='1'; expected a sensible number"),
    "pattern": (settings_with(rank_pattern={"(a+)+$": 3}), r"sets rank_pattern='\(a\+\)\+\$'; expected module names"),
    "pattern list": (settings_with(alpha_pattern=[1]), r"sets alpha_pattern='\[1\]'; expected an object"),
    "pattern value": (settings_with(rank_pattern={"query": {}}), r"sets rank_pattern query=.*; expected a sensible"),
    "other rank": (settings_with(r=8), r"of another rank than its config says: .*query \(\(4, 32\) for rank 8\)"),
    "shape A": (
        tensors_with(**{f"{QUERY}__lora_A__weight": torch.zeros(4, 48)}),
        r"another shape: .*0\.attention\.self\.query\.weight: A \(4, 48\) and B \(32, 4\) for 32 inputs and 32 outputs",
    ),
    "shape B": (tensors_with(**{f"{QUERY}__lora_B__weight": torch.zeros(32)}), r"A \(4, 32\) and B \(32,\) for 32"),
    "half": (tensors_with(**{f"{QUERY}__lora_B__weight": None}), r"missing: .*the other half of bert\.encoder"),
    "both halves": (
        tensors_with(**{f"{QUERY}__lora_B__weight": None, f"{QUERY}__lora_A__weight": None}),
        r"missing: bert\.encoder\.layer\.0\.attention\.self\.query\)",
    ),
    "integers": (
        tensors_with(**{f"{QUERY}__lora_A__weight": torch.zeros(4, 32, dtype=torch.int8)}),
        r"of an unknown kind: base_model\.model\..*query\.lora_A\.weight \(int8\)",
    ),
    "dora's vector": (
        tensors_with(**{f"{QUERY}__lora_magnitude_vector__weight": torch.ones(32)}),
        r"of an unknown kind: .*lora_magnitude_vector",
    ),
    "unknown map": (
        tensors_with(base_model__model__h__0__x__lora_A__weight=torch.ones(4, 32),
                     base_model__model__h__0__x__lora_B__weight=torch.ones(32, 4)),
        r"no linear map here: bert\.h\.0\.x\.weight",
    ),
    "embedding": (
        tensors_with(base_model__model__bert__embeddings__word_embeddings__lora_A__weight=torch.ones(4, 61),
                     base_model__model__bert__embeddings__word_embeddings__lora_B__weight=torch.ones(32, 4)),
        r"no linear map here: bert\.embeddings\.word_embeddings\.weight",
    ),
    "trained in full": (
        tensors_with(base_model__model__bert__embeddings__word_embeddings__weight=torch.ones(61, 32)),
        r"trained in full, which only task heads are here: bert\.embeddings\.word_embeddings\.weight",
    ),
    "more labels": (
        tensors_with(base_model__model__classifier__weight=torch.ones(5, 32)),
        r"another shape: classifier\.weight: \(5, 32\) for \(3, 32\).*use the base that it names, 'bert-base-uncased'",
    ),
    "no prefix": (tensors_with(x__lora_A__weight=torch.ones(4, 32)), r"unknown kind: x\.lora_A\.weight \(float32\)"),
    "pickle": (only_pickle, r"has only adapter_model\.bin, a pickle that could run code; expected adapter_model\.safe"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), r"has no adapter_model\.safetensors; expected"),
    "no config": (lambda folder: (folder / CONFIG).unlink(), r"adapter_config\.json is not readable"),
    "cut": (lambda folder: (folder / WEIGHTS).write_bytes(b"\x40\0\0\0\0\0\0\0{"), r"safetensors is missing or da"),
    "deep": (lambda folder: (folder / CONFIG).write_text("[" * 10**6), r"adapter_config\.json is not readable"),
    "no object": (lambda folder: (folder / CONFIG).write_text("[1]"), r"holds a list; expected a JSON object"),
    "link": (outside(WEIGHTS), r"refers to 'adapter_model\.safetensors' outside itself"),
    "link of config": (outside(CONFIG), r"refers to 'adapter_config\.json' outside itself"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case: str, saved: tuple[Transformer, Path], tmp_path: Path) -> None:
    spoil, words = REFUSED[case]
    model, folder = saved[0], tmp_path / "folder"
    folder.mkdir()
    for name in (CONFIG, WEIGHTS):
        (folder / name).write_bytes((saved[1] / name).read_bytes())
    spoil(folder)
    before = {name: each.clone() for name, each in model.named_parameters()}
    with pytest.raises(HubError, match=words) as caught:
        load_adapter(model, folder)
    assert "\n" not in str(caught.value) and str(caught.value).count("; ") >= 2
    assert not has_adapter(model), "nothing is changed before all is checked"
    assert all(each.requires_grad and torch.equal(each, before[name]) for name, each in model.named_parameters())


def test_nothing_that_a_folder_names_is_opened(
    saved: tuple[Transformer, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (CONFIG, WEIGHTS):
        (tmp_path / name).write_bytes((saved[1] / name).read_bytes())
    mapping = {"parent_library": "sprung", "base_model_class": "Sprung"}
    settings_with(auto_mapping=mapping, base_model_name_or_path="../elsewhere", revision="x")(tmp_path)
    (tmp_path / "sprung.py").write_text("raise SystemExit")
    opened: list[str] = []
    path_open = Path.open

    def watch(path: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(path.name)
        return path_open(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", watch)
    monkeypatch.setattr("trivium.hub.resolve._download", lambda *_: pytest.fail("asked a hub"))
    monkeypatch.chdir(tmp_path)
    load_adapter(copy.deepcopy(saved[0]), tmp_path)
    assert set(opened) <= {CONFIG, WEIGHTS} and CONFIG in opened and "sprung" not in sys.modules


def test_other_models_are_refused(saved: tuple[Transformer, Path]) -> None:
    for name, words in (("llama", "no linear map here"), ("distilbert", "no linear map here")):
        with pytest.raises(HubError, match=words):
            load_adapter(build_pair(name, head="sequence").ours, saved[1])
    with pytest.raises(HubError, match=r"trained in full, which only task heads are here: .*classifier\.bias"):
        load_adapter(build_pair("bert").ours, saved[1])
    model = build_pair("bert", head="sequence").ours
    load_adapter(model, saved[1])
    with pytest.raises(ConfigError, match=r"has an adapter already; expected none; call merge_adapter first"):
        load_adapter(model, saved[1])


def test_what_an_adapter_cannot_hold_is_not_lost(tmp_path: Path) -> None:
    model = build_pair("llama").ours
    with pytest.raises(ConfigError, match="has no adapter"):
        save_adapter(model, tmp_path)
    add_adapter(model, LoraConfig())
    model.decoder.norm.weight.requires_grad_(True)  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"decoder\.norm\.weight require gradients, too; an adapter's folder holds"):
        save_adapter(model, tmp_path)
    assert not [*tmp_path.iterdir()]
    model.requires_grad_(False)
    (tmp_path / "file").write_text("")
    with pytest.raises(TriviumError, match=r"could not be written|is no folder"):
        save_adapter(model, tmp_path / "file")


def test_merged_folders(
    gpt2_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`trivium convert BASE --adapter DIR --out OUT`, and what is said of an adapter that is taken for a model."""
    from trivium.cli import main

    model, tokenizer = load(gpt2_folder)
    add_adapter(model, LoraConfig(targets=("query", "ffn.up")))
    stir(adapter_parameters(model))
    folder = save_adapter(model, tmp_path / "adapter", base=gpt2_folder)
    with pytest.raises(
        HubError, match=rf"holds an adapter of '{gpt2_folder}', no model; expected config\.json .*; open"
    ):
        load(folder)
    call = ["convert", str(gpt2_folder), "--adapter", str(folder), "--out", str(tmp_path / "merged")]
    monkeypatch.setattr("sys.argv", ["trivium", *call])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code and "largest difference of scores" in capsys.readouterr().out
    merged, same = load(tmp_path / "merged")
    inputs = Side.from_ids([tokenizer.encode("The reader opens a file", add_special=False)])
    with torch.no_grad():
        assert float((our_logits(merged, inputs) - our_logits(model, inputs)).abs().max()) <= 1e-4
    assert same.encode("The reader", add_special=False) == tokenizer.encode("The reader", add_special=False)
    assert read_generation(tmp_path / "merged") == read_generation(gpt2_folder)
    told = [json.loads((each / "config.json").read_text()) for each in (gpt2_folder, tmp_path / "merged")]
    assert told[0]["task_specific_params"] and told[0]["task_specific_params"] == told[1]["task_specific_params"]


@pytest.mark.parametrize("head", ["sequence", "token", "span"])
@pytest.mark.filterwarnings("ignore:the file has no fitting weights")
@torch.no_grad()
def test_an_adapter_brings_its_head_to_a_base_without_one(head: Head, tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", "encoder", make_tokenizer())
    model, tokenizer = load_model(base, head=head, labels=None if head == "span" else list("abc")), load(base)[1]
    add_adapter(model, LoraConfig(targets=("query",)))
    stir({name: each for name, each in model.named_parameters() if each.requires_grad})
    folder = save_adapter(model, tmp_path / "adapter", base=base)
    assert merge_folder(base, folder, tmp_path / "merged") < 1e-4
    merged, same = load(tmp_path / "merged")
    inputs = Side.from_ids([tokenizer.encode("the owl is red")])
    assert merged.config.labels == (() if head == "span" else ("LABEL_0", "LABEL_1", "LABEL_2"))
    assert torch.allclose(merged.classify(inputs), model.classify(inputs), atol=1e-5)
    assert same.encode("the owl") == tokenizer.encode("the owl")
    # One that names its layers is judged by what it holds.
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "layers_to_transform": 0}))
    assert not read_adapter_config(folder).targets
    if head == "sequence":  # PEFT saves the last map of a head alone; the pooler before it must come from somewhere
        weights = load_file(folder / WEIGHTS)
        save_file({name: each for name, each in weights.items() if "pooler" not in name}, folder / WEIGHTS)
        with pytest.raises(HubError, match=r"neither .* nor the adapter in .* has classifier.*expected a whole task"):
            merge_folder(base, folder, tmp_path / "again")
