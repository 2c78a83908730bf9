"""Chat templates (Jinja) that may be anybody's: in Jinja's sandbox, bounded in iterations and text."""

import json
import re
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any

from trivium.errors import ConfigError, RequestError, TriviumError

if TYPE_CHECKING:
    import jinja2

TEMPLATE_CHARACTERS = 1 << 20
TEXT_CHARACTERS = 1 << 24  # of what a template makes, whole or in part
ITERATIONS = 1_000_000  # of all loops of one rendering; 1000 messages with 20 tools need a tenth
_GENERATION = re.compile(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}")
# Short words for long texts, which no chat needs: as methods, as filters.
_PADDERS = {"center", "ljust", "rjust", "zfill", "expandtabs", "format_map", "translate", "encode"}
_FILLERS = ("center", "wordwrap", "slice", "batch", "urlize", "xmlattr", "pprint")
# What of a form says how wide a value is.
_PERCENT = re.compile(r"%(?:\([^)]*\))?([-+ #0-9.*]*)")
_BRACES = re.compile(r"\{[^{}:]*:((?:[^{}]|\{[^{}]*\})*)\}")


def render_template(source: str, variables: dict[str, Any]) -> str:
    """What a template makes of variables; raises `RequestError` where it refuses, `ConfigError` where it is none."""
    import jinja2

    template, count = _compile(source), 0
    budget = [ITERATIONS]
    pieces = []
    try:
        for piece in template.generate(**variables, **{_TICK: lambda: _spend(budget)}):
            count += len(piece)
            _bounded(count)
            pieces.append(piece)
    except TriviumError:
        raise
    except jinja2.exceptions.SecurityError as error:
        raise RequestError(
            f"the chat template tries what the sandbox forbids ({_line(error)}); do not trust it"
        ) from None
    except Exception as error:  # whatever a template does with what it was given
        raise RequestError(
            f"the chat template cannot render these messages ({_line(error)}); expected roles and contents that it "
            "knows; correct them"
        ) from None
    return "".join(pieces)


_TICK = "tick_" + secrets.token_hex(8)
_JOIN, _BLOCK = "join_" + secrets.token_hex(8), "block_" + secrets.token_hex(8)


@lru_cache(maxsize=16)
def _compile(source: str) -> "jinja2.Template":
    import jinja2
    from jinja2 import nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    if len(source) > TEMPLATE_CHARACTERS:
        raise ConfigError(f"a chat template of {len(source):,} characters; expected at most a million; use another")
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], cache_size=0
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: _clock(form)}
    environment.globals[_JOIN] = lambda *parts: _bounded_text(parts)
    environment.filters[_BLOCK] = lambda text: _bounded_text([text])
    safe, operations = environment.is_safe_attribute, environment.binop_table
    # Set on the one object: what a template could grow a text with is bounded.
    environment.is_safe_attribute = (  # type: ignore[method-assign]  # of this one object, to bound what a text grows to
        lambda obj, attr, value: attr not in _PADDERS and safe(obj, attr, value)
    )
    environment.intercepted_binops = frozenset({"+", "*", "**", "%"})
    environment.call_binop = (  # type: ignore[method-assign]  # of this one object, to bound what a text grows to
        lambda context, operator, left, right: _compute(operations[operator], operator, left, right)
    )
    environment.call = _measure_method(environment.call)  # type: ignore[method-assign]  # of this one object, likewise
    environment.globals.pop("lipsum")
    for name in _FILLERS:
        environment.filters.pop(name)
    for name in ("replace", "join", "indent", "format", "string", "tojson"):
        environment.filters[name] = _measure_filter(name, environment.filters[name])
    marked = _GENERATION.sub(lambda tag: f"{{%{tag[1]} {'endif' if tag[2] else 'if true'} {tag[3]}%}}", source)
    try:
        tree = environment.parse(marked)
        for loop in tree.find_all(nodes.For):
            loop.body.insert(0, nodes.ExprStmt(_call(nodes, _TICK, [])))
        for block in tree.find_all(nodes.AssignBlock):
            block.filter = nodes.Filter(block.filter, _BLOCK, [], [], None, None)
        _replace_joins(nodes, tree)
        return environment.from_string(tree)
    except (jinja2.TemplateError, RecursionError, MemoryError, SyntaxError, ValueError) as error:
        raise ConfigError(f"the chat template is no template ({_line(error)}); expected Jinja; get it again") from None


def _call(nodes: Any, name: str, arguments: list[Any]) -> Any:
    return nodes.Call(nodes.Name(name, "load"), arguments, [], None, None)


