"""Sets of which a part is missing are refused by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sets import OneLine

from ue_bench.api import UserError, ValidationError
from ue_bench.contract.context import Context
from ue_bench_datasets.imagefolder import ImageFolder
from ue_bench_datasets.npz import Npz
from ue_bench_datasets.parquet import Parquet


@pytest.fixture
def photos(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    for split in ("train", "test"):
        for label, name in enumerate("ab"):
            for i in range(2):
                write_image(tmp_path / "photos" / split / name / f"{i}.png", 100 * label + i)
    return tmp_path / "photos"


class TestImageFolder:
    @pytest.mark.parametrize("split", ["train", "test"])
    def test_a_link_to_nothing_is_named(self, photos: Path, ctx: Context, one_line: OneLine, split: str) -> None:
        (photos / split / "b" / "9.png").symlink_to("../.git/annex/objects/none.png")
        with pytest.raises(ValidationError) as caught:
            ImageFolder(path=photos).load(split, ctx)
        assert f"{split}/b/9.png is a link to nothing" in one_line(caught)

    def test_links_to_folders_in_a_class_are_not_followed(self, photos: Path, ctx: Context) -> None:
        (photos / "train" / "a" / "up").symlink_to("..")
        (photos / "train" / "a" / "other").symlink_to("../b")
        assert len(ImageFolder(path=photos).load("train", ctx)) == 4

    @pytest.mark.parametrize("target", ["a", "..", "nothing", "c"])
    def test_a_class_that_is_a_link_is_named(self, photos: Path, ctx: Context, one_line: OneLine, target: str) -> None:
        for split in ("train", "test"):
            (photos / split / "c").symlink_to(target)
        with pytest.raises(ValidationError) as caught:
            ImageFolder(path=photos).load("train", ctx)
        assert "train/c is a link to" in one_line(caught)

    def test_a_split_may_be_a_link(self, photos: Path, ctx: Context, tmp_path: Path) -> None:
        (photos / "test").rename(tmp_path / "elsewhere")
        (photos / "test").symlink_to(tmp_path / "elsewhere")
        data = ImageFolder(path=photos)
        assert len(data.load("test", ctx)) == 4
        assert data.files(tmp_path) == [photos, photos / "test"]

    def test_a_split_that_is_a_link_to_nothing_is_named(
        self, photos: Path, ctx: Context, tmp_path: Path, one_line: OneLine
    ) -> None:
        (photos / "test").rename(tmp_path / "elsewhere")
        (photos / "test").symlink_to("gone")
        with pytest.raises(ValidationError) as caught:
            ImageFolder(path=photos).load("test", ctx)
        assert "photos/test is a link to nothing" in one_line(caught)

    def test_what_a_mac_put_beside_the_classes_is_no_class(self, photos: Path, ctx: Context) -> None:
        for place in (photos / "train", photos / "test"):
            (place / "__MACOSX" / "a").mkdir(parents=True)
            (place / "__MACOSX" / "a" / "._0.png").write_bytes(b"Mac OS X")
            (place / "a" / "._0.png").write_bytes(b"Mac OS X")
        assert ImageFolder(path=photos).load("train", ctx).class_names == ("a", "b")

    def test_test_images_without_labels_are_passed_over(
        self, photos: Path, ctx: Context, write_image: Callable[..., Path]
    ) -> None:
        (photos / "test").rename(photos / "val")
        write_image(photos / "test" / "images" / "0.png", 7)
        assert ImageFolder(path=photos).load("test", ctx).images[:, 0, 0, 0].tolist() == [0, 1, 100, 101]

    def test_a_test_split_that_lacks_a_class_is_not_passed_over(
        self, photos: Path, ctx: Context, write_image: Callable[..., Path], one_line: OneLine
    ) -> None:
        (photos / "test").rename(photos / "val")
        write_image(photos / "test" / "a" / "0.png", 7)
        with pytest.raises(ValidationError) as caught:
            ImageFolder(path=photos).load("test", ctx)
        assert "'b' of photos is in train but not in test" in one_line(caught)

    @pytest.mark.parametrize(("train", "test"), [("Train", "Test"), ("training", "testing"), ("train_set", "val_set")])
    def test_splits_of_other_names_are_no_classes(
        self, photos: Path, ctx: Context, one_line: OneLine, train: str, test: str
    ) -> None:
        (photos / "train").rename(photos / train)
        (photos / "test").rename(photos / test)
        with pytest.raises(UserError) as caught:
            ImageFolder(path=photos, test_fraction=0.5).load("train", ctx)
        assert "but no train/" in one_line(caught)

    def test_a_valley_is_a_class(self, tmp_path: Path, write_image: Callable[..., Path], ctx: Context) -> None:
        for name in ("valley/2024", "harbour/2024"):
            write_image(tmp_path / "places" / name / "0.png")
        assert ImageFolder(path=tmp_path / "places").load("train", ctx).class_names == ("harbour", "valley")

    def test_a_pointer_of_git_lfs_is_named(self, photos: Path, ctx: Context, one_line: OneLine) -> None:
        (photos / "train" / "a" / "1.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
        with pytest.raises(ValidationError) as caught:
            ImageFolder(path=photos).load("train", ctx)
        assert "a/1.png is a pointer of Git LFS" in one_line(caught)


@pytest.fixture
def hub(tmp_path: Path, write_parquet: Callable[..., Path], encode: Callable[..., bytes]) -> Callable[..., Path]:
    """Writes a split in files of two images, as ``names`` says."""

    def write(*names: str) -> Path:
        for name in names:
            write_parquet(tmp_path / "set" / name, [encode(0), encode(1)], [0, 1], ["cat", "dog"])
        return tmp_path / "set"

    return write


ONE = "test-00000-of-00001.parquet"


class TestParquet:
    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (["train-00000-of-00002.parquet", ONE], "set lacks train-00001-of-00002.parquet"),
            (["train-00001-of-00002.parquet", ONE], "set lacks train-00000-of-00002.parquet"),
            (["train-00001-of-00004.parquet", ONE], "set lacks train-00000-of-00004.parquet and 2 more"),
            (["train-00000-of-00002-0123456789abcdef.parquet", ONE], "set lacks train-00001-of-00002.parquet"),
            (["data/train-00000-of-00002.parquet", ONE], "data lacks train-00001-of-00002.parquet"),
            (["train/00000-of-00002.parquet", ONE], "train lacks 00001-of-00002.parquet"),
            (["train-0.parquet", "test-00000-of-00002.parquet"], "set lacks test-00001-of-00002.parquet"),
            (["train-00000-of-00001.parquet", "train-00000-of-00002.parquet", ONE], "are of two sets"),
            (["train-00000-of-00001.parquet", "train-more.parquet", ONE], "are of two sets"),
            (["train-00000-of-00001-aa.parquet", "train-00000-of-00001-bb.parquet", ONE], "are the same part"),
        ],
    )
    def test_missing_files_are_named(
        self, hub: Callable[..., Path], ctx: Context, one_line: OneLine, names: tuple[str, ...], message: str
    ) -> None:
        with pytest.raises(ValidationError) as caught:
            Parquet(path=hub(*names)).load("test" if "test-00000-of-00002.parquet" in names else "train", ctx)
        assert message in one_line(caught)

    def test_all_files_are_enough(self, hub: Callable[..., Path], ctx: Context) -> None:
        shards = [f"train-{i:05}-of-00002-0123456789abcdef.parquet" for i in range(2)]
        assert len(Parquet(path=hub(*shards, ONE)).load("train", ctx)) == 4

    def test_files_may_be_counted_from_one(self, hub: Callable[..., Path], ctx: Context) -> None:
        shards = [f"train-{i}-of-2.parquet" for i in (1, 2)]
        assert len(Parquet(path=hub(*shards, ONE)).load("train", ctx)) == 4

    @pytest.mark.parametrize("name", ["train-00000-of-00001.parquet", "train.parquet", "train/0000.parquet"])
    def test_a_link_to_nothing_is_named(
        self, hub: Callable[..., Path], ctx: Context, one_line: OneLine, name: str
    ) -> None:
        folder = hub(ONE)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to("../../blobs/0123")
        with pytest.raises(ValidationError) as caught:
            Parquet(path=folder).load("train", ctx)
        assert f"{name} is a link to nothing" in one_line(caught)

    def test_a_pointer_of_git_lfs_is_named(self, hub: Callable[..., Path], ctx: Context, one_line: OneLine) -> None:
        folder = hub("train.parquet", ONE)
        (folder / "train.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
        with pytest.raises(ValidationError) as caught:
            Parquet(path=folder).load("train", ctx)
        assert "train.parquet is a pointer of Git LFS" in one_line(caught)

    def test_the_only_configuration_is_read(self, hub: Callable[..., Path], ctx: Context) -> None:
        folder = hub("cropped_digits/train-00000-of-00001.parquet", f"cropped_digits/{ONE}")
        (folder / "images").mkdir()
        (folder / ".cache").mkdir()
        data = Parquet(path=folder)
        assert len(data.load("train", ctx)) == len(data.load("test", ctx)) == 2
        assert [file.parent.name for file in data.files(folder)] == ["cropped_digits"] * 2

    def test_a_configuration_may_lie_in_data(self, hub: Callable[..., Path], ctx: Context) -> None:
        folder = hub("data/cropped_digits/train.parquet", f"data/cropped_digits/{ONE}")
        assert len(Parquet(path=folder).load("test", ctx)) == 2

    def test_several_configurations_are_named(self, hub: Callable[..., Path], ctx: Context, one_line: OneLine) -> None:
        folder = hub("full/train.parquet", "cropped/train.parquet")
        with pytest.raises(UserError) as caught:
            Parquet(path=folder).load("train", ctx)
        assert "has several sets: cropped, full" in one_line(caught)
        assert f"parquet[path={folder / 'cropped'}]" in caught.value.hint

    def test_a_test_split_whose_labels_are_kept_back_points_to_another(
        self,
        hub: Callable[..., Path],
        ctx: Context,
        one_line: OneLine,
        write_parquet: Callable[..., Path],
        encode: Callable[..., bytes],
    ) -> None:
        folder = hub("train.parquet", "validation.parquet")
        write_parquet(folder / "test.parquet", [encode(0)] * 2, [-1, -1], ["cat", "dog"])
        with pytest.raises(ValidationError) as caught:
            Parquet(path=folder).load("test", ctx)
        assert "test.parquet has no labels, only -1" in one_line(caught)
        assert caught.value.hint == "test on another split: test_split=validation"

    def test_a_file_without_labels_or_images_is_named(
        self, hub: Callable[..., Path], ctx: Context, one_line: OneLine
    ) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        folder = hub("train-0.parquet", ONE)
        table = parquet.read_table(folder / "train-0.parquet")
        parquet.write_table(table.drop(["image"]), folder / "train-1.parquet")
        with pytest.raises(ValidationError) as caught:
            Parquet(path=folder).load("train", ctx)
        assert "train-1.parquet has no column 'image'" in one_line(caught)
        parquet.write_table(pa.table({"image": [b"x"]}), folder / "train-0.parquet")
        with pytest.raises(ValidationError) as caught:
            Parquet(path=folder).load("train", ctx)
        assert "no column that can be the label" in one_line(caught)


X, Y = np.zeros((4, 8, 8, 3), dtype=np.uint8), np.arange(4) % 2


class TestNpz:
    @pytest.mark.parametrize("missing", ["x_train", "y_train", "x_test", "y_test"])
    def test_a_missing_array_is_named_whichever_split_is_read(
        self, tmp_path: Path, ctx: Context, one_line: OneLine, missing: str
    ) -> None:
        arrays: dict[str, Any] = {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y}
        np.savez(tmp_path / "s.npz", **{name: array for name, array in arrays.items() if name != missing})
        for split in ("train", "test"):
            with pytest.raises(ValidationError) as caught:
                Npz(path=tmp_path / "s.npz").load(split, ctx)
            assert f"s.npz has no array {missing}" in one_line(caught)

    def test_labels_of_another_length_are_named(self, tmp_path: Path, ctx: Context, one_line: OneLine) -> None:
        np.savez(tmp_path / "s.npz", x_train=X, y_train=Y, x_test=X, y_test=Y[:2])
        with pytest.raises(ValidationError) as caught:
            Npz(path=tmp_path / "s.npz").load("train", ctx)
        assert "x_test has 4 images for 2 labels" in one_line(caught)

    def test_a_link_to_nothing_is_named(self, tmp_path: Path, ctx: Context, one_line: OneLine) -> None:
        (tmp_path / "s.npz").symlink_to("gone.npz")
        with pytest.raises(ValidationError) as caught:
            Npz(path=tmp_path / "s.npz").load("train", ctx)
        assert "s.npz is a link to nothing" in one_line(caught)

    def test_a_broken_stream_is_one_line(self, tmp_path: Path, ctx: Context, one_line: OneLine) -> None:
        """The archive's directory is whole, what is packed is not: zlib has errors of its own."""
        np.savez_compressed(tmp_path / "s.npz", x_train=X, y_train=Y, x_test=X, y_test=Y)
        content = bytearray((tmp_path / "s.npz").read_bytes())
        names, extra = content[26], content[28]  # lengths in the header of the first member
        content[30 + names + extra] = 0b111  # the last block, of a type that does not exist
        (tmp_path / "s.npz").write_bytes(content)
        with pytest.raises(ValidationError) as caught:
            Npz(path=tmp_path / "s.npz").load("train", ctx)
        assert "s.npz" in one_line(caught)


def test_a_set_that_lost_a_file_is_not_taken_from_the_cache(photos: Path, tmp_path: Path) -> None:
    """The content behind a link goes away after the set was stored."""
    from ue_bench.api import open_dataset

    (tmp_path / "store").mkdir()
    file = photos / "train" / "a" / "0.png"
    file.rename(tmp_path / "store" / "0.png")
    file.symlink_to(tmp_path / "store" / "0.png")
    selector = f"imagefolder[path={photos}]"
    assert len(open_dataset(selector, cache_dir=tmp_path / "cache")[1]) == 4

    (tmp_path / "store" / "0.png").unlink()
    with pytest.raises(ValidationError, match=r"a/0\.png is a link to nothing"):
        open_dataset(selector, cache_dir=tmp_path / "cache")
    os.unlink(file)  # noqa: PTH108  the link, not what it leads to
    assert len(open_dataset(selector, cache_dir=tmp_path / "cache")[1]) == 3
