"""T4 and T24 for fine-tuning: how the examples of a step are split and laid out changes nothing, for every task."""

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.families import TINY
from tests.training.tuned import ANIMALS, COLOURS, make_tokenizer
from trivium.data.batch import Batch, Example, collate
from trivium.data.examples import ExampleLoader
from trivium.model import Transformer, build_model
from trivium.tasks import Limits, encode_rows, find_labels
from trivium.tasks.task import TASKS
from trivium.tokenizer import Tokenizer
from trivium.tokenizer.chat_mask import set_chat_template
from trivium.training.loop import batch_loss
from trivium.training.recipe import LossConfig

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
SPLITS = (32, 8, 1, 30)  # rows at a time; the last of 30, 30 and 4 is uneven
CASES = [
    ("summarization", "t5"),
    ("summarization", "bart"),
    ("summarization", "qwen3"),
    ("summarization", "gpt2"),
    ("chat", "qwen3"),
    ("text-generation", "gpt2"),
    *((task, name) for task in ("text-classification", "multi-label-classification", "regression") for name in
      ("bert", "gpt2", "bart")),
    ("token-classification", "bert"),
    ("question-answering", "bert"),
]  # fmt: skip
# Where a head reads more than a token of its own, examples share no row.
PACKED = [(task, name) for task, name in CASES if TASKS[task].kind not in ("label", "answer")]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    tokenizer = make_tokenizer()
    set_chat_template(tokenizer)
    return tokenizer


def make_row(task: str, draw: random.Random) -> dict[str, Any]:
    words = draw.choices([*ANIMALS, *COLOURS], k=1 + int(22 * draw.random() ** 3))
    text, kind = " ".join(words), TASKS[task].kind
    if kind == "pair":
        return {"source": text, "target": " ".join(words[::3])}
    if kind == "chat":
        turns = [(("user", text[:20]), ("assistant", word)) for word in words[: 1 + len(words) // 3]]
        return {"messages": [{"role": role, "content": said} for turn in turns for role, said in turn]}
    if kind == "tags":
        return {"tokens": words, "tags": [str(word in ANIMALS) for word in words]}
    if kind == "answer":
        answers = {"text": [words[-1]], "answer_start": [len(text) - len(words[-1])]}
        return {"question": "what ?", "context": text, "answers": answers}
    labels: dict[str, Any] = {"single": str(len(words) % 3), "multi": words[:2], "regression": [len(words) / 9, 0.5]}
    return {"text": text, "label": labels[TASKS[task].problem]}


def make_case(
    task: str, name: str, tokenizer: Tokenizer, dtype: torch.dtype, count: int = 64
) -> tuple[Transformer, list[Example]]:
    found, draw = TASKS[task], random.Random(1)
    rows = [make_row(task, draw) for _ in range(count)]
    labels = find_labels(found, rows)
    config = dataclasses.replace(
        TINY[name], vocab_size=tokenizer.vocab_size, pad_id=tokenizer.pad_id or 0, head=found.head, labels=labels,
        problem=found.problem if found.head == "sequence" else "single",
    )  # fmt: skip
    dressed = tokenizer.dress_for("encoder") if config.family == "encoder" else tokenizer
    encoded = encode_rows(found, rows, config, dressed, limits=Limits(600, 30), labels=labels)
    return build_model(config, seed=1, dtype=dtype).train(), [sample.example for sample in encoded.samples]


def lay_out(examples: list[Example], micro_rows: int = 0, *, pack: bool) -> list[Batch]:
    """The micro-batches of a step that reads every example once."""
    rows = len(examples)
    loader = ExampleLoader([examples], pad_id=0, rows_per_batch=rows, micro_rows=micro_rows, pack=pack)
    return [loader.batch_at(0, micro) for micro in range(loader.num_micro_steps)]


def take_step(model: Transformer, batches: list[Batch]) -> tuple[float, Tensor]:
    """The loss of a step of these micro-batches, as the loop logs it, and its gradient as one vector."""
    model.zero_grad()
    count = sum(float(batch.weights.sum()) for batch in batches)
    total = 0.0
    for batch in batches:
        loss = batch_loss(model, batch, LossConfig(label_smoothing=0.1), count)
        loss.backward()  # type: ignore[no-untyped-call]  # torch declares no types here
        total += float(loss.detach())
    gradients = [each.grad.flatten() for each in model.parameters() if each.grad is not None]
    return total, torch.cat(gradients)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("task", "name"), CASES)
def test_any_split_of_a_step_is_the_same_step(task: str, name: str, dtype: torch.dtype, tokenizer: Tokenizer) -> None:
    model, examples = make_case(task, name, tokenizer, dtype)
    lengths = sorted(each.num_tokens for each in examples)
    assert len(lengths) == 64 and lengths[-1] > 1.5 * lengths[0]
    pack = (task, name) in PACKED
    whole_loss, whole = take_step(model, lay_out(examples, pack=pack))
    assert whole.norm() > 0
    for micro_rows in SPLITS:
        loss, gradient = take_step(model, lay_out(examples, micro_rows, pack=pack))
        assert loss == pytest.approx(whole_loss, rel=TOLERANCE[dtype]), micro_rows
        assert (gradient - whole).norm() <= TOLERANCE[dtype] * whole.norm(), micro_rows


@pytest.mark.parametrize(("task", "name"), PACKED)
def test_packed_examples_give_the_sums_of_separate_ones(task: str, name: str, tokenizer: Tokenizer) -> None:
    model, examples = make_case(task, name, tokenizer, torch.float32)
    packed = lay_out(examples, pack=True)
    assert packed[0].num_rows < len(examples), "several share a row"
    loss, gradient = take_step(model, packed)
    expected, separate = take_step(model, [collate([each], 0) for each in examples])
    assert loss == pytest.approx(expected, rel=1e-5)
    assert (gradient - separate).norm() <= 1e-5 * separate.norm()


@pytest.mark.parametrize(("task", "name"), PACKED)
def test_another_example_in_a_row_changes_no_bit_of_a_loss(task: str, name: str, tokenizer: Tokenizer) -> None:
    model, examples = make_case(task, name, tokenizer, torch.float32, count=12)
    losses = []
    for shift in (0, 3):  # the first example reads other words; all others learn nothing
        others = [change(example, shift) for example in examples[:-1]]
        (batch,) = lay_out([*others, examples[-1]], pack=True)
        assert batch.num_rows < len(examples)
        losses.append(batch_loss(model, batch, LossConfig(), 1.0))
    gradients = [torch.autograd.grad(loss, list(model.parameters()), allow_unused=True) for loss in losses]
    assert losses[0].item() > 0 and torch.equal(losses[0], losses[1])
    # Gradients are sums over all rows of a product, whose other summands are zeros either way.
    for one, other in zip(*gradients, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def change(example: Example, shift: int) -> Example:
    ids = np.where(example.input_ids > 20, example.input_ids - shift, example.input_ids)
    context = None if example.context_ids is None else np.maximum(example.context_ids - shift, 1)
    return dataclasses.replace(example, input_ids=ids, context_ids=context, weights=np.zeros_like(example.weights))
