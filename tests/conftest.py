from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
from fake_cuda import FakeGpu, stand_in
from hypothesis import settings
from left_out import (  # noqa: F401  hooks
    pytest_deselected,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
)
from toys import Install

from ue_bench.catalogue import loading
from ue_bench.catalogue.registry import registry
from ue_bench.contract.context import Context
from ue_bench.grid.environment import RunEnvironment
from ue_bench.grid.surrogates import Surrogates

# No deadline: the first example of a test imports what it needs, and machines are busy. The same examples in every run.
settings.register_profile("tests", deadline=None, derandomize=True)
settings.load_profile("tests")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device here")


@pytest.fixture(autouse=True)
def no_user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UE_BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def env(tmp_path: Path) -> RunEnvironment:
    return RunEnvironment(cache_dir=tmp_path / "cache", data_dir=tmp_path / "data", out=tmp_path / "out")


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    """What a plugin is lent on the CPU, with networks that are trained when it asks for them."""
    return Context(
        device="cpu",
        seed=0,
        scratch=tmp_path,
        artifacts=tmp_path / "artifacts",
        data_dir=tmp_path,
        networks=Surrogates(),
    )


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a distribution with one plugin module on the path, as pip would; undone afterwards."""
    site = tmp_path / "site"

    def add(name: str, code: str, version: str = "1.0", entry_point: str | None = None, module: str = "") -> None:
        module = module or name.replace("-", "_")
        info = site / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[ue_bench]\n{entry_point or name} = {module}\n", encoding="utf-8")
        (site / f"{module}.py").write_text(code, encoding="utf-8")
        monkeypatch.syspath_prepend(str(site))
        _forget()

    _forget()
    yield add
    for imported, found in list(sys.modules.items()):  # another test may install other code under the same name
        if Path(getattr(found, "__file__", None) or "/").is_relative_to(site):
            del sys.modules[imported]
    _forget()


def _forget() -> None:
    loading.load.cache_clear()
    registry.cache_clear()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread: sums come out the same only for the same number of threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """A device ``cuda`` without a driver, see ``fake_cuda``."""
    return stand_in(monkeypatch)


class NoTorchvision:
    """As on a CPU build of torch beside a CUDA build of torchvision."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist\nand more")
        return None


@pytest.fixture
def broken_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the import of torchvision fail, as it does where it was made for another torch."""
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NoTorchvision(), *sys.meta_path])
