from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from ue_bench.contract.bounds import read_bound
from ue_bench.errors import UserError, ValidationError
from ue_bench.owner.audit import Audit, AuditReport, Batch, Names, exceeds, text
from ue_bench.owner.pairs import of_arrays, of_folders
from ue_bench.store.image_readers import open_stored

from .helpers import Pixels, random_image, write


def images(count: int = 6, size: tuple[int, int] = (8, 9), seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(20, 236, (count, *size, 3), dtype=np.uint8)


def moved(clean: Pixels, by: int, seed: int = 1) -> Pixels:
    signs = np.random.default_rng(seed).integers(0, 2, clean.shape) * 2 - 1
    return (clean + by * signs).astype(np.uint8)


def audited(clean: Pixels, protected: Pixels, *bounds: str, classes: list[str] | None = None) -> AuditReport:
    audit = Audit(map(read_bound, bounds))
    names = [f"{k}.png" for k in range(len(clean))]
    audit.take(Batch(names, classes or [""] * len(clean), clean, protected))
    return audit.report("the same", {})


class TestBounds:
    @pytest.mark.parametrize(
        ("declared", "kind", "limit"),
        [
            ("linf 8/255", "linf", 8 / 255),
            ("linf 0.03", "linf", 0.03),
            ("l2 1.0", "l2", 1.0),
            ("pixels 1", "pixels", 1),
            ("rms 6/255", "rms", 6 / 255),
            ("mse (8/255)^2", "mse", (8 / 255) ** 2),
            ("mse 1e-3", "mse", 1e-3),
            ("psnr 30", "psnr", 30),
            (" ssim 0.9 ", "ssim", 0.9),
        ],
    )
    def test_are_read(self, declared: str, kind: str, limit: float) -> None:
        found = read_bound(declared)
        assert (found.kind, found.text) == (kind, declared.strip())
        assert found.limit == pytest.approx(limit)

    @pytest.mark.parametrize(
        ("declared", "rms", "linf_max", "over"),
        [
            ("rms 6/255", 6.0, 17, False),
            ("rms 6/255", 6.1, 17, True),
            ("mse (6/255)^2", 6.0, 17, False),
            ("mse (6/255)^2", 6.1, 17, True),
            ("linf 8/255", 6.0, 8, False),
            ("linf 8/255", 6.0, 9, True),
            ("l2 0.1", 6.6, 17, False),  # which needs the images
        ],
    )
    def test_are_exceeded(self, declared: str, rms: float, linf_max: int, over: bool) -> None:
        assert exceeds(declared, {"rms": rms, "linf_max": linf_max}) == over

    @pytest.mark.parametrize(
        "declared", ["", "none", "linf", "linf 8", "linf -1", "linf 8/0", "linf 1.2.3", "rms 6", "l3 1"]
    )
    def test_are_refused(self, declared: str) -> None:
        with pytest.raises(UserError, match="budget"):
            read_bound(declared)

    @pytest.mark.parametrize(
        ("kept", "broken"),
        [
            ("linf 8/255", "linf 7/255"),
            (f"l2 {8 / 255 * math.sqrt(8 * 9 * 3):.6f}", f"l2 {8 / 255 * math.sqrt(8 * 9 * 3) - 0.001:.6f}"),
            ("pixels 72", "pixels 71"),
            ("rms 8/255", "rms 7.99/255"),
            ("mse (8/255)^2", "mse (7.99/255)^2"),
            ("psnr 30.06", "psnr 30.07"),
            ("ssim 0.5", "ssim 0.9999"),
        ],
    )
    def test_every_value_moved_by_8(self, kept: str, broken: str) -> None:
        clean = images()
        found = audited(clean, moved(clean, 8), kept, broken)
        assert [v.kept for v in found.budgets] == [True, False]
        assert not found.passed
        assert audited(clean, moved(clean, 8), kept).passed

    def test_images_that_break_it_are_named(self) -> None:
        clean = images()
        protected = moved(clean, 8)
        protected[4, 3, 3, 1] = clean[4, 3, 3, 1] + 9
        [verdict] = audited(clean, protected, "linf 8/255").budgets
        assert (verdict.broken.count, verdict.broken.first) == (1, ["4.png"])
        assert verdict.measured == pytest.approx(9 / 255)
        assert audited(clean, protected, "linf 9/255").passed

    def test_no_change_keeps_every_budget(self) -> None:
        clean = images()
        found = audited(clean, clean, "linf 1/255", "psnr 90", "ssim 0.99", "mse 0.0")
        assert found.passed
        assert found.unchanged.count == 6


class TestFindings:
    def test_signs(self) -> None:
        clean = images()
        up = np.minimum(clean, 250) + 3
        found = audited(clean, up.astype(np.uint8))
        assert (found.raised, found.lowered) == (1, 0)
        assert found.mean_change == pytest.approx([3, 3, 3])
        assert "one-sided" in text(found)
        both = audited(clean, moved(clean, 3))
        assert both.raised == pytest.approx(0.5, abs=0.05)
        assert both.raised + both.lowered == 1
        assert "one-sided" not in text(both)

    def test_mean_change_is_by_channel(self) -> None:
        clean = images()
        tinted = clean.copy()
        tinted[..., 2] += 5
        assert audited(clean, tinted).mean_change == pytest.approx([0, 0, 5])

    def test_constant_and_black_classes(self) -> None:
        clean = images()
        protected = moved(clean, 2)
        protected[:2] = 0
        protected[2:4] = [10, 20, 30]
        found = audited(clean, protected, classes=["a", "a", "b", "b", "c", "c"])
        assert found.black.first == ["0.png", "1.png"]
        assert found.constant.count == 4
        assert found.classes_black.first == ["a"]
        assert found.classes_constant.first == ["a", "b"]
        assert found.classes_unchanged.count == 0
        assert "1 black throughout: a" in text(found)

    def test_what_was_constant_before_is_no_finding(self) -> None:
        clean = np.zeros((2, 8, 8, 3), np.uint8)
        found = audited(clean, clean, classes=["a", "a"])
        assert (found.black.count, found.constant.count, found.classes_black.count) == (0, 0, 0)
        assert found.classes_unchanged.first == ["a"]

    def test_classes_that_were_left_alone(self) -> None:
        clean = images()
        protected = moved(clean, 2)
        protected[3:] = clean[3:]
        found = audited(clean, protected, classes=["a", "a", "a", "b", "b", "b"])
        assert found.classes_unchanged.first == ["b"]
        assert found.unchanged.count == 3

    def test_duplicates_that_were_none(self) -> None:
        clean = images()
        clean[5] = clean[0]  # a duplicate from the start
        protected = moved(clean, 2)
        protected[5] = protected[0]
        protected[3] = protected[1]
        assert audited(clean, protected).duplicates.first == ["1.png = 3.png"]

    def test_another_order(self) -> None:
        clean = images()
        assert audited(clean, moved(clean, 8)).order_right == 6
        shuffled = audited(clean, np.roll(moved(clean, 8), 1, axis=0))
        assert shuffled.order_right == 0
        assert not shuffled.passed
        assert "6 nearer to another clean image" in text(shuffled)

    def test_measures_are_those_of_the_harness(self) -> None:
        from ue_bench.contract.imageset import ImageSet
        from ue_bench.store.perturbation import measure

        clean = images()
        protected = moved(clean, 5)
        first, second = (ImageSet(x, np.zeros(6, dtype=np.int64), ("a",)) for x in (clean, protected))
        assert audited(clean, protected).measured == measure(first, second, "none")


class TestFolders:
    @pytest.fixture
    def both(self, tmp_path: Path) -> tuple[Path, Path]:
        for label in ("cat", "größe x"):
            for number in range(3):
                clean = random_image((8 + number, 10), seed=number)
                write(tmp_path / "clean" / label / f"{number}.bmp", clean)
                write(tmp_path / "out" / label / f"{number}.png", moved(np.clip(clean, 5, 250), 4))
        return tmp_path / "clean", tmp_path / "out"

    def audit(self, both: tuple[Path, Path]) -> AuditReport:
        audit, pairs = Audit([]), of_folders(*both)
        for batch in pairs.batches:
            audit.take(batch)
        return audit.report(pairs.labels, pairs.problems)

    def test_are_paired_by_name_and_may_mix_sizes(self, both: tuple[Path, Path]) -> None:
        found = self.audit(both)
        assert found.images == 6
        assert found.classes == 2
        assert found.sizes == {"10x8": 2, "10x9": 2, "10x10": 2}
        assert found.measured.linf_max <= 9
        assert found.labels == "the same"
        assert found.passed

    def test_what_does_not_match_is_named(self, both: tuple[Path, Path]) -> None:
        clean, out = both
        (out / "cat" / "0.png").rename(out / "größe x" / "moved.png")
        (out / "cat" / "1.png").unlink()
        write(out / "cat" / "2.png", random_image((3, 3)))
        (out / "größe x" / "1.png").write_bytes(b"broken")
        write(clean / "cat" / "moved.png", random_image())
        found = self.audit(both)
        assert not found.passed
        assert {what: names.first for what, names in found.problems.items()} == {
            "without a protected version": ["cat/0.bmp", "cat/1.bmp"],
            "in another folder": ["cat/moved.png -> größe x/moved.png"],
            "of another size": ["cat/2.bmp (10x10 -> 3x3)"],
            "that cannot be used": ["größe x/1.png (not an image that can be read)"],
        }
        assert found.images == 2

    def test_files_of_labels_are_compared(self, tmp_path: Path) -> None:
        for folder, lines in (("a", "0.png,x\n1.png,y\n2.png,y\n"), ("b", "1.png,x\n0.png,x\n2.png,y\n")):
            for number in range(3):
                write(tmp_path / folder / f"{number}.png", random_image(seed=number))
            (tmp_path / folder / "labels.csv").write_text(lines, encoding="utf-8")
        found = self.audit((tmp_path / "a", tmp_path / "b"))
        assert found.labels == "1 of 3 differ"
        assert found.problems["with another label"].first == ["1.png"]
        assert found.problems["files of labels in another order"].first == ["labels.csv"]

    def test_nothing_in_common(self, tmp_path: Path) -> None:
        write(tmp_path / "a" / "x" / "1.png", random_image())
        write(tmp_path / "b" / "x" / "2.png", random_image())
        with pytest.raises(ValidationError, match=r"no image to compare: without a protected version: x/1\.png"):
            self.audit((tmp_path / "a", tmp_path / "b"))

    def test_batches_are_bounded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for number in range(7):
            write(tmp_path / "a" / "x" / f"{number}.png", random_image((8 + number % 2, 8), number))
        monkeypatch.setattr("ue_bench.owner.pairs.BATCH_IMAGES", 2)
        monkeypatch.setattr("ue_bench.owner.pairs.HELD_BYTES", 500)
        sizes = [len(batch.names) for batch in of_folders(tmp_path / "a", tmp_path / "a").batches]
        assert sum(sizes) == 7
        assert max(sizes) == 2


class TestArrays:
    def test_labels_beside_them(self, tmp_path: Path) -> None:
        clean, labels = images(), np.arange(6) % 2
        np.savez(tmp_path / "a.npz", x_train=clean, y_train=labels, x_test=clean)
        np.savez(tmp_path / "b.npz", images=moved(clean, 2), labels=1 - labels)
        pairs = of_arrays(open_stored(tmp_path / "a.npz"), open_stored(tmp_path / "b.npz"), ("cat", "dog"))
        [batch] = pairs.batches
        assert batch.classes == ["cat", "dog"] * 3
        assert pairs.labels == "6 of 6 differ"
        assert pairs.problems["with another label"].count == 6

    def test_channels_first_and_floats(self, tmp_path: Path) -> None:
        clean = images()
        np.save(tmp_path / "a.npy", clean.transpose(0, 3, 1, 2))
        np.save(tmp_path / "b.npy", clean / 255)
        [batch] = of_arrays(open_stored(tmp_path / "a.npy"), open_stored(tmp_path / "b.npy")).batches
        assert np.array_equal(batch.clean, clean)
        assert np.array_equal(batch.protected, clean)

    def test_labels_that_are_python_objects_are_left_alone(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", images=images(), labels=np.array(["x"] * 6, dtype=object))
        assert open_stored(tmp_path / "a.npz").labels is None

    def test_another_number_or_size(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", images())
        np.save(tmp_path / "b.npy", images(5))
        with pytest.raises(ValidationError, match="6 clean images of 9x8 px, but 5 protected ones of 9x8 px"):
            of_arrays(open_stored(tmp_path / "a.npy"), open_stored(tmp_path / "b.npy"))

    def test_what_holds_no_images(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.zeros((4, 8)))
        with pytest.raises(ValidationError, match=r"holds an array of shape \(4, 8\)"):
            open_stored(tmp_path / "a.npy")


def test_long_lists_of_names_are_cut() -> None:
    names = Names()
    for number in range(1234):
        names.add(f"{number}.png")
    assert str(names).endswith("9.png and 1,224 more")
