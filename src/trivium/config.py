"""YAML files and `key.sub=value` overrides to frozen, validated dataclasses, and back.

The dataclasses live beside the code that they configure; this file knows none of them. An unknown key, a wrong
type or a newer schema is one sentence before any work begins.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from trivium.errors import ConfigError

SCHEMA = 1
T = TypeVar("T")


def load_config(cls: type[T], path: str | Path | None = None, overrides: Sequence[str] = ()) -> T:
    """Read a `cls` from a YAML file (or from its defaults) with overrides such as `"budget.minutes=10"`.

    Raises `ConfigError` for a missing or unreadable file, an unknown key (with the nearest name), a value of the
    wrong type, or a file written by a newer schema.
    """
    import yaml

    settings: dict[str, Any] = {}
    if path is not None:
        try:
            settings = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except FileNotFoundError:
            raise ConfigError(f"there is no recipe at {path}; expected a YAML file; check the path") from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{path} cannot be read as YAML ({reason}); mend the file") from None
        if not isinstance(settings, dict):
            found = type(settings).__name__
            raise ConfigError(f"{path} holds a {found}; expected `key: value` lines; mend the file")
    for override in overrides:
        _apply(settings, override)
    return from_dict(cls, settings)


def from_dict(cls: type[T], settings: Mapping[str, Any]) -> T:
    """A validated `cls` from nested mappings; raises `ConfigError` as `load_config` does.

    A group that names some of its settings keeps what its holder has for the others, not what its class has; a group
    whose class says `STANDS_ALONE` is taken as it is given.
    """
    from pydantic import TypeAdapter, ValidationError

    settings = dict(settings)
    schema = settings.pop("schema", SCHEMA)
    if not isinstance(schema, int) or schema > SCHEMA:
        raise ConfigError(f"the settings have schema {schema}; this version reads up to {SCHEMA}; upgrade trivium")
    _reject_unknown(cls, settings, "")
    try:
        return TypeAdapter(cls).validate_python(_lay_over(cls, _default_groups(cls), settings))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        problem = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{place or cls.__name__} is {first['input']!r}: {problem}; change that setting") from None


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain dictionaries of a config dataclass, `schema` first, ready for YAML or JSON."""
    return {"schema": SCHEMA, **_to_plain(config)}


def _to_plain(config: Any) -> dict[str, Any]:
    from pydantic import TypeAdapter

    return dict(TypeAdapter(type(config)).dump_python(config, mode="json"))


def save_config(config: Any, path: str | Path) -> None:
    """Write the resolved config as YAML; `load_config` gives an equal one back."""
    import yaml

    text = yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
    Path(path).write_text(text, encoding="utf-8")


def change_config(config: T, settings: Mapping[str, Any]) -> T:
    """A config with some settings changed; a group may be given in part. Raises `ConfigError` as `load_config` does."""
    return from_dict(type(config), _lay_over(type(config), to_dict(config), settings))


def read_value(text: str) -> Any:
    """What `key=VALUE` on a command line means, as YAML has it, but that a text stays as it was typed, with the space
    at its end and what stands behind a `#`; what would be a mapping without braces, such as `summarize: `, is a text
    too, and so is nothing. Raises `YAMLError`."""
    import yaml

    value = yaml.safe_load(text)
    typed = isinstance(value, str) and text.lstrip()[:1] not in ("'", '"')
    mapped = isinstance(value, dict) and not text.lstrip().startswith("{")
    empty = value is None and text.strip().lower() not in ("null", "~")
    return text if typed or mapped or empty else value


def _lay_over(cls: Any, below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others laid over them, group by group; where there is no group below, its defaults are."""
    laid, hints = {**below, **above}, get_type_hints(cls)
    for key, value in above.items():
        kind = _group_of(hints.get(key))
        if kind is None or not isinstance(value, Mapping):
            continue
        lower = below.get(key)
        if getattr(kind, "STANDS_ALONE", False):
            lower = {}
        elif not isinstance(lower, Mapping):
            lower = _default_groups(kind)
        laid[key] = _lay_over(kind, lower, value)
    return laid


def _default_groups(cls: Any) -> dict[str, Any]:
    """The groups that a class has unless told, as plain dictionaries."""
    made = {each.name: each.default_factory() for each in fields(cls) if each.default_factory is not MISSING}
    return {name: _to_plain(value) for name, value in made.items() if is_dataclass(value)}


def _group_of(hint: Any) -> Any:
    """The dataclass that a field's type is or may be, if any."""
    return next((kind for kind in (hint, *getattr(hint, "__args__", ())) if is_dataclass(kind)), None)


def _apply(settings: dict[str, Any], override: str) -> None:
    import yaml

    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{override!r} is no override; expected key.sub=value, such as budget.minutes=10")
    *parents, last = key.split(".")
    for parent in parents:
        deeper = settings[parent] = {} if settings.get(parent) is None else settings[parent]
        if not isinstance(deeper, dict):
            raise ConfigError(f"{parent} in {override!r} is a value, not a group; expected key.sub=value")
        settings = deeper
    try:
        settings[last] = read_value(text)
    except yaml.YAMLError:
        raise ConfigError(f"the value in {override!r} cannot be read; quote it") from None


def _reject_unknown(cls: Any, settings: Mapping[str, Any], place: str) -> None:
    """Name the nearest field for each key that the dataclass, or one inside it, does not have."""
    if not is_dataclass(cls):
        return
    hints = get_type_hints(cls)
    names = [field.name for field in fields(cls)]
    for key, value in settings.items():
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1, cutoff=0.5)
            hint = f"did you mean {place}{near[0]}?" if near else f"known are {', '.join(names)}"
            raise ConfigError(f"there is no setting {place}{key}; {hint}")
        if isinstance(value, Mapping):
            _reject_unknown(_group_of(hints[key]), value, f"{place}{key}.")
