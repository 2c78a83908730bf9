"""How a folder wants to be decoded: generation_config.json and a config's task_specific_params, checked.

Gives plain dicts under Hugging Face's names; generation/settings.py makes a config of them. Knows no model.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from trivium.errors import HubError
from trivium.hub.convert import inside, read_json
from trivium.hub.settings import typed

FILE = "generation_config.json"
_Kind = Literal["count", "number", "flag", "id", "ids", "words", "texts", "stopping"]
_KINDS: dict[str, _Kind] = {
    "max_new_tokens": "count",
    "min_new_tokens": "count",
    "max_length": "count",
    "min_length": "count",
    "do_sample": "flag",
    "temperature": "number",
    "top_k": "count",
    "top_p": "number",
    "min_p": "number",
    "typical_p": "number",
    "repetition_penalty": "number",
    "no_repeat_ngram_size": "count",
    "encoder_no_repeat_ngram_size": "count",
    "bad_words_ids": "words",
    "suppress_tokens": "ids",
    "begin_suppress_tokens": "ids",
    "forced_bos_token_id": "id",
    "forced_eos_token_id": "ids",
    "eos_token_id": "ids",
    "num_beams": "count",
    "num_return_sequences": "count",
    "length_penalty": "number",
    "early_stopping": "stopping",
    "stop_strings": "texts",
}
_MOST_ROWS = 1000  # each is a row of the cache: a file must not be able to ask for all memory
# What would change the text and is not computed here, with the values that mean “off”.
_FOREIGN: dict[str, tuple[Any, ...]] = {
    "diversity_penalty": (0.0,),
    "num_beam_groups": (1,),
    "encoder_repetition_penalty": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "top_h": (),
    "guidance_scale": (1.0,),
    "penalty_alpha": (0.0,),
    "exponential_decay_length_penalty": (),
    "sequence_bias": (),
    "force_words_ids": (),
    "constraints": (),
    "watermarking_config": (),
    "max_time": (),
}


# No settings of decoding: what stands before a source, and what a decoder reads between it and the answer.
SIGNS = ("prefix", "separator")


def read_generation(folder: Path) -> dict[str, Any]:
    """The decoding settings of a folder, under Hugging Face's names; what the file leaves open is not in the dict.

    From generation_config.json or, where an old folder has none, from config.json. Warns of a setting that trivium
    does not compute. Raises `HubError` for values of the wrong type.
    """
    name = FILE if (folder / FILE).exists() else "config.json"
    return _checked(read_json(inside(folder, name)), name)


def read_task(folder: Path, task: str) -> dict[str, Any]:
    """What config.json's `task_specific_params` says of a task: settings as above, and the `SIGNS` that there are."""
    given = _tasks(folder).get(task, {})
    return _checked(given, "config.json") | {name: given[name] for name in SIGNS if given.get(name)}


def read_tasks(folder: Path) -> dict[str, dict[str, Any]]:
    """What config.json's `task_specific_params` says of each task that it names, as `read_task` gives it."""
    return {name: read_task(folder, name) for name in _tasks(folder)}


def _tasks(folder: Path) -> dict[str, dict[str, Any]]:
    tasks = read_json(inside(folder, "config.json")).get("task_specific_params") or {}
    values = tasks.values() if isinstance(tasks, dict) else [None]
    if not all(isinstance(given, dict) and all(isinstance(given.get(s, ""), str) for s in SIGNS) for given in values):
        raise HubError("config.json has task_specific_params of no known form; expected one object a task; correct it")
    return dict(tasks)


def _checked(settings: Mapping[str, Any], file: str) -> dict[str, Any]:
    foreign = {name: settings.get(name) for name, off in _FOREIGN.items() if settings.get(name) not in (None, *off)}
    if foreign:
        asked = ", ".join(f"{name}={value!r}" for name, value in foreign.items())
        warnings.warn(f"{file} asks for {asked}, which trivium does not compute: texts may differ", stacklevel=3)
    known = {name: settings[name] for name in _KINDS if settings.get(name) is not None}
    return {name: _value(known, name, _KINDS[name], file) for name in known}


def _value(known: Mapping[str, Any], name: str, kind: _Kind, file: str) -> Any:
    value = known[name]
    if kind in ("count", "number", "flag", "id"):
        found = typed(known, name, kind)
        if name in ("num_beams", "num_return_sequences") and found > _MOST_ROWS:
            raise HubError(f"{file} sets {name}={found}; expected at most {_MOST_ROWS}; correct the file")
        return found
    if kind == "stopping" and (isinstance(value, bool) or value == "never"):
        return value
    if kind == "ids" and (ids := [value] if isinstance(value, int) else value) and _are_ids(ids):
        return tuple(ids)
    if kind == "words" and isinstance(value, list) and all(_are_ids(word) and word for word in value):
        return tuple(tuple(word) for word in value)
    if kind == "texts" and (texts := [value] if isinstance(value, str) else value) and isinstance(texts, list):
        if all(isinstance(text, str) for text in texts):
            return tuple(texts)
    if value == []:
        return ()
    raise HubError(f"{file} sets {name}={value!r}; expected a sensible value; correct the file or remove the line")


def _are_ids(value: Any) -> bool:
    """Token ids, and no booleans, which JSON readers take for numbers too."""
    return isinstance(value, list) and all(type(each) is int and 0 <= each < 2**31 for each in value)
