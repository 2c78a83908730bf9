"""What a call's arguments mean: one input or many, under the names and in the forms that Hugging Face takes.

Each function takes positional arguments and options, from which it removes what are inputs, and says whether there was
one input alone.
"""

from collections.abc import Callable, Iterable
from typing import Any

from trivium.errors import RequestError
from trivium.pipelines.loaded import Options

Read = Callable[[tuple[Any, ...], Options], tuple[bool, Iterable[Any]]]


def one_or_many(args: tuple[Any, ...], options: Options) -> tuple[bool, Iterable[Any]]:
    """A text (or a dict, or a list of chat messages), or a list or other iterable of them."""
    inputs = _only(args, options, ("inputs", "text_inputs", "text"))
    if isinstance(inputs, str | dict) or _is_chat(inputs):
        return True, [inputs]
    if isinstance(inputs, Iterable):
        return False, inputs
    raise RequestError(f"an input of type {type(inputs).__name__}; expected text; pass a string or a list of strings")


def _only(args: tuple[Any, ...], options: Options, names: tuple[str, ...]) -> Any:
    given = [*args, *(options.pop(name) for name in names if name in options)]
    if len(given) != 1:
        raise RequestError(f"{len(given)} inputs; expected one argument, a text or a list of texts; pass it alone")
    return given[0]


def _is_chat(inputs: Any) -> bool:
    return (
        isinstance(inputs, list)
        and bool(inputs)
        and all(isinstance(each, dict) and "role" in each and "content" in each for each in inputs)
    )
