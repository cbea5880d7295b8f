"""``ue-bench protect``."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import tree

from ue_bench.owner import files

from . import invertible
from .conftest import Command
from .helpers import load, random_image, write
from .protecting import NEW_NAMES, protect

pytestmark = pytest.mark.usefixtures("reversible")


def test_every_usable_image_is_protected_and_the_rest_named(ue_bench: Command, photos: Path, tmp_path: Path) -> None:
    before = {name: (photos / name).read_bytes() for name in tree(photos)}
    found = protect(ue_bench, str(photos), "out", "--seed", "3")
    assert found.code == 1
    assert tree(tmp_path / "out") == NEW_NAMES
    assert "out: 7 images protected by shuffled" in found.out
    lines = found.err.splitlines()
    assert "ue-bench: 3 of 10 images were not protected:" in lines
    assert "  dog/broken.png: not an image that can be read" in lines
    assert "  dog/photo.heic: .heic files cannot be read" in lines
    assert "  stray.png: in no class folder" in lines
    assert "ue-bench: 1 other files were left: dog/notes.txt" in lines
    assert {name: (photos / name).read_bytes() for name in tree(photos)} == before
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("out")) == [
        "out", "out.key.safetensors", "out.record.json",
    ]  # fmt: skip


def test_pixels_are_the_protectors(ue_bench: Command, photos: Path, tmp_path: Path) -> None:
    assert protect(ue_bench, str(photos), "out", protector="fussy").code == 1
    assert np.array_equal(load(tmp_path / "out" / "cat" / "a b.png"), 255 - load(photos / "cat" / "a b.bmp"))
    gray = load(photos / "dog" / "gray.png")
    assert np.array_equal(load(tmp_path / "out" / "dog" / "gray.png"), 255 - np.stack([gray] * 3, axis=2))
    # Images of a size that the protector refuses are named, the others done.
    record = json.loads((tmp_path / "out.record.json").read_text(encoding="utf-8"))
    assert record["failed"]["dog/猫.tif"] == "heights must be even"
    assert "dog/猫.png" not in tree(tmp_path / "out")


def test_record(ue_bench: Command, photos: Path, tmp_path: Path) -> None:
    found = protect(ue_bench, str(photos), "out", "--seed", "3", "--json")
    record = json.loads((tmp_path / "out.record.json").read_text(encoding="utf-8"))
    assert found.json == record
    assert list(record["files"]) == [
        "cat/1.png", "cat/a b.bmp", "cat/größe/3.jpg", "dog/1.bmp", "dog/1.png", "dog/gray.png", "dog/猫.tif",
    ]  # fmt: skip
    assert list(record["files"].values()) == NEW_NAMES
    assert record["classes"] == ["cat", "dog"]
    assert record["settings"]["seed"] == 3
    assert record["images"] == 10
    assert record["recovery"] == {
        "exact": 7, "stored": 0, "lost": [], "others": 0, "psnr_of_others": None, "bits_per_pixel": 0.0,
    }  # fmt: skip
    from ue_bench.store.perturbation import Measurement

    measured = Measurement()
    for name, target in record["files"].items():
        clean = load(photos / name)
        clean = np.stack([clean] * 3, axis=2) if clean.ndim == 2 else clean
        measured.add(clean[None], load(tmp_path / "out" / target)[None])
    assert record["measured"] == pytest.approx(measured.result("none").model_dump())


def test_each_size_is_protected_at_once(ue_bench: Command, photos: Path) -> None:
    protect(ue_bench, str(photos), "out")
    assert invertible.Shuffled.calls == [(5, 8, 8, 3), (1, 8, 10, 3), (1, 9, 12, 3)]


def test_labels_in_a_file(ue_bench: Command, tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "flat" / f"{number}.bmp", random_image(seed=number))
    (tmp_path / "flat" / "labels.csv").write_text("file,class\n2.bmp,dog\n0.bmp,cat\ngone.bmp,cat\n", encoding="utf-8")
    found = protect(ue_bench, "flat", "out")
    assert found.code == 1
    assert tree(tmp_path / "out") == ["0.png", "2.png", "labels.csv"]
    assert (tmp_path / "out" / "labels.csv").read_text(encoding="utf-8") == "file,class\n2.png,dog\n0.png,cat\n"
    assert "  1.bmp: not named in labels.csv" in found.err
    assert "  gone.bmp: named in labels.csv, but not there" in found.err


def test_the_seed_is_drawn_and_kept(ue_bench: Command, photos: Path, tmp_path: Path) -> None:
    seeds = set()
    for out in ("a", "b"):
        protect(ue_bench, str(photos), out)
        seeds.add(json.loads((tmp_path / f"{out}.record.json").read_text(encoding="utf-8"))["settings"]["seed"])
    assert len(seeds) == 2
    for out in ("c", "d"):
        protect(ue_bench, str(photos), out, "--seed", "7")
    assert all((tmp_path / "c" / n).read_bytes() == (tmp_path / "d" / n).read_bytes() for n in NEW_NAMES)


class TestSizes:
    def test_a_protector_that_learns_from_all_images_needs_one(self, ue_bench: Command, photos: Path) -> None:
        found = protect(ue_bench, str(photos), "out", protector="learner")
        assert found.code == 2
        first, hint = [line for line in found.err.splitlines() if not line.startswith("read images")]
        assert first == (
            "ue-bench: learner learns from all images together and needs one size; these have 3: "
            "8x8 (5), 10x8 (1), 12x9 (1)"
        )
        assert hint.startswith("  hint: bring them to one with --size")
        assert not Path("out").exists()

    def test_that_is_asked_for(self, ue_bench: Command, photos: Path, tmp_path: Path) -> None:
        protect(ue_bench, str(photos), "out", "--size", "6", "--seed", "1", protector="learner")
        record = json.loads((tmp_path / "out.record.json").read_text(encoding="utf-8"))
        assert {load(tmp_path / "out" / name).shape for name in NEW_NAMES} == {(6, 6, 3)}
        assert record["notes"]["dog/猫.tif"] == ["12x9 brought to 6x6"]
        with Image.open(photos / "dog" / "猫.tif") as image:
            scaled = np.asarray(image.resize((8, 6), Image.Resampling.LANCZOS))[:, 1:7]
        ue_bench("recover", "out.key.safetensors", "out", "back")
        assert np.array_equal(load(tmp_path / "back" / "dog" / "猫.png"), scaled)


class TestWhatIsThere:
    def test_a_finished_folder_is_left_as_it_is(self, ue_bench: Command, photos: Path, tmp_path: Path) -> None:
        protect(ue_bench, str(photos), "out")
        stamps = {p: p.stat().st_mtime_ns for p in tmp_path.glob("out*/**/*")}
        invertible.Shuffled.calls.clear()
        again = protect(ue_bench, str(photos), "out")
        assert again.code == 1
        assert "out: 7 images protected by shuffled" in again.out
        assert "3 of 10 images were not protected" in again.err
        assert invertible.Shuffled.calls == []
        assert {p: p.stat().st_mtime_ns for p in stamps} == stamps

    @pytest.mark.parametrize("change", ["seed", "protector", "images", "labels", "format"])
    def test_other_settings_or_images_are_refused(
        self, ue_bench: Command, photos: Path, tmp_path: Path, change: str
    ) -> None:
        protect(ue_bench, str(photos), "out", "--seed", "1")
        kept = {name: (tmp_path / "out" / name).read_bytes() for name in NEW_NAMES}
        arguments = [str(photos), "out", "--seed", "2" if change == "seed" else "1"]
        if change == "images":
            write(photos / "cat" / "1.png", random_image((8, 8), 99))
        if change == "labels":
            (photos / "cat" / "1.png").rename(photos / "dog" / "2.png")
        if change == "format":
            arguments += ["--format", "jpeg"]
        found = protect(ue_bench, *arguments, protector="fussy" if change == "protector" else "shuffled")
        assert found.code == 2
        assert "out holds other images, or the same with other settings" in found.err
        assert "--force" in found.err
        assert {name: (tmp_path / "out" / name).read_bytes() for name in NEW_NAMES} == kept

    def test_another_class_in_the_file_of_labels_is_refused(self, ue_bench: Command, tmp_path: Path) -> None:
        write(tmp_path / "flat" / "1.png", random_image())
        write(tmp_path / "flat" / "2.png", random_image(seed=1))
        for lines, reason in (("1.png,a\n2.png,b\n", ""), ("1.png,b\n2.png,a\n", "holds other images")):
            (tmp_path / "flat" / "labels.csv").write_text(lines, encoding="utf-8")
            found = protect(ue_bench, "flat", "out")
            assert found.code == (2 if reason else 0)
            assert reason in found.err

    @pytest.mark.parametrize("what", ["out/mine.txt", "out.record.json", "out.key.safetensors"])
    def test_nothing_of_anyone_else_is_overwritten(
        self, ue_bench: Command, photos: Path, tmp_path: Path, what: str
    ) -> None:
        (tmp_path / what).parent.mkdir(exist_ok=True)
        (tmp_path / what).write_bytes(b"mine")
        found = protect(ue_bench, str(photos), "out")
        assert found.code == 2
        assert "is there already" in found.err
        assert (tmp_path / what).read_bytes() == b"mine"
        assert not (tmp_path / "out" / "cat").exists()

    def test_force_overwrites_and_leaves_the_rest(self, ue_bench: Command, photos: Path, tmp_path: Path) -> None:
        write(tmp_path / "out" / "cat" / "1.png", random_image())
        (tmp_path / "out" / "mine.txt").write_bytes(b"mine")
        protect(ue_bench, str(photos), "out", "--force", "--seed", "1")
        protect(ue_bench, str(photos), "other", "--seed", "1")
        assert tree(tmp_path / "out") == sorted([*NEW_NAMES, "mine.txt"])
        for name in NEW_NAMES:
            assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()

    def test_a_file_that_was_lost_is_made_again(self, ue_bench: Command, photos: Path, tmp_path: Path) -> None:
        protect(ue_bench, str(photos), "out")
        content = (tmp_path / "out" / "dog" / "猫.png").read_bytes()
        (tmp_path / "out" / "dog" / "猫.png").unlink()
        protect(ue_bench, str(photos), "out")
        assert (tmp_path / "out" / "dog" / "猫.png").read_bytes() == content

    def test_a_key_that_was_lost_is_made_again(self, ue_bench: Command, photos: Path, tmp_path: Path) -> None:
        protect(ue_bench, str(photos), "out")
        key = (tmp_path / "out.key.safetensors").read_bytes()
        (tmp_path / "out.key.safetensors").unlink()
        protect(ue_bench, str(photos), "out")
        assert (tmp_path / "out.key.safetensors").read_bytes() == key

    def test_two_commands_do_not_write_at_once(self, ue_bench: Command, photos: Path, tmp_path: Path) -> None:
        with files.alone(tmp_path / "out", tmp_path / "cache"):
            found = protect(ue_bench, str(photos), "out")
            assert found.code == 3
            assert "another command is writing into" in found.err
            assert not (tmp_path / "out").exists()
        assert protect(ue_bench, str(photos), "out").code == 1


class TestFormats:
    def test_jpeg_is_warned_of(self, ue_bench: Command, photos: Path, tmp_path: Path) -> None:
        found = protect(ue_bench, str(photos), "out", "--format", "jpeg")
        assert "ue-bench: JPEG changes every image once more" in found.err
        assert "cat/größe/3.jpg" in tree(tmp_path / "out")
        assert "dog/1.bmp.jpg" in tree(tmp_path / "out")
        record = json.loads((tmp_path / "out.record.json").read_text(encoding="utf-8"))
        assert record["recovery"]["exact"] == 0
        assert record["recovery"]["psnr_of_others"] < 40

    def test_transparency_stays(self, ue_bench: Command, tmp_path: Path) -> None:
        layered = np.dstack([random_image(), random_image(seed=1)[..., 0]])
        write(tmp_path / "in" / "a" / "1.png", layered)
        write(tmp_path / "in" / "b" / "1.png", random_image())
        assert protect(ue_bench, "in", "out", protector="fussy").code == 0
        assert np.array_equal(load(tmp_path / "out" / "a" / "1.png")[..., 3], layered[..., 3])
        assert np.array_equal(load(tmp_path / "out" / "a" / "1.png")[..., :3], 255 - layered[..., :3])
        found = protect(ue_bench, "in", "lossy", "--format", "jpeg", protector="fussy")
        assert found.code == 1
        assert "  a/1.png: transparent, which JPEG cannot be" in found.err
        assert tree(tmp_path / "lossy") == ["b/1.jpg"]


class TestKeys:
    def test_say_what_recovery_misses(self, ue_bench: Command, photos: Path, tmp_path: Path) -> None:
        write(photos / "cat" / "corner.png", np.pad(random_image((7, 8), 9), ((1, 0), (0, 0), (0, 0))))
        found = protect(ue_bench, str(photos), "out", "--json", protector="brighter")
        recovery = found.json["recovery"]
        assert recovery["lost"] == ["cat/corner.png"]
        assert recovery["exact"] == 0
        assert recovery["others"] == 8
        assert 10 < recovery["psnr_of_others"] < 40
        found = protect(ue_bench, str(photos), "kept", "--json", "--lossless", protector="brighter")
        recovery = found.json["recovery"]
        assert (recovery["stored"], recovery["lost"]) == (8, [])
        assert 0 < recovery["bits_per_pixel"] < 24

    def test_count_files_not_kinds_of_pixels(self, ue_bench: Command, tmp_path: Path) -> None:
        for name in ("1", "2"):
            write(tmp_path / "in" / "a" / f"{name}.png", random_image())
        found = protect(ue_bench, "in", "out", "--json")
        assert (found.json["recovery"]["exact"], found.json["recovery"]["others"]) == (2, 0)

    def test_vouch_for_nothing_where_protection_made_two_images_one(self, ue_bench: Command, tmp_path: Path) -> None:
        for level in (215, 230):  # both become white
            write(tmp_path / "in" / "a" / f"{level}.png", np.full((8, 8, 3), level, np.uint8))
        found = protect(ue_bench, "in", "out", "--json", "--lossless", protector="brighter")
        assert (found.json["recovery"]["exact"], found.json["recovery"]["others"]) == (0, 2)
        found = ue_bench("recover", "out.key.safetensors", "out", "back")
        assert "2 images recovered: 2 as well as they can be" in found.out

    @pytest.mark.parametrize("env", ["out/k", "my photos/k", "out"])
    @pytest.mark.parametrize("option", ["--key", "--record"])
    def test_are_not_published(self, ue_bench: Command, photos: Path, tmp_path: Path, option: str, env: str) -> None:
        found = protect(ue_bench, str(photos), "out", option, env, "--force")
        assert found.code == 2
        assert "it is not for publication" in found.err
        assert not (tmp_path / "out").exists()

    def test_are_files_of_their_own(self, ue_bench: Command, photos: Path, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        assert "both key and record" in protect(ue_bench, str(photos), "out", "--key", "k", "--record", "k").err
        assert "there is a folder" in protect(ue_bench, str(photos), "out", "--key", "there").err

    def test_only_for_protectors_that_can_be_undone(self, ue_bench: Command, photos: Path, tmp_path: Path) -> None:
        protect(ue_bench, str(photos), "out", protector="fussy")
        assert not (tmp_path / "out.key.safetensors").exists()
        for option in (["--lossless"], ["--key", "k.safetensors"]):
            found = protect(ue_bench, str(photos), "more", *option, protector="fussy")
            assert found.code == 2
            assert "fussy cannot be undone: there is no key" in found.err


def test_a_budget_that_is_not_kept_is_said(ue_bench: Command, photos: Path) -> None:
    said = "changed more than noise declares, linf 8/255"
    assert said not in protect(ue_bench, str(photos), "out", protector="noise").err
    assert said in protect(ue_bench, str(photos), "jpeg", "--format", "jpeg", protector="noise").err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nowhere", "out"], "no folder at nowhere"),
        (["empty", "out"], "empty has no class folders"),
        (["text", "out"], "text holds no image to protect"),
        (["bad", "out"], "bad holds no image to protect - a/1.png: not an image that can be read"),
        (["good", "good/a/out"], "lie in one another"),
        (["good", "."], "lie in one another"),
        (["good", "text/a/file"], "is a file"),
        (["good", "out", "-P", "shuffled,fussy"], "is 2 protectors"),
        (["good", "out", "-P", "shufled"], "no protector 'shufled'"),
        (["good", "out", "--device", "tpu9"], "no device 'tpu9' here"),
    ],
)
def test_errors_are_one_line_with_a_hint_and_write_nothing(
    ue_bench: Command, tmp_path: Path, arguments: list[str], reason: str
) -> None:
    for folder in ("empty", "text/a", "bad/a"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "text" / "a" / "file").write_text("text")
    (tmp_path / "bad" / "a" / "1.png").write_bytes(b"bad")
    write(tmp_path / "good" / "a" / "1.png", random_image())
    before = tree(tmp_path)
    found = protect(ue_bench, *arguments)
    first, hint = [line for line in found.err.splitlines() if not line.startswith("read images")]
    assert reason in first
    assert hint.startswith("  hint: ")
    assert found.code in (2, 3)
    assert [name for name in tree(tmp_path) if not name.startswith("cache/")] == before


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys; from ue_bench.cli import protect, recover, audit; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


@pytest.mark.parametrize("protector", ["shuffled", "fussy"])
def test_a_file_that_is_not_what_was_written_does_not_pass_for_protected(
    ue_bench: Command, photos: Path, tmp_path: Path, protector: str
) -> None:
    command = (str(photos), "out", "--seed", "3")
    assert protect(ue_bench, *command, protector=protector).code == 1
    file = tmp_path / "out" / "cat" / "1.png"
    written = file.read_bytes()
    file.write_bytes((photos / "cat" / "1.png").read_bytes())
    again = protect(ue_bench, *command, protector=protector)
    assert again.code == 2
    assert "1.png is not what was written there" in again.err
    assert "remove it" in again.err
    file.unlink()
    assert protect(ue_bench, *command, protector=protector).code == 1  # some of the photos cannot be read
    assert file.read_bytes() == written
    file.write_bytes(b"junk")
    assert protect(ue_bench, *command, "--force", protector=protector).code == 1
    assert file.read_bytes() == written
    assert protect(ue_bench, *command, protector=protector).code == 1


def test_a_record_that_may_not_be_read_is_not_taken_for_none(
    ue_bench: Command, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert protect(ue_bench, str(photos), "out", "--seed", "3").code == 1
    known = Path.read_bytes

    def denied(self: Path) -> bytes:
        if self.name == "out.record.json":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return known(self)

    monkeypatch.setattr(Path, "read_bytes", denied)
    again = protect(ue_bench, str(photos), "out", "--seed", "3")
    assert again.code == 3
    assert "out.record.json: Permission denied" in again.err
    assert "--force" not in again.err
