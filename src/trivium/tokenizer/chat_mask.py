"""What a chat trains and where an answer ends, found out from any template by rendering with and without each turn.

One `ChatFormat` makes the training ids and mask, the prompt of an answer, the ids that stop one, and holds the template
that is saved with the model, so the four cannot disagree. A turn's content is found by putting another, unguessable
one in its place: what stays the same around it is the template's. A template that this cannot follow is an error,
never a wrong mask. As everywhere (chat.py), special tokens that somebody typed are text.
"""

import re
import secrets
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from trivium.errors import ConfigError, DataError, RequestError
from trivium.tokenizer.chat import Guard, choose_template, render_chat
from trivium.tokenizer.guard import reading

if TYPE_CHECKING:
    from trivium.tokenizer.tokenizer import Tokenizer

Messages = Sequence[dict[str, Any]]
Span = tuple[int, int]
# For a tokenizer without a template: no new tokens, and each turn ends with a token that nobody can type.
PLAIN_TEMPLATE = (
    "{% if bos_token is defined %}{{ bos_token }}{% endif %}"
    "{% for message in messages %}{{ message['role'] + ':\n' + message['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\n' }}{% endif %}"
)


def encode_chat_training(
    tokenizer: "Tokenizer", messages: Messages, *, tools: list[Any] | None = None
) -> tuple[list[int], list[bool]]:
    """The ids of a chat, and for each whether it is trained: what the assistant writes, and the token that ends it.

    Raises `DataError` where nothing or everything would be trained, `RequestError` for messages that the template
    refuses, `ConfigError` without a template or for one whose turns cannot be told apart.
    """
    return chat_format(tokenizer, with_tools=tools is not None).encode_training(messages, tools=tools)


def encode_chat_prompt(tokenizer: "Tokenizer", messages: Messages, *, tools: list[Any] | None = None) -> list[int]:
    """The ids of a chat up to where the assistant answers, as `encode_chat_training` has them there."""
    return chat_format(tokenizer, with_tools=tools is not None).encode_prompt(messages, tools=tools)


def stop_ids(tokenizer: "Tokenizer") -> list[int]:
    """Ids that end an assistant's turn: the template's own, then the end of a text; `ConfigError` if there is none."""
    return chat_format(tokenizer).stop_ids


def set_chat_template(tokenizer: "Tokenizer", template: str = PLAIN_TEMPLATE) -> None:
    """Give a tokenizer a chat template, saved with it; `ConfigError` for one that cannot be trained with."""
    old = tokenizer.settings.get("chat_template")
    if "eos_token" in template and tokenizer.eos_token is None:
        raise ConfigError(
            "the tokenizer has no eos_token, which ends the turns of this chat template; expected one; set "
            "tokenizer.eos_token or give a template of your own"
        )
    tokenizer.settings["chat_template"] = template
    try:
        chat = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
        ChatFormat(tokenizer).encode_training(chat)
    except (ConfigError, DataError, RequestError):
        tokenizer.settings["chat_template"] = old
        raise


def chat_format(tokenizer: "Tokenizer", *, with_tools: bool = False) -> "ChatFormat":
    """The `ChatFormat` of a tokenizer as it is now, made once."""
    template = choose_template(tokenizer.settings.get("chat_template"), None, with_tools=with_tools)
    special = tuple(sorted(tokenizer.special_tokens.items()))
    return _made(tokenizer, template, with_tools, special, tokenizer.backend.get_vocab_size())


@lru_cache(maxsize=8)
def _made(tokenizer: "Tokenizer", template: str, with_tools: bool, *_: Any) -> "ChatFormat":
    return ChatFormat(tokenizer, with_tools=with_tools)


