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


def texts_and_labels(args: tuple[Any, ...], options: Options) -> tuple[bool, Iterable[Any]]:
    """A text or many, and after them the candidate labels."""
    if len(args) == 2 and "candidate_labels" not in options:
        options["candidate_labels"] = args[1]
        args = args[:1]
    if "sequences" in options:
        args = (*args, options.pop("sequences"))
    return one_or_many(args, options)


def questions(args: tuple[Any, ...], options: Options) -> tuple[bool, Iterable[Any]]:
    """`question=` and `context=`, texts or lists of as many; or dicts with both, one or many."""
    asked, told = options.pop("question", None), options.pop("context", None)
    if asked is None and told is None:
        return one_or_many(args, options)
    if args or asked is None or told is None:
        raise RequestError("a question without its context, or with more; expected the two; pass question=, context=")
    if isinstance(asked, str) and isinstance(told, str):
        return True, [{"question": asked, "context": told}]
    if isinstance(told, str):
        told = [told] * len(asked)
    asked = [asked] * len(told) if isinstance(asked, str) else list(asked)
    if len(asked) != len(told):
        raise RequestError(f"{len(asked)} questions for {len(told)} contexts; expected as many; pass one for each")
    return False, [{"question": one, "context": other} for one, other in zip(asked, told, strict=True)]


def sentences(args: tuple[Any, ...], options: Options) -> tuple[bool, Iterable[Any]]:
    """A source sentence and a list of sentences, by position or by name; or dicts with both, one or many."""
    names = ("source_sentence", "sentences")
    given = dict(zip(names, args, strict=False)) if len(args) == 2 else {}
    given |= {name: options.pop(name) for name in names if name in options}
    return (True, [given]) if given else one_or_many(args, options)


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
