"""The countermeasures of the Deep Hiding tables: augmentations, preprocessings and adversarial training."""

from __future__ import annotations

from ue_bench.api import Register, hookimpl

COLUMNS = (  # in the order of the paper's tables
    "vanilla",
    "cutout",
    "cutmix",
    "mixup",
    "mean",
    "median",
    "bdr",
    "gray",
    "gaussian-noise",
    "gaussian-filter",
    "jpeg[quality=10]",
    "jpeg[quality=50]",
    "at",
)


@hookimpl
def ue_bench_register(register: Register) -> None:
    """Register the twelve countermeasures and the thirteen columns they fill."""

    def add(name: str, target: str, summary: str, *tags: str) -> None:
        register("countermeasure", name, f"ue_bench_countermeasures.{target}", summary, tags)

    add("vanilla", "augmentation:Vanilla", "plain training: only the protocol's crop and flip", "augmentation", "noop")
    add("cutout", "augmentation:Cutout", "blank out one random square of every image", "augmentation")
    add("cutmix", "augmentation:CutMix", "paste a random box of another image", "augmentation", "mixing")
    add("mixup", "augmentation:Mixup", "blend every image with another one", "augmentation", "mixing")
    add("mean", "preprocessing:Mean", "3x3 mean filter", "preprocessing", "filter")
    add("median", "preprocessing:Median", "3x3 median filter", "preprocessing", "filter")
    add("bdr", "preprocessing:BitDepthReduction", "fewer bits a colour channel", "preprocessing", "squeezing")
    add("gray", "preprocessing:Gray", "luma in all three channels", "preprocessing", "squeezing")
    add("gaussian-noise", "augmentation:GaussianNoise", "fresh Gaussian noise on every batch", "preprocessing", "noise")
    add(
        "gaussian-filter",
        "preprocessing:GaussianFilter",
        "3x3 Gaussian filter; changes nothing at the published sigma=0.1",
        "preprocessing",
        "filter",
        "noop",
    )
    add("jpeg", "preprocessing:Jpeg", "JPEG compression of every image", "preprocessing", "squeezing")
    add("at", "adversarial:AdversarialTraining", "PGD adversarial training in the Linf ball", "training", "adversarial")
    register.set("countermeasure", "dh12", COLUMNS, "The 13 columns of the Deep Hiding tables")
