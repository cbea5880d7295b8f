from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from toys import random_set

from ue_bench.contract.context import Context, publish
from ue_bench.contract.imageset import CHUNK_BYTES, ImageSet, release
from ue_bench.errors import ValidationError


def context(folder: Path, seed: int = 0) -> Context:
    return Context("cpu", seed, folder, folder, folder)


@pytest.mark.parametrize(
    ("images", "labels", "names", "reason"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), [0, 0], ("a",), "must be uint8"),
        (np.zeros((2, 3, 4, 4), np.uint8), [0, 0], ("a",), "N x H x W x 3"),
        (np.zeros((4, 4, 3), np.uint8), [0, 0], ("a",), "N x H x W x 3"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0], ("a",), "2 images with"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, 1], ("a",), "labels run from 0 to 1, but there are 1 classes"),
        (np.zeros((2, 4, 4, 3), np.uint8), [-1, 0], ("a",), "labels run from -1 to 0"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    images: NDArray[np.uint8], labels: list[int], names: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        ImageSet(images, np.array(labels), names)


def test_a_set_cannot_be_written_to_but_the_callers_arrays_can() -> None:
    images, labels = np.zeros((1, 4, 4, 3), np.uint8), np.zeros(1, np.int64)
    data = ImageSet(images, labels, ("a",))
    with pytest.raises(ValueError, match="read-only"):
        data.images[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        data.labels[0] = 1
    images[0], labels[0] = 0, 0


def test_the_fingerprint_sees_everything_but_the_source() -> None:
    data = random_set()
    other = np.array(data.images)
    other[0, 0, 0, 0] ^= 1
    sets = [
        data,
        data.with_images(other),
        ImageSet(data.images, 1 - data.labels, data.class_names),
        ImageSet(data.images, data.labels, ("a", "z")),
        ImageSet(data.images.reshape(10, 4, 16, 3), data.labels, data.class_names),
    ]
    assert len({s.fingerprint for s in sets}) == len(sets)
    assert ImageSet(data.images, data.labels, data.class_names, "elsewhere").fingerprint == data.fingerprint


def test_the_fingerprint_is_stable() -> None:
    """A golden value: it is part of the key of every stored result."""
    data = ImageSet(np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3), np.array([0]), ("a",))
    assert data.fingerprint == "fac313b596caffe13453661d937c38c2"


def test_chunks_cover_the_set_once() -> None:
    data = random_set(10)
    assert [(p.start, p.stop) for p in data.chunks(at_most=4)] == [(0, 4), (4, 8), (8, 10)]
    assert [(p.start, p.stop) for p in data.chunks()] == [(0, 10)]
    huge = np.broadcast_to(np.zeros((1, 1024, 1024, 3), np.uint8), (40, 1024, 1024, 3))
    bounded = ImageSet(huge, np.zeros(40, dtype=np.int64), ("a",))
    assert max(p.stop - p.start for p in bounded.chunks()) * 3 * 2**20 <= CHUNK_BYTES


def test_other_pixels_must_have_the_same_shape() -> None:
    with pytest.raises(ValidationError, match="expected images of shape"):
        random_set(10).with_images(random_set(9).images)


def test_releasing_pages_keeps_what_was_written_to_a_private_copy(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 64, 64, 3), np.uint8))
    private = np.load(tmp_path / "x.npy", mmap_mode="c")
    private[:] = 7
    release(private)
    assert (private == 7).all()
    release(np.load(tmp_path / "x.npy", mmap_mode="r")[:, ::2])
    release(np.zeros(3, np.uint8))


