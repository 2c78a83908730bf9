"""The files of a model folder, which may be anybody's: nothing outside it, nothing too large or too deep.

Knows no format but JSON; who wants tensors or vocabularies asks here for the path first.
"""

import json
import math
from pathlib import Path
from typing import Any

from trivium.errors import HubError

_FILE_BYTES = 64 * 1024 * 1024  # an index of the largest published models has 10 MB, a tokenizer 35 MB


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; `HubError` when it is missing, too large, too deep, or no object."""
    try:
        if path.stat().st_size > _FILE_BYTES:
            raise ValueError("larger than 64 MiB")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise HubError(f"{path} is not readable ({error}); expected a JSON file; get the folder again") from error
    if not isinstance(found, dict):
        raise HubError(f"{path} holds a {type(found).__name__}; expected a JSON object; get the folder again")
    return found


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON of plain data, with null for a number that is none (NaN, ±∞), which JSON has no word for."""

    def plain(each: Any) -> Any:
        if isinstance(each, dict):
            return {name: plain(part) for name, part in each.items()}
        if isinstance(each, list | tuple):
            return [plain(part) for part in each]
        return None if isinstance(each, float) and not math.isfinite(each) else each

    return json.dumps(plain(value), ensure_ascii=False, indent=indent)


def inside(folder: Path, name: str) -> Path:
    """The path of a file directly in a model folder; `HubError` when name or link would lead out of it, or to a device.

    The links of a Hugging Face cache (`snapshots/<revision>/file` to `blobs/`) stay within the model's own entry.
    """
    root = folder.resolve()
    if root.parent.name == "snapshots":
        root = root.parent.parent
    path = folder / name
    try:
        stays = Path(name).name == name and path.resolve().is_relative_to(root)
        odd = stays and path.exists() and not (path.is_file() or path.is_dir())
    except (OSError, ValueError, RuntimeError):  # loops of links, NUL in a name
        stays = False
    if not stays:
        raise HubError(f"{folder} refers to {name!r} outside itself; expected own files; do not trust it")
    if odd:  # a pipe would be waited for, a device read without end
        raise HubError(f"{path} is a pipe or a device; expected a file; do not trust the folder")
    return path


def read_bytes(folder: Path, name: str) -> bytes:
    """What a file directly in a model folder holds; `HubError` when it is outside, missing or larger than 64 MiB."""
    path = inside(folder, name)
    try:
        if (size := path.stat().st_size) > _FILE_BYTES:
            raise HubError(f"{path} has {size:,} bytes; expected at most 64 MiB of such a file; do not trust it")
        return path.read_bytes()
    except OSError as error:
        raise HubError(f"{path} is not readable ({error}); expected a file; get the folder again") from error
