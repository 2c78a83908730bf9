"""What a row becomes: one or two sequences, and which parts of them are trained; as text, or as a tokenizer's tokens.

For people to look at and for lengths; a task's own prefixes and heads are not known here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trivium.data.forms import Form
from trivium.errors import DataError
from trivium.tokenizer.chat_mask import encode_chat_training

if TYPE_CHECKING:
    from trivium.tokenizer import Tokenizer

Piece = tuple[str, bool]  # a part of a text, and whether it is trained
# The sequences whose length is bounded, by form.
MEASURED: dict[Form, tuple[str, ...]] = {
    "text": ("text",),
    "chat": ("chat",),
    "completion": ("text",),
    "preference": ("chosen", "rejected"),
    "labelled": ("text",),
    "pair": ("source", "target"),
    "tokens": ("text",),
    "question": ("text",),
}


@dataclass(frozen=True)
class Side:
    """One sequence: `pieces` in order, and for tokens also their ids and mask, of equal length."""

    name: str
    pieces: tuple[Piece, ...]
    ids: tuple[int, ...] = ()
    mask: tuple[bool, ...] = ()

    @property
    def size(self) -> int:
        """Tokens, or characters where there is no tokenizer."""
        return len(self.ids) or sum(len(text) for text, _ in self.pieces)


def make_sides(
    form: Form, values: dict[str, Any], tokenizer: "Tokenizer | None" = None, *, shown: bool = True
) -> list[Side]:
    """The sequences of a row in canonical columns (see forms.py); not `shown`, those of tokens have no pieces of text.

    Raises `DataError`, `RequestError` and `ConfigError` for chats that the tokenizer's template cannot write or that
    train nothing.
    """
    plain = {name: tuple(piece for piece in pieces if piece[0]) for name, pieces in _PIECES[form](values).items()}
    if form == "chat" and not any(trained for _, trained in plain["chat"]):
        raise DataError("a chat has no assistant's turn to train on; expected one; drop the chat")
    if tokenizer is None:
        return [Side(name, pieces) for name, pieces in plain.items()]
    encoded = _ENCODED[form](values, tokenizer)
    return [
        _from_ids(name, *encoded[name], tokenizer if shown else None) if name in encoded else Side(name, pieces)
        for name, pieces in plain.items()
    ]


def input_of(form: Form, values: dict[str, Any]) -> str:
    """The part of a row that a model is given, by which rows are compared."""
    match form:
        case "chat":
            return "\n".join(_content(each) for each in values["messages"] if each["role"] == "user")
        case "preference":
            return _prose(values["prompt"])
        case "tokens":
            return " ".join(values["tokens"])
        case "question":
            return f"{values['context']}\n{values['question']}"
        case "labelled":
            return "\n".join([values["text"], values.get("text_pair", "")]).strip()
    return str(values[{"text": "text", "completion": "prompt", "pair": "source"}[form]])


def output_of(form: Form, values: dict[str, Any]) -> str:
    """The rest of a row: what a model is to answer."""
    match form:
        case "chat":
            return "\n".join(_content(each) for each in values["messages"] if each["role"] != "user")
        case "preference":
            return _prose(values["chosen"]) + "\n" + _prose(values["rejected"])
        case "text":
            return ""
    return str(
        values[
            {"completion": "completion", "pair": "target", "labelled": "label", "tokens": "tags"}.get(form, "answers")
        ]
    )


def _content(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "".join(str(each.get("text", "")) if isinstance(each, dict) else str(each) for each in content)
    calls = message.get("tool_calls")
    return f"{content}{calls if calls else ''}"


def _prose(value: Any) -> str:
    return value if isinstance(value, str) else "\n".join(map(_content, value))


def _chat_pieces(messages: Sequence[dict[str, Any]]) -> list[Piece]:
    found: list[Piece] = []
    for each in messages:
        found += [(f"{each['role']}: ", False), (_content(each), each["role"] == "assistant"), ("\n", False)]
    return found


def _preference_pieces(values: dict[str, Any]) -> dict[str, list[Piece]]:
    if isinstance(values["chosen"], str):
        return {name: [(values["prompt"], False), (values[name], True)] for name in ("chosen", "rejected")}
    return {name: _chat_pieces([*values["prompt"], *values[name]]) for name in ("chosen", "rejected")}


def _question_pieces(values: dict[str, Any]) -> dict[str, list[Piece]]:
    context, place = values["context"], _answer_span(values)
    marked = [(context[: place[0]], False), (context[slice(*place)], True), (context[place[1] :], False)]
    return {"text": [(values["question"] + "\n", False), *marked]}


def _answer_span(values: dict[str, Any]) -> tuple[int, int]:
    texts, starts = values["answers"]["text"], values["answers"]["answer_start"]
    return (starts[0], starts[0] + len(texts[0])) if texts else (0, 0)


def _tag_pieces(values: dict[str, Any]) -> dict[str, list[Piece]]:
    found: list[Piece] = []
    for word, tag in zip(values["tokens"], values["tags"], strict=True):
        found += [(word, True), (" " if tag in ("O", 0) else f"/{tag} ", False)]
    return {"text": found}


def _label_pieces(values: dict[str, Any]) -> dict[str, list[Piece]]:
    pair = [("\n" + values["text_pair"], False)] if "text_pair" in values else []
    return {"text": [(values["text"], False), *pair], "label": [(str(values["label"]), True)]}


_PIECES: dict[Form, Callable[[dict[str, Any]], dict[str, list[Piece]]]] = {
    "text": lambda values: {"text": [(values["text"], True)]},
    "chat": lambda values: {"chat": _chat_pieces(values["messages"])},
    "completion": lambda values: {"text": [(values["prompt"], False), (values["completion"], True)]},
    "preference": _preference_pieces,
    "labelled": _label_pieces,
    "pair": lambda values: {"source": [(values["source"], False)], "target": [(values["target"], True)]},
    "tokens": _tag_pieces,
    "question": _question_pieces,
}
Ids = tuple[list[int], list[bool]]


def _from_ids(name: str, ids: Sequence[int], mask: Sequence[bool], tokenizer: "Tokenizer | None") -> Side:
    """Tokens as pieces of text: runs of equal mask."""
    pieces, start = [], 0
    for at in range(1, len(ids) + 1 if tokenizer else 0):
        if at == len(ids) or mask[at] != mask[start]:
            assert tokenizer is not None
            pieces.append((tokenizer.decode(list(ids[start:at]), skip_special=False), mask[start]))
            start = at
    return Side(name, tuple(pieces), tuple(ids), tuple(mask))


def _ids(text: str, tokenizer: "Tokenizer", *, around: bool = False) -> list[int]:
    """Ids of a text, special tokens in it as text; one by one, since small batches wait for threads 4 ms each."""
    return tokenizer.pair(text, add_special=around).ids


def _end(tokenizer: "Tokenizer") -> list[int]:
    end = tokenizer.eos_id if tokenizer.eos_id is not None else tokenizer.sep_id
    return [] if end is None else [end]


def _trained(ids: list[int], tokenizer: "Tokenizer", before: Sequence[int] = ()) -> Ids:
    """Trained tokens, with the one that ends them, after others that are not."""
    end = _end(tokenizer)
    ids = ids if ids[-1:] == end else ids + end
    return [*before, *ids], [False] * len(before) + [True] * len(ids)


def _untrained(ids: list[int]) -> Ids:
    return ids, [False] * len(ids)


def _encode_preference(values: dict[str, Any], tokenizer: "Tokenizer") -> dict[str, Ids]:
    if isinstance(values["chosen"], str):
        prompt = _ids(values["prompt"], tokenizer)
        return {name: _trained(_ids(values[name], tokenizer), tokenizer, prompt) for name in ("chosen", "rejected")}
    return {name: encode_chat_training(tokenizer, values["prompt"] + values[name]) for name in ("chosen", "rejected")}


def _encode_question(values: dict[str, Any], tokenizer: "Tokenizer") -> dict[str, Ids]:
    begin, end = _answer_span(values)
    found = tokenizer.pair(values["question"], values["context"])
    places = zip(found.offsets, found.sides, strict=True)
    return {"text": (found.ids, [side == 1 and place[0] < end and place[1] > begin for place, side in places])}


def _encode_tags(values: dict[str, Any], tokenizer: "Tokenizer") -> dict[str, Ids]:
    around, words = _ids("", tokenizer, around=True), [_ids(word, tokenizer) for word in values["tokens"]]
    ids, mask = [*around[: len(around) // 2]], [False] * (len(around) // 2)
    for word in words:  # the first token of each word learns its tag, whichever that is
        ids, mask = ids + word, mask + [place == 0 for place in range(len(word))]
    return {"text": (ids + around[len(around) // 2 :], mask + [False] * (len(around) - len(around) // 2))}


def _encode_completion(values: dict[str, Any], tokenizer: "Tokenizer") -> dict[str, Ids]:
    return {"text": _trained(_ids(values["completion"], tokenizer), tokenizer, _ids(values["prompt"], tokenizer))}


_ENCODED: dict[Form, Callable[[dict[str, Any], "Tokenizer"], dict[str, Ids]]] = {
    "text": lambda values, tokenizer: {"text": _trained(_ids(values["text"], tokenizer, around=True), tokenizer)},
    "chat": lambda values, tokenizer: {
        "chat": encode_chat_training(tokenizer, values["messages"], tools=values.get("tools"))
    },
    "completion": _encode_completion,
    "preference": _encode_preference,
    "labelled": lambda values, tokenizer: {
        "text": _untrained(tokenizer.pair(values["text"], values.get("text_pair")).ids)
    },
    "pair": lambda values, tokenizer: {
        "source": _untrained(_ids(values["source"], tokenizer, around=True)),
        "target": _trained(_ids(values["target"], tokenizer, around=True), tokenizer),
    },
    "tokens": _encode_tags,
    "question": _encode_question,
}
