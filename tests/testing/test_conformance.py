"""What is asked of plugins of every kind beyond the usual sets: each check is seen to fail."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from ue_bench.api import Context, ImageSet, Plugin, Protector
from ue_bench.testing import check_plugin, failures, pictures

from .helpers import broken, found
from .wrong import Bright, Dotted, Long, Silent, Undocumented, Wired


@pytest.fixture
def data() -> ImageSet:
    return pictures(24, (12, 12))


@pytest.mark.parametrize("plugin", [Long(), Bright(), Wired()], ids=lambda plugin: plugin.name)
def test_those_that_keep_the_rules(plugin: Plugin, ctx: Context, data: ImageSet) -> None:
    findings = check_plugin(plugin, data, ctx, seconds=None)
    assert failures(findings) == []
    sets = [f.check for f in findings if f.stage == "sets"]
    assert sets == ["32x32/2", "48x64/10", "96x96/3", "1x50/3", "32x32/100", "gray levels", "flat", "classes"]


OTHER_SIDES = {"sets 48x64/10", "sets 1x50/3", "sets classes"}


@pytest.mark.parametrize(
    ("fault", "faults"),
    [
        ("", set()),
        ("refuses", set()),
        ("sides", OTHER_SIDES),
        ("bold", OTHER_SIDES),
        ("classes", {"sets classes"}),
        ("many", {"sets 32x32/100"}),
        ("gray", {"sets gray levels", "sets flat"}),
        ("flat", {"sets flat"}),
        ("memory", {"large memory"}),
        ("secret", {"secret seed"}),
        ("batch", {"alone recover", "recover nearer"}),
    ],
)
def test_faults_of_protectors(fault: str, faults: set[str], ctx: Context, data: ImageSet) -> None:
    assert broken(check_plugin(Dotted(fault=fault), data, ctx, seconds=None)) == faults


@pytest.mark.parametrize(("fault", "check"), [("inputs", "inputs"), ("threads", "settings"), ("errors", "settings")])
def test_what_is_not_its_own_is_left_alone(fault: str, check: str, ctx: Context, data: ImageSet) -> None:
    threads, errors = torch.get_num_threads(), np.geterr()
    try:
        assert f"protect {check}" in broken(check_plugin(Dotted(fault=fault), data, ctx, seconds=None))
    finally:
        torch.set_num_threads(threads)
        np.seterr(**errors)


def test_refusals_are_noted(ctx: Context, data: ImageSet) -> None:
    findings = check_plugin(Dotted(fault="refuses"), data, ctx, seconds=None)
    assert found(findings, "sets", "1x50/3").text == "refused: dotted takes square images"
    findings = check_plugin(Dotted(fault="small"), data, ctx, seconds=None)
    assert failures(findings) == []
    assert found(findings, "large", "images").text == "refused: dotted takes small images"
    assert "secret" in {f.stage for f in findings}


@pytest.mark.parametrize(
    ("fault", "faults"), [("", set()), ("repeats", {"resume result"}), ("leaves", {"resume state"})]
)
def test_kill_and_resume(fault: str, faults: set[str], ctx: Context, data: ImageSet) -> None:
    findings = check_plugin(Long(fault=fault), data, ctx, seconds=None)
    assert broken(findings) == faults
    assert found(findings, "resume", "result").values == {"files": 1}


@pytest.mark.parametrize(
    ("fault", "faults"),
    [
        ("sides", OTHER_SIDES),  # turned by 90 degrees
        ("in place", {*OTHER_SIDES, "sets 32x32/2", "sets 96x96/3", "sets 32x32/100", "sets gray levels", "sets flat"}),
        ("nan", {"sets flat"}),
    ],
)
def test_faults_of_countermeasures(fault: str, faults: set[str], ctx: Context, data: ImageSet) -> None:
    assert broken(check_plugin(Bright(fault=fault), data, ctx, seconds=None)) == faults


@pytest.mark.parametrize(
    ("fault", "faults"), [("classes", {"sets 32x32/100"}), ("sides", {*OTHER_SIDES, "sets 32x32/100"})]
)
def test_faults_of_victims(fault: str, faults: set[str], ctx: Context, data: ImageSet) -> None:
    assert broken(check_plugin(Wired(fault=fault), data, ctx, seconds=None)) == faults


def test_what_a_plugin_declares(ctx: Context, data: ImageSet) -> None:
    findings = check_plugin(Undocumented(), data, ctx)
    assert broken(findings) == {"declares docstring", "declares parameters", "declares revision"}
    assert found(findings, "declares", "parameters").text == "side has no description"


def test_a_plugin_that_ends_the_program_is_one_that_fails(
    ctx: Context, data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dotted, "protect", lambda self, data, ctx: sys.exit(0))
    findings = check_plugin(Dotted(), data, ctx, seconds=None)
    assert found(findings, "protect", "runs").text == "raises SystemExit: 0"


def test_a_class_that_cannot_travel(ctx: Context, data: ImageSet) -> None:
    class Here(Dotted):
        """Lives in a function."""

        name: ClassVar[str] = "here"

    assert "declares pickle" in broken(check_plugin(Here(), data, ctx))


class TestTime:
    def test_work_is_stopped_when_it_is_over(self, ctx: Context, data: ImageSet) -> None:
        findings = check_plugin(Long(), data, ctx, seconds=1e-9)
        assert failures(findings) == []
        assert "nothing more was tried" in found(findings, "protect", "time").text
        assert not [f for f in findings if f.stage == "sets"]

    def test_work_that_reports_nothing_is_stopped_too(self, ctx: Context, data: ImageSet) -> None:
        findings = check_plugin(Silent(), data, ctx, seconds=0.5)
        assert "nothing more was tried" in found(findings, "protect", "time").text

    def test_sets_for_which_there_is_none_are_noted(self, ctx: Context, data: ImageSet) -> None:
        findings = check_plugin(Wired(), data, ctx, seconds=1e-9)
        assert found(findings, "sets", "96x96/3").text.startswith("not tried: some ")

    def test_reports_still_arrive(self, ctx: Context, data: ImageSet) -> None:
        seen: list[str] = []
        told = replace(ctx, report=lambda done, total, text: seen.append(text))
        check_plugin(Long(), data, told, seconds=None)
        assert "steps" in seen


def test_another_kind_is_refused(ctx: Context, data: ImageSet) -> None:
    with pytest.raises(TypeError, match="a Plugin cannot be checked"):
        check_plugin(Plugin(), data, ctx)
    assert issubclass(Dotted, Protector)
