"""Chats to text and ids through the templates that models bring (Jinja), which may be anybody's.

A template sees plain data and runs in a sandbox (template.py). What users write stays text:
a control token that is spelled in a message never becomes its id, only the template's own do.
"""

import re
import secrets
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken

from trivium.errors import ConfigError, RequestError
from trivium.tokenizer.backend import copy_of
from trivium.tokenizer.batch import TokenBatch
from trivium.tokenizer.call import call_encoded
from trivium.tokenizer.template import render_template

if TYPE_CHECKING:
    from trivium.tokenizer.tokenizer import Tokenizer

_OF_THE_CALL = ("return_tensors", "padding", "truncation", "max_length")


def apply_template(
    tokenizer: "Tokenizer", messages: Any, options: dict[str, Any], *, tokenize: bool, return_dict: bool
) -> Any:
    """What `Tokenizer.apply_chat_template` gives."""
    many = bool(messages) and isinstance(messages, list | tuple) and isinstance(messages[0], list | tuple)
    chats = list(messages) if many else [messages]
    call = dict(options.pop("tokenizer_kwargs", None) or {})
    call |= {name: options.pop(name) for name in _OF_THE_CALL if name in options}
    if not tokenize:
        texts = [render_chat(tokenizer, chat, options) for chat in chats]
        return texts if many else texts[0]
    batch = encode_chat(tokenizer, chats, options, call)
    if not many and call.get("return_tensors") is None:
        batch.data = {name: rows[0] for name, rows in batch.items()}
    return batch if return_dict else batch["input_ids"]


def render_chat(tokenizer: "Tokenizer", messages: Any, options: dict[str, Any]) -> str:
    """The text that a template makes of messages; raises `RequestError` and `ConfigError`."""
    if not isinstance(messages, list | tuple):
        raise RequestError(f"a chat is {type(messages).__name__}; expected a list of messages; give one")
    options = dict(options)
    chosen, tools = options.pop("chat_template", None), options.pop("tools", None)
    unfinished = options.pop("continue_final_message", False)
    source = choose_template(tokenizer.settings.get("chat_template"), chosen, with_tools=tools is not None)
    chat = [_message(each) for each in messages]
    if not chat:
        raise RequestError("a chat without messages; expected at least one; add one")
    if unfinished and options.get("add_generation_prompt"):
        raise ConfigError("continue_final_message with add_generation_prompt; expected one of the two; drop one")
    tag = secrets.token_hex(16)
    if unfinished:
        if not isinstance(chat[-1].get("content"), str):
            raise RequestError("the final message has no text to continue; expected content; add it")
        chat[-1]["content"] += f"{tag} "
    given = {"add_generation_prompt": False, "documents": None} | _plain(options)
    text = render_template(source, tokenizer.special_tokens | given | {"messages": chat, "tools": _plain(tools)})
    if not unfinished:
        return text
    at = text.rfind(tag)
    if at < 0:
        raise RequestError("the chat template drops the final message; expected it in the text; do not continue it")
    return text[:at] if text[at : at + len(tag) + 1] == f"{tag} " else text[:at].rstrip()


def encode_chat(tokenizer: "Tokenizer", chats: list[Any], template: dict[str, Any], call: dict[str, Any]) -> TokenBatch:
    """Ids of chats, the template's control tokens alone being control ids; `call` holds the keywords of a call."""
    source = choose_template(
        tokenizer.settings.get("chat_template"),
        template.get("chat_template"),
        with_tools=template.get("tools") is not None,
    )
    guard = Guard(tokenizer, source)
    given = {name: each if name == "chat_template" else guard.mark(each) for name, each in template.items()}
    texts = [render_chat(tokenizer, guard.mark_chat(chat), given) for chat in chats]
    return call_encoded(tokenizer, [guard.name_controls(text) for text in texts], guard.backend, guard.originals, call)


