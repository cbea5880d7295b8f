"""Whatever files and selectors hold: an answer, or an error of the user's, never another exception."""

from __future__ import annotations

import json
import pickle
import shutil
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image
from toys import toy_registry

from ue_bench.catalogue import boards, protocols
from ue_bench.catalogue.selectors import parse
from ue_bench.errors import UserError
from ue_bench.owner import keyfile
from ue_bench.store.image_readers import open_noise, open_stored
from ue_bench.store.records import records
from ue_bench.store.schema import Result

from .helpers import damaged, fuzz, many, replaced, users

ROOT = Path(__file__).resolve().parents[2]
PIECES = [
    *("toy", "plain", "brighter", "all", "needy", "count", "by", "path", "true", "none", "1", "8/255", "[1,2]", "#0"),
    *"[]=,+^@*?'\"-. \n\0~é",
]


@many
def test_selectors(examples: int) -> None:
    names = toy_registry()
    texts = st.one_of(st.text(max_size=30), st.lists(st.sampled_from(PIECES), max_size=12).map("".join))

    def check(text: str) -> None:
        users(lambda: parse(text))
        users(lambda: [p.selector for p in names.resolve("protector", text, ["clean"])])
        users(lambda: [p.selector for p in names.resolve("countermeasure", text, ["plain"])])

    fuzz(check, texts, examples)


def a_result() -> dict[str, Any]:
    path = next(iter(sorted((ROOT / "leaderboards" / "cifar10-micro" / "results").rglob("*.json"))))
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


@many
def test_results(examples: int, tmp_path: Path) -> None:
    """A record that is wrong is set aside; one that claims a newer version is the user's to see."""
    text = json.dumps(a_result()).encode()
    texts = st.one_of(damaged(text), replaced(a_result()).map(lambda r: json.dumps(r).encode()))

    def check(content: bytes) -> None:
        file = tmp_path / "results" / "x.json"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        users(lambda: records(tmp_path / "results", Result))
        shutil.rmtree(tmp_path / "results" / "bad", ignore_errors=True)  # a new name is sought for each of one name

    fuzz(check, texts, examples)


BOARD = b"""title = "A"
dataset = "demo"
protocol = "recipe.toml"
victims = ["resnet9[blocks=1]"]
protectors = ["lsp"]
countermeasures = ["vanilla", "gray+jpeg"]
seeds = [0, 1]
"""
RECIPE = b"""version = 1
summary = "two steps"
source = "tests"
batch = 20
steps = 2
learning_rate = 0.1
schedule = "cosine"
[countermeasures.at]
epochs = 3
"""


@many
@pytest.mark.parametrize(("kind", "whole"), [("board", BOARD), ("protocol", RECIPE)])
def test_boards_and_protocols(kind: str, whole: bytes, examples: int, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes(RECIPE)
    file = tmp_path / f"{kind}.toml"
    read: Callable[[str], object] = boards.board if kind == "board" else protocols.protocol

    def check(content: bytes) -> None:
        file.write_bytes(content)
        users(lambda: read(str(file)))

    fuzz(check, damaged(whole), examples)


@pytest.mark.parametrize("kind", ["board", "protocol"])
def test_deep_nesting_is_one_line(kind: str, tmp_path: Path) -> None:
    (tmp_path / "deep.toml").write_text("title = " + 5000 * "[")
    read: Callable[[str], object] = boards.board if kind == "board" else protocols.protocol
    with pytest.raises(UserError, match=r"deep.toml is not TOML"):
        read(str(tmp_path / "deep.toml"))


def write_files(folder: Path) -> dict[str, bytes]:
    """Return small files of every format that images are read from."""
    from safetensors.numpy import save_file

    images = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    np.save(folder / "a.npy", images)
    labels = np.arange(4) % 2
    np.savez(folder / "a.npz", images=images, labels=labels)
    save_file({"images": images}, folder / "a.safetensors")
    torch.save({"images": torch.from_numpy(images), "labels": torch.arange(4)}, folder / "a.pt")
    torch.save(torch.from_numpy(images), folder / "old.pt", _use_new_zipfile_serialization=False)
    (folder / "a.pkl").write_bytes(pickle.dumps(images))
    for suffix in ("png", "jpg"):
        Image.fromarray(images[0]).save(folder / f"a.{suffix}")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@many
@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.safetensors", "a.pt", "old.pt", "a.pkl", "a.png", "a.jpg"])
def test_stored_images(name: str, examples: int, tmp_path: Path) -> None:
    whole = write_files(tmp_path)[name]
    folder = tmp_path / "folder"
    folder.mkdir()
    file = folder / ("0" + Path(name).suffix)
    argument = folder if file.suffix in (".png", ".jpg") else file

    def check(content: bytes) -> None:
        file.write_bytes(content)
        users(lambda: open_stored(argument).read(slice(0, 2)))
        users(lambda: open_noise(argument).read(slice(0, 2)))

    fuzz(check, damaged(whole), examples)


def a_key(**changes: Any) -> bytes:
    images = {b"p" * 16: keyfile.Entry(b"c" * 16, True, False, b"side")}
    fields: dict[str, Any] = {
        "name": "lsp", "revision": 1, "parameters": {}, "seed": 1, "device": "cpu", "threads": 1, "precision": "fp32",
        "arrays": {"levels": np.arange(3)}, "images": images,
    }  # fmt: skip
    return keyfile.encode(keyfile.Key(**(fields | changes)))


@many
def test_keys(examples: int, tmp_path: Path) -> None:
    file = tmp_path / "key.safetensors"

    def check(content: bytes) -> None:
        file.write_bytes(content)
        users(lambda: keyfile.load(file))

    fuzz(check, damaged(a_key()), examples)


@pytest.mark.parametrize(
    "settings", ["1", "[]", "null", 5000 * "[", '{"format": "ue-bench key 1"}', '{"format": [], "ue_bench": 1}']
)
def test_a_key_whose_settings_are_none(settings: str, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"images/protected": np.zeros((0, 16), np.uint8)}, tmp_path / "key", {"ue-bench": settings})
    with pytest.raises(UserError, match="is not a key of ue-bench"):
        keyfile.load(tmp_path / "key")


@pytest.mark.parametrize("changes", [{"name": 1}, {"seed": "1"}, {"parameters": []}, {"threads": None}], ids=str)
def test_a_key_with_settings_of_another_type(changes: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(a_key(**changes))
    with pytest.raises(UserError, match="is not a key of ue-bench"):
        keyfile.load(tmp_path / "key")


def test_a_sidecar_that_unpacks_to_much_more_is_refused() -> None:
    bomb = keyfile.Entry(bytes(16), True, False, zlib.compress(bytes(50_000_000), 9))
    tracemalloc.start()
    with pytest.raises(UserError, match="its part of the key is damaged"):
        bomb.restored(np.zeros((4, 4, 3), np.uint8))
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
