"""The one explicit way in for pickled weights: `pytorch_model.bin` to a safetensors folder, at the user's word only.

PyTorch's restricted unpickler (`weights_only`) builds tensors and plain containers and refuses every other name in
the file, so that none of its code runs; nothing else in trivium opens a pickle.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from trivium.errors import HubError
from trivium.hub.convert import PICKLE, WEIGHTS, inside, read_weight_map, write_tensors

INDEX = f"{PICKLE}.index.json"
_BESIDE = (
    ".json",
    ".txt",
    ".model",
    ".spm",
    ".jinja",
    ".md",
)  # settings, tokenizer, card: never code, never other weights


def convert_pickle(folder: Path | str, out: Path | str) -> Path:
    """Write a model folder with `pytorch_model.bin`, whole or in shards, as a safetensors folder; returns `out`.

    Weights are mapped from disk and written as they are; settings, tokenizer and card are copied. Raises `HubError`
    when the folder has no such file, when the file holds anything but named tensors, or when `out` is `folder`.
    """
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        advice = f"for a model of the hub, first: hf download {folder} --local-dir DIR"
        raise HubError(f"{folder} is no folder; expected a model folder with {PICKLE}; check the path, or {advice}")
    if out.resolve() == folder.resolve() or out.is_file():
        raise HubError(f"{out} is taken; expected another folder to write to; name a new one with --out")
    tensors: dict[str, Tensor] = {}
    for path in _files(folder):
        for name, tensor in _read_pickle(path):
            if name in tensors:
                raise HubError(f"{path} repeats {name}; expected each tensor in one file; get the folder again")
            tensors[name] = tensor
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir()):
        if path.suffix in _BESIDE and path.name != INDEX and path.is_file():
            shutil.copyfile(inside(folder, path.name), out / path.name)
    write_tensors(out / WEIGHTS, tensors)
    return out


def _files(folder: Path) -> list[Path]:
    if (folder / PICKLE).exists():
        return [inside(folder, PICKLE)]
    if not (folder / INDEX).exists():
        raise HubError(f"{folder} has neither {PICKLE} nor {INDEX}; expected one of them; name another folder")
    return [inside(folder, file) for file in sorted(set(read_weight_map(folder, INDEX).values()))]


def _read_pickle(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with path.open("rb") as file:
            mapped = file.read(4) == b"PK\x03\x04"  # the format before 2020 cannot be mapped
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # what a damaged or hostile file can raise has no list
        reason = str(error).strip().split("\n")[0].rstrip(".")[:200] or type(error).__name__
        expected = "expected a file of nothing but tensors; do not trust it, get the safetensors version"
        raise HubError(f"{path} could not be read as weights ({reason}); {expected}") from error
    if not isinstance(found, dict):
        raise HubError(f"{path} holds a {type(found).__name__}; expected named tensors; use another file")
    size = path.stat().st_size
    for name, tensor in found.items():
        plain = isinstance(tensor, Tensor) and tensor.layout == torch.strided and not tensor.is_quantized
        # A few bytes can claim to be a tensor of any size, by strides of 0.
        if not isinstance(name, str) or not plain or tensor.numel() * tensor.itemsize > size:
            raise HubError(f"{path} holds {name!r}, which is no plain tensor; expected only such; use another file")
        yield name, tensor.detach()
