"""Reference rows and published protectors, one module a method. Nothing heavy is imported before one is used."""

from __future__ import annotations

from ue_bench.api import Register, hookimpl


@hookimpl
def ue_bench_register(register: Register) -> None:
    package = "ue_bench_baselines"
    register("protector", "none", f"{package}.none:NoProtection", "clean images, the upper reference", ("reference",))
    register(
        "protector", "noise", f"{package}.noise:Noise", "uniform random noise, the budget's reference", ("reference",)
    )
    register(
        "protector",
        "lsp",
        f"{package}.lsp:LSP",
        "linearly separable colour patches (Yu et al., KDD 2022)",
        ("surrogate-free",),
    )
    register(
        "protector",
        "ar",
        f"{package}.ar:AR",
        "autoregressive perturbations (Sandoval-Segura et al., NeurIPS 2022)",
        ("surrogate-free",),
    )
    register(
        "protector",
        "ops",
        f"{package}.ops:OPS",
        "one-pixel shortcut (Wu et al., ICLR 2023)",
        ("surrogate-free",),
    )
    register(
        "protector",
        "em",
        f"{package}.em:EM",
        "error-minimising noise (Huang et al., ICLR 2021)",
        ("surrogate",),
    )
    register(
        "protector",
        "tap",
        f"{package}.tap:TAP",
        "targeted adversarial poisoning (Fowl et al., NeurIPS 2021)",
        ("surrogate",),
    )
    register("protector", "precomputed", f"{package}.precomputed:Precomputed", "protected images made elsewhere")
