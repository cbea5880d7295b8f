"""Give fixtures to tests of plugins: ``pytest_plugins = ["ue_bench.testing.plugin"]`` in a ``conftest.py``."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..contract.context import Context
from ..contract.imageset import ImageSet
from ..contract.plugin import Plugin
from ..grid.surrogates import Surrogates
from . import Conformance, Finding, check_plugin, failures, pictures


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    """Return a context on the CPU with seed 0, all of whose folders are the test's own."""
    (tmp_path / "scratch").mkdir()
    return Context("cpu", 0, tmp_path / "scratch", tmp_path / "artifacts", tmp_path / "data", networks=Surrogates())


@pytest.fixture
def conformance(ctx: Context) -> Conformance:
    """Return ``check(plugin, data=None)``, which fails unless the plugin keeps its rules, and returns the findings.

    ``data`` are clean training images, by default sixty generated ones in three classes.
    """

    def check(plugin: Plugin, data: ImageSet | None = None) -> list[Finding]:
        findings = check_plugin(plugin, data or pictures(), ctx)
        broken = failures(findings)
        if broken:
            pytest.fail("\n".join([plugin.selector, *broken]), pytrace=False)
        return findings

    return check
