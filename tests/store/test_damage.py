"""What lies in the cache is believed only as long as it is what was written."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from toys import noting

from ue_bench import checksums
from ue_bench.atomic import save_arrays
from ue_bench.checksums import MANIFEST, _known_whole, damage
from ue_bench.contract.context import Context
from ue_bench.contract.imageset import ImageSet
from ue_bench.errors import StorageProblem, ValidationError
from ue_bench.store.artifacts import ArtifactStore, Damage, load_images, read_json, save_images


def data(count: int = 6) -> ImageSet:
    images = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return ImageSet(images, np.arange(count) % 2, ("a", "b"), "made up")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "cache")


def flip(path: Path, at: int = -1) -> None:
    """Change one byte of a read-only file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 255
    path.chmod(0o644)
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size // 2)


def garble(path: Path) -> None:
    path.chmod(0o644)
    path.write_text("[", encoding="utf-8")


DAMAGES: list[tuple[str, Callable[[Path], None]]] = [
    ("images.npy", flip),
    ("images.npy", cut),
    ("images.npy", Path.unlink),
    ("labels.npy", flip),
    ("images.json", flip),
    (MANIFEST, garble),
]


@pytest.mark.parametrize(("name", "harm"), DAMAGES, ids=[f"{n}-{h.__name__}" for n, h in DAMAGES])
def test_a_damaged_set_is_made_again_and_the_user_is_told(
    store: ArtifactStore, name: str, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    folder = store.make("protected", "key", lambda f: save_images(f, data()))
    harm(folder / name)
    assert not store.has("protected", "key")
    again = store.make("protected", "key", lambda f: save_images(f, data()))
    assert np.array_equal(load_images(again).images, data().images)
    [said] = caplog.records
    assert said.levelno == logging.WARNING
    assert "removed protected/key from the cache" in said.message
    assert name in said.message


def test_damage_in_a_part_of_an_artifact_is_seen(store: ArtifactStore) -> None:
    folder = store.make("datasets", "key", lambda f: save_images(f / "train", data()))
    flip(folder / "train" / "images.npy")
    with pytest.raises(ValidationError, match=r"datasets/key was damaged: train/images.npy is damaged"):
        load_images(folder / "train")
    assert not store.has("datasets", "key")


def test_numbers_beside_a_damaged_set_are_not_read(store: ArtifactStore) -> None:
    def make(folder: Path) -> None:
        (folder / "features.json").write_text('{"a": 1}', encoding="utf-8")

    folder = store.make("features", "key", make)
    assert read_json(folder / "features.json") == {"a": 1}
    folder.joinpath("features.json").chmod(0o644)
    (folder / "features.json").write_text('{"a": 2}', encoding="utf-8")
    with pytest.raises(ValidationError, match="features/key was damaged"):
        read_json(folder / "features.json")


def test_an_artifact_of_a_plugin_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ctx = Context("cpu", 0, tmp_path, tmp_path / "cache", tmp_path)
    made: list[int] = []

    def make(folder: Path) -> None:
        made.append(1)
        (folder / "weights").write_bytes(b"abc")

    folder = ctx.cached("key", make)
    flip(folder / "weights")
    assert (ctx.cached("key", make) / "weights").read_bytes() == b"abc"
    assert len(made) == 2
    assert "weights is damaged" in caplog.text


def test_an_artifact_is_read_once_by_a_process(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    folder = store.make("protected", "key", lambda f: save_images(f, data()))
    _known_whole.clear()  # as in another process
    monkeypatch.setattr(checksums, "file_checksum", noting(read, checksums.file_checksum))
    for _ in range(3):
        assert store.has("protected", "key")
        load_images(folder)
    assert sorted(p.name for p in read) == ["images.json", "images.npy", "labels.npy"]


def test_files_are_read_only_and_can_be_removed(store: ArtifactStore) -> None:
    folder = store.make("datasets", "key", lambda f: save_images(f / "train", data()))
    modes = {stat.S_IMODE(p.stat().st_mode) for p in folder.rglob("*") if p.is_file()}
    assert modes == {0o444}
    flip(folder / "train" / "labels.npy")
    assert not store.has("datasets", "key")
    assert not folder.exists()
    assert list((store.root / "datasets").iterdir()) == []


def test_sets_of_equal_content_share_no_file(store: ArtifactStore) -> None:
    first = store.make("datasets", "a", lambda f: save_images(f, data()))
    second = store.make("protected", "b", lambda f: save_images(f, load_images(first)))
    assert not (first / "images.npy").samefile(second / "images.npy")
    flip(first / "images.npy")
    assert store.has("protected", "b")


def test_a_file_that_a_plugin_linked_becomes_its_own(store: ArtifactStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"abc")
    folder = store.make("plugin", "key", lambda f: os.link(source, f / "copy"))
    assert not source.samefile(folder / "copy")
    assert stat.S_IMODE(source.stat().st_mode) != 0o444
    assert (folder / "copy").read_bytes() == b"abc"


class TestWithoutChecksums:
    """Folders that a version before checksums left."""

    def old(self, store: ArtifactStore, kind: str = "protected") -> Path:
        folder = store.path(kind, "key")
        save_images(folder / "train", data())
        return folder

    def test_a_set_with_the_fingerprint_it_claims_is_adopted(self, store: ArtifactStore) -> None:
        folder = self.old(store)
        assert store.has("protected", "key")
        assert damage(folder, again=True) == ""

    def test_the_link_to_another_set_is_cut(self, store: ArtifactStore, tmp_path: Path) -> None:
        folder = self.old(store)
        os.link(folder / "train" / "images.npy", tmp_path / "dataset")
        assert store.has("protected", "key")
        assert not (folder / "train" / "images.npy").samefile(tmp_path / "dataset")

    @pytest.mark.parametrize("harm", [flip, cut, Path.unlink])
    def test_another_set_is_made_again(
        self, store: ArtifactStore, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        harm(self.old(store) / "train" / "images.npy")
        assert not store.has("protected", "key")
        assert "no checksums" in caplog.text

    def test_what_holds_no_images_is_made_again(self, store: ArtifactStore) -> None:
        store.path("plugin", "key").mkdir(parents=True)
        (store.path("plugin", "key") / "weights.pt").write_bytes(b"abc")
        assert not store.has("plugin", "key")


def test_verify_leaves_what_is_just_being_written(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint is signed under the name that it will have, and verified by another process before it has it."""
    path = store.root / "unfinished" / "key" / "state.npz"
    verified: list[tuple[int, list[Damage]]] = []
    before = checksums.sync

    def look(written: Path) -> None:
        if not verified:
            verified.append(store.verify(["unfinished"]))
        before(written)

    monkeypatch.setattr("ue_bench.atomic.sync", look)
    save_arrays(path, {"a": np.arange(9)})
    assert verified == [(0, [])]
    assert store.verify(["unfinished"]) == (1, [])


def test_verify_finds_and_removes_what_is_damaged(store: ArtifactStore) -> None:
    for key in ("good", "bad"):
        store.make("purified", key, lambda f: save_images(f, data()))
    file = store.path("purified", "bad") / "images.npy"
    before = file.stat()
    flip(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a disk does it: nothing but the content changes
    count, [found] = store.verify(["purified"])
    assert (count, found.kind, found.name, found.reason) == (2, "purified", "bad", "images.npy is damaged")
    assert [p.name for p in (store.root / "purified").iterdir()] == ["good"]
    assert store.verify(["purified"]) == (1, [])


def test_the_manifest_names_every_file(store: ArtifactStore) -> None:
    folder = store.make("datasets", "key", lambda f: save_images(f / "train", data()))
    sums = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    assert sorted(sums) == ["train/images.json", "train/images.npy", "train/labels.npy"]
    assert {len(value) for value in sums.values()} == {64}


def write_one(folder: Path) -> None:
    (folder / "x").write_text("1", encoding="utf-8")


def test_an_artifact_that_cannot_be_read_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be whole: a network file system that fails today may work tomorrow."""
    store = ArtifactStore(tmp_path)
    folder = store.make("kind", "key", write_one)

    def fail(path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checksums, "file_checksum", fail)
    monkeypatch.setattr(checksums, "_known_whole", {})
    with pytest.raises(StorageProblem, match="kind/key cannot be read: Input/output error"):
        store.has("kind", "key")
    assert (folder / "x").exists()
