from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from pyarrow import parquet
from sets import Images, OneLine

from ue_bench.api import EnvironmentProblem, ValidationError
from ue_bench.contract.context import Context
from ue_bench_datasets.cifar import Cifar10, Cifar100

NAMES = [f"thing {i}" for i in range(10)]
FINE = [f"fine {i}" for i in range(100)]


def planes(count: int, offset: int = 0) -> Images:
    """Rows as the authors store them: red, green and blue planes; red holds the index, green 100, blue the row."""
    rows = np.zeros((count, 3, 32, 32), dtype=np.uint8)
    rows[:, 0] = (np.arange(count) + offset)[:, None, None]
    rows[:, 1] = 100
    rows[:, 2] = np.arange(32)[:, None]
    return rows.reshape(count, -1)


def dump(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.fixture
def pickles(tmp_path: Path) -> Path:
    folder = tmp_path / "cifar-10-batches-py"
    for i in range(5):
        dump(folder / f"data_batch_{i + 1}", {"data": planes(20, 20 * i), "labels": [j % 10 for j in range(20)]})
    dump(folder / "test_batch", {"data": planes(10), "labels": list(range(10))})
    dump(folder / "batches.meta", {"label_names": NAMES})
    return folder


@pytest.fixture
def hub(tmp_path: Path, write_parquet: Callable[..., Path], encode: Callable[..., bytes]) -> Callable[..., None]:
    def write(
        folder: Path = tmp_path / "cifar10",
        names: list[str] = NAMES,
        shape: tuple[int, int, int] = (32, 32, 3),
        **options: Any,
    ) -> None:
        for split, count in (("train", 20), ("test", 10)):
            images = [encode(10 * i, shape, **options) for i in range(count)]
            labels = [i % 10 for i in range(count)]
            write_parquet(folder / f"{split}-00000-of-00001.parquet", images, labels, names, image="img")

    return write


def test_reads_the_pickles_of_the_authors(pickles: Path, ctx: Context) -> None:
    train, test = Cifar10().load("train", ctx), Cifar10().load("test", ctx)
    assert train.images.shape == (100, 32, 32, 3)
    assert train.images[:, 0, 0, 0].tolist() == list(range(100))
    assert train.images[3, :, 0].tolist() == [[3, 100, row] for row in range(32)]
    assert train.class_names == tuple(NAMES)
    assert train.source == "CIFAR-10"
    assert test.labels.tolist() == list(range(10))


def test_limits_and_size_work_on_pickles(pickles: Path, ctx: Context) -> None:
    data = Cifar10(limit_per_class=3, size=16).load("train", ctx)
    assert data.images.shape == (30, 16, 16, 3)
    assert data.images[:, 8, 8, 0].tolist() == list(range(30))


def test_reads_the_fine_labels_of_cifar100(tmp_path: Path, ctx: Context) -> None:
    content = {"data": planes(100), "fine_labels": list(range(99, -1, -1)), "coarse_labels": [0] * 100}
    for name in ("train", "test"):
        dump(tmp_path / "cifar-100-python" / name, content)
    dump(tmp_path / "cifar-100-python" / "meta", {"fine_label_names": FINE, "coarse_label_names": ["x"]})
    data = Cifar100().load("train", ctx)
    assert data.labels[0] == 99
    assert data.class_names == tuple(FINE)
    assert data.source == "CIFAR-100"


def test_reads_the_fine_labels_of_a_cifar100_parquet_copy(
    tmp_path: Path, write_parquet: Callable[..., Path], encode: Callable[..., bytes], ctx: Context
) -> None:
    for split in ("train", "test"):
        path = tmp_path / "cifar100" / f"{split}-00000-of-00001.parquet"
        images, labels = [encode(i, (32, 32, 3)) for i in range(100)], list(range(100))
        write_parquet(path, images, labels, FINE, "img", "fine_label", {"coarse_label": [0] * 100})
    assert Cifar100().load("test", ctx).labels.tolist() == list(range(100))


@pytest.mark.parametrize("place", ["cifar10", "cifar10/plain_text", "."])
def test_reads_parquet_copies(hub: Callable[..., None], ctx: Context, tmp_path: Path, place: str) -> None:
    hub(tmp_path / place)
    data = Cifar10().load("train", ctx)
    assert data.images[:, 0, 0, 0].tolist() == [10 * i for i in range(20)]
    assert data.class_names == tuple(NAMES)


def test_pickles_win_over_parquet(pickles: Path, hub: Callable[..., None], ctx: Context) -> None:
    hub()
    assert len(Cifar10().load("train", ctx)) == 100


@pytest.mark.parametrize(
    ("options", "source"),
    [({}, "CIFAR-10"), ({"format": "JPEG", "quality": 75}, "CIFAR-10 (JPEG-75 copy)")],
)
def test_source_tells_a_lossy_copy(
    hub: Callable[..., None], ctx: Context, options: dict[str, Any], source: str
) -> None:
    hub(**options)
    assert Cifar10().load("test", ctx).source == source


def test_files_follow_what_is_there(tmp_path: Path, hub: Callable[..., None], pickles: Path) -> None:
    assert {p.parent.name for p in Cifar10().files(tmp_path)} == {"cifar-10-batches-py"}
    assert all(p.is_file() for p in Cifar10().files(tmp_path))
    (pickles / "batches.meta").unlink()
    assert Cifar10().files(tmp_path) == []
    hub()
    assert [p.parent.name for p in Cifar10().files(tmp_path)] == ["cifar10", "cifar10"]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(root: str, download: bool) -> None:
        raise URLError("no route to host")

    datasets = types.SimpleNamespace(CIFAR10=refuse, CIFAR100=refuse)
    monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace(datasets=datasets))


