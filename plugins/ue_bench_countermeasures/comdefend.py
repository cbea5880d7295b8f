"""ComDefend, an auto-encoder that lets an image through as twelve bits a pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from ue_bench.api import Context, ImageSet, InputPath, Preprocessing

from .comdefend_presets import PRESETS
from .presets import WithPreset

if TYPE_CHECKING:
    from torch import Tensor

    from .diffusion.process import Streams


class ComDefend(WithPreset, Preprocessing):
    """Jia et al., "ComDefend: An Efficient Image Compression Model to Defend Adversarial Examples", CVPR 2019.

    One network makes a code of twelve maps from an image, every number of it becomes a bit by its sign, and a second
    network makes an image of the bits: nine convolutions each, 783,372 and 783,363 parameters. In training, numbers do
    not become bits: Gaussian noise of standard deviation 20 before a sigmoid drives them to 0 and 1. The loss is
    ``MSE(image) + 1e-4 mean(code^2)``; Adam. Images are cut into squares of 32 px, each for itself; what is missing to
    a multiple of 32 is prolonged with the last pixels.

    The networks are those in ``weights``, a file of ``ue-bench purifier comdefend``; without one they are trained on
    ``clean`` unprotected images and kept in the cache. ``preset=paper``: the released code for CIFAR-10 as far as it
    says, batches of 20 and a rate of 0.001; its length, ten passes over CIFAR-10, is that of the authors' other code,
    and the number of clean images is our choice. ``preset=micro`` fits two cores: a quarter of
    the channels and 1,500 steps, five minutes of one core.

    Deviations: no noise before the bits by default, as the paper has it; the authors' code adds some there too, of
    standard deviation 1 for CIFAR-10: ``noise=1``. Half a gray level is subtracted, as its TensorFlow file does. Images
    are RGB throughout, where the authors' give BGR to networks for RGB.

    Expect little: RAEG reports .632 on Caltech-101 of a classifier trained on clean images, on images that it protects
    and ComDefend processes, and .479 without ComDefend. No number for training on CIFAR-10 is published. With
    ``preset=micro``, on the board cifar10-micro-wide: clean images 69.8 instead of 72.2, EM 68.2 instead of 15.1, LSP
    66.5 instead of 19.0, class-wise Deep Hiding 53.4 instead of 14.6, OPS 45.6 instead of 19.1.

    Raises UserError when ``weights`` is no such file.
    """

    name: ClassVar[str] = "comdefend"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = "ComDefend: An Efficient Image Compression Model to Defend Adversarial Examples, CVPR 2019"
    cache_purified: ClassVar[bool] = True
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = PRESETS

    weights: InputPath | None = Field(None, description="file of trained networks; by default they are trained")
    clean: int = Field(2000, ge=1, description="clean images that the adversary owns, to train the networks on")
    divisor: int | None = Field(None, ge=1, le=16, description="of the paper's numbers of channels; null: 1, micro 4")
    steps: int | None = Field(None, ge=1, description="of their training; null: 25000, micro 1500")
    batch: int | None = Field(None, ge=1, le=100_000, description="images a step; null: 20")
    learning_rate: float | None = Field(None, gt=0, le=1, description="of Adam; null: 0.001, micro 0.002")
    noise: float = Field(0.0, ge=0, description="standard deviation of noise on the code before it becomes bits")

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        if self.weights is not None:
            self.refuse_idle({"preset", "clean", *self.PRESETS["paper"]}, "weights that are given")
        return self

    @property
    def clean_images(self) -> int:
        return 0 if self.weights is not None else self.clean

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        from .comdefend_training import ComDefendRecipe, load, trained_file
        from .diffusion import denoiser, process
        from .tiles import cut, joined

        if self.weights is None:
            recipe = ComDefendRecipe(
                **{name: self.setting(name) for name in self.PRESETS["paper"]}, seed=ctx.seed % 2**31
            )
            network = load(trained_file(ctx.clean_data, recipe, ctx), ctx.device)
        else:
            network = load(self.weights, ctx.device)

        def clean(x: Tensor, random: Streams) -> Tensor:
            noise: Tensor | float = 0.0
            if self.noise:
                code = x[:, :1].expand(-1, network.bits, -1, -1)
                noise = self.noise * cut(process.normal(code, random))
            return joined(network.purify(cut((x + 1) / 2), noise), data.size) * 2 - 1

        key = {"purify": self.identity(), "images": data.fingerprint, "seed": ctx.seed}
        if self.weights is None:
            key["clean"] = ctx.clean_data.fingerprint
        return denoiser.purify(data, ctx, key, data.size, clean, self.selector)
