from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ue_bench import temporaries
from ue_bench.contract.imageset import ImageSet
from ue_bench.errors import Deferred, EnvironmentProblem
from ue_bench.store.artifacts import ArtifactStore, load_images, save_images
from ue_bench.temporaries import OLD


def data(count: int = 6) -> ImageSet:
    images = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return ImageSet(images, np.arange(count) % 2, ("Käse", "b c"), "made up")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "a folder with späces")


def test_an_image_set_survives_storing(store: ArtifactStore) -> None:
    folder = store.make("protected", "k", lambda f: save_images(f, data()))
    found = load_images(folder)
    assert isinstance(found.images, np.memmap)
    assert np.array_equal(found.images, data().images)
    assert np.array_equal(found.labels, data().labels)
    assert (found.class_names, found.source) == (("Käse", "b c"), "made up")
    assert "fingerprint" in found.__dict__
    assert found.fingerprint == data().fingerprint


@pytest.mark.parametrize(
    "view",
    [np.s_[:, :, ::-1], np.s_[::-1], np.s_[..., ::-1], np.s_[2:], np.s_[:, ::2]],
    ids=["mirrored", "reversed", "channels", "some", "smaller"],
)
def test_a_view_of_a_stored_set_is_written_out(store: ArtifactStore, view: tuple[slice, ...]) -> None:
    save_images(store.root / "a", data())
    images = load_images(store.root / "a").images[view]
    save_images(store.root / "b", ImageSet(images, np.zeros(len(images), dtype=np.int64), ("a",)))
    assert np.array_equal(load_images(store.root / "b").images, data().images[view])
    assert np.array_equal(load_images(store.root / "a").images, data().images)


def test_a_private_copy_of_a_map_is_written_out(store: ArtifactStore) -> None:
    save_images(store.root / "a", data())
    private = np.load(store.root / "a" / "images.npy", mmap_mode="c")
    private[:] = 7
    save_images(store.root / "b", data().with_images(private))
    assert (load_images(store.root / "b").images == 7).all()


def test_an_artifact_is_made_once(store: ArtifactStore) -> None:
    made: list[Path] = []

    def fill(folder: Path) -> None:
        made.append(folder)
        (folder / "x").write_text("1", encoding="utf-8")

    assert not store.has("kind", "k")
    assert store.make("kind", "k", fill) == store.make("kind", "k", fill) == store.path("kind", "k")
    assert store.has("kind", "k")
    assert len(made) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_artifact_whose_making_fails_does_not_exist(store: ArtifactStore, error: type[BaseException]) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("1", encoding="utf-8")
        raise error

    with pytest.raises(error):
        store.make("kind", "k", fail)
    assert not store.has("kind", "k")
    assert list((store.root / "kind").iterdir()) == []


def test_scratch_is_gone_afterwards(store: ArtifactStore) -> None:
    def fail() -> None:
        with store.scratch() as folder:
            (folder / "x").write_text("1", encoding="utf-8")
            raise ValueError("no luck")

    with pytest.raises(ValueError, match="no luck"):
        fail()
    assert list((store.root / "scratch").iterdir()) == []


def test_sweep_takes_only_what_nobody_touched_for_a_day(store: ArtifactStore) -> None:
    left = [store.root / kind / ".making-elsewhere-x" for kind in ("protected", "scratch")]
    kept = [store.root / "protected" / ".making-elsewhere-y", store.root / "protected" / "key"]
    for folder in left + kept:
        folder.mkdir(parents=True)
        (folder / "half").write_text("1", encoding="utf-8")
    a_day_ago = time.time() - OLD - 60
    for folder in [*left, store.root / "protected" / "key"]:
        os.utime(folder / "half", (a_day_ago, a_day_ago))
        os.utime(folder, (a_day_ago, a_day_ago))
    store.sweep()
    assert [f.exists() for f in left + kept] == [False, False, True, True]


def test_what_is_being_made_for_days_is_not_swept(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by a driver that cannot see the maker's process."""
    monkeypatch.setattr(temporaries, "REFRESH", 0.01)
    monkeypatch.setattr(temporaries, "_keeper", [])

    def fill(folder: Path) -> None:
        os.utime(folder, (1, 1))
        deadline = time.monotonic() + 20
        while folder.stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        store.sweep()
        (folder / "x").write_text("1", encoding="utf-8")

    assert (store.make("kind", "key", fill) / "x").exists()


def writing(text: str) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        (folder / "x").write_text(text, encoding="utf-8")

    return fill


def test_a_name_that_is_taken_by_another_process_meanwhile_keeps_what_that_one_wrote(store: ArtifactStore) -> None:
    def late() -> None:
        store.make("kind", "key", writing("first"))

    made = store.make("kind", "key", writing("second"), late)
    assert (made / "x").read_text(encoding="utf-8") == "first"


def test_what_may_not_be_published_is_not(store: ArtifactStore) -> None:
    def refuse() -> None:
        raise Deferred("key")

    with pytest.raises(Deferred):
        store.make("kind", "key", writing("1"), refuse)
    assert not list((store.root / "kind").iterdir())


def test_sizes_by_kind(store: ArtifactStore) -> None:
    def make(folder: Path) -> None:
        (folder / "x").write_bytes(b"12345")

    for key in ("k", "l"):
        store.make("kind", key, make)
    [(count, size)] = store.sizes().values()
    files = [f for f in (store.root / "kind").rglob("*") if f.is_file()]
    assert (count, size) == (2, sum(f.stat().st_size for f in files))
    assert {f.name for f in files} == {"x", "checksums.json"}


def test_a_cache_folder_that_cannot_be_written_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(EnvironmentProblem, match=r"cannot be written: Not a directory.*--cache-dir"):
        ArtifactStore(tmp_path / "file" / "cache")