def test_no_network_is_one_line(no_network: None, ctx: Context, one_line: OneLine) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        Cifar10().load("train", ctx)
    message = one_line(caught)
    assert "no route to host" in message
    assert "--data-dir" in message


def test_an_archive_that_is_not_whole_is_named(
    no_network: None, ctx: Context, tmp_path: Path, one_line: OneLine
) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"half of it")
    with pytest.raises(ValidationError) as caught:
        Cifar10().load("train", ctx)
    message = one_line(caught)
    assert "cifar-10-python.tar.gz is damaged or not whole" in message
    assert "no route to host" in message


def test_a_broken_torchvision_is_one_line(monkeypatch: pytest.MonkeyPatch, ctx: Context, one_line: OneLine) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)  # importing it now fails
    with pytest.raises(EnvironmentProblem) as caught:
        Cifar100().load("train", ctx)
    assert "CIFAR-100" in one_line(caught)


def test_another_dataset_in_the_data_folder_is_not_taken(
    no_network: None, hub: Callable[..., None], tmp_path: Path, ctx: Context
) -> None:
    hub(tmp_path, names=[*NAMES, "eleventh"])
    with pytest.raises(EnvironmentProblem):
        Cifar10().load("train", ctx)


def test_a_download_is_read(
    monkeypatch: pytest.MonkeyPatch, pickles: Path, tmp_path: Path, ctx: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    aside = pickles.rename(tmp_path / "aside")

    def fetch(root: str, download: bool) -> None:
        print("Downloading")
        aside.rename(Path(root) / "cifar-10-batches-py")

    datasets = types.SimpleNamespace(CIFAR10=fetch)
    monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace(datasets=datasets))
    assert len(Cifar10().load("test", ctx)) == 10
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("keep", [0, 50, 3000])
def test_a_damaged_pickle_is_named(pickles: Path, ctx: Context, one_line: OneLine, keep: int) -> None:
    bad = pickles / "data_batch_2"
    bad.write_bytes(bad.read_bytes()[:keep])
    with pytest.raises(ValidationError) as caught:
        Cifar10().load("train", ctx)
    assert "data_batch_2" in one_line(caught)


class Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("harmed"),)


