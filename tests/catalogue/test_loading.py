"""Strangers' distributions: found, ordered, and each on its own when something is wrong with it."""

from __future__ import annotations

import pytest
from toys import Install

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
    install: Install, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
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


HOOK = "from ue_bench.api import hookimpl\n\n{marker}\ndef {function}(register):\n    {body}\n"


def a_victim(name: str) -> str:
    return f"register('victim', '{name}', 'nowhere:Net', '')"


def hook(body: str, marker: str = "@hookimpl", function: str = "ue_bench_register") -> str:
    return HOOK.format(body=body, marker=marker, function=function)


def test_an_undecorated_hook_is_named_and_not_called(install: Install) -> None:
    install("forgetful", hook(a_victim("net-a"), marker=""), version="1.3")
    assert problems() == ["forgetful 1.3: ue_bench_register is not marked with @hookimpl"]
    assert ("victim", "net-a") not in registry().entries


def test_a_hook_of_another_name_is_called_as_its_specname_says(install: Install) -> None:
    code = hook(a_victim("net-b"), marker="@hookimpl(specname='ue_bench_register')", function="plugins")
    install("specific", code + "\n" + code.replace("net-b", "net-c").replace("def plugins", "def more"))
    assert problems() == []
    assert {("victim", "net-b"), ("victim", "net-c")} <= registry().entries.keys()


@pytest.mark.parametrize("marker", ["@hookimpl(wrapper=True)", "@hookimpl(hookwrapper=True)"])
def test_a_wrapper_is_named_and_not_called(install: Install, marker: str) -> None:
    install("wrapping", hook(f"{a_victim('net-d')}\n    return (yield)", marker=marker))
    [problem] = problems()
    assert problem.startswith("wrapping 1.0: ue_bench_register is a wrapper, but every implementation")
    assert ("victim", "net-d") not in registry().entries


def test_a_hook_that_would_do_nothing_is_named(install: Install) -> None:
    install("lazy", hook(f"yield {a_victim('net-e')}"))
    assert problems() == [
        "lazy 1.0: ue_bench_register is a generator or a coroutine, which does nothing when it is called"
    ]


def test_a_hook_may_leave_arguments_out(install: Install) -> None:
    install("modest", "import sys\nfrom ue_bench.api import hookimpl\n@hookimpl\ndef ue_bench_register():\n"
            "    sys.modules[__name__].called = True\n")  # fmt: skip
    assert problems() == []
    import modest  # type: ignore[import-not-found]  # the fixture puts it there

    assert modest.called


def test_an_unknown_hook_is_named(install: Install) -> None:
    install("misspelt", hook("pass", function="ue_bench_registr"))
    [problem] = problems()
    assert problem.startswith("misspelt 1.0: PluginValidationError: unknown hook 'ue_bench_registr'")


def order(of: str) -> list[str]:
    return [name for kind, name in registry().entries if kind == "victim" and name.startswith(of)]


def test_hooks_are_called_in_the_order_of_pluggy(install: Install) -> None:
    markers = {"cc": "@hookimpl", "bb": "@hookimpl(trylast=True)", "aa": "@hookimpl", "dd": "@hookimpl(tryfirst=True)"}
    for name, marker in markers.items():
        install(f"order-{name}", hook(a_victim(f"order-{name}"), marker=marker))
    assert order("order-") == ["order-dd", "order-aa", "order-cc", "order-bb"]


def test_not_even_tryfirst_takes_the_name_of_a_builtin(install: Install) -> None:
    install("aaa-first", hook("register('victim', 'resnet18', 'nowhere:Net', '')", marker="@hookimpl(tryfirst=True)"))
    assert registry().find("victim", "resnet18").distribution.startswith("ue-bench ")
    assert "is already registered by ue-bench " in problems()[0]


def test_a_module_that_leaves_the_process_loses_only_itself(install: Install) -> None:
    install("leaving", "raise SystemExit('not here')")
    install("leaving-later", hook("raise SystemExit(3)"))
    assert problems() == ["leaving 1.0: SystemExit: not here", "leaving-later 1.0: SystemExit: 3"]
