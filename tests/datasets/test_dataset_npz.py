from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sets import Images, OneLine

from ue_bench.api import UserError, ValidationError
from ue_bench.contract.context import Context
from ue_bench_datasets import npz as module
from ue_bench_datasets.npz import Npz

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)
Y = np.array([0, 1, 2, 0, 1, 2])


def arrays(**changes: object) -> dict[str, object]:
    found = {"x_train": X, "y_train": Y, "x_test": X[:3], "y_test": Y[:3], **changes}
    return {name: value for name, value in found.items() if value is not None}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Npz]:
    def write(save: Callable[..., None] = np.savez, **changes: object) -> Npz:
        save(tmp_path / "my set.npz", **arrays(**changes))
        return Npz(path=tmp_path / "my set.npz")

    return write


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_both_splits(write: Callable[..., Npz], ctx: Context, save: Callable[..., None]) -> None:
    data = write(save)
    np.testing.assert_array_equal(data.load("train", ctx).images, X)
    np.testing.assert_array_equal(data.load("test", ctx).labels, Y[:3])
    assert data.load("train", ctx).class_names == ("class_0", "class_1", "class_2")


@pytest.mark.parametrize(
    "stored",
    [X.transpose(0, 3, 1, 2), np.asfortranarray(X)],
    ids=["channels first", "fortran order"],
)
def test_other_layouts_give_the_same_images(write: Callable[..., Npz], ctx: Context, stored: Images) -> None:
    np.testing.assert_array_equal(write(x_train=stored).load("train", ctx).images, X)


@pytest.mark.parametrize("stored", [X[..., 0], X[..., :1], X[..., :1].transpose(0, 3, 1, 2)])
def test_gray_images_become_rgb(write: Callable[..., Npz], ctx: Context, stored: Images) -> None:
    images = write(x_train=stored).load("train", ctx).images
    np.testing.assert_array_equal(images, np.repeat(X[..., :1], 3, axis=3))


def test_other_names_and_column_labels_are_understood(tmp_path: Path, ctx: Context) -> None:
    path = tmp_path / "med.npz"
    np.savez(
        path, train_images=X, train_labels=Y[:, None], test_images=X, test_labels=Y[:, None], class_names=list("abc")
    )
    data = Npz(path=path).load("train", ctx)
    assert data.labels.tolist() == Y.tolist()
    assert data.class_names == ("a", "b", "c")


def test_pieces_and_limits_keep_the_order(
    write: Callable[..., Npz], ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 2 * X[0].nbytes)
    data = write().model_copy(update={"limit_per_class": 1})
    np.testing.assert_array_equal(data.load("train", ctx).images, X[:3])
    np.testing.assert_array_equal(write().load("train", ctx).images, X)


def test_size_resizes(write: Callable[..., Npz], ctx: Context) -> None:
    assert write().model_copy(update={"size": 4}).load("train", ctx).size == (4, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": X / 255}, "x_train is float64, not uint8"),
        ({"x_train": X[..., :2]}, "x_train has shape"),
        ({"x_train": X[:4]}, "4 images for 6 labels"),
        ({"y_train": Y.astype(float)}, "y_train is float64"),
        ({"y_train": Y - 1}, "label -1"),
        ({"y_test": np.array([0, 1, 1])}, "class 'class_2' has no image in my set.npz test"),
        ({"y_train": np.array([0, 0, 0, 0, 1, 1])}, "class 'class_2' has no image in my set.npz train"),
        ({"class_names": ["a", "b"]}, "label 2"),
        ({"x_test": None}, "no array x_test"),
        ({"y_train": np.array([None] * 6)}, "Python objects"),
    ],
)
def test_what_does_not_fit_is_one_line(
    write: Callable[..., Npz], ctx: Context, one_line: OneLine, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        write(**changes).load("test" if "x_test" in changes else "train", ctx)
    assert message in one_line(caught)


def test_a_damaged_archive_is_one_line(write: Callable[..., Npz], ctx: Context, one_line: OneLine) -> None:
    data = write(np.savez_compressed)
    content = bytearray(data.path.read_bytes())
    content[100:400] = bytes(300)
    data.path.write_bytes(content)
    with pytest.raises(ValidationError) as caught:
        data.load("train", ctx)
    assert "my set.npz" in one_line(caught)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 but no more"])
def test_a_file_that_is_no_archive_is_one_line(tmp_path: Path, ctx: Context, one_line: OneLine, content: bytes) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(ValidationError) as caught:
        Npz(path=path).load("train", ctx)
    assert "x.npz" in one_line(caught)


def test_a_missing_file_is_one_line(tmp_path: Path, ctx: Context, one_line: OneLine) -> None:
    with pytest.raises(UserError) as caught:
        Npz(path=tmp_path / "x.npz").load("train", ctx)
    assert "no file at" in one_line(caught)
