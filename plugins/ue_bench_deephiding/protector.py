"""The Deep Hiding protector."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ue_bench.api import Context, ImageSet, InputPath, Protector, Ratio, derive, digest_path

if TYPE_CHECKING:
    from .banks import Bank, Drawn
    from .networks import Hider
    from .recipe import Recipe

SHIPPED = Path(__file__).with_name("hider.safetensors")
BATCH = 128
LARGEST_BANK = 2**28  # bytes of hidden images that are kept at a time
BATCH_PIXELS = 2**22  # 2.5 GB
TRAINING = ("start", "train_steps", "hider", "lfc", "omega1", "omega2", "omega3", "hide_only", "per_image")


class DeepHiding(Protector):
    """Hides one semantic image of its class in every image, with an invertible network (HiNet, 16 blocks).

    ``mode=class`` hides the same image in all images of a class; ``mode=sample`` one of ``bank_size`` images that
    share a scene: silhouettes, and which part is the brighter. The hidden image decides the perturbation, so its shape
    becomes the easiest feature of the class. No classifier is attacked.

    The paper bounds the mean squared error of the hiding network's training, sqrt(MSE) = 8/255, and nothing else:
    single pixels move by far more than 8 levels. ``projection=linf`` clips the perturbation to +-eps, which the paper
    does not do; compare that variant with methods that keep an Linf budget.

    How the shipped network was trained is in ``hider.json`` beside it. ``weights`` uses one of yours, as
    ``ue-bench deephiding train`` writes them. ``retrain=true`` trains one on the clean training set with hidden images
    of the same kind, which takes hours on a CPU; the parameters after it are the ablations of the paper, which shape
    that training. ``start=shipped`` trains the shipped network further instead: some hundred steps show which way a
    loss moves it. ``hider=isgan`` trains the network of Table H, which hides the luminance only.

    Published: 10.00 % (class-wise) and 15.36 % (sample-wise) accuracy of a ResNet-18 on CIFAR-10 under plain training
    (Deep Hiding, Table 1), with images from Stable Diffusion; here they are drawn procedurally unless others are given.

    Of the sources of hidden images, ``procedural`` draws them (the default), ``natural`` takes a photograph of its own
    for each class, ``random_natural`` and ``next_class`` are ablations of Table D (``bank_size`` photographs that all
    classes share; clean images of the class after), ``folder`` takes yours, and ``logo`` hides one image in all, which
    marks images rather than protects them. ``tpc=false`` draws scenes at random instead of far apart from each other,
    which stands for the paper's ablation of text prompt clustering; its ablation of diffusion and edge maps is
    ``natural`` or ``random_natural``.

    Deviations: hidden images are not diffusion samples; sample-wise images are dealt out evenly in a seeded order (the
    paper does not say how); a network is retrained on the images to protect, the paper trains one on a set of its own;
    sizes that are not even are mirrored by one row or column for hiding; with
    ``projection=linf`` an eps between two 8-bit levels is taken down to the lower one.
    """

    name: ClassVar[str] = "deephiding"
    revision: ClassVar[int] = 2
    paper: ClassVar[str] = "Deep Hiding, submission to ICLR 2024; hiding network of Jing et al., HiNet, ICCV 2021"

    mode: Literal["class", "sample"] = Field("class", description="one hidden image a class, or many")
    hidden: Literal["procedural", "natural", "random_natural", "next_class", "folder", "logo"] = Field(
        "procedural", description="where hidden images come from"
    )
    hidden_images: InputPath | None = Field(
        None,
        description="natural, random_natural: a folder of images or Parquet files; folder: one sub-folder a class, by "
        "name or number; logo: one image",
    )
    tpc: bool = Field(True, description="procedural: scenes far apart by class, or drawn at random")
    bank_size: int = Field(100, ge=1, le=10_000, description="mode=sample: hidden images a class")
    projection: Literal["none", "linf"] = Field(
        "none", description="clip the perturbation to +-eps, or not (the paper)"
    )
    eps: Ratio = Field(8 / 255, gt=0, le=1, description="projection=linf: the radius on the [0, 1] scale")
    weights: InputPath | None = Field(None, description="a hiding network of 'ue-bench deephiding train'")
    retrain: bool = Field(False, description="train a hiding network instead of using the shipped one")
    start: Literal["fresh", "shipped"] = Field(
        "fresh", description="retrain: weights to begin from, drawn at random or the shipped network's"
    )
    train_steps: int = Field(5_000, ge=1, description="retrain: optimizer steps")
    hider: Literal["hinet", "isgan"] = Field("hinet", description="retrain: the hiding network")
    lfc: bool = Field(True, description="retrain: with latent feature concentration (equation 7)")
    omega1: float = Field(1.0, ge=0, description="retrain: weight of the low-frequency loss")
    omega2: float = Field(1.0, ge=0, description="retrain: weight of the revealing loss")
    omega3: float = Field(1e-4, gt=0, description="retrain: weight of latent feature concentration")
    hide_only: bool = Field(False, description="retrain: with the hiding loss alone, which learns nothing (Table K)")
    per_image: bool = Field(False, description="retrain: hold every image to the radius, not the mean of a batch")

    @model_validator(mode="after")
    def _consistent(self) -> DeepHiding:
        given = self.model_fields_set
        if (self.hidden not in ("procedural", "next_class")) != (self.hidden_images is not None):
            raise ValueError("hidden_images=PATH goes with hidden=natural, random_natural, folder or logo")
        if self.hidden == "random_natural" and self.mode != "sample":
            raise ValueError("hidden=random_natural needs mode=sample; hidden=natural hides one photograph a class")
        if self.hidden == "logo" and (self.mode == "sample" or self.retrain):
            raise ValueError("hidden=logo is one image for all: it goes with mode=class and the shipped network")
        if self.weights and self.retrain:
            raise ValueError("weights are those of a trained network: give them or retrain=true")
        if self.hide_only and given & {"lfc", "omega1", "omega2", "omega3"}:
            raise ValueError("hide_only=true leaves no weight of another loss")
        if self.hider == "isgan" and given & {"start", "lfc", "omega1", "omega2", "omega3", "hide_only", "per_image"}:
            raise ValueError("hider=isgan is trained with losses of its own")
        for field, condition, needed in [
            ("bank_size", self.mode == "sample", "mode=sample"),
            ("eps", self.projection == "linf", "projection=linf"),
            ("tpc", self.hidden == "procedural", "hidden=procedural"),
            ("omega3", self.lfc, "lfc=true"),
            *((field, self.retrain, "retrain=true") for field in TRAINING),
        ]:
            if field in given and not condition:
                raise ValueError(f"{field} needs {needed}")
        return self

    def identity(self) -> dict[str, Any]:
        """Return the parameters, and the shipped weights where no others are used: other weights, other images."""
        others = self.weights or (self.retrain and self.start == "fresh")
        shipped = {} if others else {"weights": digest_path(SHIPPED)}
        return {**super().identity(), **shipped}

    @property
    def budget(self) -> str:
        if self.projection == "linf":
            return f"linf {round(self.eps * 255, 3):g}/255"
        # ISGAN's losses hold no radius, and what your weights were trained with is not known here. The radius is that
        # of training: checkerboards, stripes or text that are hidden may leave three times as much.
        unknown = self.weights or self.hider == "isgan" or self.hidden_images is not None
        return "none" if unknown else "mse (8/255)^2"

    @property
    def origin(self) -> Path | None:
        """The file of the network that ``retrain=true`` begins from; None for a fresh one."""
        return SHIPPED if self.start == "shipped" else None

    @property
    def uses_networks(self) -> bool:
        return self.retrain  # hiding itself is in float32, always

    @property
    def largest_image(self) -> int:
        return 2**18 if self.retrain else 2**23  # measured: 600 bytes a pixel, and 110 s of a core a megapixel

    @property
    def one_size(self) -> bool:
        return self.retrain or self.hidden == "next_class"  # which hides other images of the set

    @property
    def answers_queries(self) -> bool:
        return True

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        """Protect images, rounded to 8 bits. Raises UserError when hidden images are missing or too few."""
        import torch

        from .hinet import to_pixels, to_unit

        height, width = data.size
        padded = (height + height % 2, width + width % 2)
        learnt = ctx.learning(data)[0]
        bank = self.drawn(learnt, padded, ctx) or self.bank(learnt, padded, ctx)
        axes = data.size if ctx.secret else ()  # an owner's images come in sets of one size, each dealt out anew
        chosen = assignment(learnt.labels, bank.shape[1], ctx.rng("assignment", *axes))
        if learnt is not data:
            chosen = in_turn(chosen, learnt.labels, data.labels)
        network = self.network(data, ctx).to(ctx.device).to(memory_format=torch.channels_last)
        radius = math.floor(self.eps * 255 + 1e-6) / 255  # whole levels, so that rounding cannot leave the ball

        def hide(images: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
            mirror = ((0, 0), (0, padded[0] - height), (0, padded[1] - width), (0, 0))
            cover = to_unit(np.pad(images, mirror, mode="reflect"), ctx.device)
            hidden = to_unit(bank[data.labels[where], chosen[where]], ctx.device)
            with torch.inference_mode():
                stego = network.hide(cover, hidden)
                if self.projection == "linf":
                    stego = cover + (stego - cover).clamp(-radius, radius)
            return to_pixels(stego)[:, :height, :width]

        return ctx.map_images(data, hide, "hide", batch=max(1, min(BATCH, BATCH_PIXELS // (height * width))))

    def bank(self, data: ImageSet, size: tuple[int, int], ctx: Context) -> Bank:
        """Return each class's hidden images at ``size``: one for ``mode=class``, ``bank_size`` for ``mode=sample``."""
        return self._bank(data, self.bank_size if self.mode == "sample" else 1, size, ctx)

    def drawn(self, data: ImageSet, size: tuple[int, int], ctx: Context) -> Drawn | None:
        """Return ``bank`` as one whose images are drawn when they are used, where all of them are too large to keep."""
        from .banks import Drawn

        if self.hidden != "procedural":
            return None
        images = self.bank_size if self.mode == "sample" else 1
        bank = Drawn(data.num_classes, images, size, derive(ctx.seed, "silhouettes"), self.tpc)
        return bank if bank.nbytes > LARGEST_BANK else None

    def training_bank(self, data: ImageSet, images: int, size: tuple[int, int], ctx: Context) -> Bank:
        """Return ``images`` hidden images a class to train a hiding network on, or as many as were given."""
        from . import banks

        if self.hidden == "natural" and self.hidden_images:
            images = min(images, len(banks.pictures(self.hidden_images)) // data.num_classes)
        elif self.hidden == "random_natural" and self.hidden_images:
            images = min(images, len(banks.pictures(self.hidden_images)))
        elif self.hidden == "folder" and self.hidden_images:
            path = self.hidden_images
            names = enumerate(data.class_names)
            images = min(images, *(len(banks.pictures_of_class(path, name, label)) for label, name in names))
        return self._bank(data, max(1, images), size, ctx)

    def _bank(self, data: ImageSet, images: int, size: tuple[int, int], ctx: Context) -> Bank:
        from . import banks

        if self.hidden == "procedural":
            return banks.procedural(data.num_classes, images, size, derive(ctx.seed, "silhouettes"), self.tpc)
        if self.hidden == "next_class":
            return banks.next_class(data, images, size, ctx.rng("bank"))
        assert self.hidden_images is not None
        if self.hidden == "logo":
            return banks.logo(self.hidden_images, data.num_classes, size)
        if self.hidden in ("natural", "random_natural"):
            draw = banks.natural if self.hidden == "natural" else banks.random_natural
            return draw(self.hidden_images, data.num_classes, images, size, ctx.rng("bank"))
        return banks.folder(self.hidden_images, data.class_names, images, size)

    def network(self, data: ImageSet, ctx: Context) -> Hider:
        """Return the trained hiding network in eval mode, float32."""
        from .networks import load_network

        if not self.retrain:
            return load_network(self.weights or SHIPPED)
        from .retrain import train_on

        data, ctx = ctx.learning(data)
        # Only what shapes the network: class-wise and sample-wise protection share one.
        shaping = {"hidden", "hidden_images", "tpc", "retrain", *TRAINING}
        trained = DeepHiding(
            mode="sample" if self.hidden == "random_natural" else "class",
            **{field: value for field, value in self.changed().items() if field in shaping},
        )
        key = {
            "hider": trained.identity(), "data": data.fingerprint, "seed": ctx.seed, "precision": ctx.precision
        }  # fmt: skip
        folder = ctx.cached(key, lambda target: train_on(trained, data, ctx, key, target))
        return load_network(folder / "hider.safetensors")

    def recipe(self, size: int, seed: int) -> Recipe:
        """Return how ``retrain=true`` trains, on crops of ``size`` pixels."""
        from .recipe import Recipe

        weighted = not self.hide_only
        return Recipe(
            hider=self.hider,
            steps=self.train_steps,
            size=size,
            omega_freq=self.omega1 * weighted,
            omega_reveal=self.omega2 * weighted,
            omega_conc=self.omega3 * (weighted and self.lfc),
            per_image=self.per_image,
            seed=seed,
        )


def in_turn(chosen: NDArray[np.int64], learnt: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Deal what is ``chosen`` for images of ``learnt`` labels out to others, class by class in order, and again."""
    dealt = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        mine = labels == label
        dealt[mine] = np.resize(chosen[learnt == label], int(mine.sum()))
    return dealt


def assignment(labels: NDArray[np.int64], images: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Assign a hidden image to each cover: within a class every one is used equally often, give or take one."""
    chosen = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        rounds = -(-len(rows) // images)
        chosen[rows] = np.concatenate([rng.permutation(images) for _ in range(rounds)])[: len(rows)]
    return chosen
