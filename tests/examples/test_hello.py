"""The example distribution, installed as anybody's would be and used through the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ue_bench.api import Context, ImageSet
from ue_bench.catalogue.registry import Registry
from ue_bench.contract.registration import Register
from ue_bench.scaffold import Blueprint
from ue_bench.store import perturbation
from ue_bench.testing import check_protector, failures, pictures

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ue-bench-hello"
PROJECT: dict[str, Any] = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LABEL = f"{PROJECT['name']} {PROJECT['version']}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as an installer leaves it: the package, and its metadata as its pyproject.toml has them."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(EXAMPLE / "ue_bench_hello", folder / "ue_bench_hello", ignore=shutil.ignore_patterns("__pycache__"))
    info = folder / f"ue_bench_hello-{PROJECT['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PROJECT['name']}\nVersion: {PROJECT['version']}\n")
    lines = [f"{name} = {target}" for name, target in PROJECT["entry-points"]["ue_bench"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[ue_bench]", *lines, ""]))
    return folder


def ue_bench(site: Path, *words: str, **environment: str) -> str:
    """What the command prints."""
    code = "from ue_bench.cli.main import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", code, *words],
        env=os.environ | {"PYTHONPATH": str(site)} | environment,
        cwd=site,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_it_is_what_new_makes() -> None:
    paths = [p.relative_to(EXAMPLE) for p in EXAMPLE.rglob("*") if p.is_file()]
    sources = [p for p in paths if not any("cache" in part for part in p.parts)]  # of Python and of tools
    assert {p.as_posix(): (EXAMPLE / p).read_text(encoding="utf-8") for p in sources} == Blueprint(
        "protector", "hello"
    ).render()


def test_list_shows_it_with_its_distribution(site: Path) -> None:
    listed = {row["name"]: row for row in json.loads(ue_bench(site, "list", "protectors", "--json"))}
    assert listed["hello"]["distribution"] == LABEL
    assert listed["hello"]["available"]


def test_show_prints_its_parameter(site: Path) -> None:
    shown = ue_bench(site, "show", "hello")
    assert f"distribution: {LABEL}" in shown
    assert "levels: integer 1..64, default 8. height of a stripe in gray levels (of 255)" in shown


def test_run_fills_a_row(site: Path, tmp_path: Path) -> None:
    grid = ["-D", "demo[train_per_class=4,test_per_class=2]", "-P", "hello[levels=4]", "-C", "gray"]
    where = ["--devices", "cpu", "--jobs", "1", "--out", str(tmp_path / "out")]
    results = json.loads(ue_bench(site, "run", *grid, *where, "--json", UE_BENCH_CACHE=str(tmp_path / "cache")))
    assert {r["protector"]: r["budget"]["linf_max"] for r in results} == {
        "none": 0,
        "noise": 8,
        "hello[levels=4]": 4,
    }
    assert {r["countermeasure"] for r in results} == {"gray"}


def test_wheel_holds_the_same(site: Path, tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling builds the wheel")
    source = shutil.copytree(EXAMPLE, tmp_path / "source")
    code = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"
    built = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=source, capture_output=True, text=True, check=True, timeout=120
    )
    with zipfile.ZipFile(tmp_path / built.stdout.splitlines()[-1]) as wheel:
        names = [n for n in wheel.namelist() if n.startswith("ue_bench_hello/")]
        [entry_points] = [wheel.read(n).decode() for n in wheel.namelist() if n.endswith("entry_points.txt")]
    assert sorted(names) == ["ue_bench_hello/__init__.py", "ue_bench_hello/plugin.py"]
    assert entry_points.split() == next(site.glob("*.dist-info/entry_points.txt")).read_text().split()


class TestMethods:
    @pytest.fixture
    def names(self, monkeypatch: pytest.MonkeyPatch) -> Registry:
        monkeypatch.syspath_prepend(str(EXAMPLE))
        import ue_bench_hello

        found = Registry()
        ue_bench_hello.ue_bench_register(register=Register(found, LABEL))
        return found

    @pytest.fixture
    def data(self) -> ImageSet:
        images = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
        return ImageSet(images, np.arange(12) % 3, ("a", "b", "c"))

    def test_protected_images_keep_the_rules_and_the_budget(
        self, names: Registry, data: ImageSet, tmp_path: Path
    ) -> None:
        protector: Any = names.create("protector", "hello", {"levels": 5})
        protected = protector.protect(data, Context("cpu", 0, tmp_path, tmp_path, tmp_path))
        perturbation.check(protector, data, protected)
        measured = perturbation.measure(data, protected, protector.budget)
        assert measured.declared == "linf 5/255"
        assert measured.linf_max == 5

    def test_it_passes_the_checks_for_plugins(self, names: Registry, tmp_path: Path) -> None:
        protector: Any = names.create("protector", "hello", {})
        assert failures(check_protector(protector, pictures(), Context("cpu", 0, tmp_path, tmp_path, tmp_path))) == []

    def test_class_c_has_c_plus_one_periods(self, names: Registry, tmp_path: Path) -> None:
        gray = ImageSet(np.full((3, 16, 16, 3), 128, np.uint8), np.arange(3), ("a", "b", "c"))
        protector: Any = names.create("protector", "hello", {})
        protected = protector.protect(gray, Context("cpu", 0, tmp_path, tmp_path, tmp_path))
        rising = (np.diff(protected.images[:, :, 0, 0].astype(int), axis=1, prepend=0) > 0).sum(axis=1)
        assert rising.tolist() == [1, 2, 3]
