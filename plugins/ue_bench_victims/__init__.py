"""Classifier architectures."""

from __future__ import annotations

from ue_bench.api import Register, hookimpl


@hookimpl
def ue_bench_register(register: Register) -> None:
    register("victim", "resnet9", "ue_bench_victims.resnet:ResNet9", "Small residual net for CPUs, 0.5 M parameters")
    register(
        "victim",
        "resnet18",
        "ue_bench_victims.resnet:ResNet18",
        "ResNet-18, CIFAR stem below 64 px, ImageNet stem above, 11.2 M parameters",
    )