class ChatFormat:
    """How a tokenizer's template writes chats; `template` is the one that is saved beside a model."""

    def __init__(self, tokenizer: "Tokenizer", *, with_tools: bool = False) -> None:
        self.tokenizer = tokenizer
        self.template = choose_template(tokenizer.settings.get("chat_template"), None, with_tools=with_tools)
        self._guard = Guard(tokenizer, self.template)
        names = self._guard.names
        self._words = {name: word for word, name in names.items()}
        self._named = re.compile("|".join(map(re.escape, names.values()))) if names else re.compile("(?!)")
        self._ends: list[str] = []
        self._ends = self._find_ends()
        self._prompts, self._lead = self._find_prompt()

    @property
    def stop_ids(self) -> list[int]:
        """See the function of this name."""
        if not self._ends:
            raise ConfigError(_unended("an assistant's turn"))
        found = [self._guard.controls[word][0] for word in self._ends]
        return found + [each for each in [self.tokenizer.eos_id] if each is not None and each not in found]

    def encode_training(self, messages: Messages, *, tools: list[Any] | None = None) -> tuple[list[int], list[bool]]:
        """See `encode_chat_training`."""
        text, spans = self._follow(messages, tools)
        ids, mask = self._encode(text, spans)
        if not any(mask):
            reason = "no assistant's turn" if not spans else "only empty turns of the assistant"
            raise DataError(f"a chat has {reason} to train on as the template writes it; expected one; drop the chat")
        if all(mask):
            raise DataError(
                "every token of a chat would be trained, its template writing nothing before the answer; expected "
                "tokens that are given; add the user's turn"
            )
        return ids, mask

    def encode_prompt(self, messages: Messages, *, tools: list[Any] | None = None) -> list[int]:
        """See `encode_chat_prompt`."""
        text = self._render(messages, tools, prompt=True)
        if not self._prompts:  # what the template writes before an answer, it writes with an answer only
            key = secrets.token_hex(16)
            try:
                answered = self._render([*messages, {"role": "assistant", "content": key}], tools)
            except RequestError:  # an answer to a system's message alone, perhaps
                answered = ""
            before, found, _ = answered.partition(key)
            # What the last message is followed by tells; before it a template may show other messages then.
            last = str(messages[-1].get("content") or "").strip() or text
            after = [each.rpartition(last)[2].strip() for each in (text, before)]
            if found and (after[0] != after[1] or last not in before):
                text = before
        return self._encode(text, [])[0]

    def _render(self, messages: Messages, tools: list[Any] | None, *, prompt: bool = False) -> str:
        options: dict[str, Any] = {"add_generation_prompt": prompt, "chat_template": self.template}
        options |= {"tools": self._guard.mark(tools)} if tools is not None else {}
        text = render_chat(self.tokenizer, self._guard.mark_chat(messages), options)
        return self._guard.name_controls(text)

    def _encode(self, text: str, spans: list[Span]) -> tuple[list[int], list[bool]]:
        with reading([text]):
            found = self._guard.backend.encode(text, add_special_tokens=False)
        ids = [self._guard.originals.get(each, each) for each in found.ids]
        controls = {number for number, _ in self._guard.controls.values()}
        return ids, mark_tokens(found.offsets, spans, [each in controls for each in ids])

    def _follow(self, messages: Messages, tools: list[Any] | None) -> tuple[str, list[Span]]:
        """The text, and the spans of it that are trained."""
        for _ in range(3):  # a template with a clock may write another text the next second
            text = self._render(messages, tools)
            turns = (at for at, message in enumerate(messages) if message.get("role") == "assistant")
            try:
                spans = [span for at in turns if (span := self._span(text, messages, tools, at))]
            except ConfigError:
                if self._render(messages, tools) == text:
                    raise
                continue
            if self._render(messages, tools) == text:
                return text, spans
        raise ConfigError("the chat template writes another text each time; expected the same; use another template")

    def _span(self, text: str, messages: Messages, tools: list[Any] | None, at: int) -> Span | None:
        """Where in the text the assistant's turn is, from the prompt's end to behind the token that ends it."""
        calls = bool(messages[at].get("tool_calls"))
        around = self._around(text, messages, tools, at, calls=calls)
        if around is None:
            if calls and self._around(text, messages, tools, at):
                raise DataError(_left_out(at))
            return None  # the template leaves this turn out
        before, content_end = around
        prompt = self._prompt_before(messages, tools, at)
        start = -1
        if text.startswith(prompt) and self._same_turns(before, prompt, messages[:at], tools):
            start = len(prompt)
        if start <= 0 or (not self._prompts and before[start:].strip()):  # a header that no prompt has
            opening = self._around(text, messages, tools, at) if calls else around
            start = len(opening[0].removesuffix(self._lead)) if opening and text.startswith(opening[0]) else -1
            if calls and start > len(before):  # the content comes after the call, of which only the name was found
                start = -1
        if not 0 <= start <= content_end:
            raise ConfigError(_lost(at, "begins"))
        return start, self._end(text, messages, tools, at, content_end)

    def _around(
        self, text: str, messages: Messages, tools: list[Any] | None, at: int, *, calls: bool = False
    ) -> tuple[str, int] | None:
        """What comes before a turn's content where that is another, and where in the text the content ends.

        With `calls` likewise for the name of the tool that it calls first. None where the text has none of it.
        """
        key = secrets.token_hex(16)
        message = _with_call(messages[at], key) if calls else _with_content(messages[at], key)
        other = self._render([*messages[:at], message, *messages[at + 1 :]], tools)
        before, found, after = other.partition(key)
        if not found and other == text:
            return None
        if not found or key in after or not text.endswith(after):
            raise ConfigError(_lost(at, "ends"))
        return before, len(text) - len(after)

    def _prompt_before(self, messages: Messages, tools: list[Any] | None, at: int) -> str:
        try:
            return self._render(messages[:at], tools, prompt=True) if at else ""
        except RequestError:  # the template wants the turns that follow
            return ""

    def _same_turns(self, before: str, prompt: str, messages: Messages, tools: list[Any] | None) -> bool:
        """Whether two beginnings of an answer, a prompt and with another content, differ in the answer's turn alone."""
        if before.startswith(prompt) or prompt.startswith(before):
            return True
        bare = self._render(messages, tools)  # a thought that is opened in both, and closed where it is empty
        return prompt.startswith(bare) and before.startswith(bare) and len(bare) < len(prompt)

    def _end(self, text: str, messages: Messages, tools: list[Any] | None, at: int, content_end: int) -> int:
        """Behind the token that ends a turn, the first after its content that the turn alone has there too."""
        there = list(self._controls(text, content_end))
        if there and there[0][0] in self._ends:
            return there[0][1]
        alone = self._render(messages[: at + 1], tools) if at + 1 < len(messages) else text
        around = self._around(alone, messages[: at + 1], tools, at, calls=bool(messages[at].get("tool_calls")))
        words = [word for word, _ in self._controls(alone, around[1])] if around else []
        place = self._choose_end(words)
        if place is None:
            raise ConfigError(_unended(f"message {at}"))
        if [word for word, _ in there[: place + 1]] != words[: place + 1]:
            raise ConfigError(
                f"the chat template ends message {at} otherwise than if it were the last; expected one end of all "
                "turns of the assistant; end them with the same token"
            )
        return there[place][1]

    def _controls(self, text: str, start: int) -> Iterator[tuple[str, int]]:
        """The control tokens that the template wrote, from a place on, with where they end."""
        return ((self._words[found[0]], found.end()) for found in self._named.finditer(text, start))

    def _choose_end(self, words: list[str]) -> int | None:
        """Which of the control tokens after a last turn's content ends it: one that ends others, or a special one."""
        known = (at for at, word in enumerate(words) if word in self._ends)
        special = (at for at, word in enumerate(words) if self._guard.controls[word][1].special)
        return next(known, next(special, 0 if words else None))

    def _find_ends(self) -> list[str]:
        """The control tokens that end an assistant's turn in small chats."""
        found: dict[str, None] = {}
        for system in ([], [{"role": "system", "content": "x"}]):
            key = secrets.token_hex(16)
            chat = [*system, {"role": "user", "content": "x"}, {"role": "assistant", "content": key}]
            try:
                text = self._render(chat, None)
            except RequestError:
                continue
            words = [word for word, _ in self._controls(text, text.find(key))] if key in text else []
            if (place := self._choose_end(words)) is not None:
                found[words[place]] = None
        return list(found)

    def _find_prompt(self) -> tuple[bool, str]:
        """Whether the template has a prompt for an answer; if not, the white space that it writes before one."""
        chat, key = [{"role": "user", "content": "x"}], secrets.token_hex(16)
        try:
            text, prompt = self._render(chat, None), self._render(chat, None, prompt=True)
            before = self._render([*chat, {"role": "assistant", "content": key}], None).partition(key)[0]
        except RequestError:
            return True, ""
        gap = before.removeprefix(prompt)
        return text != prompt, gap if text == prompt and before.startswith(prompt) and gap.isspace() else ""