class Guard:
    """Tells the control tokens that a template writes from those that its users wrote.

    In what users wrote each gets digits that nobody can guess on both sides, and so do ends of texts that could
    become one with their neighbours. What the rendered text then has without digits is the template's, and goes to a
    copy of the tokenizer that knows it by another such name, and by no other.
    """

    def __init__(self, tokenizer: "Tokenizer", template: str) -> None:
        added = tokenizer.backend.get_added_tokens_decoder()
        # Added tokens that are not special are control tokens where the template writes them, as Qwen's <tool_call>.
        self.controls = {
            token.content: (number, token)
            for number, token in added.items()
            if token.special or (token.content in template and not token.content.isspace())
        }
        self.before, self.after, self.edge = (str(10**23 + secrets.randbelow(10**23)) for _ in range(3))
        words = sorted(self.controls, key=len, reverse=True)
        self.spelled = _any_of(words)
        self.reserved = _any_of([word for word in words if self.controls[word][1].special])
        self.heads = {word[:size] for word in words for size in range(1, len(word))}
        self.tails = {word[size:] for word in words for size in range(1, len(word))}
        self.longest = max(map(len, words), default=0)
        self.names = {word: f"<{secrets.token_hex(16)}>" for word in words}
        self.backend = copy_of(tokenizer.plain, without=set(words))
        self.backend.encode_special_tokens = False
        for _, token in sorted(self.controls.values(), key=lambda each: each[0]):
            flags = {flag: getattr(token, flag) for flag in ("lstrip", "rstrip", "single_word", "normalized")}
            self.backend.add_tokens([AddedToken(self.names[token.content], special=True, **flags)])
        words_of = {name: word for word, name in self.names.items()}
        ids = {token.content: number for number, token in added.items()}
        # Tokens without a place in the vocabulary were numbered anew, ordinary ones too.
        copied = self.backend.get_added_tokens_decoder()
        self.originals = {number: ids[words_of.get(token.content, token.content)] for number, token in copied.items()}

    def mark_chat(self, messages: Any) -> Any:
        """Messages with every control token marked, but not a thought's or a call's (tokens that are not special) in
        what the assistant wrote: there they are its own."""
        if not isinstance(messages, list | tuple):
            return messages
        theirs = [isinstance(each, dict) and each.get("role") == "assistant" for each in messages]
        return [self.mark(each, own=own) for each, own in zip(messages, theirs, strict=True)]

    def mark(self, value: Any, *, own: bool = False) -> Any:
        """The same plain data with every control token in its texts marked; of one's `own` only the special ones.

        A key is marked where it spells one: a template asks for no key that does, but may write them all.
        """
        words = self.reserved if own else self.spelled
        if isinstance(value, dict):
            kept = [not isinstance(key, str) or key.isidentifier() for key in value]
            keys = [key if keep else self._mark_words(key, words) for key, keep in zip(value, kept, strict=True)]
            return dict(zip(keys, [self.mark(each, own=own) for each in value.values()], strict=True))
        if isinstance(value, list | tuple):
            return [self.mark(each, own=own) for each in value]
        if not isinstance(value, str) or words is None:
            return value
        text = self._mark_words(value, words)
        sizes = range(1, min(self.longest, len(value) + 1))
        first = any(value[:size] in self.tails for size in sizes)
        last = any(value[-size:] in self.heads for size in sizes)
        return f"{self.edge * first}{text}{self.edge * last}"

    def _mark_words(self, value: str, words: re.Pattern[str] | None) -> str:
        if words is None:
            return value
        return words.sub(lambda found: f"{self.before}{found[0]}{self.after}", value)

    def name_controls(self, text: str) -> str:
        """A rendered text without marks, in which the template's control tokens bear the names of the copy."""

        def name(found: re.Match[str]) -> str:
            theirs = text.endswith(self.before, 0, found.start()) or text.startswith(self.after, found.end())
            return found[0] if theirs else self.names[found[0]]

        named = self.spelled.sub(name, text) if self.spelled is not None else text
        for mark in (self.before, self.after, self.edge):
            named = named.replace(mark, "")
        return named


def _any_of(words: list[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(re.escape, words))) if words else None


def choose_template(templates: Any, chosen: str | None, *, with_tools: bool) -> str:
    """The template to use: one that is given, one of several by its name, or the only one; raises `ConfigError`."""
    if isinstance(templates, list):
        templates = {each.get("name"): each.get("template") for each in templates if isinstance(each, dict)}
    named: dict[Any, Any] = templates if isinstance(templates, dict) else {"default": templates}
    found = named.get(chosen) if chosen is not None else None
    if chosen is not None and found is None:
        found = chosen
    if found is None:
        found = (named.get("tool_use") if with_tools else None) or named.get("default")
    if not isinstance(found, str):
        known = f"only {', '.join(map(str, named))}" if named.keys() - {"default"} else "none"
        raise ConfigError(
            f"the tokenizer has no chat template to use ({known}); expected one, as chat models have; pass "
            "chat_template="
        )
    return found


def _message(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not isinstance(value.get("role"), str):
        raise RequestError(
            f"a message of a chat is {type(value).__name__}; expected a dict with role and content; correct it"
        )
    # What a call has instead of a text is nothing, and templates ask for it.
    return {name: _plain(each) for name, each in value.items() if each is not None or name == "content"}


def _plain(value: Any, depth: int = 0) -> Any:
    """A copy of JSON-like data: templates get to see nothing else, so no object of the program."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if depth < 32 and isinstance(value, list | tuple):
        return [_plain(each, depth + 1) for each in value]
    if depth < 32 and isinstance(value, dict):
        return {str(key): _plain(each, depth + 1) for key, each in value.items()}
    raise RequestError(
        f"a chat template was given {type(value).__name__} at depth {depth}; expected texts, numbers, lists and dicts; "
        "give tools as JSON schemas"
    )
