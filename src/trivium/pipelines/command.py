"""What `trivium run` does: one task over a text or over its lines, and results as a person or a program reads them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from trivium.config import read_value
from trivium.errors import ConfigError, DataError, RequestError
from trivium.folder import to_json
from trivium.pipelines.build import pipeline

# What belongs to each input of these tasks besides its text, so that it can be named once for all.
_BESIDE = {"question-answering": "question"}


def run_task(
    task: str, model: str | Path | None, text: str, *, lines: bool = False, options: Mapping[str, Any] | None = None
) -> Iterator[Any]:
    """Results of a task for a whole text, or with `lines` one for each of its lines that is not empty.

    Without a model the starter that serves the task does it.
    `options` are those of the call; `question` and `source_sentence` make the text a context, or its lines the
    sentences to compare. A text or line of JSON that holds an object is taken for it where the task takes such inputs.
    Raises what `pipeline` raises, and `RequestError` for no text at all.
    """
    given = dict(options or {})
    inputs = _lines(text) if lines else [text.removesuffix("\n")]
    if not any(each.strip() for each in inputs):
        raise RequestError("no text to read; expected some on standard input; pass it with < file or a pipe")
    work = pipeline(task, model)
    if task == "sentence-similarity" and "source_sentence" in given:
        (scores,) = work([{"source_sentence": given.pop("source_sentence"), "sentences": _lines(text)}], **given)
        yield from ([scores] if not lines else scores)
        return
    beside = _BESIDE.get(task, "")
    shared = {beside: given.pop(beside)} if beside in given else {}
    items = [{**shared, "context": each} if shared else _parsed(task, each) for each in inputs]
    if lines:
        yield from work(iter(items), **given)
    else:
        yield work(items[0], **given)


def decode_input(raw: bytes) -> str:
    """Text of the bytes on standard input; raises `DataError` for what is not UTF-8."""
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise DataError(f"the text is not UTF-8 ({error}); expected UTF-8; convert it with iconv") from error


def take_model(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The model and the options of `trivium run TASK [MODEL] [name=value …]`: a folder's name may hold a `=` too."""
    words = list(words)
    if words and ("=" not in words[0] or Path(words[0]).is_dir()):
        return words[0], words[1:]
    return None, words


def read_options(words: Sequence[str]) -> dict[str, Any]:
    """Options from words such as `num_beams=4`; raises `ConfigError` for one without a name or value."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        try:
            found[name] = read_value(value)
        except yaml.YAMLError:
            found[name] = value
        if not equals or not name:
            raise ConfigError(f"{word!r} is no option; expected name=value, such as num_beams=4; write it so")
    return found


def show_result(result: Any, *, as_json: bool, lines: bool) -> str:
    """A result in one line of JSON, or as text: what was written, or columns with tabs; one line for `lines`."""
    if as_json:
        return to_json(result)
    text = _plain(result)
    return text.replace("\n", " ") if lines else text


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


def _parsed(task: str, text: str) -> Any:
    """An input that is an object, for tasks whose inputs may be; else the text."""
    objects = task in ("question-answering", "sentence-similarity")
    if not objects and not (task in ("text-classification", "sentiment-analysis") and text.startswith('{"text"')):
        return text
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"an input of {task} is no JSON ({error}); expected an object such as "
            '{"question": …, "context": …}; correct it, or name the shared part: question="…"'
        ) from error
    return found


def _plain(result: Any) -> str:
    if isinstance(result, list):
        return "\n".join(_plain(each) for each in result)
    if isinstance(result, dict):
        for name, value in result.items():
            if name.endswith("_text"):
                return str(value)
        if "labels" in result:
            pairs = zip(result["labels"], result["scores"], strict=True)
            return "\n".join(f"{label}\t{score:.4f}" for label, score in pairs)
        return "\t".join(_plain(value) for value in result.values())
    return f"{result:.4f}" if isinstance(result, float) else str(result)
