"""Countermeasures: those of the Deep Hiding tables, and further augmentations, preprocessings and procedures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ue_bench.api import Register, hookimpl

from .sets import SETS

if TYPE_CHECKING:
    import click


@hookimpl
def ue_bench_register(register: Register) -> None:
    """Register the countermeasures, and the columns of papers that they fill."""

    def add(name: str, target: str, summary: str, *tags: str) -> None:
        register("countermeasure", name, f"ue_bench_countermeasures.{target}", summary, tags)

    add(
        "vanilla",
        "augmentation:Vanilla",
        "plain training: only the protocol's crop and flip",
        "augmentation",
        "noop",
        "plain",
    )
    add("cutout", "augmentation:Cutout", "blank out one random square of every image", "augmentation")
    add("cutmix", "augmentation:CutMix", "paste a random box of another image", "augmentation", "mixing")
    add("mixup", "augmentation:Mixup", "blend every image with another one", "augmentation", "mixing")
    add("mean", "preprocessing:Mean", "3x3 mean filter", "preprocessing", "filter")
    add("median", "preprocessing:Median", "3x3 median filter", "preprocessing", "filter")
    add("bdr", "preprocessing:BitDepthReduction", "fewer bits a colour channel", "preprocessing", "squeezing")
    add("gray", "preprocessing:Gray", "one gray level in all three channels", "preprocessing", "squeezing")
    add("colour-space", "preprocessing:ColourSpace", "one step in a colour space", "preprocessing", "squeezing")
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
    add(
        "n-fgsm",
        "adversarial:NoisyFastAdversarialTraining",
        "adversarial training, one step from strong noise, without projection",
        "training",
        "adversarial",
    )
    add(
        "at-l2",
        "adversarial_l2:L2AdversarialTraining",
        "PGD adversarial training in the L2 ball",
        "training",
        "adversarial",
    )
    add(
        "early-stopping",
        "exploiters:EarlyStopping",
        "keep the weights that do best on clean images",
        "exploiter",
        "needs-clean-data",
    )
    add(
        "deep-feature-reweighting",
        "exploiters:DeepFeatureReweighting",
        "refit the last layer on clean images",
        "exploiter",
        "needs-clean-data",
    )
    add(
        "orthogonal-projection",
        "projection:OrthogonalProjection",
        "take out what a linear classifier finds in the images",
        "purifier",
    )
    add("sdaan", "sdaan:Sdaan", "noise against a classifier of pixels, then strong random views", "purifier")
    add("d-vae", "dvae:DVAE", "an auto-encoder that learns to tell images from perturbations", "purifier")
    add(
        "comdefend",
        "comdefend:ComDefend",
        "an auto-encoder lets twelve bits a pixel through",
        "purifier",
        "needs-clean-data",
    )
    add("dipdefend", "dipdefend:DIPDefend", "a network for every image draws it anew; for subsets", "purifier")
    add(
        "diffpure", "purifiers:DiffPure", "noise, taken away by a diffusion model along an SDE", "purifier", "diffusion"
    )
    add("avatar", "purifiers:Avatar", "noise, taken away by a diffusion model step by step", "purifier", "diffusion")
    add(
        "le-jcdp",
        "relearning:LeJcdp",
        "a diffusion model of clean images, guided by the protected ones",
        "purifier",
        "diffusion",
        "needs-clean-data",
    )
    add(
        "eclipse",
        "relearning:Eclipse",
        "a diffusion model of few clean images, then gray images and noise",
        "purifier",
        "diffusion",
        "needs-clean-data",
    )
    paired = ("needs-clean-data", "needs-pairs")
    add(
        "bridgepure",
        "bridgepure:BridgePure",
        "a diffusion bridge fitted to pairs of clean and protected images",
        "purifier",
        "diffusion",
        *paired,
    )
    add(
        "bridgepure-lite",
        "bridgepure:BridgePureLite",
        "one pass of a small network fitted to pairs",
        "purifier",
        *paired,
    )
    add("dilution", "bridgepure:Dilution", "some images as they were: the control of pairs", "control", *paired)
    for name, (members, summary) in SETS.items():
        register.set("countermeasure", name, members, summary)


@hookimpl
def ue_bench_commands(group: click.Group) -> None:
    from .comdefend_commands import comdefend
    from .detect_commands import detect
    from .import_commands import import_weights
    from .purifier_commands import purifier

    purifier.add_command(comdefend)
    purifier.add_command(import_weights)
    group.add_command(purifier)
    group.add_command(detect)
