"""Countermeasures: those of the Deep Hiding tables, and further augmentations, preprocessings and procedures."""

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
    """Register the countermeasures, and the thirteen columns that twelve of them fill."""

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
    add("resize", "preprocessing:Resize", "down to half the size and up again", "preprocessing", "filter")
    add("tvm", "denoising:TotalVariation", "total variation minimisation", "preprocessing", "denoising")
    add("wavelet", "denoising:Wavelet", "wavelet shrinkage", "preprocessing", "denoising")
    add("pca", "denoising:PrincipalComponents", "projection on principal components", "preprocessing", "denoising")
    add("rotation", "policies:Rotation", "turn every image by up to 20 degrees", "augmentation", "policy")
    add("randaugment", "policies:RandAugment", "two random operations on every image", "augmentation", "policy")
    add("autoaugment", "policies:AutoAugment", "one of 25 learned pairs of operations", "augmentation", "policy")
    add("ueraser", "ueraser:UEraser", "train on the worst of several strong augmentations", "training")
    add("coin", "augmentation:Coin", "take every pixel from a random place near it", "augmentation")
    add(
        "fgsm-rs",
        "adversarial:FastAdversarialTraining",
        "adversarial training, one random step",
        "training",
        "adversarial",
    )
    register.set("countermeasure", "dh12", COLUMNS, "The 13 columns of the Deep Hiding tables")