def test_stored_images_come_back_memory_mapped(tmp_path: Path) -> None:
    data = random_set(10)
    stored = context(tmp_path).store_images(data.images.shape, (data.images[p] for p in data.chunks(at_most=3)))
    assert isinstance(stored, np.memmap)
    assert np.array_equal(stored, data.images)


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        ([np.zeros((1, 4, 4, 3), np.uint8)], "expected 2 images, got 1"),
        ([np.zeros((3, 4, 4, 3), np.uint8)], "expected 2 images, got 3"),
        ([np.zeros((2, 4, 5, 3), np.uint8)], "expected uint8 images of shape"),
        ([np.zeros((2, 4, 4, 3), np.float32)], "expected uint8 images of shape"),
    ],
)
def test_chunks_that_do_not_add_up_are_refused(tmp_path: Path, chunks: list[NDArray[np.uint8]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        context(tmp_path).store_images((2, 4, 4, 3), chunks)


def test_map_images_works_in_batches_and_reports(tmp_path: Path) -> None:
    data, seen, reports = random_set(10), [], []
    ctx = Context("cpu", 0, tmp_path, tmp_path, tmp_path, lambda *r: reports.append(r))

    def change(images: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
        seen.append((where.start, where.stop))
        return images + np.uint8(1)

    changed = ctx.map_images(data, change, "brighten", batch=4)
    assert np.array_equal(changed.images, data.images + 1)
    assert seen == [(0, 4), (4, 8), (8, 10)]
    assert reports == [(0, 3, "brighten"), (1, 3, "brighten"), (2, 3, "brighten"), (3, 3, "brighten")]


def test_generators_belong_to_the_seed_and_the_axes(tmp_path: Path) -> None:
    def draws(seed: int, *axes: object) -> tuple[float, float]:
        import torch

        ctx = context(tmp_path, seed)
        return ctx.rng(*axes).random(), torch.rand(1, generator=ctx.generator(*axes)).item()

    assert draws(0, "a") == draws(0, "a")
    assert len({draws(0, "a"), draws(0, "b"), draws(1, "a"), draws(0)}) == 4


def test_a_plugins_artifact_is_made_once(tmp_path: Path) -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "bank").write_text("x", encoding="utf-8")

    ctx = context(tmp_path)
    first = ctx.cached({"bank": 1}, make)
    assert ctx.cached({"bank": 1}, make) == first != ctx.cached({"bank": 2}, make)
    assert len(made) == 2
    assert (first / "bank").read_text(encoding="utf-8") == "x"


def test_two_who_want_the_same_artifact_make_it_once(tmp_path: Path) -> None:
    """Workers that need one surrogate: the second waits, says so, and takes what the first has made."""
    made, said, begun, go = [], [], threading.Event(), threading.Event()

    def make(folder: Path) -> None:
        made.append(folder)
        begun.set()
        assert go.wait(10)

    first = threading.Thread(target=lambda: context(tmp_path).cached("surrogate", make))
    first.start()
    assert begun.wait(10)

    def report(done: float, total: float, text: str) -> None:
        said.append(text)
        go.set()

    found = replace(context(tmp_path), report=report).cached("surrogate", make)
    first.join()
    assert found.is_dir()
    assert len(made) == 1
    assert said == ["wait for another worker"]
    context(tmp_path).cached("another", lambda folder: None)  # the lock was given back, and is one artifact's own


def test_checkpoints_outlive_the_process_that_wrote_them(tmp_path: Path) -> None:
    folder = context(tmp_path).checkpoint_dir(["train", 1])
    (folder / "state").write_text("1", encoding="utf-8")
    assert (context(tmp_path, seed=9).checkpoint_dir(["train", 1]) / "state").exists()


def test_publishing_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("x", encoding="utf-8")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        publish(tmp_path / "kind" / "key", fail)
    assert list((tmp_path / "kind").iterdir()) == []


def test_the_first_of_two_publishers_wins(tmp_path: Path) -> None:
    target = tmp_path / "kind" / "key"

    def quick(folder: Path) -> None:
        (folder / "x").write_text("quick", encoding="utf-8")

    def slow(folder: Path) -> None:
        (folder / "x").write_text("slow", encoding="utf-8")
        publish(target, quick)

    publish(target, slow)
    assert (target / "x").read_text(encoding="utf-8") == "quick"
    assert [p.name for p in target.parent.iterdir()] == ["key"]


def test_a_context_without_datasets_says_so(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no access to datasets"):
        context(tmp_path).dataset("cifar10")


def test_progress_needs_a_total_for_bare_iterators(tmp_path: Path) -> None:
    def bare() -> Iterator[int]:
        yield from range(3)

    assert list(context(tmp_path).progress(bare(), "x", total=3)) == [0, 1, 2]
