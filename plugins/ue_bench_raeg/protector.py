"""The RAEG protector."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ue_bench.api import Context, ImageSet, InputPath, NetworkCost, Protector, digest_path

if TYPE_CHECKING:
    from .generator import TwoWay
    from .recipe import Recipe

SHIPPED = Path(__file__).with_name("generator.safetensors")
PIXELS = 2**18  # of the images in a batch; how many does not matter to the result
ATTACK = "(noise|blur|scaling|crop|jpeg)"


class Raeg(Protector):
    """Reversible adversarial examples from an invertible generator (RAEG, "Invertible Image Dataset Protection").

    A U-shaped invertible network of Haar transforms and double-sided affine couplings changes images so that given
    classifiers, trained on clean images, fail on them, also after simulated noise, blur, scaling, crop and JPEG. Its
    inverse brings the originals back: the weights are the key. Inference uses no labels. Nothing bounds the change; the
    paper's images are at 24 to 31 dB. An attack on fixed classifiers, like ``tap``, not on training itself.

    ``preset=shipped`` uses a small generator that comes with this package, so that images are protected at once; how it
    was trained is in ``generator.json`` beside it. It is known to everybody, and so is the way back. ``weights`` is one
    of yours, of ``ue-bench raeg train``. ``preset=paper`` and ``preset=micro`` train one on the images to protect,
    which takes hours: first the ``targets``, which other protectors share, then the generator. ``paper`` has the
    paper's settings, for one week on a GPU at 256 px; ``micro`` fits a CPU core for 32 px. A null parameter takes the
    preset's value. Images of any size: sides are mirrored up to multiples of 8.

    ``generator=enc-dec``, ``gan=off``, ``perceptual=off`` and a single one of the ``targets`` are the ablations of the
    paper's Table 4.

    Recovery loses what clamping and rounding to 8 bits take, times what the inverse makes of it: 38 to 48 dB in the
    paper. With ``sidecars`` it is exact.

    Raises UserError when ``weights`` is no generator or a target not one victim, EnvironmentProblem when
    ``perceptual=imagenet`` finds no weights, ValidationError when training fails.

    Deviations from the paper, which has no public code. Repaired: signs of the adversarial losses (the discriminator
    says "generated"), the inverse's division, names of losses. Ours, because the paper is silent or its form unstable:
    a bounded scale in the couplings; last convolutions without spectral norm that start at zero; attacked images among
    those that classifiers must fail on; a cap on their loss; a penalty for values outside [0, 1]; clamping and rounding
    before recovery in training; clipped gradients, non-finite steps skipped; the weights kept are the best on images
    held out; every parameter whose description says so. ``preset=micro`` is no measurement of the paper's.

    Expect, with four large classifiers, ResNet-50 accuracy of 6.8 % on protected Mini-ImageNet test images, 17.1 %
    after JPEG 50, recovery at 39.4 dB (RAEG, Tables 1 and 2).
    """

    name: ClassVar[str] = "raeg"
    revision: ClassVar[int] = 2
    paper: ClassVar[str] = "Invertible Image Dataset Protection, ICME 2022, arXiv 2112.14420"
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "targets": "vgg16+resnet50+resnet101+densenet121", "width": 64, "gamma": 0.005, "cls_form": "cap",
            "perceptual": "imagenet", "gan_width": 64, "attacks": "noise+blur+scaling+crop+jpeg", "blur_kernel": 7,
            "blur_sigma": 2.0, "epochs": 50, "steps": None, "batch": 8, "learning_rate": 1e-4, "gan_rate": 1e-4,
            "schedule": "constant", "validate_every": 1000,
            # The paper gives the batch alone.
            "targets_recipe": {"batch": 32, "epochs": 60, "learning_rate": 0.01, "schedule": "cosine"},
        },
        "micro": {
            "targets": "resnet9[blocks=1]+resnet9", "width": 16, "gamma": 0.009, "cls_form": "log", "perceptual": "off",
            "gan_width": 16, "attacks": "noise+blur+jpeg", "blur_kernel": 3, "blur_sigma": 1.0, "epochs": None,
            "steps": 5000, "batch": 16, "learning_rate": 1e-4, "gan_rate": 1e-4, "schedule": "cosine",
            "validate_every": 250,
            # That of the small surrogates of other protectors, which are then the same.
            "targets_recipe": {
                "batch": 64, "epochs": 8, "learning_rate": 0.1, "nesterov": True, "schedule": "onecycle", "pad": 0,
                "shift": 0.5,
            },
        },
    }  # fmt: skip

    preset: Literal["shipped", "paper", "micro"] = Field(
        "shipped",
        description="the generator that is shipped, or one to train, whose parameters are the paper's, or for a CPU "
        "core, unless given",
    )
    weights: InputPath | None = Field(None, description="a generator of 'ue-bench raeg train', which has all else")
    targets: str | None = Field(
        None, description="classifiers to mislead: victim selectors joined by +; null: the paper's four, micro two"
    )
    targets_epochs: int | None = Field(None, ge=1, description="of their training; null: 60 (ours), micro 8")
    generator: Literal["invertible", "enc-dec"] = Field(
        "invertible", description="the paper's network, or its ablation: an encoder and a decoder (ours)"
    )
    width: int | None = Field(None, ge=1, le=1024, description="channels in sub-networks; null: 64 (ours), micro 16")
    subnet_depth: int = Field(2, ge=1, le=8, description="hidden convolutions of a sub-network (ours)")
    clamp: float = Field(1.0, gt=0, le=4, description="bound of the couplings' log scale (ours)")
    haar_order: Literal["band", "channel"] = Field("band", description="what lies together after a transform (ours)")
    up_order: Literal["blocks_first", "haar_first"] = Field(
        "blocks_first", description="couplings or transform first on the way up (ours)"
    )
    alpha: float = Field(0.01, ge=0, description="weight of the perceptual loss")
    beta: float = Field(1.0, ge=0, description="weight of recovery")
    gamma: float | None = Field(None, ge=0, description="weight of classification; null: 0.005, micro 0.009")
    delta: float = Field(0.01, ge=0, description="weight of the adversarial loss")
    eps: float = Field(2.0, ge=0, description="failure on protected images against success on recovered ones")
    range_weight: float = Field(1.0, ge=0, description="weight of the penalty outside [0, 1] (ours)")
    perceptual: Literal["imagenet", "own", "off"] | None = Field(
        None, description="VGG-16 with ImageNet weights, trained like the targets, or none; null: imagenet, micro off"
    )
    cls_attacked: Literal["mean", "off", "only"] = Field(
        "mean", description="classifiers must fail on protected and attacked images, the former, or the latter (ours)"
    )
    cls_form: Literal["cap", "log"] | None = Field(
        None, description="how failure is measured: capped cross-entropy, or log(1 - p) (ours); null: cap, micro log"
    )
    cls_cap: float = Field(10.0, gt=0, description="cls_form=cap: the largest cross-entropy that counts (ours)")
    joint: Literal["losses", "logits"] = Field("losses", description="what of the classifiers is averaged (ours)")
    gan: Literal["bce", "lsgan", "off"] = Field("bce", description="the adversarial loss")
    gan_width: int | None = Field(
        None, ge=1, le=512, description="channels of the discriminator's first layer; null: 64 (ours), micro 16"
    )
    rev_attacked_prob: float = Field(0.0, ge=0, le=1, description="how often recovery is from attacked images (ours)")
    attacks: str | None = Field(
        None,
        pattern=rf"^{ATTACK}(\+{ATTACK})*$",
        description="simulated attacks joined by +: noise, blur, scaling, crop, jpeg; null: all, micro three of them",
    )
    noise_sigma: float = Field(0.05, gt=0, le=1, description="largest deviation of the simulated noise (ours)")
    blur_kernel: Literal[3, 5, 7, 9] | None = Field(
        None, description="largest side of the simulated blur, from 3 (ours); null: 7, micro 3"
    )
    blur_sigma: float | None = Field(
        None, gt=0, le=10, description="deviation of the simulated blur in pixels (ours); null: 2, micro 1"
    )
    scaling_low: float = Field(0.5, gt=0, le=4, description="smallest ratio of the simulated scaling (ours)")
    scaling_high: float = Field(1.5, gt=0, le=4, description="largest ratio of the simulated scaling (ours)")
    crop_low: float = Field(0.5, gt=0, le=1, description="least share of a side that the simulated crop keeps (ours)")
    jpeg_mixed: int = Field(3, ge=1, le=20, description="terms of the simulated JPEG (ours)")
    jpeg_mask: Literal["hidden", "mbrs"] = Field("hidden", description="JPEG-Mask as in HiDDeN or in MBRS (ours)")
    epochs: int | None = Field(None, ge=1, description="passes over the images, unless steps are given; null: 50")
    steps: int | None = Field(None, ge=1, description="steps in all; null: those of the epochs, micro 5000")
    batch: int | None = Field(None, ge=1, le=100_000, description="images a step; null: 8, micro 16")
    learning_rate: float | None = Field(None, gt=0, description="of the generator's Adam; null: 1e-4")
    gan_rate: float | None = Field(None, gt=0, description="of the discriminator's Adam (ours); null: 1e-4")
    schedule: Literal["constant", "cosine"] | None = Field(
        None, description="of both rates, cosine to a tenth (ours); null: constant, micro cosine"
    )
    clip: float = Field(1.0, ge=0, description="largest gradient norm, 0 for none (ours)")
    flip: bool = Field(True, description="mirror half of the training images (ours)")
    validation: int = Field(256, ge=1, description="images that only choose the best weights (ours)")
    validate_every: int | None = Field(
        None, ge=1, description="steps between such choices (ours); null: 1000, micro 250"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Raeg:
        given = self.model_fields_set
        if self.weights is not None and given > {"weights"}:
            others = ", ".join(sorted(given - {"weights"}))
            raise ValueError(f"weights are of a trained generator: {others} would do nothing")
        if self.file is not None:
            if others := ", ".join(sorted(given - {"weights", "preset"})):
                raise ValueError(f"the shipped generator is trained: {others} needs preset=paper or preset=micro")
            return self
        for field, condition, needed in [
            ("cls_cap", self.setting("cls_form") == "cap", "cls_form=cap"),
            ("gan_width", self.gan != "off", "gan"),
            ("gan_rate", self.gan != "off", "gan"),
            ("delta", self.gan != "off", "gan"),
            ("alpha", self.setting("perceptual") != "off", "perceptual"),
            ("epochs", self.steps is None, "steps=null"),
            *(
                (field, self.generator == "invertible", "generator=invertible")
                for field in ("subnet_depth", "clamp", "haar_order", "up_order")
            ),
            *(
                (field, attack in self.setting("attacks"), f"attacks={attack}")
                for field in type(self).model_fields
                for attack in ("noise", "blur", "scaling", "crop", "jpeg")
                if field.startswith(f"{attack}_")
            ),
        ]:
            if field in given and not condition:
                raise ValueError(f"{field} needs {needed}")
        if self.scaling_low > self.scaling_high:
            raise ValueError("scaling_low is above scaling_high")
        return self

    @property
    def file(self) -> Path | None:
        """Return the file of a trained generator, ``weights`` or the one that is shipped; None where one is trained."""
        return SHIPPED if self.weights is None and self.preset == "shipped" else self.weights

    def identity(self) -> dict[str, Any]:
        """Return the parameters, and the shipped weights where they are used: other weights, other images."""
        shipped = {"weights": digest_path(SHIPPED)} if self.file == SHIPPED else {}
        return {**super().identity(), **shipped}

    def setting(self, name: str) -> Any:
        """Return the parameter ``name`` as given, else that of the preset, which is one to train by."""
        value = getattr(self, name)
        return self.PRESETS[self.preset].get(name) if value is None else value

    @property
    def target_names(self) -> list[str]:
        """Return victim selectors of the target classifiers."""
        names: str = self.setting("targets")
        return [name.strip() for name in names.split("+")]

    @property
    def targets_recipe(self) -> dict[str, Any]:
        """Return how the target classifiers are trained, as fields of a protocol."""
        recipe: dict[str, Any] = self.PRESETS[self.preset]["targets_recipe"]
        return recipe if self.targets_epochs is None else recipe | {"epochs": self.targets_epochs}

    def recipe(self, images: int, seed: int) -> Recipe:
        """Return how a generator is trained on so many images."""
        from dataclasses import fields

        from .recipe import Recipe

        values = {f.name: self.setting(f.name) for f in fields(Recipe) if f.name not in ("steps", "seed", "attacks")}
        return Recipe(**values, steps=self.length(images), seed=seed, attacks=tuple(self.setting("attacks").split("+")))

    def length(self, images: int) -> int:
        """Return how many optimizer steps a training on so many images takes."""
        steps: int | None = self.steps or (None if self.epochs else self.PRESETS[self.preset]["steps"])
        if steps is not None:
            return steps
        training_images = images - min(self.validation, images // 2)
        per_pass: int = max(1, training_images // self.setting("batch"))
        passes: int = self.setting("epochs")
        return passes * per_pass

    @property
    def classes_needed(self) -> int:
        """Return 2 where the generator has to be trained against classifiers."""
        return 2 if self.file is None else 1

    @property
    def uses_networks(self) -> bool:
        return self.file is None  # protection itself is in float32, always

    def cost(self, images: int) -> NetworkCost | None:
        """Estimate the first target's passes alone: its training, and three images a step. The generator is no victim.

        For ``preset=micro`` the generator takes most of the time, about a second for a batch on one core.
        """
        if self.file is not None:
            return None
        seen = self.length(images) * self.setting("batch") / max(1, images)
        return NetworkCost(self.target_names[0], len(self.target_names) * (self.targets_recipe["epochs"] + 3 * seen))

    @property
    def largest_image(self) -> int:
        return 2**18 if self.uses_networks else 2**20  # of a pixel in width 64 there are some 2 kB; not measured beyond

    @property
    def answers_queries(self) -> bool:
        return True

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        """Protect images, rounded to 8 bits."""
        from .apply import protect

        network = self.network(data, ctx).to(ctx.device)
        return ctx.map_images(data, lambda images, where: protect(network, images), "protect", batch_of(data.size))

    def recovery_key(self, data: ImageSet, ctx: Context) -> dict[str, NDArray[Any]]:
        """Return the generator: weights in half precision, and how it is built."""
        from .keys import to_arrays

        return to_arrays(self.network(data, ctx))

    def recover(self, images: NDArray[np.uint8], ctx: Context) -> NDArray[np.uint8]:
        """Return the originals as the inverse generator sees them, in float64: no batch or device changes a pixel.

        The generator is that of ``ctx.recovery_key``, else that of ``file``. Raises UserError when there is neither.
        """
        from .apply import recover

        network, batch = self.inverse_network(ctx), batch_of(images.shape[1:3])
        parts = [recover(network, images[i : i + batch]) for i in range(0, len(images), batch)]
        return np.concatenate(parts) if parts else images.copy()

    def sidecars(self, clean: ImageSet, protected: ImageSet, ctx: Context) -> list[bytes]:
        """Return, for each image, what ``restore`` needs to be exact; ``protected`` is what ``protect`` made."""
        from .sidecar import make

        network, parts = self.network(clean, ctx).to(ctx.device), range(0, len(clean), batch_of(clean.size))
        sidecars: list[bytes] = []
        for start in ctx.progress(parts, "make sidecars"):
            where = slice(start, start + parts.step)
            sidecars += make(network, clean.images[where], protected.images[where])
        return sidecars

    def restore(self, images: NDArray[np.uint8], sidecars: list[bytes], ctx: Context) -> NDArray[np.uint8]:
        """Return the originals, bit by bit, with the generator that ``recover`` takes.

        Raises ValidationError when images and sidecars do not fit, or a pixel was changed.
        """
        from .sidecar import restore

        network, batch = self.inverse_network(ctx), batch_of(images.shape[1:3])
        return restore(network, images, sidecars, batch)

    def inverse_network(self, ctx: Context) -> TwoWay:
        """Return the generator that a key holds, else the one in ``file``, in double precision."""
        from ue_bench.api import UserError

        from .keys import from_arrays, load_generator

        if ctx.recovery_key:
            return from_arrays(ctx.recovery_key).double().to(ctx.device)
        if self.file is None:
            raise UserError("recovery needs the generator", "give the key, or weights=FILE")
        return load_generator(self.file).double().to(ctx.device)

    def network(self, data: ImageSet, ctx: Context) -> TwoWay:
        """Return the trained generator in eval mode, float32."""
        from .keys import load_generator

        if self.file is not None:
            return load_generator(self.file)
        from .fit import FILE, train_on

        data, ctx = ctx.learning(data)
        key = {"raeg": self.identity(), "data": data.fingerprint, "seed": ctx.seed, "precision": ctx.precision}
        folder = ctx.cached(key, lambda target: train_on(self, data, ctx, key, target))
        return load_generator(folder / FILE)


def batch_of(size: tuple[int, ...]) -> int:
    """Return how many images of ``size`` are worked on at a time."""
    return max(1, PIXELS // (size[0] * size[1]))
