from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq
from sets import Images, OneLine

from ue_bench.api import UserError, ValidationError
from ue_bench.contract.context import Context
from ue_bench_datasets.hub import jpeg_quality
from ue_bench_datasets.parquet import Parquet

NAMES = ["cat", "dog"]


def values(images: Images) -> list[int]:
    return [int(value) for value in images[:, 0, 0, 0]]


@pytest.fixture
def folder(tmp_path: Path, write_parquet: Callable[..., Path], encode: Callable[..., bytes]) -> Path:
    """Two shards of five rows, a test file of two; values tell the images apart."""
    root = tmp_path / "pets"
    for shard in range(2):
        rows = range(5 * shard, 5 * shard + 5)
        write_parquet(
            root / f"train-0000{shard}-of-00002.parquet", [encode(i) for i in rows], [i % 2 for i in rows], NAMES
        )
    write_parquet(root / "test-00000-of-00001.parquet", [encode(100), encode(101)], [0, 1], NAMES)
    return root


def test_reads_all_shards_in_order(folder: Path, ctx: Context) -> None:
    data = Parquet(path=folder)
    train, test = data.load("train", ctx), data.load("test", ctx)
    assert values(train.images) == list(range(10))
    assert train.labels.tolist() == [0, 1] * 5
    assert train.class_names == test.class_names == ("cat", "dog")
    assert values(test.images) == [100, 101]
    assert train.source == "pets"


def test_limits_cross_row_groups_and_shards(folder: Path, ctx: Context) -> None:
    data = Parquet(path=folder, limit_per_class=4, test_limit_per_class=1)
    assert values(data.load("train", ctx).images) == list(range(8))
    assert values(Parquet(path=folder, limit_per_class=1).load("train", ctx).images) == [0, 1]
    assert len(data.load("test", ctx)) == 2


def test_rows_far_apart_are_found(
    tmp_path: Path, write_parquet: Callable[..., Path], encode: Callable[..., bytes], ctx: Context
) -> None:
    labels = [0] * 20 + [1] * 3
    write_parquet(tmp_path / "p" / "train.parquet", [encode(i) for i in range(23)], labels, NAMES, row_group_size=4)
    data = Parquet(path=tmp_path / "p", limit_per_class=2).load("train", ctx)
    assert values(data.images) == [0, 1, 20, 21]


@pytest.mark.parametrize("name", ["data/test-00000.parquet", "validation-00000.parquet", "test/0000.parquet"])
def test_other_places_of_the_test_file(folder: Path, ctx: Context, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / "test-00000-of-00001.parquet").rename(folder / name)
    assert values(Parquet(path=folder).load("test", ctx).images) == [100, 101]


def test_test_split_chooses_among_several(
    folder: Path, write_parquet: Callable[..., Path], encode: Callable[..., bytes], ctx: Context, one_line: OneLine
) -> None:
    write_parquet(folder / "validation-0.parquet", [encode(200), encode(201)], [0, 1], NAMES)
    assert values(Parquet(path=folder).load("test", ctx).images) == [100, 101]
    assert values(Parquet(path=folder, test_split="validation").load("test", ctx).images) == [200, 201]
    with pytest.raises(UserError) as caught:
        Parquet(path=folder, test_split="dev").load("test", ctx)
    assert "'dev'" in one_line(caught)


def test_one_file_with_a_held_out_share(folder: Path, ctx: Context, one_line: OneLine) -> None:
    file = folder / "train-00000-of-00002.parquet"
    data = Parquet(path=file, test_fraction=0.4)
    train, test = (values(data.load(split, ctx).images) for split in ("train", "test"))
    assert sorted(train + test) == list(range(5))
    assert {v % 2 for v in test} == {0, 1}
    with pytest.raises(UserError) as caught:
        Parquet(path=file).load("test", ctx)
    assert "test_fraction=" in one_line(caught)


