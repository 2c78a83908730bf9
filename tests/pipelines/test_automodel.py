"""`AutoModel…` objects give the tensors that transformers' give for the same folder, however the input is padded."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import trivium
from tests.pipelines.labelled import make_labelled
from tests.reference import build_pair, random_rows
from trivium import pipeline
from trivium.errors import ConfigError, HubError, RequestError
from trivium.hub.auto import save_model

NAMES = {
    "AutoModelForCausalLM": ("gpt2", "llama", "qwen3"),
    "AutoModelForMaskedLM": ("bert", "roberta"),
    "AutoModelForSeq2SeqLM": ("t5", "bart", "marian-2017"),
}
CASES = [(opener, name) for opener, names in NAMES.items() for name in names]
LENGTHS = [3, 9, 5, 9]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    names = {name for _, name in CASES}
    return {name: save_model(build_pair(name, sharp=1.5).ours, tmp_path_factory.mktemp(name)) for name in names}


def both(opener: str, folder: Path, **options: Any) -> tuple[Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = getattr(transformers, opener).from_pretrained(folder, **options).eval()
    return getattr(trivium, opener).from_pretrained(folder, **options), theirs


def padded(lengths: list[int], *, left: bool = False, pad: int = 0, seed: int = 0) -> dict[str, Tensor]:
    longest, ids, mask = max(lengths), [], []
    for row in random_rows(lengths, seed=seed):
        fill = longest - len(row)
        ids.append([pad] * fill + row if left else row + [pad] * fill)
        mask.append([0] * fill + [1] * len(row) if left else [1] * len(row) + [0] * fill)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def close(ours: Tensor, theirs: Tensor, mask: Tensor | None = None) -> None:
    assert ours.shape == theirs.shape
    if mask is not None:
        ours, theirs = ours[mask > 0], theirs[mask > 0]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def unpadded(ids: Tensor, config: Any) -> Tensor:
    """Rows with padding tokens behind their first end token."""
    ends = (ids == config.eos_token_id).int()
    return ids.masked_fill(ends.cumsum(1) - ends > 0, config.pad_token_id)


@pytest.mark.parametrize(("opener", "name"), CASES)
def test_logits_and_losses_equal_transformers(opener: str, name: str, saved: dict[str, Path]) -> None:
    ours, theirs = both(opener, saved[name])
    inputs = padded(LENGTHS, pad=theirs.config.pad_token_id or 0)
    two = opener == "AutoModelForSeq2SeqLM"
    answers = padded([4, 2, 6, 1], seed=1)
    labels = answers["input_ids"] if two else inputs["input_ids"]
    labels = labels.masked_fill((answers if two else inputs)["attention_mask"] == 0, -100)
    mine, reference = ours(**inputs, labels=labels), theirs(**inputs, labels=labels)
    seen = answers["attention_mask"] if two else inputs["attention_mask"]
    close(mine.logits, reference.logits, seen)
    close(mine.loss, reference.loss)
    assert torch.equal(mine[0], mine.loss) and torch.equal(mine["logits"], mine[1])
    if two:
        close(mine.encoder_last_hidden_state, reference.encoder_last_hidden_state, inputs["attention_mask"])
        read = {"decoder_input_ids": answers["input_ids"], "decoder_attention_mask": answers["attention_mask"]}
        close(ours(**inputs, **read).logits, theirs(**inputs, **read).logits, seen)
    else:
        hidden = theirs(**inputs, output_hidden_states=True).hidden_states[-1]
        if name != "roberta" and name != "bert":
            close(mine.last_hidden_state, hidden, seen)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "t5"])
def test_padding_on_the_left_is_padding(name: str, saved: dict[str, Path]) -> None:
    opener = next(opener for opener, names in NAMES.items() if name in names)
    ours = getattr(trivium, opener).from_pretrained(saved[name])
    right, left = padded(LENGTHS), padded(LENGTHS, left=True)
    extra = {"decoder_input_ids": padded([4, 4, 4, 4], seed=1)["input_ids"]} if name == "t5" else {}
    first, second = ours(**right, **extra), ours(**left, **extra)
    if name == "t5":
        close(first.logits, second.logits)
    else:
        for row, length in enumerate(LENGTHS):
            close(first.logits[row, :length], second.logits[row, max(LENGTHS) - length :])


@pytest.mark.filterwarnings("ignore:Using the model-agnostic default")
@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "num_return_sequences": 2}, {"max_length": 14}], ids=str)
@pytest.mark.parametrize(("opener", "name"), [case for case in CASES if case[0] != "AutoModelForMaskedLM"])
def test_generate_gives_transformers_tensor(
    opener: str, name: str, options: dict[str, Any], saved: dict[str, Path]
) -> None:
    ours, theirs = both(opener, saved[name])
    two = opener == "AutoModelForSeq2SeqLM"
    pad = theirs.config.pad_token_id or 0
    inputs = padded(LENGTHS, left=not two, pad=pad)
    options = {"no_repeat_ngram_size": 1 if two else 0, **options}
    extra = {}
    if two and name != "bart":  # theirs would size the cache by the encoder's layers
        cache = transformers.EncoderDecoderCache(transformers.DynamicCache(), transformers.DynamicCache())
        extra = {"past_key_values": cache}
    expected = theirs.generate(**inputs, pad_token_id=pad, **options, **extra)
    found = ours.generate(**inputs, **options)
    assert found.dtype == torch.long
    if two and "num_beams" in options:  # their beams pad with the end token where the padding token is 0
        expected = unpadded(expected, theirs.config)
    assert found.tolist() == expected.tolist()
    if not two:
        assert torch.equal(found[:: options.get("num_return_sequences", 1), : max(LENGTHS)], inputs["input_ids"])
    assert torch.equal(ours.generate(inputs["input_ids"], inputs["attention_mask"], use_cache=True, **options), found)
    assert torch.equal(ours.generate(inputs=inputs["input_ids"], **options), found), "padding is seen without a mask"


def test_sampling_follows_torchs_seed(saved: dict[str, Path]) -> None:
    model, ids = trivium.AutoModelForCausalLM.from_pretrained(saved["gpt2"]), torch.tensor([[5, 6, 7]])
    texts = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        texts.append(model.generate(ids, do_sample=True).tolist())
    assert texts[0] == texts[1] != texts[2]
    assert model.generate(ids, do_sample=True, seed=3).tolist() == model.generate(ids, do_sample=True, seed=3).tolist()


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "t5"])
def test_the_headless_model_gives_hidden_states(name: str, saved: dict[str, Path]) -> None:
    ours, theirs = both("AutoModel", saved[name])
    inputs = padded(LENGTHS)
    extra = {"decoder_input_ids": padded([4, 4, 4, 4], seed=1)["input_ids"]} if name == "t5" else {}
    mine, reference = ours(**inputs, **extra), theirs(**inputs, **extra)
    seen = None if name == "t5" else inputs["attention_mask"]
    close(mine.last_hidden_state, reference.last_hidden_state, seen)
    assert mine.logits is None and torch.equal(mine[0], mine.last_hidden_state)
    with pytest.raises(KeyError):
        mine["logits"]


@pytest.mark.parametrize(
    ("opener", "head", "labels", "problem", "target"),
    [
        ("AutoModelForSequenceClassification", "sequence", ("a", "b", "c"), "single", [0, 2, 1, 2]),
        ("AutoModelForSequenceClassification", "sequence", ("a", "b"), "multi", [[0.0, 1.0]] * 4),
        ("AutoModelForSequenceClassification", "sequence", ("mark",), "regression", [0.5, 1.0, -1.0, 2.0]),
        ("AutoModelForTokenClassification", "token", ("O", "B", "I"), "single", "tokens"),
    ],
)
def test_labels_and_their_losses_equal_transformers(
    opener: str, head: Any, labels: tuple[str, ...], problem: str, target: Any, tmp_path: Path
) -> None:
    ours, theirs = both(opener, make_labelled(tmp_path, head, labels, problem=problem))
    inputs = padded(LENGTHS)
    inputs["token_type_ids"] = (torch.arange(9) > 4).long().expand(4, 9)
    mask = inputs["attention_mask"]
    wanted = (inputs["input_ids"] % 3).masked_fill(mask == 0, -100) if target == "tokens" else torch.tensor(target)
    mine, reference = ours(**inputs, labels=wanted), theirs(**inputs, labels=wanted)
    close(mine.logits, reference.logits, mask if head == "token" else None)
    close(mine.loss, reference.loss)
    assert ours.config.labels == labels


def test_spans_and_their_loss_equal_transformers(tmp_path: Path) -> None:
    ours, theirs = both("AutoModelForQuestionAnswering", make_labelled(tmp_path, "span"))
    inputs = padded([9, 9])
    ends = {"start_positions": torch.tensor([1, 30]), "end_positions": torch.tensor([4, 7])}
    mine, reference = ours(**inputs, **ends), theirs(**inputs, **ends)
    close(mine.start_logits, reference.start_logits)
    close(mine.end_logits, reference.end_logits)
    close(mine.loss, reference.loss)


def test_other_labels_begin_at_random_and_say_so(saved: dict[str, Path]) -> None:
    opener = trivium.AutoModelForSequenceClassification
    with pytest.warns(UserWarning, match="begin at random"):
        model = opener.from_pretrained(saved["bert"], num_labels=3)
    assert model.config.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    with pytest.warns(UserWarning, match="begin at random"):
        model = opener.from_pretrained(
            saved["gpt2"], id2label={0: "no", 1: "yes"}, problem_type="multi_label_classification"
        )
    assert model.config.labels == ("no", "yes") and model.config.problem == "multi"


def test_a_step_of_training_and_saving(saved: dict[str, Path], tmp_path: Path) -> None:
    model = trivium.AutoModelForCausalLM.from_pretrained(saved["llama"]).train()
    inputs = padded(LENGTHS)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-2), []
    for _ in range(8):
        labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    model.eval().save_pretrained(tmp_path)
    ours, theirs = both("AutoModelForCausalLM", tmp_path)
    close(ours(**inputs).logits, theirs(**inputs).logits, inputs["attention_mask"])
    close(ours(**inputs).logits, model(**inputs).logits)
    assert model.to("cpu").device.type == "cpu" and model.dtype == torch.float32
    assert dict(model.named_parameters()).keys() == dict(ours.named_parameters()).keys()


def test_a_folders_decoding_settings_hold(t5_folder: Path, tmp_path: Path) -> None:
    model = trivium.AutoModelForSeq2SeqLM(t5_folder)
    model.generation |= {"num_beams": 4, "max_length": 9, "length_penalty": 2.0}
    model.save_pretrained(tmp_path)
    ours, theirs = both("AutoModelForSeq2SeqLM", tmp_path)
    ids = torch.tensor([[9, 8, 7, 1], [20, 30, 40, 1]])
    assert ours.generate(ids).tolist() == unpadded(theirs.generate(ids), theirs.config).tolist()
    assert ours.generate(ids, num_beams=1, max_new_tokens=3).shape[1] <= 4
    task = pipeline("text2text-generation", model=ours, tokenizer=trivium.load(t5_folder)[1])
    assert len(task.tokenizer.encode(task("the array")[0]["generated_text"])) <= 9


def test_what_it_cannot_do_is_said(saved: dict[str, Path]) -> None:
    with pytest.raises(
        ConfigError, match=r"family encoder_decoder; AutoModelForCausalLM opens decoder; use AutoModelForSeq"
    ):
        trivium.AutoModelForCausalLM.from_pretrained(saved["t5"])
    with pytest.raises(ConfigError, match="num_labels=3 with 2 names"):
        trivium.AutoModelForTokenClassification.from_pretrained(saved["bert"], num_labels=3, id2label={0: "a", 1: "b"})
    with pytest.raises(ConfigError, match="num_labels is 0"):
        trivium.AutoModelForTokenClassification.from_pretrained(saved["bert"], num_labels=0)
    with pytest.raises(ConfigError, match=r"AutoModel.from_pretrained has no labels; expected num_labels"):
        trivium.AutoModel.from_pretrained(saved["bert"], labels=3)
    assert trivium.AutoModel.from_pretrained(saved["bert"], trust_remote_code=True).config.head == "none"
    with pytest.raises(HubError, match="no folder"):
        trivium.AutoModel.from_pretrained("./nowhere")
    model = trivium.AutoModelForSeq2SeqLM.from_pretrained(saved["t5"])
    ids = torch.tensor([[5, 6]])
    with pytest.raises(RequestError, match="called with input_ids alone"):
        model(ids)
    with pytest.raises(RequestError, match="generate without input_ids"):
        model.generate()
    with pytest.raises(RequestError, match=r"of shapes \[\(2,\), \(2,\)\]"):
        model.generate(ids[0])
    with pytest.raises(ConfigError, match="no option max_tokens; expected for example max_new_tokens"):
        model.generate(ids, max_tokens=3)
    with pytest.raises(RequestError, match="token_type_ids that are not 0"):
        model.generate(ids, token_type_ids=torch.ones_like(ids))
    with pytest.raises(ConfigError, match=r"labels of shape \(1, 3\) for scores of shape \(1, 2, 61\)"):
        model(ids, decoder_input_ids=ids, labels=torch.tensor([[1, 2, 3]]))


@pytest.mark.parametrize(("opener", "name"), [("AutoModelForCausalLM", "gpt2"), ("AutoModelForMaskedLM", "bert")])
def test_added_tokens_get_room(opener: str, name: str, saved: dict[str, Path], tmp_path: Path) -> None:
    model = getattr(trivium, opener).from_pretrained(saved[name])
    size, ids = model.config.vocab_size, torch.tensor([[5, 6, 7, 8]])
    before = model(ids).logits
    model.resize_token_embeddings(size + 3)
    after = model(ids).logits
    assert after.shape[-1] == size + 3
    assert torch.allclose(after[..., :size], before, atol=1e-6)
    assert torch.allclose(after[..., size], before.mean(-1), atol=1e-4)
    model(torch.tensor([[size + 2]])).logits.sum().backward()
    model.save_pretrained(tmp_path / "larger")
    theirs = getattr(transformers, opener).from_pretrained(tmp_path / "larger").eval()
    with torch.no_grad():
        assert torch.allclose(theirs(ids).logits, after, atol=1e-4)
    model.resize_token_embeddings(size)
    assert torch.allclose(model(ids).logits, before, atol=1e-6)