def _replace_joins(nodes: Any, tree: Any) -> None:
    """Every `a ~ b` as a call that minds the length."""
    for name, value in list(tree.iter_fields()):
        for at, node in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(node, nodes.Node):
                continue
            _replace_joins(nodes, node)
            if isinstance(node, nodes.Concat):
                new = _call(nodes, _JOIN, node.nodes)
                if isinstance(value, list):
                    value[at] = new
                else:
                    setattr(tree, name, new)


def _compute(operation: Callable[[Any, Any], Any], name: str, left: Any, right: Any) -> Any:
    sizes = [len(each) if isinstance(each, str | list | tuple) else 0 for each in (left, right)]
    numbers = [each for each in (left, right) if isinstance(each, int)]
    if name == "*" and any(sizes):
        _bounded(max(sizes) * max([0, *numbers]))
    elif name == "**" or (name == "*" and any(abs(each) > 2**64 for each in numbers)):
        _bounded(max([0, *map(abs, numbers)]) * 1000 if any(abs(each) > 1000 for each in numbers) else 0)
    elif name == "%" and isinstance(left, str):
        _bound_call("%", left, list(right) if isinstance(right, tuple) else [right])
    else:
        _bounded(sum(sizes))
    return operation(left, right)


def _measure_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    at = int(hasattr(function, "jinja_pass_arg"))  # the environment may come first

    @wraps(function)
    def measured(*given: Any, **named: Any) -> Any:
        value, rest = given[at], given[at + 1 :]
        if name == "join" and not isinstance(value, str):
            value = list(value)
        _bound_call("%" if name == "format" else name, value, [*rest, *named.values()])
        return function(*given[:at], value, *rest, **named)

    return measured


def _measure_method(call: Callable[..., Any]) -> Callable[..., Any]:
    def measured(context: Any, function: Any, /, *given: Any, **named: Any) -> Any:
        bound = getattr(function, "__wrapped__", function)  # the sandbox wraps str.format
        text, name = getattr(bound, "__self__", None), getattr(bound, "__name__", "")
        if isinstance(text, str) and name in ("replace", "format"):
            _bound_call(name, text, [*given, *named.values()])
        elif isinstance(text, str) and name == "join" and given:
            given = (given[0] if isinstance(given[0], str) else list(given[0]),)
            _bound_call(name, given[0], [text])
        found = call(context, function, *given, **named)
        _bounded(len(found) if isinstance(found, str) else 0)  # a macro's text
        return found

    return measured


def _bound_call(name: str, value: Any, given: list[Any]) -> None:
    """Refuse a call whose text would be too long, at worst."""
    numbers = [abs(each) for each in given if isinstance(each, int)]
    longest = max([0, *(_size(each) for each in given if not isinstance(each, int))])
    if name in ("%", "format"):
        forms = (_PERCENT if name == "%" else _BRACES).findall(str(value))
        widths = [int(digits) for form in forms for digits in re.findall(r"\d{1,18}", form)]
        widths += numbers if any("*" in form or "{" in form for form in forms) else []
        begins = "%" if name == "%" else "{"
        _bounded(len(str(value)) + sum(widths) + str(value).count(begins) * (longest + 30))
    elif name == "join":
        _bounded(_size(value) + len(value) * longest)
    elif name == "indent":
        _bounded(len(str(value)) + (str(value).count("\n") + 1) * max([4, longest, *numbers]))
    elif name == "replace":
        _bounded(len(str(value)) + (str(value).count(str(given[0])) if given else 0) * longest)
    else:
        _bounded(_size(value) * (1 + max([longest, *numbers])))


def _size(value: Any) -> int:
    """Characters of plain data as text, at least; no longer looked at than they are allowed."""
    count, left = 0, [value]
    while left and count <= TEXT_CHARACTERS:
        each = left.pop()
        count += 4 + (len(each) if isinstance(each, str) else 0)  # an empty one takes time, too
        if isinstance(each, list | tuple | dict):
            left += [*each, *each.values()] if isinstance(each, dict) else each
    return count


def _bounded(count: int) -> None:
    if count > TEXT_CHARACTERS:
        raise RequestError(
            f"the chat template makes more than {TEXT_CHARACTERS:,} characters; expected a chat; shorten it or use "
            "another template"
        )


def _bounded_text(parts: Sequence[Any]) -> str:
    _bounded(_size(list(parts)))
    return "".join(map(str, parts))


def _spend(budget: list[int]) -> None:
    budget[0] -= 1
    if budget[0] < 0:
        raise RequestError(
            f"the chat template loops more than {ITERATIONS:,} times; expected a chat; shorten it or use another "
            "template"
        )


def _clock(form: str) -> str:
    return datetime.now().strftime(form)


def _refuse(message: Any) -> None:
    raise RequestError(f"the chat template refuses these messages ({_line(message)}); expected others; correct them")


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _line(error: object) -> str:
    return " ".join(str(error).split())[:200]
