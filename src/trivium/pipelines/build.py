"""`pipeline(task, model=…)`: one-liners with the names, call forms and results that Hugging Face users know."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from trivium.errors import ConfigError
from trivium.generation.settings import check_names
from trivium.hub.auto import load_model, load_tokenizer
from trivium.hub.decoding import SIGNS, read_generation, read_task, read_tasks
from trivium.hub.resolve import resolve_folder
from trivium.hub.starters import choose_starter, read_language
from trivium.model import Transformer
from trivium.pipelines.loaded import Loaded, Options
from trivium.pipelines.task import ALIASES, Task, find_task
from trivium.pipelines.writing import stream_texts
from trivium.tokenizer import Tokenizer

# Keywords of theirs that change nothing here: one framework, one kind of tokenizer, no code from folders.
IDLE = frozenset(("framework", "use_fast", "trust_remote_code", "token", "device_map", "use_safetensors"))


# Options of few values, a wrong one of which would otherwise change nothing.
_CHOICES: dict[str, tuple[Any, ...]] = {
    "truncation": (True, False),
    "long": ("map_reduce",),
    "handle_long_generation": ("hole",),
}


class Pipeline:
    """A function from inputs to results: what `pipeline` gives.

    Called with a text it gives that text's result, with a list a list, with another iterable an iterator that reads
    ahead no more than some batches. `stream=True`, for one text and a task that writes, gives an iterator over pieces
    of the new text instead. Other keywords of a call are the task's options, and win over those of `pipeline`.
    """

    def __init__(self, task: Task, loaded: Loaded, options: Options) -> None:
        self._task, self._loaded, self._options = task, loaded, options
        self.task, self.model, self.tokenizer = loaded.task, loaded.model, loaded.tokenizer
        self._check(options)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Results in Hugging Face's shape; raises `ConfigError` for unknown options, `RequestError` for bad inputs."""
        options = {**self._options, **options}
        single, inputs = self._task.read(args, options)
        self._check(options)
        if options.pop("stream", False):
            (item, *rest) = list(inputs)
            if rest or not single:
                raise ConfigError("a stream of several texts; expected one to follow; call once for each text")
            return stream_texts(self._loaded, item, options)
        if not isinstance(inputs, Sequence):
            return self._iterate(inputs, options)
        results = self._task.run(self._loaded, inputs, options)
        if single:
            return [results[0]] if self._task.boxed and "top_k" not in options else results[0]
        if self._task.lone and len(results) == 1:
            return results[0]
        return self._unwrap(results)

    def _iterate(self, inputs: Iterable[Any], options: Options) -> Iterator[Any]:
        source, ahead, first = iter(inputs), 8 * (options.get("batch_size") or 16), 0
        while chunk := list(islice(source, ahead)):
            yield from self._unwrap(self._task.run(replace(self._loaded, first=first), chunk, options))
            first += len(chunk)

    def _unwrap(self, results: list[Any]) -> list[Any]:
        if self._task.unwrap and all(len(result) == 1 for result in results):
            return [result[0] for result in results]
        return results

    def _check(self, options: Options) -> None:
        check_names(options, self._task.options, self.task)
        for name, values in _CHOICES.items():
            if options.get(name) not in (None, *values):
                expected = ", ".join(map(repr, values))
                raise ConfigError(f"{name} is {options[name]!r}; expected {expected} or nothing; choose one of them")
        size = options.get("batch_size")
        if size is not None and (not isinstance(size, int) or size < 1):
            raise ConfigError(f"batch_size is {size!r}; expected at least 1; set it accordingly")


def pipeline(
    task: str,
    model: str | Path | Any = None,
    *,
    tokenizer: str | Path | Tokenizer | None = None,
    device: str | int | torch.device | None = None,
    **options: Any,
) -> Pipeline:
    """A function for one of Hugging Face's tasks, with a model of a folder or hub name.

    Without `model` it is the starter that serves the task, and stderr says which. `model` may also be an opened model,
    with its `tokenizer`. `options` become defaults of every call; `revision` is a
    branch, tag or commit of a hub name, and Hugging Face's keywords that change nothing here are passed over. Raises
    `ConfigError` for an unknown task, one without a model, or a model that cannot do it; `HubError` for a model that
    cannot be had.
    """
    found = find_task(task)
    if model is None:
        model = _choose_model(task, found)
    if (revision := options.pop("revision", None)) is not None:
        model = f"{model}@{revision}"
    options = {name: value for name, value in options.items() if name not in IDLE}
    return Pipeline(found, _load(task, found, model, tokenizer, device), options)


def _choose_model(task: str, found: Task) -> str:
    """The starter for a task, said aloud: nobody should take its answers for another model's."""
    try:
        name = choose_starter(ALIASES.get(task, task))
    except ConfigError as error:
        names = ", ".join(found.models)
        raise ConfigError(f"{error}; small ones that suit it are {names}; pass one of them as model") from None
    language = read_language(resolve_folder(name))
    print(f"{task}: no model was named, so {name} does it (language: {language})", file=sys.stderr, flush=True)
    return name


def _load(task: str, found: Task, model: Any, tokenizer: Any, device: Any) -> Loaded:
    settings = dict(found.settings)
    network = getattr(model, "transformer", model)
    if isinstance(network, Transformer):
        if tokenizer is None:
            raise ConfigError("an opened model without its tokenizer; expected both; pass tokenizer= too")
        own = dict(getattr(model, "generation", {})) | getattr(model, "tasks", {}).get(task, {})
    else:
        folder = resolve_folder(model)
        network, tokenizer = load_model(folder), tokenizer or folder
        own = read_generation(folder) | _task_settings(folder, task)
    prefix, separator = (own.pop(sign, "") for sign in SIGNS)
    separator = separator if network.config.family == "decoder" and "decoder" not in found.families else ""
    _refuse(task, found, network, model, separated=bool(separator))
    if not isinstance(tokenizer, Tokenizer):
        tokenizer = load_tokenizer(tokenizer)
    if device is not None and device != -1:
        network = network.to(device)
    return Loaded(task, network, tokenizer, _override(settings, own), prefix, separator)


def _override(settings: Options, own: Options) -> Options:
    """Defaults of a task under a folder's own wishes, of which a total length replaces a number of new tokens."""
    if "max_length" in own and "max_new_tokens" not in own:
        settings.pop("max_new_tokens", None)
    return settings | own


def _task_settings(folder: Path, task: str) -> Options:
    """What the folder says of this task; a translation must be one that it was trained for, if it names any."""
    known = [name for name in read_tasks(folder) if name.startswith("translation")]
    if task.startswith("translation") and known and task not in known:
        raise ConfigError(f"{folder} does not know {task}; expected one of {', '.join(known)}; choose one of these")
    return read_task(folder, task)


def _refuse(task: str, found: Task, network: Transformer, model: Any, *, separated: bool) -> None:
    config = network.config
    name = model if isinstance(model, str | Path) else "the model"
    if config.family not in found.families and not separated:
        raise ConfigError(
            f"{name} is a model of family {config.family}; {task} needs {' or '.join(found.families)}; "
            f"choose another model, such as {found.models[0]}"
        )
    if config.head not in found.heads:
        raise ConfigError(
            f"{name} is a model with head {config.head}; {task} needs head {' or '.join(found.heads)}; "
            f"fine-tune it for that first, or choose another model, such as {found.models[0]}"
        )
