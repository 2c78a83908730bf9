"""What each kind of task makes of a row: what is read, what is learned, how a text that is too long is treated.

Each function gives the samples of one row and, if the row was longer than the limits, how long it was.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from trivium.data.batch import Example
from trivium.errors import ConfigError, DataError, RequestError
from trivium.tasks.sample import Sample, Setting
from trivium.tasks.task import Kind, Row
from trivium.tokenizer import Encoded
from trivium.tokenizer.chat_mask import encode_chat_prompt, encode_chat_training
from trivium.tokenizer.windows import cut_end, cut_windows, until_end

Found = tuple[list[Sample], int]
OVERLAP = 128  # tokens that neighbouring windows share


def encode_pair(setting: Setting, row: Row, number: int) -> Found:
    """A source and a target: an encoder–decoder reads one and writes the other; a decoder reads both and learns one."""
    task, tokenizer, limits = setting.task, setting.tokenizer, setting.limits
    source, target = _text(row, "source"), _text(row, "target")
    two = setting.config.family == "encoder_decoder"
    whole = tokenizer.pair(task.prefix + source)
    ids = tokenizer.encode(target, add_special=two)
    end_id = setting.config.eos_id if setting.config.eos_id is not None else tokenizer.eos_id
    if end_id is not None and ids[-1:] != [end_id]:
        ids = [*ids, end_id]
    separator = [] if two else tokenizer.encode(task.separator, add_special=False)
    excess = max(_beyond(len(whole.ids) + len(separator), limits.source), _beyond(len(ids), limits.target))
    if excess and limits.on_long == "drop":
        return [], excess
    read = cut_end(whole, 0, longest=limits.source - len(separator))
    if read is None:
        raise ConfigError(f"a limit of {limits.source} tokens leaves no room for a source; raise it")
    ids = ids if len(ids) <= limits.target else [*ids[: limits.target - 1], ids[-1]]
    if two:
        start = setting.config.pad_id if setting.config.decoder_start_id is None else setting.config.decoder_start_id
        example = _example([start, *ids[:-1]], ids, [1.0] * len(ids), context=read.ids)
        return [Sample(example, target, row, number, tuple(read.ids))], excess
    prompt = [*until_end(read), *separator]
    return [Sample(_continue(prompt, ids), target, row, number, tuple(prompt))], excess


def encode_text(setting: Setting, row: Row, number: int) -> Found:
    """A text that a decoder learns to write, all of it, and its end."""
    tokenizer, limits = setting.tokenizer, setting.limits
    text = _text(row, "text")
    ids = tokenizer.encode(text, add_special=True)
    end_id = tokenizer.eos_id if setting.config.eos_id is None else setting.config.eos_id
    if end_id is not None and ids[-1:] != [end_id]:
        ids = [*ids, end_id]
    excess = _beyond(len(ids), limits.source)
    if excess and limits.on_long == "drop":
        return [], excess
    step = limits.source if limits.on_long == "split" else len(ids)
    parts = [ids[start : start + limits.source] for start in range(0, len(ids), step)]
    return [Sample(_continue(part[:1], part[1:]), text, row, number) for part in parts if len(part) > 1], excess


def encode_chat(setting: Setting, row: Row, number: int) -> Found:
    """A chat, of which what the assistant says is learned; its last answer is what is asked for, if what stands before
    it is within the limit."""
    tokenizer, limits, messages = setting.tokenizer, setting.limits, row["messages"]
    try:
        ids, trained = encode_chat_training(tokenizer, messages, tools=row.get("tools"))
    except (DataError, RequestError) as error:
        raise type(error)(f"{_spell(messages[0])}: {error}") from error
    excess = _beyond(len(ids), limits.source)
    if excess and limits.on_long == "drop":
        return [], excess
    ids, trained = ids[: limits.source], trained[: limits.source]
    if not any(trained[1:]):
        return [], max(excess, 1)
    example = _example(ids[:-1], ids[1:], [float(each) for each in trained[1:]])
    last = find_last_answer(messages)
    prompt = encode_chat_prompt(tokenizer, messages[:last], tools=row.get("tools"))
    asked = tuple(prompt) if len(prompt) < limits.source else ()
    return [Sample(example, messages[last].get("content") or "", row, number, asked)], excess


def encode_label(setting: Setting, row: Row, number: int) -> Found:
    """A text, or two, with a class, several classes, or numbers."""
    pair = row.get("text_pair")
    whole = setting.tokenizer.pair(_text(row, "text"), pair)
    parts, excess = _cut(setting, whole, 0 if pair is None else 1)
    if setting.task.problem == "regression":
        label: Any = _numbers(row["label"], row)
        reference: Any = label[0] if len(label) == 1 else label
    else:
        names = label_names(row["label"])
        if setting.task.problem == "single" and len(names) != 1:
            several = "say multi-label-classification, or correct it"
            raise DataError(f"{_spell(row)} has {len(names)} labels for {setting.task.name}; expected one; {several}")
        if set(names) <= {"0", "1"} and len(set(names)) < len(names):
            found = ", ".join(names)
            raise DataError(f"{_spell(row)} has the labels {found}; expected the names of those that apply; write them")
        places = [_label_id(setting, name, row) for name in names]
        chosen = [float(place in places) for place in range(len(setting.label_ids))]
        label, reference = (tuple(chosen), names) if setting.task.problem == "multi" else (places[0], names[0])
    samples = []
    for part in parts:
        nothing = [0] * len(part.ids)
        example = _example(part.ids, nothing, [1.0, *nothing[1:]], encoded=part, setting=setting, label=label)
        samples.append(Sample(example, reference, row, number, encoded=part))
    return samples, excess


def encode_tags(setting: Setting, row: Row, number: int) -> Found:
    """Words with a tag each, which the first token of a word learns (Devlin et al. 2018, §5.3)."""
    words, tags = list(row["tokens"]), label_names(row["tags"])
    if len(words) != len(tags):
        raise DataError(f"{_spell(row)} has {len(words)} tokens and {len(tags)} tags; expected a tag for each word")
    batch = setting.tokenizer(words, is_split_into_words=True, split_special_tokens=True)
    found, owners = batch[0], batch.word_ids(0)
    whole = Encoded(
        found.ids, found.type_ids, [(0 if each is None else each, 0) for each in owners], found.sequence_ids
    )
    parts, excess = _cut(setting, whole, 0)
    samples = []
    for part in parts:
        targets, weights, before = [0] * len(part.ids), [0.0] * len(part.ids), -1
        for place, ((word, _), side) in enumerate(zip(part.offsets, part.sides, strict=True)):
            if side == 0 and word != before:
                targets[place], weights[place], before = _label_id(setting, tags[word], row), 1.0, word
        example = _example(part.ids, targets, weights, encoded=part, setting=setting)
        samples.append(Sample(example, tags, row, number, encoded=part))
    return samples, excess


def encode_answer(setting: Setting, row: Row, number: int) -> Found:
    """A question about a context, in windows; one without the answer points at its first token."""
    question, context = _text(row, "question"), _text(row, "context")
    answers = row["answers"]
    texts, starts = list(answers["text"]), list(answers["answer_start"])
    whole = setting.tokenizer.pair(question, context)
    windows = cut_windows(whole, 1, longest=setting.limits.source, overlap=min(OVERLAP, setting.limits.source // 4))
    if not windows:
        return [], len(whole.ids)
    if texts and context[starts[0] : starts[0] + len(texts[0])] != texts[0]:
        raise DataError(
            f"{_spell(row)} has the answer {texts[0]!r}, which is not at character {starts[0]} of its context; "
            "expected it there; correct answer_start"
        )
    samples = []
    for window in windows:
        label = _find_span(window, starts[0], starts[0] + len(texts[0])) if texts else (0, 0)
        nothing = [0] * len(window.ids)
        example = _example(window.ids, nothing, [1.0, *nothing[1:]], encoded=window, setting=setting, label=label)
        samples.append(Sample(example, texts or [""], row, number, encoded=window))
    return samples, 0


ENCODERS: dict[Kind, Callable[[Setting, Row, int], Found]] = {
    "pair": encode_pair,
    "chat": encode_chat,
    "text": encode_text,
    "label": encode_label,
    "tags": encode_tags,
    "answer": encode_answer,
}


def find_last_answer(messages: Sequence[Any]) -> int:
    """The place of the assistant's last message; of a chat without one, that of the last message."""
    answers = [place for place, each in enumerate(messages) if each.get("role") == "assistant"]
    return answers[-1] if answers else len(messages) - 1


