"""Named sets: the columns of papers, as far as they are built, and in the order of their tables."""

from __future__ import annotations

COLUMNS = (
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
ADDED = (  # what the journal version may have added; its body and list could not be had
    "avatar",
    "ueraser[variant=lite]",
    "ueraser[variant=max]",
    "d-vae",
    "orthogonal-projection",
    "le-jcdp",
)
APBENCH = (
    "vanilla",
    "cutout",
    "cutmix[box=kornia]",
    "mixup[variant=standard]",
    "gaussian-filter",
    "bdr",
    "gray",
    "jpeg[quality=10]",
    "ueraser[variant=max,plasma=1.0,trivial=batch]",
    "avatar[t=60,reverse=vp-sde]",
    "at[start=gauss]",
)
ISS = ("gray", "jpeg[quality=10]", "bdr", "gray+jpeg[quality=10]", "bdr+gray+jpeg[quality=10]")
RAEG = ("vanilla", "jpeg[quality=90]", "jpeg[quality=50]", "resize", "gaussian-noise", "median")

SETS = {
    "dh12": (COLUMNS, "The 13 columns of the Deep Hiding tables"),
    "extended18": (
        (*COLUMNS, *ADDED),
        "Our reading of the 18 countermeasures of Deep Hiding's journal version, whose list is not known to us",
    ),
    "iss": (
        ISS,
        "Image Shortcut Squeezing: its members, and combinations in the order of its code",
    ),
    "apbench": (APBENCH, "The columns of APBench's CIFAR-10 leaderboard, in its variants"),
    "raeg": (
        RAEG,
        "What RAEG's tables process images with, but for comdefend and dipdefend, which take long; ratios and "
        "deviations it does not give are our defaults",
    ),
    "evasion": (RAEG, "What is done to test images before 'evade' shows them to a classifier"),
}
