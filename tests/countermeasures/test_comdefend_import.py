"""ComDefend's networks from files as their authors wrote them: the same numbers, and nothing run."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from safetensors import safe_open

from ue_bench.api import UserError
from ue_bench_countermeasures.comdefend_import import convert, read_arrays
from ue_bench_countermeasures.comdefend_training import RECORD, load
from ue_bench_countermeasures.import_commands import import_weights

DIVISOR = 8
DOWN = [3, 2, 4, 8, 16, 32, 16, 8, 4, 12]
UP = [12, 4, 8, 16, 32, 16, 8, 4, 2, 3]
Arrays = list[NDArray[Any]]


def arrays(channels: list[int], seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    found: Arrays = []
    for inputs, outputs in pairwise(channels):
        found += [rng.normal(0, (9 * inputs) ** -0.5, (3, 3, inputs, outputs)).astype(np.float32)]
        found += [rng.normal(0, 0.1, outputs).astype(np.float32)]
    return found


def released(path: Path, content: Arrays, member: str = "w", protocol: int | None = None) -> Path:
    """A file as the release has it: an npz archive, under the name of an npy, of one array of arrays."""
    whole = np.empty(len(content), dtype=object)
    whole[:] = content
    if protocol is None:
        with path.open("wb") as file:
            np.savez(file, **{member: whole})  # type: ignore[arg-type]  # its stub takes every keyword for the last
        return path
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|O", "fortran_order": False, "shape": whole.shape})
    pickle.dump(whole, buffer, protocol=protocol)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{member}.npy", buffer.getvalue())
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return released(tmp_path / "enc.npy", arrays(DOWN, 0)), released(tmp_path / "dec.npy", arrays(UP, 1))


def convolved(x: NDArray[Any], kernel: NDArray[Any], bias: NDArray[Any]) -> NDArray[Any]:
    """One convolution as TensorFlow does it, on H x W x C, with zeros around."""
    height, width, _ = x.shape
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    out: NDArray[Any] = np.zeros((height, width, kernel.shape[3])) + bias
    for row in range(3):
        for column in range(3):
            out += padded[row : row + height, column : column + width] @ kernel[row, column]
    return out


def chained(x: NDArray[Any], content: Arrays) -> NDArray[Any]:
    for layer in range(0, len(content), 2):
        x = convolved(x, content[layer], content[layer + 1])
        if layer < len(content) - 2:
            x = np.asarray(np.where(x > 0, x, np.expm1(x)))
    return x


def test_the_networks_compute_what_the_files_say(files: tuple[Path, Path]) -> None:
    """Computed from the arrays by definition; kernels turned the other way have the same shape at some layers."""
    network = convert(*files)
    x = np.random.default_rng(2).random((8, 6, 3))
    code = chained(x - 0.5, arrays(DOWN, 0))
    image = 1 / (1 + np.exp(-chained((code > 0).astype(float), arrays(UP, 1))))
    tensor = torch.tensor(x).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        np.testing.assert_allclose(network.compress(tensor)[0].permute(1, 2, 0), code, atol=2e-4)
        np.testing.assert_allclose(network.purify(tensor)[0].permute(1, 2, 0), image, atol=2e-4)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pickles_of_any_age_are_read(protocol: int, tmp_path: Path) -> None:
    path = released(tmp_path / "enc.npy", arrays(DOWN, 0), protocol=protocol)
    for found, expected in zip(read_arrays(path), arrays(DOWN, 0), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_names_of_python_2_are_read(tmp_path: Path) -> None:
    """The release is of NumPy before version 2, which has another name for what makes an array."""
    path = released(tmp_path / "enc.npy", arrays(DOWN, 0), protocol=2)
    with zipfile.ZipFile(path) as archive:
        content = archive.read("w.npy")
    old = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != content
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", old)
    np.testing.assert_array_equal(read_arrays(path)[0], arrays(DOWN, 0)[0])


def run(*given: Any) -> Any:
    return CliRunner().invoke(import_weights, ["comdefend", *map(str, given)])


def test_command_writes_a_file_for_comdefend(files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "networks.safetensors"
    result = run(*files, "--out", out)
    assert result.exit_code == 0, result.output
    assert "not the authors' files" in result.output
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(load(out, "cpu").compress(x), convert(*files).compress(x), atol=1e-5, rtol=1e-4)
    with safe_open(out, framework="pt") as file:
        record = json.loads(file.metadata()[RECORD])
    assert record["divisor"] == DIVISOR
    assert record["released"] is False
    assert {len(digest) for digest in record["sources"].values()} == {64}
    assert set(record["sources"]) == {"enc.npy", "dec.npy"}


class TestWhatIsRefused:
    def test_code(self, tmp_path: Path) -> None:
        class Evil:
            def __reduce__(self) -> Any:
                return Path.touch, (tmp_path / "run",)

        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(buffer, {"descr": "|O", "fortran_order": False, "shape": (1,)})
        pickle.dump(Evil(), buffer)
        path = tmp_path / "enc.npy"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("w.npy", buffer.getvalue())
        with pytest.raises(UserError, match="it asks for pathlib") as caught:
            read_arrays(path)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        "content", [b"", b"PK\x03\x04half", b"\x93NUMPY\x01\x00"], ids=["empty", "half an archive", "a plain array"]
    )
    def test_other_files(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "enc.npy").write_bytes(content)
        with pytest.raises(UserError, match=r"enc\.npy holds no released network"):
            read_arrays(tmp_path / "enc.npy")

    def test_another_member(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"it holds v\.npy"):
            read_arrays(released(tmp_path / "enc.npy", arrays(DOWN, 0), member="v"))

    def test_arrays_of_numbers(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "enc.npz", w=np.zeros(3))
        with pytest.raises(UserError, match="not of arrays"):
            read_arrays(tmp_path / "enc.npz")

    def test_float64(self, tmp_path: Path) -> None:
        doubles = [array.astype(np.float64) for array in arrays(DOWN, 0)]
        with pytest.raises(UserError, match="not of float32"):
            read_arrays(released(tmp_path / "enc.npy", doubles))

    def test_files_in_the_wrong_order(self, files: tuple[Path, Path]) -> None:
        with pytest.raises(UserError, match=r"dec\.npy: layer 0 has a kernel of"):
            convert(files[1], files[0])

    def test_a_layer_too_few(self, files: tuple[Path, Path], tmp_path: Path) -> None:
        short = released(tmp_path / "short.npy", arrays(DOWN, 0)[:-2])
        with pytest.raises(UserError, match=r"short\.npy has 16 arrays, a compressor 18"):
            convert(short, files[1])

    def test_one_file(self, files: tuple[Path, Path], tmp_path: Path) -> None:
        result = run(files[0], "--out", tmp_path / "x.safetensors")
        assert isinstance(result.exception, UserError)
        assert "comes in 2 files, not 1" in str(result.exception)