def test_files_are_those_that_loading_reads(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").write_text("not read")
    assert [p.name for p in Parquet(path=folder).files(tmp_path)] == [
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
        "test-00000-of-00001.parquet",
    ]


def test_string_labels_are_sorted_into_classes(
    tmp_path: Path, write_parquet: Callable[..., Path], encode: Callable[..., bytes], ctx: Context
) -> None:
    images = [encode(i) for i in range(3)]
    write_parquet(tmp_path / "p" / "train.parquet", images, ["pear", "apple", "pear"])
    data = Parquet(path=tmp_path / "p").load("train", ctx)
    assert data.class_names == ("apple", "pear")
    assert data.labels.tolist() == [1, 0, 1]


def test_integers_without_names_are_numbered(
    tmp_path: Path, write_parquet: Callable[..., Path], encode: Callable[..., bytes], ctx: Context
) -> None:
    write_parquet(tmp_path / "p" / "train.parquet", [encode(), encode()], [1, 0])
    assert Parquet(path=tmp_path / "p").load("train", ctx).class_names == ("class_0", "class_1")


def test_plain_binary_images_are_read(tmp_path: Path, encode: Callable[..., bytes], ctx: Context) -> None:
    pq.write_table(pa.table({"picture": [encode(5)], "kind": [0]}), tmp_path / "train.parquet")
    assert values(Parquet(path=tmp_path).load("train", ctx).images) == [5]


def test_the_usual_label_name_wins_over_others(
    tmp_path: Path, write_parquet: Callable[..., Path], encode: Callable[..., bytes], ctx: Context
) -> None:
    path = tmp_path / "p" / "train.parquet"
    write_parquet(path, [encode(), encode()], [0, 1], label="fine_label", extra={"coarse_label": [0, 0], "id": [7, 8]})
    assert Parquet(path=path).load("train", ctx).labels.tolist() == [0, 1]


def test_ambiguous_columns_list_the_candidates(
    tmp_path: Path, write_parquet: Callable[..., Path], encode: Callable[..., bytes], ctx: Context, one_line: OneLine
) -> None:
    path = tmp_path / "p" / "train.parquet"
    write_parquet(path, [encode(), encode()], [0, 1], label="genus", extra={"species": [1, 0]})
    with pytest.raises(UserError) as caught:
        Parquet(path=path).load("train", ctx)
    assert "genus, species" in one_line(caught)
    assert Parquet(path=path, label_column="species").load("train", ctx).labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"label_column": "nothing"}, "no column 'nothing'"),
        ({"label_column": "image"}, "cannot be the label"),
        ({"image_column": "label"}, "cannot be the image"),
    ],
)
def test_wrong_column_names_are_one_line(
    folder: Path, ctx: Context, one_line: OneLine, parameters: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        Parquet(path=folder, **parameters).load("train", ctx)
    assert message in one_line(caught)


@pytest.mark.parametrize("bad", [b"not an image", b"", None])
def test_a_damaged_image_is_named_by_row_and_file(
    tmp_path: Path,
    write_parquet: Callable[..., Path],
    encode: Callable[..., bytes],
    ctx: Context,
    one_line: OneLine,
    bad: bytes | None,
) -> None:
    good = [encode(i) for i in range(4)]
    write_parquet(tmp_path / "p" / "train-0.parquet", good, [0, 1, 0, 1])
    write_parquet(tmp_path / "p" / "train-1.parquet", [*good, bad], [0, 1, 0, 1, 0])
    with pytest.raises(ValidationError) as caught:
        Parquet(path=tmp_path / "p").load("train", ctx)
    assert "row 4 of train-1.parquet" in one_line(caught)


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_a_damaged_file_is_named(folder: Path, ctx: Context, one_line: OneLine, keep: int) -> None:
    bad = folder / "train-00001-of-00002.parquet"
    bad.write_bytes(bad.read_bytes()[:keep])
    with pytest.raises(ValidationError) as caught:
        Parquet(path=folder).load("train", ctx)
    assert bad.name in one_line(caught)


def test_mixed_sizes_name_two_rows(
    tmp_path: Path, write_parquet: Callable[..., Path], encode: Callable[..., bytes], ctx: Context, one_line: OneLine
) -> None:
    write_parquet(tmp_path / "p" / "train.parquet", [encode(), encode(0, (8, 9, 3))], [0, 1])
    with pytest.raises(UserError) as caught:
        Parquet(path=tmp_path / "p").load("train", ctx)
    message = one_line(caught)
    assert "row 0 of train.parquet is 8x8" in message
    assert "row 1 of train.parquet is 9x8" in message
    assert Parquet(path=tmp_path / "p", size=6).load("train", ctx).size == (6, 6)


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 0], NAMES, "class 'dog' has no image"),
        ([0, 2], NAMES, "label 2"),
        ([0, -1], NAMES, "label -1"),
        ([0, 2], None, "class 'class_1' has no image"),
        ([0, None], NAMES, "without a label"),
    ],
)
def test_labels_that_do_not_fit_are_one_line(
    tmp_path: Path,
    write_parquet: Callable[..., Path],
    encode: Callable[..., bytes],
    ctx: Context,
    one_line: OneLine,
    labels: list[int | None],
    names: list[str] | None,
    message: str,
) -> None:
    write_parquet(tmp_path / "p" / "train.parquet", [encode(), encode()], labels, names)
    with pytest.raises(ValidationError) as caught:
        Parquet(path=tmp_path / "p").load("train", ctx)
    assert message in one_line(caught)


