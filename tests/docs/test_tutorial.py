"""docs/tutorial.md, followed from top to bottom in an environment with the wheels, away from the sources."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ue_bench.api import Context, Protector
from ue_bench.store.perturbation import check
from ue_bench.testing import pictures

from .helpers import ROOT, blocks, page

TEXT = page("docs/tutorial.md")
SCRIPT = ROOT / ".ci" / "tutorial"


def test_its_protector_keeps_its_budget(tmp_path: Path, ctx: Context) -> None:
    [block] = blocks(TEXT, "python")
    names: dict[str, Any] = {}
    exec(compile(block, "docs/tutorial.md", "exec", dont_inherit=True), names)
    protector = names["Checks"](levels=4)
    assert isinstance(protector, Protector)
    clean = pictures()
    protected = protector.protect(clean, ctx)
    check(protector, clean, protected)
    assert np.abs(protected.images.astype(int) - clean.images).max() == 4


@pytest.mark.parametrize(
    ("printed", "expected", "agree"),
    [
        ("a b", "a b", True),
        ("a b", "a", False),
        ("a", "a b", False),
        ("a x y b", "a ... b", True),
        ("a b", "a ... b", True),
        ("a x y c", "a ... b", False),
        ("a x", "...", True),
        ("", "...", True),
        ("", "", True),
    ],
)
def test_what_is_printed_is_compared(printed: str, expected: str, agree: bool) -> None:
    agrees: Callable[[list[str], list[str]], bool] = runpy.run_path(str(SCRIPT))["agrees"]
    assert agrees(printed.split(), expected.split()) == agree


@pytest.fixture
def clean_environment(tmp_path: Path) -> Path:
    """A Python into which the wheel was installed; everything else it has from this one."""
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    wheels = tmp_path / "wheels"
    options: list[str | Path] = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    build: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        *options,
        "--no-build-isolation",
        "--wheel-dir",
        wheels,
        ROOT,
    ]
    subprocess.run(build, check=True, timeout=250)
    subprocess.run([python, "-m", "pip", "install", *options, *wheels.glob("*.whl")], check=True, timeout=250)
    inside = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    Path(inside, "from_outside.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_it_can_be_followed(clean_environment: Path, tmp_path: Path) -> None:
    """Without a network: what it installs is built with what is there."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1"}  # 0: without isolation
    where = "import ue_bench; print(ue_bench.__file__)"
    # Away from the sources, which a command in their folder would import.
    ran = subprocess.run(
        [clean_environment, "-c", where], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith(str(tmp_path))
    ran = subprocess.run(
        [clean_environment, SCRIPT, tmp_path / "followed"], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr
    assert (tmp_path / "followed" / "ue-bench-results" / "demo" / "index.html").is_file()
