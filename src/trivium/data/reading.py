"""The values of a row checked and brought into canonical shape, one function a form (forms.py says which columns)."""

import ast
import contextlib
import json
import math
from collections.abc import Callable
from typing import Any

from trivium.data.rows import Row
from trivium.errors import DataError

Values = dict[str, Any]
ROLES = {"human": "user", "user": "user", "system": "system", "tool": "tool", "observation": "tool"} | dict.fromkeys(
    ("gpt", "assistant", "chatgpt"), "assistant"
)


def place_of(row: Row) -> str:
    """The beginning of an error: which file, which line."""
    return f"{row.file}, line {row.line}"


def _wrong(row: Row, name: str, found: str, expected: str) -> DataError:
    return DataError(f"{place_of(row)}: {name} {found}; expected {expected}; correct the row or remove it")


def _kind(value: Any) -> str:
    return "is nothing" if value is None else f"is {type(value).__name__} {str(value)[:60]!r}"


def _text(row: Row, values: Values, name: str, *, blank: bool = False) -> str:
    value = values[name]
    if not isinstance(value, str):
        raise _wrong(row, name, _kind(value), "text")
    if not (blank or value.strip()):
        raise _wrong(row, name, "is empty", "text")
    return value


def _list(row: Row, value: Any, name: str) -> list[Any]:
    """A list, or the text of one in JSON as tables without lists have it."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise _wrong(row, name, "is a list in JSON that cannot be read", "a list") from None
    if not isinstance(value, list) or not value:
        raise _wrong(row, name, "is an empty list" if value == [] else _kind(value), "a list with something in it")
    return value


def read_text(row: Row, values: Values) -> Values:
    """text"""
    return {"text": _text(row, values, "text")}


def read_pair(row: Row, values: Values) -> Values:
    """source, target; of a translation with two languages the first is the source."""
    both = values.get("translation")
    if "translation" in values:
        if not isinstance(both, dict) or len(both) != 2:
            raise _wrong(
                row, "translation", _kind(both), "two languages (of more, map two: source=translation.en,target=…)"
            )
        values = dict(zip(("source", "target"), both.values(), strict=True))
    return {name: _text(row, values, name) for name in ("source", "target")}


def read_completion(row: Row, values: Values) -> Values:
    """prompt, which may be empty, and completion."""
    return {"prompt": _text(row, values, "prompt", blank=True), "completion": _text(row, values, "completion")}


def read_labelled(row: Row, values: Values) -> Values:
    """text and label: a name, a number, or a list of names or numbers, in a table also as JSON; text_pair if any."""
    label = values["label"]
    if isinstance(label, str) and label.startswith("["):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):  # else a name that begins so
            label = ast.literal_eval(label)  # JSON's lists of names, and Python's as pandas writes them
    for each in label if isinstance(label, list) else [label]:
        if not isinstance(each, str | int | float) or each == "" or (isinstance(each, float) and math.isnan(each)):
            raise _wrong(row, "label", _kind(label), "a name, a number or a list of them")
    names = ("text", "text_pair") if "text_pair" in values else ("text",)
    return {name: _text(row, values, name) for name in names} | {"label": label}


def read_tokens(row: Row, values: Values) -> Values:
    """tokens and as many tags, names or numbers."""
    tokens, tags = _list(row, values["tokens"], "tokens"), _list(row, values["tags"], "tags")
    if not all(isinstance(each, str) and each.strip() for each in tokens):
        raise _wrong(row, "tokens", "has what is no word", "a list of words")
    if not all(isinstance(each, str | int) for each in tags):
        raise _wrong(row, "tags", "has what is no tag", "a list of names or numbers")
    if len(tokens) != len(tags):
        raise _wrong(row, "tags", f"has {len(tags)} entries for {len(tokens)} tokens", "one for each token")
    return {"tokens": tokens, "tags": tags}


def read_question(row: Row, values: Values) -> Values:
    """question, context, answers as SQuAD has them: texts and where in the context they start, none if unanswerable."""
    context, answers = _text(row, values, "context"), values["answers"]
    if isinstance(answers, list) and all(isinstance(each, dict) for each in answers):
        answers = {name: [each.get(name) for each in answers] for name in ("text", "answer_start")}
    expected = '{"text": [...], "answer_start": [...]} of equal lengths'
    if not isinstance(answers, dict) or not {"text", "answer_start"} <= answers.keys():
        raise _wrong(row, "answers", _kind(answers), expected)
    texts, starts = (each if isinstance(each, list) else [each] for each in (answers["text"], answers["answer_start"]))
    if len(texts) != len(starts):
        raise _wrong(row, "answers", f"has {len(texts)} texts and {len(starts)} starts", expected)
    for text, start in zip(texts, starts, strict=True):
        if not (isinstance(text, str) and text and isinstance(start, int) and start >= 0):
            raise _wrong(row, "answers", f"has {str((text, start))[:80]}", "a text and the character where it starts")
        if context[start : start + len(text)] != text:
            there = context[start : start + len(text)]
            raise _wrong(row, "answers", f"has {text!r} where the context has {there!r}", f"it at character {start}")
    return {
        "question": _text(row, values, "question"),
        "context": context,
        "answers": {"text": texts, "answer_start": starts},
    }


def read_chat(row: Row, values: Values) -> Values:
    """messages, also out of sharegpt's from and value or alpaca's instruction, input and output."""
    if "messages" not in values:
        parts = [_text(row, values, "instruction"), *([values["input"]] if values.get("input") else [])]
        if not all(isinstance(each, str) for each in parts):
            raise _wrong(row, "input", _kind(parts[-1]), "text")
        system = [{"role": "system", "content": _text(row, values, "system")}] if values.get("system") else []
        return {
            "messages": [
                *system,
                {"role": "user", "content": "\n\n".join(parts)},
                {"role": "assistant", "content": _text(row, values, "output")},
            ]
        }
    messages = _messages(row, values["messages"], "messages")
    if values.get("system") and messages[0]["role"] != "system":  # beside the chat, as ShareGPT's tools write it
        messages = [{"role": "system", "content": _text(row, values, "system")}, *messages]
    tools = _list(row, values["tools"], "tools") if values.get("tools") else None
    return {"messages": messages} | ({"tools": tools} if tools else {})


def read_preference(row: Row, values: Values) -> Values:
    """prompt, chosen, rejected; where only the two are there, chats, the prompt is what they begin with."""
    prompt = values.get("prompt")
    if isinstance(values["chosen"], str) and "prompt" in values:
        found: Values = {name: _text(row, values, name) for name in ("prompt", "chosen", "rejected")}
    else:
        found = {name: _messages(row, values[name], name) for name in ("chosen", "rejected")}
        is_chat = isinstance(prompt, list)
        found = {"prompt": _messages(row, prompt, "prompt"), **found} if is_chat else _split_alike(row, found)
    if found["chosen"] == found["rejected"]:
        raise _wrong(row, "chosen", "is the same as rejected", "two different answers")
    return found


def _split_alike(row: Row, found: Values) -> Values:
    """Two chats as the messages that they begin with and what comes after."""
    pairs = list(zip(found["chosen"], found["rejected"], strict=False))
    same = next((index for index, (one, other) in enumerate(pairs) if one != other), len(pairs))
    rest = {name: found[name][same:] for name in ("chosen", "rejected")}
    if not same or not all(rest.values()):
        reason = "begins with another message than rejected" if not same else "is no other answer than rejected"
        raise _wrong(row, "chosen", reason, "chats that begin alike and end in two answers")
    return {"prompt": found["chosen"][:same], **rest}


def _messages(row: Row, value: Any, name: str) -> list[dict[str, Any]]:
    return [_message(row, each, f"{name}[{index}]") for index, each in enumerate(_list(row, value, name))]


def _message(row: Row, value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(row, name, _kind(value), "an object with role and content")
    if "role" not in value and "from" in value:  # sharegpt
        role = ROLES.get(str(value["from"]).lower())
        if role is None:
            raise _wrong(row, name, f"is from {str(value['from'])[:40]!r}", f"one of {', '.join(ROLES)}")
        value = {"role": role, "content": value.get("value")}
    role, content = value.get("role"), value.get("content")
    if not isinstance(role, str) or not role:
        raise _wrong(row, name, f"has the role {role!r}", "user, assistant, system or tool")
    if not isinstance(content, str | list) and not value.get("tool_calls"):
        raise _wrong(row, name, f"has a content that {_kind(content)}", "text")
    if isinstance(content, list):
        texts = [each["text"] if isinstance(each, dict) and {*each} == {"type", "text"} else each for each in content]
        parts = [each for each in texts if isinstance(each, str)]  # of something else the template makes what it can
        value = {**value, "content": "".join(parts)} if len(parts) == len(content) else value
    # parquet fills what is missing; that a call has no content is what templates look for
    return {
        key: each for key, each in value.items() if each is not None or (key == "content" and "tool_calls" in value)
    }


READERS: dict[str, Callable[[Row, Values], Values]] = {
    "text": read_text,
    "chat": read_chat,
    "completion": read_completion,
    "preference": read_preference,
    "labelled": read_labelled,
    "pair": read_pair,
    "tokens": read_tokens,
    "question": read_question,
}
