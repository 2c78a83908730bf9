"""The models that come with trivium, by name: `starter:NAME` wherever a model is named. No network.

A starter is an ordinary model folder in `starters/`: in the repository's root, and inside the package of a wheel. What
it serves, its card says: the front matter's `pipeline_tag` first, then those of its `tags` that are tasks.
"""

from pathlib import Path
from typing import Any

import yaml

from trivium.errors import ConfigError, HubError

PREFIX = "starter:"


def starters_folder() -> Path:
    """Where the starters lie, whether this is a wheel or a clone."""
    package = Path(__file__).parent.parent
    packed = package / "starters"
    return packed if packed.is_dir() else package.parent.parent / "starters"


def list_starters() -> dict[str, Path]:
    """The folder of each starter by its name, sorted; hidden ones are unfinished."""
    return {path.parent.name: path.parent for path in sorted(starters_folder().glob("[!.]*/config.json"))}


def find_starter(name: str) -> Path:
    """The folder of a starter; raises `HubError` that lists those there are."""
    known = list_starters()
    if name not in known:
        there = f"expected one of {', '.join(known)}" if known else "this installation has none"
        raise HubError(f"there is no starter {name!r}; {there}; `trivium starter list` shows them")
    return known[name]


def read_card(folder: Path) -> dict[str, Any]:
    """The front matter of a folder's README.md; empty where there is none."""
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not text.startswith("---\n"):
        return {}
    try:
        found = yaml.safe_load(text[4:].partition("\n---")[0])
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise HubError(f"{path} has a front matter that is no YAML ({reason}); mend it") from None
    return found if isinstance(found, dict) else {}


def served_tasks(folder: Path) -> tuple[str, ...]:
    """What a starter's card says of it: its own task first, then its tags, some of which are tasks."""
    card = read_card(folder)
    tags = card.get("tags")
    return tuple(map(str, (card.get("pipeline_tag", ""), *(tags if isinstance(tags, list) else ()))))


def read_language(folder: Path) -> str:
    """The language of a starter's texts, by its card."""
    return str(read_card(folder).get("language", "en"))


def choose_starter(task: str) -> str:
    """The starter that serves a task, as `starter:NAME`: of several one whose own task it is, then one for English,
    then the first by name.

    Raises `ConfigError` where none does.
    """
    folders = list_starters()
    served = {name: served_tasks(folder) for name, folder in folders.items()}
    able = [name for name, tasks in served.items() if task in tasks]
    if not able:
        found = ", ".join(f"{name} ({tasks[0]})" for name, tasks in served.items()) or "no starters here"
        raise ConfigError(f"{task} needs a model: no starter serves it ({found})")
    return PREFIX + min(able, key=lambda name: (served[name][0] != task, read_language(folders[name]) != "en", name))
