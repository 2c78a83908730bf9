"""From a local path or a name on the Hugging Face hub to a folder on this disk.

The only place that knows huggingface_hub, and so the only one that may use the network: for a hub name that is no
folder here. Its variables (HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE) are honoured.
"""

import re
from pathlib import Path

from trivium.errors import HubError

# What a model folder needs: never pickles, never code, nothing from subfolders.
_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "README.md"]
_NAME = re.compile(r"(?P<repo>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?")


def resolve_folder(name_or_folder: str | Path) -> Path:
    """The folder that a path names, or the downloaded snapshot of `org/name` or `org/name@revision`.

    Raises `HubError` when there is neither.
    """
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        return folder
    name = str(name_or_folder)
    match = _NAME.fullmatch(name)
    if match is None or name.startswith(".") or isinstance(name_or_folder, Path):
        raise HubError(f"{name} is no folder; expected a model folder or a hub name like org/name; check the path")
    return _download(match["repo"], match["revision"])


def _download(repo: str, revision: str | None) -> Path:
    # Imported here: reading a local folder should not pay for an HTTP client.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=_FILES, ignore_patterns=["*/*"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise HubError(
            f"{repo} is no folder here and could not be had from the hub ({reason}); expected a model folder or a hub "
            "name; check the spelling, the network and HF_HUB_OFFLINE"
        ) from error