def label_names(value: Any) -> list[str]:
    """One label, or several, as names."""
    return [str(each) for each in value] if isinstance(value, list | tuple) else [str(value)]


def _example(
    ids: Sequence[int],
    targets: Sequence[int],
    weights: Sequence[float],
    *,
    context: Sequence[int] | None = None,
    encoded: Encoded | None = None,
    setting: Setting | None = None,
    label: Any = None,
) -> Example:
    types = None
    if encoded is not None and setting is not None and setting.config.token_types:
        # RoBERTa's kind has one type for both texts of a pair, whatever the tokenizer numbers them.
        types = np.minimum(np.array(encoded.types, dtype=np.int64), setting.config.token_types - 1)
    return Example(
        np.array(ids, dtype=np.int64),
        np.ones(len(ids), dtype=np.int64),
        np.array(targets, dtype=np.int64),
        np.array(weights, dtype=np.float32),
        None if context is None else np.array(context, dtype=np.int64),
        None if context is None else np.ones(len(context), dtype=np.int64),
        types,
        label,
    )


def _continue(prompt: Sequence[int], ids: Sequence[int]) -> Example:
    """A prompt whose continuation is learned."""
    whole = [*prompt, *ids]
    return _example(whole[:-1], whole[1:], [0.0] * (len(prompt) - 1) + [1.0] * len(ids))


