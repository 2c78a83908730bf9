"""Tensors in safetensors files, in and out; the only place in trivium that knows the format.

Knows nothing of models: names and shapes are the callers' business. Never reads pickles.
"""

import contextlib
import ctypes
import mmap
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from trivium.errors import HubError
from trivium.folder import inside as inside
from trivium.folder import read_json as read_json

WEIGHTS = "model.safetensors"
PICKLE = "pytorch_model.bin"
INDEX = "model.safetensors.index.json"
_TENSORS = 50_000  # in one file; each costs time and memory however small it is


def read_tensors(path: Path | str) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, or of a model folder (one file, or shards with an index), by name.

    The tensors are mapped from disk, not copied; writing to them does not change the file. Raises `HubError` for
    missing, damaged or inconsistent files and for an index that points out of its folder.
    """
    path = Path(path)
    if not path.is_dir():
        return _read_file(path)
    if (path / WEIGHTS).exists():
        return _read_file(inside(path, WEIGHTS))
    if (path / INDEX).exists():
        return _read_shards(path)
    pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in path.glob(pattern))
    found = f"only {pickled[0]}, a pickle that could run code" if pickled else "no weights"
    advice = "get the safetensors version"
    if any(name.startswith(PICKLE.removesuffix(".bin")) for name in pickled):
        advice += f", or write one with: trivium convert {path} --out DIR"
    raise HubError(f"{path} has {found}; expected {WEIGHTS} or {INDEX}; {advice}")


def file_ranges() -> list[range]:
    """The addresses at which this process has files mapped; none where the system does not tell."""
    found = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            addresses, *others = line.split(maxsplit=5)
            if len(others) == 5 and others[4].startswith("/") and not others[4].startswith("/dev/"):
                start, end = (int(each, 16) for each in addresses.split("-"))
                found.append(range(start, end))
    return found


def forget_pages(tensor: Tensor, mapped: Sequence[range]) -> None:
    """Give back the memory of a tensor that lies in one of `mapped` and was copied; read again, it comes from the file.

    Without this a converted model has its file in memory too until all of it is converted.
    """
    storage = tensor.untyped_storage()
    start, end = storage.data_ptr(), storage.data_ptr() + storage.nbytes()
    start, end = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
    # Only within a file: the same call would set memory of any other kind to zero.
    if start < end and any(start in each and end - 1 in each for each in mapped):
        madvise = ctypes.CDLL(None).madvise
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


def write_tensors(path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors to one safetensors file, replacing it atomically; equal tensors sharing memory are written twice.

    `metadata` is text beside the tensors, by default what transformers asks for. Raises `HubError` when the disk
    refuses.
    """
    notes = dict(metadata) if metadata is not None else {"format": "pt"}
    owned, seen = {}, set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        owned[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    replace_file(Path(path), lambda temporary: save_file(owned, temporary, metadata=notes))


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place: readers see the old file or the new."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # temporary files are private, a model is as readable as any other file
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    except (OSError, SafetensorError) as error:
        raise HubError(f"{path} could not be written ({error}); expected room and permission; free some") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def read_weight_map(folder: Path, name: str) -> dict[str, str]:
    """The index of a model in shards: the file of each tensor; `HubError` when it is none."""
    index = read_json(inside(folder, name)).get("weight_map")
    if not isinstance(index, dict) or not all(isinstance(file, str) for file in index.values()):
        raise HubError(f"{folder / name} has no weight_map of names; expected one; get the folder again")
    return index


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            count = len(file.keys())
        if count > _TENSORS:
            raise ValueError(f"{count:,} tensors; no published file has as many")
        return load_file(path)
    except (OSError, SafetensorError, ValueError, RuntimeError, KeyError) as error:
        expected = "expected a complete safetensors file; get it again"
        raise HubError(f"{path} is missing or damaged ({error}); {expected}") from error


def _read_shards(folder: Path) -> dict[str, Tensor]:
    index = read_weight_map(folder, INDEX)
    files = {file: inside(folder, file) for file in sorted(set(index.values()))}
    tensors: dict[str, Tensor] = {}
    for file, path in files.items():
        if not file.endswith(".safetensors"):
            raise HubError(f"{folder / INDEX} names {file!r}; expected .safetensors files; do not trust it")
        shard = _read_file(path)
        promised = {name for name, home in index.items() if home == file}
        if shard.keys() != promised:
            odd = listing(sorted(shard.keys() ^ promised))
            raise HubError(f"{path} and {INDEX} disagree about {odd}; expected the same; get the folder again")
        tensors.update(shard)
    return tensors


def listing(names: list[str]) -> str:
    """Up to six names and how many there are more, for an error."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
