"""Reference rows and published protectors, one module a method. Nothing heavy is imported before one is used."""

from __future__ import annotations

from ue_bench.api import Register, hookimpl

TABLES = (
    ("apbench-cifar10", "apbench", "APBench's leaderboard for CIFAR-10"),
    ("iss-cifar10", "iss", "Image Shortcut Squeezing, README: plain training, gray and JPEG on CIFAR-10"),
    ("eclipse-cifar10", "eclipse", "ECLIPSE: accuracy under ten countermeasures on CIFAR-10"),
)


@hookimpl
def ue_bench_register(register: Register) -> None:
    package = "ue_bench_baselines"
    register(
        "protector",
        "none",
        f"{package}.none:NoProtection",
        "clean images, the upper reference",
        ("reference", "clean"),
    )
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
    register(
        "protector",
        "rem",
        f"{package}.rem:REM",
        "robust error-minimising noise (Fu et al., ICLR 2022)",
        ("surrogate",),
    )
    register(
        "protector",
        "entf",
        f"{package}.entf:EntF",
        "entangled features (Wen et al., ICLR 2023)",
        ("surrogate",),
    )
    register(
        "protector",
        "hypo",
        f"{package}.hypo:HYPO",
        "hypocritical perturbations (Tao et al., NeurIPS 2021)",
        ("surrogate",),
    )
    register(
        "protector",
        "tue",
        f"{package}.tue:TUE",
        "transferable unlearnable examples, model-free (Ren et al., ICLR 2023)",
        ("surrogate-free",),
    )
    register(
        "protector",
        "cuda",
        f"{package}.cuda:CUDA",
        "one random blur a class (Sadasivan et al., CVPR 2023)",
        ("surrogate-free",),
    )
    register(
        "protector",
        "spots",
        f"{package}.spots:Spots",
        "small striped spots, one code a class, and decoys for one class (this project's own)",
        ("surrogate-free",),
    )
    register(
        "countermeasure",
        "spot-removal",
        f"{package}.spot_removal:SpotRemoval",
        "takes off what spots adds, for who knows the method (this project's own)",
    )
    register(
        "protector",
        "ntga",
        f"{package}.ntga:NTGA",
        "neural tangent generalization attacks (Yuan & Wu, ICML 2021)",
        ("surrogate",),
    )
    register(
        "protector",
        "tensorclog",
        f"{package}.tensorclog:TensorClog",
        "images whose gradients vanish (Shen et al., IEEE Access 2019)",
        ("surrogate",),
    )
    register(
        "protector",
        "deepconfuse",
        f"{package}.deepconfuse:DeepConfuse",
        "a generator that misleads classifiers (Feng et al., NeurIPS 2019)",
        ("surrogate",),
    )
    register(
        "protector",
        "sep",
        f"{package}.sep:SEP",
        "self-ensemble protection (Chen et al., ICLR 2023)",
        ("surrogate",),
    )
    register(
        "protector",
        "advin-like",
        f"{package}.advin:ADVINLike",
        "TAP on a robust surrogate (after Wang et al., 2021)",
        ("surrogate",),
    )
    register(
        "protector",
        "pue",
        f"{package}.pue:PUE",
        "EM's classes under disturbed weights (Wang et al., NDSS 2025)",
        ("surrogate",),
    )
    register(
        "protector",
        "sem",
        f"{package}.sem:SEM",
        "REM whose inner adversary is a random draw (Liu et al., AAAI 2024)",
        ("surrogate",),
    )
    register(
        "protector",
        "pil",
        f"{package}.pil:PIL",
        "noise that makes victims linear, from a linear surrogate (Liu et al., ICLR 2026)",
        ("surrogate",),
    )
    register(
        "protector",
        "aue",
        f"{package}.aue:AUE",
        "error-minimising noise under contrastive views (Wang et al., NeurIPS 2024)",
        ("surrogate",),
    )
    register(
        "protector",
        "aap",
        f"{package}.aap:AAP",
        "adversarial poisoning under contrastive views (Wang et al., NeurIPS 2024)",
        ("surrogate",),
    )
    register(
        "protector",
        "gue",
        f"{package}.gue:GUE",
        "a generator that leads a game with a classifier (Liu et al., AAAI 2024)",
        ("surrogate",),
    )
    register(
        "protector",
        "dune",
        f"{package}.dune:DUNE",
        "a colour shift a class and ensemble noise (Wang et al., ICML 2026)",
        ("surrogate",),
    )
    register(
        "protector",
        "uc",
        f"{package}.uc:UC",
        "noise of clusters, without labels (Zhang et al., CVPR 2023)",
        ("surrogate",),
    )
    register("protector", "precomputed", f"{package}.precomputed:Precomputed", "protected images made elsewhere")
    register.set("protector", "reference", ["none", "noise"], "rows that every board has unless it names its own")
    for name, target, summary in TABLES:
        register.table(name, f"{package}.tables.comparisons:{target}", summary)
