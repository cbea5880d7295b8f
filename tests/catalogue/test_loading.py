"""Strangers' distributions: found, ordered, and each on its own when something is wrong with it."""

from __future__ import annotations

import pytest
from conftest import Install

from ue_bench.catalogue import loading
from ue_bench.catalogue.registry import registry
from ue_bench.errors import EnvironmentProblem

GOOD = """
from ue_bench.api import Countermeasure, hookimpl

class Mine(Countermeasure):
    name = "{name}"

@hookimpl
def ue_bench_register(register):
    register("countermeasure", "{name}", "{module}:Mine", "a stranger's")
"""


def good(name: str) -> str:
    return GOOD.format(name=name, module=name.replace("-", "_"))


def problems() -> list[str]:
    return [f"{p.distribution}: {p.reason}" for p in registry().problems]


def test_a_distribution_is_found_by_its_entry_point(install: Install) -> None:
    install("stranger-a", good("stranger-a"), version="2.5")
    [found] = registry().resolve("countermeasure", "stranger-a")
    assert found.selector == "stranger-a"
    assert registry().find("countermeasure", "stranger-a").distribution == "stranger-a 2.5"
    assert problems() == []


def test_one_that_fails_on_import_loses_only_itself(install: Install) -> None:
    install("bad-import", "raise RuntimeError('no luck\\nsecond line')", version="0.7")
    install("stranger-b", good("stranger-b"))
    assert problems() == ["bad-import 0.7: RuntimeError: no luck"]
    assert registry().resolve("countermeasure", "stranger-b,vanilla")


def test_one_whose_module_is_missing_loses_only_itself(install: Install) -> None:
    install("bad-module", "import bad_module_needs_this", version="0.8")
    assert problems() == ["bad-module 0.8: ModuleNotFoundError: No module named 'bad_module_needs_this'"]
    assert registry().resolve("countermeasure", "@dh12")


def test_one_whose_hook_fails_loses_only_itself(install: Install) -> None:
    hook = "from ue_bench.api import hookimpl\n@hookimpl\ndef ue_bench_register(register):\n    raise KeyError('gone')"
    install("bad-hook", hook, version="1.1")
    install("stranger-c", good("stranger-c"))
    assert problems() == ["bad-hook 1.1: KeyError: 'gone'"]
    assert registry().resolve("countermeasure", "stranger-c,vanilla")


def test_one_with_an_unknown_hook_argument_loses_only_itself(install: Install) -> None:
    hook = "from ue_bench.api import hookimpl\n@hookimpl\ndef ue_bench_register(registry):\n    pass"
    install("bad-signature", hook, version="1.2")
    assert len(problems()) == 1
    assert problems()[0].startswith("bad-signature 1.2: PluginValidationError")
    assert registry().resolve("countermeasure", "vanilla")


def test_one_whose_class_does_not_load_is_named_when_it_is_used(install: Install) -> None:
    code = good("bad-class").replace("bad_class:Mine", "bad_class_inside:Mine")
    install("bad-class", code, version="3.0")
    assert problems() == []
    with pytest.raises(EnvironmentProblem, match=r"bad-class 3\.0 cannot be loaded: ModuleNotFoundError"):
        registry().resolve("countermeasure", "bad-class")
    assert registry().resolve("countermeasure", "vanilla")


def test_nobody_takes_the_name_of_a_builtin(install: Install) -> None:
    code = good("aaa-thief").replace('"aaa-thief"', '"jpeg"')
    install("aaa-thief", code)
    assert registry().find("countermeasure", "jpeg").distribution.startswith("ue-bench ")
    [problem] = problems()
    assert problem.startswith("aaa-thief 1.0: ValueError: countermeasure 'jpeg' is already registered by ue-bench ")


def test_two_distributions_may_use_the_same_entry_point_name(install: Install) -> None:
    install("stranger-d", good("stranger-d"), entry_point="methods")
    install("stranger-e", good("stranger-e"), entry_point="methods")
    install("bad-too", "raise RuntimeError('x')", entry_point="methods")
    assert registry().resolve("countermeasure", "stranger-d,stranger-e")
    assert problems() == ["bad-too 1.0: RuntimeError: x"]


def test_a_damaged_installation_without_metadata_is_passed_over(
    install: Install, tmp_path_factory, monkeypatch
) -> None:
    site = tmp_path_factory.mktemp("damaged")
    info = site / "damaged-1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text("[ue_bench]\ndamaged = damaged\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(site))
    install("stranger-f", good("stranger-f"))
    assert registry().resolve("countermeasure", "stranger-f,vanilla")


def test_strangers_come_in_order_of_their_names(install: Install) -> None:
    install("zz-late", good("zz-late"))
    install("aa-early", good("aa-early"))
    found = list(loading.load().distributions.values())
    assert found[-2:] == ["aa-early 1.0", "zz-late 1.0"]
    assert found[0].startswith("ue-bench ")
