"""``ue-bench recover``: the way back from what ``ue-bench protect`` wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file
from toys import tree

from ue_bench.owner import contexts, files, recovering

from . import invertible
from .conftest import Command, Finished
from .helpers import load, random_image, write


@pytest.fixture(autouse=True)
def protectors(monkeypatch: pytest.MonkeyPatch) -> None:
    invertible.register(monkeypatch)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six images of three sizes; one gray, one transparent."""
    folder = tmp_path / "my photos"
    for number, (name, size) in enumerate({"a/1": (8, 8), "a/ü/2": (8, 8), "b/3": (9, 12), "b/4": (8, 8)}.items()):
        write(folder / f"{name}.png", random_image(size, number))
    write(folder / "b" / "gray.bmp", random_image((8, 8), 7)[..., 0])
    write(folder / "b" / "glass.png", np.dstack([random_image((6, 5), 8), random_image((6, 5), 9)[..., 0]]))
    return folder


NAMES = ["a/1.png", "a/ü/2.png", "b/3.png", "b/4.png", "b/glass.png", "b/gray.png"]


def protect(ue_bench: Command, source: Path, out: str, *options: str, protector: str = "shuffled") -> Finished:
    return ue_bench("protect", "-P", protector, "--device", "cpu", "--threads", "1", *options, str(source), out)


def assert_same(folder: Path, photos: Path) -> None:
    assert tree(folder) == NAMES
    for name in NAMES:
        original = photos / (name if (photos / name).exists() else name.replace(".png", ".bmp"))
        assert np.array_equal(load(folder / name), load(original)), name


def test_everything_comes_back(ue_bench: Command, photos: Path, tmp_path: Path) -> None:
    protect(ue_bench, photos, "out")
    found = ue_bench("recover", "out.key.safetensors", "out", "back")
    assert found.code == 0
    assert found.out == f"{tmp_path / 'back'}: 6 images recovered: 6 exactly\n"
    assert_same(tmp_path / "back", photos)
    with Image.open(tmp_path / "back" / "b" / "gray.png") as gray:
        assert gray.mode == "L"


def test_the_key_is_enough(ue_bench: Command, photos: Path, tmp_path: Path) -> None:
    """Elsewhere, with other names, and without the record."""
    protect(ue_bench, photos, "out", protector="shuffled[salt=5]")
    (tmp_path / "elsewhere").mkdir()
    for number, name in enumerate(NAMES):
        shutil.copy(tmp_path / "out" / name, tmp_path / "elsewhere" / f"{number}.PNG")
    shutil.move(tmp_path / "out.key.safetensors", tmp_path / "k")
    for path in (tmp_path / "out", tmp_path / "cache", photos):
        shutil.rmtree(path)
    found = ue_bench("recover", "k", "elsewhere", "back", "--json")
    assert found.code == 0
    assert sorted(found.json["exact"]) == [f"{number}.PNG" for number in range(6)]
    assert np.array_equal(load(tmp_path / "back" / "0.PNG"), random_image((8, 8), 0))


def test_one_image(ue_bench: Command, photos: Path, tmp_path: Path) -> None:
    protect(ue_bench, photos, "out")
    assert ue_bench("recover", "out.key.safetensors", "out/a/1.png", "back").code == 0
    assert np.array_equal(load(tmp_path / "back" / "1.png"), random_image((8, 8), 0))


class TestLossy:
    def test_recovery_is_as_good_as_it_can_be(self, ue_bench: Command, photos: Path, tmp_path: Path) -> None:
        protect(ue_bench, photos, "out", protector="brighter")
        found = ue_bench("recover", "out.key.safetensors", "out", "back", "--json")
        assert found.code == 0
        assert sorted(found.json["near"]) == NAMES
        assert np.array_equal(load(tmp_path / "back" / "a" / "1.png"), np.minimum(random_image((8, 8), 0), 215))

    def test_the_key_may_hold_the_rest(self, ue_bench: Command, photos: Path, tmp_path: Path) -> None:
        protect(ue_bench, photos, "out", "--lossless", protector="brighter")
        found = ue_bench("recover", "out.key.safetensors", "out", "back")
        assert found.code == 0
        assert "6 exactly" in found.out
        assert_same(tmp_path / "back", photos)

    def test_what_the_protector_cannot_undo_is_named(self, ue_bench: Command, photos: Path, tmp_path: Path) -> None:
        write(photos / "a" / "corner.png", np.pad(random_image((7, 8), 9), ((1, 0), (0, 0), (0, 0))))
        protect(ue_bench, photos, "out", protector="brighter")
        found = ue_bench("recover", "out.key.safetensors", "out", "back")
        assert found.code == 1
        assert "  a/corner.png: a black corner" in found.err
        assert tree(tmp_path / "back") == NAMES
        protect(ue_bench, photos, "more", "--lossless", protector="brighter")
        assert ue_bench("recover", "more.key.safetensors", "more", "all").code == 0
        assert np.array_equal(load(tmp_path / "all" / "a" / "corner.png"), load(photos / "a" / "corner.png"))

    def test_jpeg_files_with_a_lossless_key(self, ue_bench: Command, photos: Path, tmp_path: Path) -> None:
        (photos / "b" / "glass.png").unlink()
        protect(ue_bench, photos, "out", "--lossless", "--format", "jpeg")
        assert ue_bench("recover", "out.key.safetensors", "out", "back").code == 0
        assert np.array_equal(load(tmp_path / "back" / "b" / "3.png"), load(photos / "b" / "3.png"))


