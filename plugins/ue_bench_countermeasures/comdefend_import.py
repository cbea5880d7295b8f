"""The networks that ComDefend's authors released, read without running anything that is in their files."""

from __future__ import annotations

import io
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ue_bench.api import UserError, first_line
from ue_bench_datasets.pickled import unpickled

from .comdefend_network import CODE, DOWN, UP, ComDefendNetwork

Arrays = list[NDArray[np.float32]]
MEMBER = "w.npy"
LARGEST = 64 * 2**20  # bytes of an unpacked member; the released ones have three million
HINT = "give enc20_0.0001.npy and dec20_0.0001.npy of the authors' repository"
# Digits at the start of the SHA-256 of the authors' files.
RELEASED = {"compressor": "14ad4726c517982d", "reconstructor": "d2df77581e5913c1"}


def read_arrays(path: Path) -> Arrays:
    """Return the arrays in a released file: a zip archive whose member ``w`` is a pickled array of 18 arrays.

    Raises UserError when it is not one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if names != [MEMBER]:
                raise ValueError(f"it holds {', '.join(names[:3]) or 'nothing'}, not {MEMBER}")
            if archive.getinfo(MEMBER).file_size > LARGEST:
                raise ValueError("it unpacks to more than networks need")
            content = io.BytesIO(archive.read(MEMBER))
        version = np.lib.format.read_magic(content)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = read_header[version](content)
        if dtype != np.dtype(object):
            raise ValueError(f"its array is of {dtype}, not of arrays")
        arrays = unpickled(content.read())
        if not isinstance(arrays, np.ndarray) or arrays.shape != shape or arrays.dtype != object:
            raise ValueError("its content is not what it says")
        found = [*arrays.ravel()]
        if not all(isinstance(array, np.ndarray) and array.dtype == np.float32 for array in found):
            raise ValueError("its arrays are not of float32")
    except Exception as error:  # whatever the bytes of the file make of zip, header and unpickler
        reason = first_line(error)
        raise UserError(f"{path.name} holds no released network: {reason}", HINT) from error
    return found


def half(arrays: Arrays, channels: list[int], name: str, what: str) -> dict[str, Tensor]:
    """Return weights of ``what``, a part of the network, by their names here.

    ``arrays`` are a kernel and a bias for each convolution, kernels in TensorFlow's order: height, width, inputs,
    outputs. Raises UserError when their number or a shape is another.
    """
    if len(arrays) != 2 * (len(channels) - 1):
        raise UserError(f"{name} has {len(arrays)} arrays, a {what} {2 * (len(channels) - 1)}", HINT)
    weights = {}
    for layer, (inputs, outputs) in enumerate(pairwise(channels)):
        kernel, bias = arrays[2 * layer : 2 * layer + 2]
        if kernel.shape != (3, 3, inputs, outputs) or bias.shape != (outputs,):
            raise UserError(
                f"{name}: layer {layer} has a kernel of {kernel.shape} and a bias of {bias.shape}, "
                f"a {what} {(3, 3, inputs, outputs)} and {(outputs,)}",
                "give the compressing network first",
            )
        weights[f"{what}.{2 * layer}.weight"] = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
        weights[f"{what}.{2 * layer}.bias"] = torch.from_numpy(bias.copy())
    return weights


def convert(compressor: Path, reconstructor: Path) -> ComDefendNetwork:
    """Return the networks in two released files, in eval mode; numbers of channels may be a fraction of the paper's.

    Raises UserError when the files are not what they should be.
    """
    first, second = read_arrays(compressor), read_arrays(reconstructor)
    outputs = first[0].shape[-1] if first and first[0].ndim == 4 else DOWN[0]
    divisor = max(1, DOWN[0] // max(1, outputs))
    down, up = ([max(1, c // divisor) for c in channels] for channels in (DOWN, UP))
    network = ComDefendNetwork(divisor)
    network.load_state_dict(
        half(first, [3, *down, CODE], compressor.name, "compressor")
        | half(second, [CODE, *up, 3], reconstructor.name, "reconstructor"),
        strict=True,
    )
    return network.eval().requires_grad_(False)
