"""The protector keeps what ue-bench asks of every protector."""

from __future__ import annotations

from ue_bench.testing import Conformance

from ue_bench_hello.plugin import Hello

pytest_plugins = ["ue_bench.testing.plugin"]


def test_it_keeps_the_rules(conformance: Conformance) -> None:
    conformance(Hello())