class TestWrongKey:
    def test_writes_nothing(self, ue_bench: Command, photos: Path, tmp_path: Path) -> None:
        protect(ue_bench, photos, "out", "--seed", "1")
        protect(ue_bench, photos, "other", "--seed", "2")
        found = ue_bench("recover", "other.key.safetensors", "out", "back")
        assert found.code == 4
        first, hint = [line for line in found.err.splitlines() if line.startswith(("ue-bench", "  hint"))]
        assert first == "ue-bench: other.key.safetensors is not the key of these images: it knows none of 6"
        assert "--modified" in hint
        assert not (tmp_path / "back").exists()

    @pytest.mark.parametrize("content", [b"", b"text", b"\x10" + bytes(40)])
    def test_is_no_key(self, ue_bench: Command, photos: Path, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "k").write_bytes(content)
        found = ue_bench("recover", "k", str(photos), "back")
        assert found.code == 2
        assert "k is not a key of ue-bench" in found.err
        assert not (tmp_path / "back").exists()

    def test_is_another_safetensors_file(self, ue_bench: Command, photos: Path, tmp_path: Path) -> None:
        save_file({"weights": np.zeros(3)}, tmp_path / "k")
        assert "is not a key of ue-bench" in ue_bench("recover", "k", str(photos), "back").err
        assert "no key at gone" in ue_bench("recover", "gone", str(photos), "back").err

    def test_half_a_key(self, ue_bench: Command, photos: Path, tmp_path: Path) -> None:
        protect(ue_bench, photos, "out")
        whole = (tmp_path / "out.key.safetensors").read_bytes()
        (tmp_path / "k").write_bytes(whole[:-20])
        assert "is not a key of ue-bench" in ue_bench("recover", "k", "out", "back").err

    def test_of_a_protector_that_is_not_here(
        self, ue_bench: Command, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from ue_bench.catalogue.registry import registry

        protect(ue_bench, photos, "out")
        monkeypatch.delitem(registry().entries, ("protector", "shuffled"))
        found = ue_bench("recover", "out.key.safetensors", "out", "back")
        assert found.code == 2
        assert "no protector 'shuffled'" in found.err


class TestOtherImages:
    def test_strangers_and_changed_ones_are_named(self, ue_bench: Command, photos: Path, tmp_path: Path) -> None:
        protect(ue_bench, photos, "out")
        write(tmp_path / "out" / "a" / "stranger.png", random_image())
        changed = load(tmp_path / "out" / "b" / "3.png").copy()
        changed[0, 0, 0] ^= 1
        write(tmp_path / "out" / "b" / "3.png", changed)
        (tmp_path / "out" / "broken.png").write_bytes(b"broken")
        (tmp_path / "out" / "photo.heic").write_bytes(b"?")
        found = ue_bench("recover", "out.key.safetensors", "out", "back")
        assert found.code == 1
        assert "ue-bench: 4 of 9 images were not recovered:" in found.err
        for line in (
            "  a/stranger.png: not protected with this key, or changed since",
            "  b/3.png: not protected with this key, or changed since",
            "  broken.png: not an image that can be read",
            "  photo.heic: .heic files cannot be read",
        ):
            assert line in found.err.splitlines()
        assert tree(tmp_path / "back") == [name for name in NAMES if name != "b/3.png"]

    def test_changed_ones_may_be_asked_for(self, ue_bench: Command, photos: Path, tmp_path: Path) -> None:
        protect(ue_bench, photos, "out")
        changed = load(tmp_path / "out" / "b" / "3.png").copy()
        changed[0, 0] = 255 - changed[0, 0]
        write(tmp_path / "out" / "b" / "3.png", changed)
        found = ue_bench("recover", "out.key.safetensors", "out", "back", "--modified")
        assert found.code == 0
        assert "6 images recovered: 5 exactly, 1 from changed images" in found.out
        assert np.array_equal(load(tmp_path / "back" / "b" / "3.png")[1:], load(photos / "b" / "3.png")[1:])

    def test_a_machine_that_computes_otherwise_is_noticed(
        self, ue_bench: Command, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        protect(ue_bench, photos, "out")
        undo = invertible.Shuffled.recover

        def off_by_one(self: Any, images: Any, ctx: Any) -> Any:
            return undo(self, images, ctx) ^ np.uint8(1)

        monkeypatch.setattr(invertible.Shuffled, "recover", off_by_one)
        found = ue_bench("recover", "out.key.safetensors", "out", "back")
        assert found.code == 1
        assert "a/1.png: recovered, but not exactly" in found.err

    def test_a_key_of_another_revision_is_said_so(
        self, ue_bench: Command, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        protect(ue_bench, photos, "out")
        monkeypatch.setattr(invertible.Shuffled, "revision", 2)
        found = ue_bench("recover", "out.key.safetensors", "out", "back")
        assert found.code == 0
        assert "ue-bench: the key is of revision 1 of shuffled, this is 2" in found.err


class TestWhatIsThere:
    def test_is_kept_where_it_is_right_and_named_where_it_is_not(
        self, ue_bench: Command, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        protect(ue_bench, photos, "out")
        ue_bench("recover", "out.key.safetensors", "out", "back")
        (tmp_path / "back" / "a" / "1.png").unlink()
        write(tmp_path / "back" / "b" / "4.png", random_image())
        stamp = (tmp_path / "back" / "b" / "3.png").stat().st_mtime_ns
        undo, batches = invertible.Shuffled.recover, []

        def counted(self: Any, images: Any, ctx: Any) -> Any:
            batches.append(len(images))
            return undo(self, images, ctx)

        monkeypatch.setattr(invertible.Shuffled, "recover", counted)
        found = ue_bench("recover", "out.key.safetensors", "out", "back")
        assert found.code == 1
        assert "b/4.png exists already and is something else" in found.err
        assert batches == [2]  # what is right is not computed again
        assert (tmp_path / "back" / "b" / "3.png").stat().st_mtime_ns == stamp
        assert np.array_equal(load(tmp_path / "back" / "b" / "4.png"), random_image())
        assert ue_bench("recover", "out.key.safetensors", "out", "back", "--force").code == 0
        assert_same(tmp_path / "back", photos)

    def test_two_commands_do_not_write_at_once(self, ue_bench: Command, photos: Path, tmp_path: Path) -> None:
        protect(ue_bench, photos, "out")
        with files.alone(tmp_path / "back", tmp_path / "cache"):
            found = ue_bench("recover", "out.key.safetensors", "out", "back")
        assert found.code == 3
        assert "another command is writing into" in found.err
        assert not (tmp_path / "back").exists()

    def test_what_is_no_image_is_named(self, ue_bench: Command, photos: Path, tmp_path: Path) -> None:
        protect(ue_bench, photos, "out")
        (tmp_path / "out" / "labels.csv").write_text("a/1.png,a\n")
        found = ue_bench("recover", "out.key.safetensors", "out", "back")
        assert found.code == 0
        assert "ue-bench: 1 other files were left: labels.csv" in found.err

    def test_folders_may_not_lie_in_one_another(self, ue_bench: Command, photos: Path) -> None:
        protect(ue_bench, photos, "out")
        assert "lie in one another" in ue_bench("recover", "out.key.safetensors", "out", "out/back").err
        assert "holds no image" in ue_bench("recover", "out.key.safetensors", "cache", "back").err


def test_what_a_key_holds(ue_bench: Command, photos: Path, tmp_path: Path) -> None:
    protect(ue_bench, photos, "out", "--key", "my.key", "--seed", "4", protector="shuffled[salt=5]")
    with safe_open(tmp_path / "my.key", framework="numpy") as file:
        settings = json.loads(file.metadata()["ue-bench"])
        shapes = {name: tuple(file.get_tensor(name).shape) for name in file.keys()}  # noqa: SIM118  # not a dict
    assert settings["name"] == "shuffled"
    assert settings["parameters"] == {"salt": 5}
    assert (settings["seed"], settings["device"], settings["threads"]) == (4, "cpu", 1)
    assert shapes == {
        "key/table": (256,), "images/protected": (6, 16), "images/clean": (6, 16), "images/exact": (6,),
        "images/grey": (6,), "sidecar/data": (0,), "sidecar/end": (6,),
    }  # fmt: skip


def test_a_fault_of_the_protectors_costs_the_image_it_meets_only(
    ue_bench: Command, photos: Path, tmp_path: Path
) -> None:
    corner = random_image((8, 8), 20)
    corner[0, 0] = 0
    write(photos / "a" / "corner.png", corner)
    found = protect(ue_bench, photos, "out", "--json", protector="fragile")
    assert found.json["recovery"]["lost"] == ["a/corner.png"]
    found = ue_bench("recover", "out.key.safetensors", "out", "back")
    assert found.code == 1
    assert "  a/corner.png: ZeroDivisionError: corner" in found.err.splitlines()
    assert_same(tmp_path / "back", photos)


@pytest.mark.parametrize("how", ["removed", "changed"])
def test_an_image_that_goes_meanwhile_costs_itself_only(
    ue_bench: Command, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    protect(ue_bench, photos, "out")
    opened = contexts.owner_context

    def lend_late(*arguments: Any) -> Any:
        (tmp_path / "out" / "a" / "1.png").unlink()
        if how == "changed":
            write(tmp_path / "out" / "a" / "1.png", random_image((4, 4)))
        return opened(*arguments)

    monkeypatch.setattr(recovering, "owner_context", lend_late)
    found = ue_bench("recover", "out.key.safetensors", "out", "back")
    assert found.code == 1
    reasons = {"removed": "No such file or directory, it was there before", "changed": "changed while the command ran"}
    assert f"  a/1.png: {reasons[how]}" in found.err.splitlines()
    assert tree(tmp_path / "back") == NAMES[1:]
