"""What this distribution brings. Nothing heavy is imported before a plugin is used."""

from __future__ import annotations

from ue_bench.api import Register, hookimpl


@hookimpl
def ue_bench_register(register: Register) -> None:
    register("protector", "hello-stripes", "ue_bench_hello.methods:Stripes", "stripes, one frequency a class")
    register(
        "countermeasure",
        "hello-shuffle",
        "ue_bench_hello.methods:ChannelShuffle",
        "colour channels in random order",
        tags=("augmentation",),
    )
