"""One fine-tuning step beside transformers: rows of a table in, the loss and the gradient of every weight out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.hub.shaped import gpt2_tokenizer, t5_tokenizer
from trivium.hub.family import row_of
from trivium.hub.names import canonical, to_ours
from trivium.training.loop import batch_loss
from trivium.training.recipe import LossConfig
from trivium.training.tune_course import gather_course
from trivium.training.tune_subject import open_subject
from trivium.training.tuning import TuneRecipe

TEXTS = [
    "the value of the object",
    "an error is raised if the named attribute is not a number",
    "return it",
    "the first argument of the function is a list of names",
]
SUMMARIES = ["value of object", "error", "return", "a list of names"]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
Case = tuple[Any, Any, list[dict[str, Any]], Callable[[list[int]], Any]]


def bert_tokenizer() -> Any:
    words = sorted({word for text in TEXTS for word in text.split()})
    pieces = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{each}" for each in "abcdefghijklmnopqrstuvwxyz")]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces, *words[::2]]
    return transformers.BertTokenizerFast(vocab={word: at for at, word in enumerate(dict.fromkeys(vocabulary))})


def bert_case(task: str) -> Case:
    tokenizer, count = bert_tokenizer(), len(TEXTS)
    settings = transformers.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **SMALL)
    rows: list[dict[str, Any]]

    def read(chosen: list[int], **labels: Any) -> dict[str, Any]:
        return tokenizer([TEXTS[at] for at in chosen], padding=True, return_tensors="pt") | labels

    if task == "token-classification":
        tags = [[f"LABEL_{len(word) % 3}" for word in text.split()] for text in TEXTS]
        rows = [{"tokens": text.split(), "tags": own} for text, own in zip(TEXTS, tags, strict=True)]
        settings.num_labels = 3

        def tag(chosen: list[int]) -> dict[str, Any]:
            batch = tokenizer(
                [TEXTS[at].split() for at in chosen], is_split_into_words=True, padding=True, return_tensors="pt"
            )
            labels = torch.full_like(batch["input_ids"], -100)
            for place, at in enumerate(chosen):
                words = batch.word_ids(place)
                for token, word in enumerate(words):
                    if word is not None and word != words[token - 1]:
                        labels[place, token] = int(tags[at][word][-1])
            return batch | {"labels": labels}

        return transformers.BertForTokenClassification(settings), tokenizer, rows, tag
    if task == "question-answering":
        asked = [(text, text.split()[-1]) for text in TEXTS]
        rows = [
            {
                "question": "return what",
                "context": text,
                "answers": {"text": [word], "answer_start": [text.rindex(word)]},
            }
            for text, word in asked
        ]

        def point(chosen: list[int]) -> list[dict[str, Any]]:
            calls = []  # one by one: transformers lets padding compete
            for text, word in (asked[at] for at in chosen):
                batch = tokenizer("return what", text, return_tensors="pt")
                ends = [batch.char_to_token(0, at, 1) for at in (text.rindex(word), len(text) - 1)]
                calls.append(
                    batch | dict(zip(("start_positions", "end_positions"), torch.tensor(ends)[:, None], strict=True))
                )
            return calls

        return transformers.BertForQuestionAnswering(settings), tokenizer, rows, point
    if task == "regression":
        settings.num_labels, values = 1, [0.5, -1.0, 2.0, 1.25]
        rows = [{"text": text, "label": value} for text, value in zip(TEXTS, values, strict=True)]
        collate = lambda chosen: read(chosen, labels=torch.tensor([values[at] for at in chosen]))  # noqa: E731
    elif task == "multi-label-classification":
        settings.num_labels, settings.problem_type = 3, "multi_label_classification"
        several = [[0], [0, 2], [], [1, 2]]
        rows = [{"text": TEXTS[at], "label": [f"LABEL_{each}" for each in several[at]]} for at in range(count)]
        table = torch.tensor([[float(each in own) for each in range(3)] for own in several])
        collate = lambda chosen: read(chosen, labels=table[chosen])  # noqa: E731
    else:
        settings.num_labels, classes = 3, torch.tensor([0, 2, 1, 2])
        rows = [{"text": TEXTS[at], "label": f"LABEL_{int(classes[at])}"} for at in range(count)]
        collate = lambda chosen: read(chosen, labels=classes[chosen])  # noqa: E731
    return transformers.BertForSequenceClassification(settings), tokenizer, rows, collate


def pair_rows() -> list[dict[str, Any]]:
    return [{"source": text, "target": short} for text, short in zip(TEXTS, SUMMARIES, strict=True)]


def t5_case(_task: str) -> Case:
    tokenizer = t5_tokenizer()
    settings = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0,
        task_specific_params={"summarization": {"prefix": "summarize: "}},
    )  # fmt: skip

    def collate(chosen: list[int]) -> Any:
        batch = tokenizer(
            ["summarize: " + TEXTS[at] for at in chosen],
            text_target=[SUMMARIES[at] for at in chosen], padding=True, return_tensors="pt",
        )  # fmt: skip
        return batch | {"labels": batch["labels"].masked_fill(batch["labels"] == tokenizer.pad_token_id, -100)}

    return transformers.T5ForConditionalGeneration(settings), tokenizer, pair_rows(), collate


def gpt2_case(_task: str) -> Case:
    tokenizer = gpt2_tokenizer()
    end = tokenizer.eos_token_id
    settings = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=32, n_layer=2, n_head=4, eos_token_id=end, bos_token_id=end
    )

    def collate(chosen: list[int]) -> Any:
        prompts = [tokenizer(TEXTS[at])["input_ids"] + tokenizer("\nTL;DR: ")["input_ids"] for at in chosen]
        answers = [[*tokenizer(SUMMARIES[at])["input_ids"], end] for at in chosen]
        pairs = list(zip(prompts, answers, strict=True))
        width = max(len(prompt) + len(answer) for prompt, answer in pairs)
        empty = [width - len(prompt) - len(answer) for prompt, answer in pairs]
        rows = list(zip(prompts, answers, empty, strict=True))
        return {
            "input_ids": torch.tensor([[*p, *a, *[end] * left] for p, a, left in rows]),
            "attention_mask": torch.tensor([[1] * (width - left) + [0] * left for _, _, left in rows]),
            "labels": torch.tensor([[-100] * len(p) + a + [-100] * left for p, a, left in rows]),
        }

    return transformers.GPT2LMHeadModel(settings), tokenizer, pair_rows(), collate


@pytest.mark.parametrize(
    ("task", "make"),
    [
        ("summarization", t5_case),
        ("summarization", gpt2_case),
        *((each, bert_case) for each in ("text-classification", "multi-label-classification", "regression")),
        *((each, bert_case) for each in ("token-classification", "question-answering")),
    ],
)
def test_a_step_is_transformers_own(task: str, make: Callable[[str], Case], tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs, tokenizer, rows, collate = make(task)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path / "model"
    theirs.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    recipe = TuneRecipe(model=str(folder), data="rows", rows_per_batch=len(rows), target_tokens=16)
    subject = open_subject(task, recipe, model=str(folder), rows={"train": rows, "valid": rows})
    course = gather_course(subject, recipe, print)
    batch = course.train.batch_at(0)
    ours = batch_loss(subject.model, batch, LossConfig(), batch.num_targets)
    ours.backward()  # type: ignore[no-untyped-call]  # torch declares no types here

    chosen = [place for _, _, place in course.train.sample_ids(0)]
    calls = collate(chosen)
    calls = calls if isinstance(calls, list) else [calls]
    expected = torch.stack([theirs(**call).loss for call in calls]).mean()
    expected.backward()
    assert abs(ours.item() - expected.item()) <= 1e-5 * max(1.0, abs(expected.item()))
    found = {key: each.grad for key, each in theirs.named_parameters() if each.grad is not None}
    naming = row_of(theirs.config.to_dict()).naming
    own = dict(subject.model.named_parameters())
    gradients = to_ours(naming, subject.model.config, canonical(naming, found), {k: v.shape for k, v in own.items()})
    total = torch.cat([each.flatten() for each in gradients.values()]).norm()
    assert total > 0 and len(gradients) > 10
    for key, gradient in gradients.items():
        mine = own[key].grad
        assert mine is not None
        assert (mine - gradient).norm() <= 1e-4 * max(float(gradient.norm()), 1e-2 * float(total), 2e-3), key
