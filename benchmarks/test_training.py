"""Training here against the loop of releases (``peer``): steps in this process, and whole cells as commands.

    BENCH_SIZE=full pytest benchmarks/test_training.py --benchmark-only --benchmark-json=out.json
    python benchmarks/summary.py out.json --clock wall

The loop of releases is given what suits it: the settings of threads and workers that are the fastest here. Ours starts
two workers of a thread each. Wall time says more about that than CPU seconds, and needs a quiet machine. A cell of
``micro`` is evaluated after every other epoch, that of releases after every one.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from functools import partial
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from pairs import in_pairs, seconds, sized
from peer import Arrays, builder
from peer import train as train_as_released
from pytest_benchmark.fixture import BenchmarkFixture

from ue_bench.api import Context, Countermeasure, ImageSet
from ue_bench.catalogue.protocols import protocol
from ue_bench.catalogue.registry import registry
from ue_bench.contract.context import silent
from ue_bench.engine.loop import train
from ue_bench.engine.precision import default_precision
from ue_bench.grid.data import stored_dataset, stored_split
from ue_bench.grid.environment import RunEnvironment
from ue_bench.store.artifacts import ArtifactStore

COLUMNS = ["vanilla", "gray", "jpeg[quality=10]"]
SMALL = "resnet9[blocks=1]"
EPOCHS = sized(2, 8)
DATASET = sized("demo[train_per_class=100,test_per_class=100]", "demo[train_per_class=1000,test_per_class=1000]")
CELLS = Path(__file__).with_name("cells.py")
PEER = Path(__file__).with_name("peer.py")


@pytest.mark.benchmark(group="training steps")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("victim", "column"), [*itertools.product([SMALL], COLUMNS), ("resnet18", "vanilla"), ("resnet18", COLUMNS[2])]
)
def test_steps(benchmark: BenchmarkFixture, victim: str, column: str, threads: int, tmp_path: Path) -> None:
    """Train for an epoch and evaluate a batch. What is done to stored images is done before, and belongs to ours.

    Classes are gray levels: of a training that has learned nothing ours evaluates a sample besides.
    """
    torch.set_num_threads(threads)
    count = sized(512, 4096) if victim == SMALL else sized(128, 512)
    labels = np.arange(count) % 10
    noise = np.random.default_rng(0).integers(0, 25, (count, 32, 32, 3), dtype=np.uint8)
    images = (noise + 23 * labels[:, None, None, None]).astype(np.uint8)
    test = Arrays(images[:64], labels[:64])
    recipe = protocol("micro").model_copy(update={"epochs": 1, "pad": 4})
    [countermeasure] = registry().resolve("countermeasure", column)
    assert isinstance(countermeasure, Countermeasure)
    build = builder(victim)

    def here() -> None:
        data, few = (ImageSet(i, y, tuple("abcdefghij")) for i, y in ((images, labels), (test.images, test.labels)))
        if countermeasure.overrides("purify"):
            data = countermeasure.purify(data, Context("cpu", 0, tmp_path, tmp_path, tmp_path))
        train(build, data, few, recipe, countermeasure, "cpu", default_precision("cpu"), 0, silent)

    def there() -> None:
        with torch.random.fork_rng():
            train_as_released(build, Arrays(images, labels), test, recipe, column)

    what = f"{victim}, {column}: {count // recipe.batch} steps, {threads} thread{'s' * (threads > 1)}"
    in_pairs(
        benchmark, what, here, f"loop of releases, {threads} thread{'s' * (threads > 1)}, no workers", there,
        rounds=3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the set which all cells are trained on, and the same set as one file."""
    root = tmp_path_factory.mktemp("stored")
    env, store = RunEnvironment.of(root / "cache", root), ArtifactStore(root / "cache")
    [plugin] = registry().resolve("dataset", DATASET)
    data = stored_dataset(plugin, env, silent)  # type: ignore[arg-type]  # resolve says Plugin
    training, test = stored_split(store, data, "train"), stored_split(store, data, "test")
    np.savez(
        root / "set.npz",
        train_images=training.images, train_labels=training.labels, test_images=test.images, test_labels=test.labels,
    )  # fmt: skip
    return root


def as_released(stored: Path, column: str, *more: str) -> None:
    command = [sys.executable, str(PEER), "--data", str(stored / "set.npz"), "--victim", SMALL, "--column", column]
    subprocess.run([*command, *more], check=True, stdout=subprocess.DEVNULL)


def fastest(stored: Path, column: str) -> list[str]:
    """Return the threads and workers with which the loop of releases is the fastest, as options."""
    taken: list[tuple[float, float, list[str]]] = []
    for threads, workers in itertools.product([1, 2], [0, 1, 2]):
        options = ["--threads", str(threads), "--workers", str(workers)]
        command = partial(as_released, stored, column, *options, "--steps", sized("8", "60"))
        taken.append((*seconds(command), options))
    for wall, cpu, options in sorted(taken):
        print(f"{column}: {' '.join(options)}: {wall:.1f} s, {cpu:.1f} s of CPU")
    return min(taken)[2]


@pytest.mark.benchmark(group="whole cells")
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("column", ["vanilla", "jpeg[quality=10]"])
def test_cells(benchmark: BenchmarkFixture, column: str, stored: Path, tmp_path: Path) -> None:
    """Compute two cells of as many epochs: one run of ours, and one command a cell of the loop of releases."""
    options = fastest(stored, column)
    cache, out, recipe = tmp_path / "cache", tmp_path / "out", tmp_path / "shorter.toml"
    micro = (files("ue_bench.protocols") / "micro.toml").read_text(encoding="utf-8")
    recipe.write_text(micro.replace("epochs = 8", f"epochs = {EPOCHS}"), encoding="utf-8")

    def prepare() -> None:
        for folder in (cache, out):  # what was purified and found out before is not to be found
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(stored / "cache", cache)

    def here() -> None:
        command = [sys.executable, str(CELLS), str(cache), str(out), DATASET, SMALL, column, str(recipe)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def there() -> None:
        for _ in range(2):
            as_released(stored, column, *options, "--epochs", str(EPOCHS))

    in_pairs(
        benchmark, f"{SMALL}, {column}: two cells of {EPOCHS} epochs, two workers", here,
        f"loop of releases, {options[1]} threads, {options[3]} workers", there,
        rounds=sized(2, 3), prepare=prepare, warm=False,
    )  # fmt: skip
