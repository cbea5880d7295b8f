"""What a test run says of tests that it did not run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
CODE = """
import pytest

@pytest.mark.slow
def test_slow(): ...

@pytest.mark.gpu
@pytest.mark.parametrize("number", [1, 2])
def test_gpu(number): ...

@pytest.mark.skip(reason="no such thing here")
def test_skipped(): ...

def test_runs(): ...
"""


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "spread"])
def test_it_says_what_it_left_out_and_why(tmp_path: Path, workers: list[str]) -> None:
    (tmp_path / "test_some.py").write_text(CODE, encoding="utf-8")
    (tmp_path / "conftest.py").write_text(
        f"import sys\nsys.path.insert(0, {str(TESTS)!r})\nfrom left_out import *\n", encoding="utf-8"
    )
    options = ["-c", str(TESTS.parent / "pyproject.toml"), "--rootdir", str(tmp_path), "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--import-mode", "importlib", *workers, tmp_path],
        cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    said = ran.stdout.splitlines()
    assert "NOT RUN [2] gpu: a CUDA device: pytest -m gpu" in said, ran.stdout
    assert "NOT RUN [1] slow: minutes: pytest -m slow" in said
    assert any(line.startswith("SKIPPED [1]") and line.endswith("no such thing here") for line in said)
    assert ran.returncode == 0