def _cut(setting: Setting, whole: Encoded, side: int) -> tuple[list[Encoded], int]:
    """A text as the limits allow it: whole, cut, in windows, or not at all; and its length if that is beyond them."""
    limit, on_long = setting.limits.source, setting.limits.on_long
    excess = _beyond(len(whole.ids), limit)
    if not excess:
        return [whole], 0
    if on_long == "drop":
        return [], excess
    if on_long == "split":
        return cut_windows(whole, side, longest=limit, overlap=0), excess
    cut = cut_end(whole, side, longest=limit) or cut_end(whole, 1 - side, longest=limit)
    return ([] if cut is None else [cut]), excess


def _beyond(length: int, limit: int) -> int:
    return length if length > limit else 0


def _find_span(window: Encoded, start: int, end: int) -> tuple[int, int]:
    """The first and last token of characters `start` to `end` of the context, (0, 0) if they are not all here."""
    inside = [place for place, side in enumerate(window.sides) if side == 1]
    first = [place for place in inside if window.offsets[place][0] <= start < window.offsets[place][1]]
    last = [place for place in inside if window.offsets[place][0] < end <= window.offsets[place][1]]
    return (first[0], last[-1]) if first and last else (0, 0)


def _spell(row: Row) -> str:
    """Which row it is, by its text: its number in the file is not known here."""
    texts = [row.get("content"), *row.values()]  # of a chat its first message
    text = next((each for each in texts if isinstance(each, str) and each.strip()), str(dict(row)))
    return f"the row of {text[:60]!r}"


def _numbers(label: Any, row: Row) -> tuple[float, ...]:
    try:
        found = tuple(float(each) for each in label_names(label))
    except ValueError:
        found = (math.nan,)
    if not all(map(math.isfinite, found)):
        raise DataError(f"{_spell(row)} has the label {label!r}; expected a number; correct it or drop the row")
    return found


def _label_id(setting: Setting, name: str, row: Row) -> int:
    if name not in setting.label_ids:
        known = ", ".join(list(setting.label_ids)[:8])
        raise DataError(f"{_spell(row)} has the label {name}; expected one of {known}; correct it")
    return setting.label_ids[name]


def _text(row: Row, column: str) -> str:
    value = row[column]
    if not isinstance(value, str) or not value.strip():
        found = "an empty text" if isinstance(value, str) else f"a {type(value).__name__}"
        raise DataError(f"{_spell(row)} has {found} as {column}; expected text; correct or drop the row")
    return value
