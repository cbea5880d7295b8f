"""A victim that learns its features without labels."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ue_bench.api import Context, ImageSet, NetworkCost, Victim, load_checkpoint, save_checkpoint

from .probe import PROBE, backbone

if TYPE_CHECKING:
    from torch import Tensor, nn


class SimCLR(Victim):
    """SimCLR on the protected images, then a linear layer on the frozen features, trained with their labels.

    Protections that tie a pattern to a label are not looked for by a network that sees no labels. The encoder is
    ``network`` without its classifier; two random views of every image, a projection of two layers to 128 numbers,
    NT-Xent, SGD with momentum 0.9 and decay 1e-4, half a cosine to a thousandth of the peak rate; the settings of
    APBench for CIFAR-10, as ``preset=paper``. ``preset=micro`` is for two CPU cores (own choice): ``resnet9``, 40
    epochs of smaller batches, and a lower temperature and larger views, with which so short a training comes further.
    The encoder is kept in the cache; a killed training continues with its next epoch.

    The linear layer is the victim that the protocol trains, as in ``linear-probe``: of the 11,173,962 parameters at 32
    px and 10 classes 5,130. Countermeasures that change stored images act on both, those that change batches or the
    loss on the linear layer alone.

    Deviations from APBench's code: its loss is 7.1 times NT-Xent (a second temperature of 0.07), its images come in
    the same order in every epoch, and its linear layer is trained for 100 epochs on *unprotected* images and the best
    of its epochs on the test set is reported; here it has the labels and images that the adversary has.
    """

    name: ClassVar[str] = "simclr"
    paper: ClassVar[str] = "Chen et al., A Simple Framework for Contrastive Learning, ICML 2020; settings of APBench"

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "network": "resnet18", "epochs": 500, "batch": 512, "learning_rate": 0.5, "temperature": 0.5, "area": 0.2,
        },
        "micro": {
            "network": "resnet9", "epochs": 40, "batch": 64, "learning_rate": 0.1, "temperature": 0.2, "area": 0.5,
        },
    }  # fmt: skip

    preset: Literal["paper", "micro"] = Field(
        "paper", description="what parameters are unless given: APBench's, or for two CPU cores"
    )
    network: Literal["resnet9", "resnet18", "resnet34", "resnet50", "resnet101"] | None = Field(
        None, description="victim whose classifier is taken away"
    )
    epochs: int | None = Field(None, ge=1, description="passes over the images without labels")
    batch: int | None = Field(None, ge=2, description="images a step, each seen twice")
    learning_rate: float | None = Field(None, gt=0, description="peak rate without labels")
    temperature: float | None = Field(None, gt=0, description="of NT-Xent")
    area: float | None = Field(None, gt=0, le=1, description="least share of the image that a view shows")

    def setting(self, name: str) -> Any:
        """Return the parameter ``name`` as given, else that of the preset."""
        value = getattr(self, name)
        return self.PRESETS[self.preset][name] if value is None else value

    def encoder(self, num_classes: int, image_size: tuple[int, int]) -> tuple[nn.Module, int]:
        """Return the untrained encoder and the width of its features."""
        from .heads import without_classifier

        return without_classifier(backbone(self.setting("network"))().build(num_classes, image_size))

    def build(self, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
        from .heads import Probe

        return Probe(*self.encoder(num_classes, image_size), num_classes)

    def pretrain(self, data: ImageSet, ctx: Context) -> dict[str, Tensor]:
        import torch

        from .contrastive import train_encoder

        settings = {name: self.setting(name) for name in ("epochs", "batch", "learning_rate", "temperature", "area")}
        key = {
            "simclr": self.revision,
            "data": data.fingerprint,
            "network": self.setting("network"),
            **settings,
            "seed": ctx.seed,
            "precision": ctx.precision,
        }

        def make(folder: Path) -> None:
            kept = ctx.checkpoint_dir(key)
            unfinished = kept / "state.pt"

            def save(state: dict[str, Any]) -> None:
                save_checkpoint(unfinished, state)

            state = load_checkpoint(unfinished, ctx.device)
            features = train_encoder(
                lambda: self.encoder(data.num_classes, data.size), data, **settings, ctx=ctx, state=state, save=save
            )
            torch.save(
                {f"features.{name}": value.cpu() for name, value in features.state_dict().items()}, folder / "w.pt"
            )
            shutil.rmtree(kept)

        weights: dict[str, Tensor] = torch.load(ctx.cached(key, make) / "w.pt", map_location="cpu")
        return weights

    def cost(self, images: int) -> NetworkCost:
        return NetworkCost(self.setting("network"), 2 * self.setting("epochs"))

    def optimizer(self) -> dict[str, Any]:
        return dict(PROBE)
