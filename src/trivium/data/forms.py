"""What the columns of a table mean: one of eight forms, recognised by the names that data sets use.

| form | canonical columns |
|---|---|
| text | text |
| chat | messages, a list of {role, content}; tools where the row has some |
| completion | prompt, completion |
| preference | prompt, chosen, rejected: three texts or three lists of messages |
| labelled | text, label; text_pair where a pair is labelled |
| pair | source, target |
| tokens | tokens, tags |
| question | question, context, answers: {"text": […], "answer_start": […]} |

Other names are mapped, ours = theirs: {"source": "article", "target": "translation.zh"}. Reads no files.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from trivium.data.reading import READERS, place_of
from trivium.data.rows import Row
from trivium.errors import ConfigError, DataError

Form = Literal["text", "chat", "completion", "preference", "labelled", "pair", "tokens", "question"]
FORM_COLUMNS: dict[Form, tuple[str, ...]] = {
    "preference": ("prompt", "chosen", "rejected"),
    "chat": ("messages",),
    "question": ("question", "context", "answers"),
    "tokens": ("tokens", "tags"),
    "completion": ("prompt", "completion"),
    "pair": ("source", "target"),
    "labelled": ("text", "label"),
    "text": ("text",),
}
# Columns that a row may have beside those.
OPTIONAL: dict[Form, tuple[str, ...]] = {"labelled": ("text_pair",), "chat": ("tools", "input", "system")}
_LABELS = ("label", "labels", "rating", "stars", "sentiment", "category", "score")
_PAIRS = (
    ("text", "text_pair"),
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("question", "sentence"),
)
_SUMMARIES = (("article", "highlights"), *((each, "summary") for each in ("document", "dialogue", "article", "text")))
# Ours = theirs, tried in this order: a form with more columns comes before one whose columns it holds.
KNOWN: tuple[tuple[Form, dict[str, str]], ...] = (
    ("preference", {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}),
    ("preference", {"chosen": "chosen", "rejected": "rejected"}),  # chats that begin alike
    *(("chat", {"messages": each}) for each in ("messages", "conversations", "conversation")),
    ("chat", {"instruction": "instruction", "output": "output"}),
    ("question", {"question": "question", "context": "context", "answers": "answers"}),
    *(("tokens", {"tokens": "tokens", "tags": each}) for each in ("tags", "ner_tags", "pos_tags", "labels")),
    ("tokens", {"tokens": "words", "tags": "tags"}),
    *(("completion", {"prompt": "prompt", "completion": each}) for each in ("completion", "response")),
    ("pair", {"source": "source", "target": "target"}),
    *(("pair", {"source": source, "target": target}) for source, target in _SUMMARIES),
    ("pair", {"translation": "translation"}),
    *(("labelled", {"text": text, "text_pair": pair, "label": each}) for text, pair in _PAIRS for each in _LABELS),
    *(("labelled", {"text": text, "label": each}) for text in ("text", "sentence", "review") for each in _LABELS),
    *(("text", {"text": each}) for each in ("text", "content", "document", "body")),
)


def read_mapping(text: str) -> dict[str, str]:
    """`source=article,target=highlights` as a mapping; raises `ConfigError` for what is not of this kind."""
    pairs = [each.partition("=") for each in text.split(",") if each.strip()]
    for ours, _, theirs in pairs:
        if not (ours.strip() and theirs.strip()):
            raise ConfigError(f"a mapping says {text!r}; expected such as source=article,target=highlights; correct it")
    return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}


def detect_form(rows: Sequence[Row], *, mapping: Mapping[str, str] | None = None) -> Form:
    """The form of a table from some of its rows: the first that at least half of them have the columns of.

    Raises `DataError` where there is none, with the columns that are there, and `ConfigError` for a mapping of
    columns that no form has.
    """
    return _choose(rows, mapping or {}, None)[0]


def to_form(row: Row, *, mapping: Mapping[str, str] | None = None, form: Form | None = None) -> dict[str, Any]:
    """A row's canonical columns and nothing else; `form` is the table's, by default what the row itself looks like.

    Raises `DataError` with file and line where a column is missing or holds what it should not.
    """
    mapping = mapping or {}
    found, columns = _choose([row], mapping, form)
    names = {each: mapping.get(each, each) for each in OPTIONAL.get(found, ())} | columns
    values = {ours: look_up(row.values, theirs) for ours, theirs in names.items() if has(row.values, theirs)}
    return READERS[found](row, values)


def has(values: Mapping[str, Any], name: str) -> bool:
    """Whether a row has a column; `translation.zh` is one inside another."""
    if name in values:
        return True
    first, _, rest = name.partition(".")
    return bool(rest) and isinstance(values.get(first), dict) and has(values[first], rest)


def look_up(values: Mapping[str, Any], name: str) -> Any:
    """The value of a column that is there (see `has`)."""
    if name in values:
        return values[name]
    first, _, rest = name.partition(".")
    return look_up(values[first], rest)


def _choose(rows: Sequence[Row], mapping: Mapping[str, str], form: Form | None) -> tuple[Form, dict[str, str]]:
    """The form, and where its columns are."""
    if not rows:
        raise DataError("there is no row to tell the form of a table from; expected at least one; look at the file")
    candidates = [
        (known, {**columns, **{ours: theirs for ours, theirs in mapping.items() if ours in columns}})
        for known, columns in KNOWN
        if form in (None, known) and mapping.keys() <= {*columns, *OPTIONAL.get(known, ())}
    ]
    if not candidates:
        wanted = ", ".join(FORM_COLUMNS[form]) if form else "; ".join(", ".join(each) for each in FORM_COLUMNS.values())
        raise ConfigError(
            f"the mapping is for {', '.join(mapping)}, columns of no one form; expected some of {wanted}; write it as "
            "ours=theirs"
        )
    for known, columns in candidates:
        fitting = sum(all(has(row.values, theirs) for theirs in columns.values()) for row in rows)
        if 2 * fitting >= len(rows):
            return known, columns
    there = ", ".join(" ".join(str(each).split())[:40] for each in list(rows[0].values)[:20]) or "none"
    missing = "".join(f"; there is no {each}" for each in mapping.values() if not has(rows[0].values, each))
    special = ["+".join(columns.values()) for _, columns in candidates] if form or mapping else []
    ways = special or map("+".join, FORM_COLUMNS.values())
    raise DataError(
        f"{place_of(rows[0])} has the columns {there}; expected {' or '.join(dict.fromkeys(ways))}; say what they "
        f"are, for example --map source=article,target=highlights{missing}"
    )
