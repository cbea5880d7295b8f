"""Arrays in files: ``.npy``, ``.npz``, ``.safetensors`` and ``.pt``, a piece at a time where the format allows it."""

from __future__ import annotations

import contextlib
import pickle
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError, ValidationError, first_line
from ..files import check_file

LABELS = ("labels", "targets", "y", "y_train")
PICKLES = frozenset([".pkl", ".pickle", ".p"])


class StoredArray(NamedTuple):
    """An array in a file: its shape, ``read``, which gives a slice of it, and the class numbers beside it, if any."""

    shape: tuple[int, ...]
    read: Callable[[slice], NDArray[Any]]
    labels: NDArray[np.int64] | None = None


def open_array(path: Path, names: Sequence[str]) -> StoredArray:
    """Open the array in the file ``path``: the only one, or the first that is called one of ``names``.

    Raises UserError for another format, ValidationError for a damaged file or labels that are not one an image.
    """
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        raise _pickled(path)
    if suffix not in OPENERS:
        raise UserError(f"{path.name} has no known format", f"use a folder of PNG files, {', '.join(OPENERS)}")
    check_file(path, "file or folder")
    try:
        array = OPENERS[suffix](path, names)
    except UserError:
        raise
    except Exception as error:  # readers raise ValueError, OSError, EOFError, BadZipFile, SafetensorError, ...
        reason = first_line(error)
        raise ValidationError(f"cannot read {path.name}: {reason}", "check that the file is whole") from error
    if not array.shape:
        raise ValidationError(f"{path.name} holds a single number", "images are N x H x W x 3")
    if array.labels is not None and len(array.labels) != array.shape[0]:
        raise ValidationError(
            f"{path.name} has {array.shape[0]} images, but {len(array.labels)} labels", "give one label an image"
        )
    return array


def _open_npy(path: Path, names: Sequence[str]) -> StoredArray:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return StoredArray(array.shape, lambda where: np.asarray(array[where]))


def _open_npz(path: Path, names: Sequence[str]) -> StoredArray:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no archive, or one without its end")
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        array = archive[_pick(archive.files, names, path)]
        labels = _labels(archive.files, archive.__getitem__)
    return StoredArray(array.shape, lambda where: array[where], labels)


def _open_safetensors(path: Path, names: Sequence[str]) -> StoredArray:
    from safetensors import safe_open

    file: Any = safe_open(path, framework="numpy")
    stored = list(file.keys())
    name = _pick(stored, names, path)
    tensor = file.get_slice(name)
    labels = _labels(stored, file.get_tensor)
    shape = tuple(tensor.get_shape())

    def part(where: slice) -> Any:
        return tensor[where.start : min(where.stop, shape[0])]  # it refuses more than there is

    if tensor.get_dtype().startswith(("BF", "F8")):  # NumPy has no such type
        other: Any = safe_open(path, framework="pt")
        tensor = other.get_slice(name)
        return StoredArray(shape, lambda where: part(where).float().numpy(), labels)
    return StoredArray(shape, part, labels)


def _open_torch(path: Path, names: Sequence[str]) -> StoredArray:
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if "global" not in str(error).lower():
            raise ValueError("it holds no tensors") from error  # nor anything else that PyTorch writes
        raise _pickled(path) from error
    labels = None
    if isinstance(loaded, (list, tuple)) and all(isinstance(item, torch.Tensor) for item in loaded):
        if len(loaded) == 2 and loaded[0].ndim > 1 and loaded[1].ndim == 1:
            loaded = {names[0]: loaded[0], LABELS[0]: loaded[1]}
        elif len({item.shape for item in loaded}) == 1:
            loaded = torch.stack(list(loaded))
    if isinstance(loaded, dict):
        tensors = {str(name): value for name, value in loaded.items() if isinstance(value, torch.Tensor)}
        labels = _labels(list(tensors), lambda name: tensors[name].numpy())
        loaded = tensors[_pick(list(tensors), names, path)]
    if not isinstance(loaded, torch.Tensor):
        raise UserError(f"{path.name} holds a {type(loaded).__name__}, not a tensor", "save the tensor of the images")
    tensor = loaded.detach()
    if tensor.dtype.is_floating_point and tensor.dtype.itemsize < 4:  # bfloat16 among them, which NumPy lacks
        return StoredArray(tuple(tensor.shape), lambda where: tensor[where].float().numpy(), labels)
    return StoredArray(tuple(tensor.shape), lambda where: tensor[where].numpy(), labels)


Opener = Callable[[Path, Sequence[str]], StoredArray]
OPENERS: dict[str, Opener] = {
    ".npy": _open_npy, ".npz": _open_npz, ".safetensors": _open_safetensors, ".pt": _open_torch, ".pth": _open_torch,
}  # fmt: skip


def _pickled(path: Path) -> UserError:
    if path.suffix.lower() in PICKLES:
        load = f"pickle.load(open('{path.name}', 'rb'))"
    else:
        load = f"torch.load('{path.name}', weights_only=False)"
    module = load.partition(".")[0]
    return UserError(
        f"{path.name} is a pickle of Python objects, which may run any code when it is opened",
        "if you trust it, convert it: "
        f"python -c \"import numpy, {module}; numpy.save('{path.stem}.npy', numpy.asarray({load}))\"",
    )


def _pick(stored: list[str], names: Sequence[str], path: Path) -> str:
    """Return the name of the array that is meant."""
    for name in stored if len(stored) == 1 else names:
        if name in stored:
            return name
    raise UserError(f"{path.name} has arrays {', '.join(stored) or 'none'}", f"call the images {' or '.join(names)}")


def _labels(stored: list[str], read: Callable[[str], NDArray[Any]]) -> NDArray[np.int64] | None:
    """Return the class numbers beside the images, if there are any that can be read."""
    for name in LABELS:
        if name in stored:
            with contextlib.suppress(ValueError):  # Python objects
                values = read(name)
                if values.ndim == 1 and values.dtype.kind in "iu":
                    return values.astype(np.int64)
    return None
