"""Extractive question answering: where in a context the answer to a question begins and ends.

A context that is longer than the model reads is read in windows that overlap; every window's spans compete (Devlin et
al. 2018, §4.2–4.3).

Legend: B windows, T tokens.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trivium.errors import RequestError
from trivium.generation.packed import evaluation_copy
from trivium.pipelines.loaded import Answer, Loaded, Options, batches
from trivium.tokenizer import Encoded

OPTIONS: tuple[str, ...] = ("top_k", "doc_stride", "max_answer_len", "max_seq_len", "handle_impossible_answer")
OPTIONS += ("align_to_words", "batch_size")


@torch.inference_mode()
def answer_questions(loaded: Loaded, items: Sequence[Any], options: Options) -> list[Any]:
    """`{"score", "start", "end", "answer"}` for each `{"question", "context"}`, or a list of them with `top_k` > 1.

    `start` and `end` count characters of the context. `doc_stride` tokens (128) are shared by neighbouring windows of
    at most `max_seq_len` (384); no answer has more than `max_answer_len` (15) tokens.
    """
    model = evaluation_copy(loaded.model)
    pairs = [_pair(item) for item in items]
    windows = [_windows(loaded, question, context, options) for question, context in pairs]
    flat = [(item, window) for item, found in enumerate(windows) for window in found]
    spans: list[list[Answer]] = [[] for _ in items]
    nulls: list[list[float]] = [[] for _ in items]
    for batch in batches([len(window.ids) for _, window in flat], options.get("batch_size") or 16):
        side, types_BT = loaded.side([flat[index][1] for index in batch])
        logits_BT2 = model.classify(side, types_BT=types_BT).float().cpu()
        for row, index in enumerate(batch):
            item, window = flat[index]
            scores_T2, null = _probabilities(loaded, window, logits_BT2[row, : len(window.ids)])
            spans[item] += _spans(window, scores_T2, pairs[item][1], options)
            nulls[item].append(null)
    return [_best(found, min(null), options) for found, null in zip(spans, nulls, strict=True)]


def _pair(item: Any) -> tuple[str, str]:
    if not isinstance(item, dict) or not all(isinstance(item.get(name), str) for name in ("question", "context")):
        raise RequestError("an input without a question and a context; expected both as text; pass question=, context=")
    if not item["question"].strip() or not item["context"].strip():
        raise RequestError("an empty question or context; expected text in both; fill it in")
    return item["question"], item["context"]


def _windows(loaded: Loaded, question: str, context: str, options: Options) -> list[Encoded]:
    longest = options.get("max_seq_len") or 384
    longest = min(longest, loaded.limit) if loaded.limit else longest
    overlap = options.get("doc_stride")
    overlap = min(longest // 2, 128) if overlap is None else overlap
    return loaded.windows(question, context, longest=longest, overlap=overlap)


def _probabilities(loaded: Loaded, window: Encoded, logits_T2: Tensor) -> tuple[Tensor, float]:
    """How likely each token begins and ends the answer, 0 outside the context; and that there is none.

    [CLS] takes part in the softmax, since a model that was trained to refuse answers there.
    """
    inside = torch.tensor([side == 1 for side in window.sides])
    first = torch.tensor([token == loaded.tokenizer.cls_id for token in window.ids])
    masked_T2 = logits_T2.masked_fill(~(inside | first)[:, None], -10_000.0)
    scores_T2 = masked_T2.softmax(0)
    null = float(scores_T2[0, 0] * scores_T2[0, 1]) if bool(first[0]) else 0.0
    return scores_T2.masked_fill(~inside[:, None], 0.0), null


def _spans(window: Encoded, scores_T2: Tensor, context: str, options: Options) -> list[Answer]:
    """The likeliest spans of a window; a span's probability is that of its beginning times that of its end."""
    longest, wanted = options.get("max_answer_len") or 15, options.get("top_k") or 1
    pairs_TT = (scores_T2[:, 0, None] * scores_T2[None, :, 1]).triu().tril(longest - 1)
    values, index = pairs_TT.flatten().topk(min(wanted, pairs_TT.numel()))
    found = []
    for score, place in zip(values.tolist(), index.tolist(), strict=True):
        first, last = divmod(place, len(window.ids))
        if not first <= last < first + longest or window.sides[first] != 1 or window.sides[last] != 1:
            continue  # fewer spans than were asked for
        start, end = window.offsets[first][0], window.offsets[last][1]
        if options.get("align_to_words", True):
            start, end = whole_words(context, start, end)
        found.append({"score": score, "start": start, "end": end, "answer": context[start:end]})
    return found


def whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    """A span grown to the ends of words that it cuts; a Chinese character is a word."""
    while 0 < start < end and _continues(text, start):
        start -= 1
    while start < end < len(text) and _continues(text, end):
        end += 1
    return start, end


def _continues(text: str, place: int) -> bool:
    """Whether one word goes on over a place between two characters."""
    return all(each.isalnum() and not "\u3040" <= each <= "\u9fff" for each in text[place - 1 : place + 1])


def _best(spans: list[Answer], null: float, options: Options) -> Any:
    merged: dict[tuple[int, int], Answer] = {}
    for span in spans:  # windows overlap, and words gather spans: one place is one answer
        place = (span["start"], span["end"])
        if place in merged:
            span = {**span, "score": merged[place]["score"] + span["score"]}
        merged[place] = span
    answers = list(merged.values())
    if options.get("handle_impossible_answer"):
        answers.append({"score": null, "start": 0, "end": 0, "answer": ""})
    wanted = options.get("top_k") or 1
    answers = sorted(answers, key=lambda span: -span["score"])[:wanted]
    return answers[0] if wanted == 1 else answers