def mark_tokens(offsets: Sequence[Span], spans: Sequence[Span], controls: Sequence[bool] = ()) -> list[bool]:
    """For each token whether any of its characters is in a span; both are in the order of the text.

    White space that a tokenizer leaves out of a token's offsets belongs to the token that follows it. A control token
    may take the white space after it (`rstrip`): only where it begins counts.
    """
    mask, last, at = [], 0, 0
    for (start, end), control in zip(offsets, controls or [False] * len(offsets), strict=True):
        reach, start = (start + 1 if control else end), min(start, last)
        while at < len(spans) and spans[at][1] <= start:
            at += 1
        mask.append(at < len(spans) and reach > spans[at][0] and start < spans[at][1])
        last = end
    return mask


def _with_content(message: dict[str, Any], text: str) -> dict[str, Any]:
    is_parts = isinstance(message.get("content"), list)
    return {**message, "content": [{"type": "text", "text": text}] if is_parts else text}


def _with_call(message: dict[str, Any], name: str) -> dict[str, Any]:
    first, *rest = message["tool_calls"]
    if isinstance(first.get("function"), dict):
        return {**message, "tool_calls": [{**first, "function": {**first["function"], "name": name}}, *rest]}
    return {**message, "tool_calls": [{**first, "name": name}, *rest]}


def _left_out(at: int) -> str:
    return (
        f"the chat template leaves out the tools that message {at} calls; expected them in the text, since an answer "
        "without them would be learned; use a template for tools"
    )


def _lost(at: int, what: str) -> str:
    return (
        f"the chat template writes message {at} in a way that does not show where its text {what}; expected it "
        "as it is, between parts of the template's own; give the tokenizer another chat template"
    )


def _unended(what: str) -> str:
    return (
        f"the chat template writes no special token after {what}; expected one, without which a model learns no end of "
        "its answers; put eos_token there"
    )
