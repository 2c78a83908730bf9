"""Failures of the `tokenizers` library, its panics too, as errors of one sentence."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from trivium.errors import DataError, HubError

Result = TypeVar("Result")


@contextlib.contextmanager
def reading(texts: Iterable[Any] = ()) -> Iterator[None]:
    """Where the library reads texts: `DataError` for half a surrogate pair in one, `HubError` where it panics."""
    try:
        yield
    except TypeError:
        _refuse_surrogates(texts)
        raise
    except BaseException as error:  # a panic is no Exception: rules of a folder's tokenizer broke the library
        if type(error).__name__ != "PanicException":
            raise
        words = " ".join(str(error).split())[:200]
        raise HubError(
            f"the tokenizer's own rules fail on a text ({words}); expected rules that end; get its folder again"
        ) from None


def guarded(folder: Path, work: Callable[[], Result]) -> Result:
    """The result of some work on a folder's files, every failure of the library, panics too, as `HubError`."""
    try:
        return work()
    except (HubError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exception, and its panics are not even that
        words = " ".join(str(error).split())[:200]
        raise HubError(f"{folder}'s tokenizer cannot be read ({words}); save or download it again") from None


def _refuse_surrogates(texts: Iterable[Any]) -> None:
    for text in filter(lambda each: isinstance(each, str), texts):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"a text has half of a surrogate pair ({text[error.start]!r}) at character {error.start}; expected "
                "Unicode text; replace it: text.encode('utf-8', 'replace').decode()"
            ) from None