@pytest.mark.parametrize(
    ("names", "message"), [(["cat", "cow"], "'dog' of"), (["dog", "cat"], "another order"), (["cat"], "'dog' of")]
)
def test_train_and_test_must_have_the_same_classes(
    folder: Path,
    write_parquet: Callable[..., Path],
    encode: Callable[..., bytes],
    ctx: Context,
    one_line: OneLine,
    names: list[str],
    message: str,
) -> None:
    write_parquet(folder / "test-00000-of-00001.parquet", [encode()] * 2, [0, len(names) - 1], names)
    with pytest.raises(ValidationError) as caught:
        Parquet(path=folder).load("train", ctx)
    assert message in one_line(caught)


def test_label_types_that_differ_between_shards_are_one_line(
    folder: Path, write_parquet: Callable[..., Path], encode: Callable[..., bytes], ctx: Context, one_line: OneLine
) -> None:
    write_parquet(folder / "train-00001-of-00002.parquet", [encode()], ["cat"])
    with pytest.raises(ValidationError) as caught:
        Parquet(path=folder).load("train", ctx)
    assert "train-00001-of-00002.parquet" in one_line(caught)


def test_a_file_without_rows_is_one_line(tmp_path: Path, ctx: Context, one_line: OneLine) -> None:
    schema = pa.schema([("image", pa.binary()), ("label", pa.int64())])
    pq.write_table(schema.empty_table(), tmp_path / "train.parquet")
    with pytest.raises(ValidationError) as caught:
        Parquet(path=tmp_path).load("train", ctx)
    assert "has no images" in one_line(caught)


@pytest.mark.parametrize("place", ["nothing", "."])
def test_a_place_without_parquet_files_is_one_line(tmp_path: Path, ctx: Context, one_line: OneLine, place: str) -> None:
    with pytest.raises(UserError) as caught:
        Parquet(path=tmp_path / place).load("train", ctx)
    one_line(caught)


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 90, 95])
def test_jpeg_quality_is_recovered(encode: Callable[..., bytes], quality: int) -> None:
    import io

    from PIL import Image
    from PIL.JpegImagePlugin import JpegImageFile

    with Image.open(io.BytesIO(encode(format="JPEG", quality=quality))) as image:
        assert isinstance(image, JpegImageFile)
        assert jpeg_quality(image.quantization) == quality


def test_tiny_imagenet(real_data: Path, ctx: Context) -> None:
    data = Parquet(path=real_data / "tiny-imagenet-100", limit_per_class=2, size=32).load("train", ctx)
    assert data.images.shape == (200, 32, 32, 3)
    assert data.class_names[0] == "n01443537 goldfish"
    assert np.bincount(data.labels).tolist() == [2] * 100


def test_photographs_without_a_test_split(real_data: Path, ctx: Context, one_line: OneLine) -> None:
    data = Parquet(path=real_data / "photos-256", size=64)
    assert data.load("train", ctx).images.shape == (1000, 64, 64, 3)
    with pytest.raises(UserError) as caught:
        data.load("test", ctx)
    assert "no test images" in one_line(caught)
