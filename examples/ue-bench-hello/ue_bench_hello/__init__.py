"""Register the protector. Every command of ue-bench imports this module: nothing heavy belongs here."""

from __future__ import annotations

from ue_bench.api import Register, hookimpl


@hookimpl
def ue_bench_register(register: Register) -> None:
    register(
        "protector",
        "hello",
        "ue_bench_hello.plugin:Hello",
        "stripes, one frequency a class",
    )
