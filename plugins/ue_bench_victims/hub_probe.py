"""Adversaries who start from a network that was trained on other images, at the size it was trained with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from ue_bench.api import Context, ImageSet, Victim, load_arrays, save_arrays

from .hub import HubFiles, locate
from .hub_ids import Model, folder_or_id
from .pretrained import Pretrained, checksum
from .probe import backbone

if TYPE_CHECKING:
    from torch import Tensor, nn

HUB = {
    "vit": "google/vit-base-patch16-224-in21k",
    "clip": "openai/clip-vit-base-patch32",
    "dinov2-small": "facebook/dinov2-small",
    "dinov2-base": "facebook/dinov2-base",
}
OWN = ("resnet18", "resnet34", "resnet50", "resnet101")  # torchvision's weights in the networks of this distribution
PART = 512  # images whose features are kept together
CNN = {"learning_rate": 1e-3}  # own choice, and BAIT's
TRANSFORMER = {"optimizer": "adamw", "learning_rate": 2e-5, "weight_decay": 0.05}  # own choice


class HubProbe(Victim):
    """A network that was trained on other images, and a linear layer on its features or fine-tuning of all of it.

    ``model`` is ``resnet18`` to ``resnet101`` with torchvision's ImageNet weights (11,181,642 parameters for the
    default at 10 classes), ``vit`` (ImageNet-21k), ``clip`` (with its projection), ``dinov2-small`` or ``dinov2-base``
    of the Hugging Face hub, another id of it, or a folder as transformers or timm write it. Images are enlarged to
    ``size`` pixels inside the network, test images alike, and normalised as the weights expect.

    ``mode=linear``: features of the training images as they are stored, computed once and kept, then the one linear
    layer that minimises cross-entropy plus ``penalty / 2`` times its squared weights on standardised features, all
    images at once. No protocol trains it, so that countermeasures on batches or in training are refused.
    ``mode=fine-tune``: the protocol trains all weights, convolutions by SGD at 0.001, transformers by AdamW at 2e-5
    with decay 0.05, without the protocol's shift: own choices; protocol ``fine-tune`` goes with it.

    ``features=random`` is the control: the same network with fresh weights. Whoever uses public weights has seen public
    images, and CIFAR-10 may be among those of CLIP and DINOv2: such a row says what a public prior is worth.
    ``probe[mode=fine-tune,size=null,normalise=false]`` under protocol ``bait26`` is the adversary of BAIT as released,
    a weak one: at 32 px the last map of a ResNet is a single place.

    Raises EnvironmentProblem when weights or libraries cannot be had, UserError when files do not fit their network.
    """

    name: ClassVar[str] = "probe"
    paper: ClassVar[str] = (
        "Alain and Bengio, 2017, for linear probes; BAIT, ICLR 2026, arXiv 2603.04731, for fine-tuning"
    )

    model: Annotated[Model, AfterValidator(folder_or_id)] = Field(
        "resnet18", description="resnet18 to resnet101, vit, clip, dinov2-small, dinov2-base, a hub id or a folder"
    )
    mode: Literal["linear", "fine-tune"] = Field("linear", description="what is learned: one layer, or all weights")
    size: int | None = Field(224, ge=8, le=1024, description="side of enlarged images; null leaves them as they are")
    features: Literal["pretrained", "random"] = Field("pretrained", description="weights to start from")
    normalise: bool = Field(True, description="take out mean and deviation as the weights expect")
    penalty: float = Field(1e-3, gt=0, description="factor on half the squared weights, mode=linear")

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> HubProbe:
        if self.mode == "fine-tune":
            self.refuse_idle({"penalty"}, "mode=fine-tune")
        return self

    @property
    def files(self) -> HubFiles:
        """Files of a network of the hub or of a folder."""
        return locate(HUB.get(str(self.model), self.model))

    @property
    def trained_by_protocol(self) -> bool:
        return self.mode == "fine-tune"

    def weights_identity(self) -> Any:
        """Return what tells the weights from others."""
        if self.model in OWN:
            return checksum(str(self.model)) if self.features == "pretrained" else "random"
        return self.files.identity | ({"features": "random"} if self.features == "random" else {})

    def identity(self) -> dict[str, Any]:
        identity = super().identity()
        identity["parameters"]["weights"] = self.weights_identity()
        return identity

    def feature_network(self, image_size: tuple[int, int]) -> tuple[nn.Module, int]:
        """Return what makes features of images of ``image_size``, and their number."""
        from . import heads, hub_networks

        seen = image_size if self.size is None else (self.size, self.size)
        if self.model in OWN:
            kind = backbone(str(self.model))
            assert issubclass(kind, Pretrained)
            victim = kind(pretrained=True) if self.features == "pretrained" else kind(stem="imagenet")
            network = victim.build(2, seen)
            if isinstance(network, heads.Normalised):  # which Enlarged does, or does not
                network = network.network
            network, width = heads.without_classifier(network)
            normalisation = [*heads.MEAN], [*heads.STD]
        else:
            files = self.files
            network = hub_networks.feature_network(files, max(seen), self.features == "pretrained")
            width, normalisation = hub_networks.width_of(network, seen), files.normalisation
        return hub_networks.Enlarged(network, self.size, normalisation if self.normalise else None), width

    def build(self, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
        from .hub_networks import OnFeatures

        features, width = self.feature_network(image_size)
        return OnFeatures(features, width, num_classes, frozen=self.mode == "linear")

    def pretrain(self, data: ImageSet, ctx: Context) -> dict[str, Tensor]:
        if self.mode == "fine-tune":
            return {}
        import torch

        from .logistic import solve

        with torch.random.fork_rng():
            torch.manual_seed(ctx.seed)
            network, _ = self.feature_network(data.size)
        features = self.kept_features(network, data, ctx)
        weight, bias = solve(features, torch.tensor(data.labels), data.num_classes, self.penalty).folded()
        learnt = {"linear.weight": weight.float(), "linear.bias": bias.float()}
        if self.features == "random":  # the network that is measured must be this one
            learnt |= {f"features.{name}": value for name, value in network.state_dict().items()}
        return learnt

    def kept_features(self, network: nn.Module, data: ImageSet, ctx: Context) -> Tensor:
        """Return the features of all images, N x D, from the cache; a kill costs no more than ``PART`` images."""
        import numpy as np
        import torch

        key = {
            "features": self.revision, "weights": self.weights_identity(), "data": data.fingerprint,
            "size": self.size, "normalise": self.normalise, "precision": ctx.precision,
            "seed": ctx.seed if self.features == "random" else None,
        }  # fmt: skip

        def make(folder: Path) -> None:
            kept = ctx.checkpoint_dir(key)
            parts = [*computed(network, data, ctx, kept)]
            np.save(folder / "features.npy", np.concatenate(parts), allow_pickle=False)
            shutil.rmtree(kept)

        return torch.from_numpy(np.load(ctx.cached(key, make) / "features.npy", allow_pickle=False))

    def optimizer(self) -> dict[str, Any]:
        if self.mode == "linear":
            return {"shift": 0.0}
        transformer = self.model not in OWN and self.files.is_transformer
        return {**(TRANSFORMER if transformer else CNN), "shift": 0.0}


def computed(network: nn.Module, data: ImageSet, ctx: Context, kept: Path) -> Iterator[Any]:
    """Yield the features of parts of the images, float32, from ``kept`` where they lie there already."""
    import torch

    network = network.to(ctx.device).eval()
    starts = range(0, len(data), PART)
    for start in ctx.progress(starts, "features"):
        file = kept / f"{start}.npz"
        if (stored := load_arrays(file)) is None:
            images = torch.tensor(data.images[start : start + PART], device=ctx.device)
            with torch.no_grad(), ctx.autocast():
                out = network(images.permute(0, 3, 1, 2).float().div_(255))
            stored = {"features": out.float().cpu().numpy()}
            save_arrays(file, stored)
        yield stored["features"]