def test_a_pickle_cannot_run_code(
    pickles: Path, ctx: Context, one_line: OneLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dump(pickles / "data_batch_1", {"data": Harmful(), "labels": []})
    with pytest.raises(ValidationError) as caught:
        Cifar10().load("train", ctx)
    assert "does not belong" in one_line(caught)
    assert not (tmp_path / "harmed").exists()


def test_images_of_another_size_are_refused(hub: Callable[..., None], ctx: Context, one_line: OneLine) -> None:
    hub(shape=(28, 28, 3))
    with pytest.raises(ValidationError) as caught:
        Cifar10().load("train", ctx)
    assert "not 32x32" in one_line(caught)


def test_another_number_of_classes_is_refused(hub: Callable[..., None], ctx: Context, one_line: OneLine) -> None:
    hub(names=[*NAMES, "eleventh"])
    with pytest.raises(ValidationError) as caught:
        Cifar10().load("train", ctx)
    assert "11 classes" in one_line(caught)


def test_the_jpeg_copy_of_cifar10(real_data: Path, ctx: Context) -> None:
    """This copy has an order of its own, which must come through."""
    stored = parquet.read_table(real_data / "cifar10" / "test-00000-of-00001.parquet").column("label").to_numpy()
    data = Cifar10().load("test", replace(ctx, data_dir=real_data))
    assert data.source == "CIFAR-10 (JPEG-75 copy)"
    assert data.images.shape == (10000, 32, 32, 3)
    np.testing.assert_array_equal(data.labels, stored)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        (["data_batch_3"], "lacks data_batch_3"),
        (["data_batch_4", "data_batch_5", "test_batch"], "lacks data_batch_4, data_batch_5, test_batch"),
        (["batches.meta"], "lacks batches.meta"),
        (["data_batch_1"], "lacks data_batch_1"),
    ],
)
def test_a_copy_unpacked_half_is_named_and_not_downloaded(
    no_network: None, pickles: Path, ctx: Context, one_line: OneLine, gone: list[str], message: str
) -> None:
    for name in gone:
        (pickles / name).unlink()
    for split in ("train", "test"):
        with pytest.raises(ValidationError) as caught:
            Cifar10().load(split, ctx)
        assert f"cifar-10-batches-py {message}" in one_line(caught)
        assert "cifar-10-python.tar.gz" in caught.value.hint


def test_a_batch_that_is_a_link_to_nothing_is_named(pickles: Path, ctx: Context, one_line: OneLine) -> None:
    (pickles / "data_batch_2").unlink()
    (pickles / "data_batch_2").symlink_to("gone")
    with pytest.raises(ValidationError) as caught:
        Cifar10().load("train", ctx)
    assert "data_batch_2 is a link to nothing" in one_line(caught)


def test_a_batch_with_fewer_images_than_labels_is_named(pickles: Path, ctx: Context, one_line: OneLine) -> None:
    dump(pickles / "data_batch_2", {"data": planes(19, 20), "labels": [j % 10 for j in range(20)]})
    with pytest.raises(ValidationError) as caught:
        Cifar10().load("train", ctx)
    assert "data_batch_2 has 19 images for 20 labels" in one_line(caught)


def test_a_truncated_archive_is_named(no_network: None, tmp_path: Path, ctx: Context, one_line: OneLine) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"\x1f\x8b\x08 and no more")
    with pytest.raises(ValidationError) as caught:
        Cifar10().load("train", ctx)
    assert "cifar-10-python.tar.gz is damaged or not whole" in one_line(caught)


def test_a_parquet_copy_without_its_test_images_is_named(
    no_network: None, hub: Callable[..., None], ctx: Context, tmp_path: Path, one_line: OneLine
) -> None:
    hub()
    (tmp_path / "cifar10" / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(ValidationError) as caught:
        Cifar10().load("train", ctx)
    assert "cifar10 lacks test-*.parquet" in one_line(caught)


def test_a_parquet_copy_without_one_of_its_files_is_named(
    hub: Callable[..., None], ctx: Context, tmp_path: Path, one_line: OneLine
) -> None:
    hub()
    (tmp_path / "cifar10" / "train-00000-of-00001.parquet").rename(
        tmp_path / "cifar10" / "train-00000-of-00002.parquet"
    )
    for split in ("train", "test"):
        with pytest.raises(ValidationError) as caught:
            Cifar10().load(split, ctx)
        assert "cifar10 lacks train-00001-of-00002.parquet" in one_line(caught)
