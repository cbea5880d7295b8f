"""Victims of timm, the library of image networks."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from ue_bench.api import UserError, Victim

from .hub import TRANSFORMERS, HubFiles, locate, timm_library
from .hub_ids import Model, folder_or_id

if TYPE_CHECKING:
    from torch import nn

FRESH_TRANSFORMER = {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05}  # as vit


class Timm(Victim):
    """Any network of timm, fresh or with its weights; 11,181,642 parameters as it stands, at 10 classes.

    ``model`` is a name of ``timm.list_models()``, with the tag of its weights where these are wanted
    (``resnet18.a1_in1k``), or a folder as timm writes it for the hub. It gets the images as they are, or enlarged to
    ``size`` pixels; most networks halve the side five times, so that 32 px leave a single place. With
    ``pretrained=true`` weights come from the hub (``timm/MODEL``) or the folder, all layers are trained, and pixels are
    normalised as the weights expect.

    Convolutions are trained as the protocol has it, at a rate of 0.01 where they start from weights; transformers by
    AdamW with decay 0.05, at 0.001 or, from weights, at 2e-5: own choices. Needs timm. Raises EnvironmentProblem
    without it or its weights, UserError for a network that it does not have.
    """

    name: ClassVar[str] = "timm"
    paper: ClassVar[str] = "Wightman, PyTorch Image Models, 2019, doi 10.5281/zenodo.4414861"

    model: Annotated[Model, AfterValidator(folder_or_id)] = Field(
        "resnet18", description="a network of timm, with the tag of its weights where they are wanted, or a folder"
    )
    pretrained: bool = Field(False, description="start from the weights of timm, or of the folder")
    size: int | None = Field(None, ge=8, le=1024, description="side of enlarged images; null leaves them as they are")

    @property
    def files(self) -> HubFiles | None:
        """Files of the network, where it comes from a folder or with weights of the hub."""
        if isinstance(self.model, Path):
            return locate(self.model)
        return locate(f"timm/{self.model}") if self.pretrained else None

    @property
    def architecture(self) -> str:
        files = self.files
        return str(self.model).partition(".")[0] if files is None else str(files.config.get("architecture", ""))

    def identity(self) -> dict[str, Any]:
        identity = super().identity()
        files = self.files
        if files is not None:
            identity["parameters"]["weights"] = files.identity if self.pretrained else files.config["architecture"]
        return identity

    def build(self, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
        from .hub_networks import Enlarged, check_loaded, create

        library, files = timm_library(), self.files
        if files is not None and files.library != "timm":
            raise UserError(
                f"{files.folder.name} is no network of timm", "probe[model=FOLDER] takes those of transformers"
            )
        if files is None and str(self.model) not in library.list_models() + library.list_pretrained():
            near = difflib.get_close_matches(str(self.model), library.list_models(), 3)
            raise UserError(
                f"timm has no network {self.model}",
                f"did you mean {', '.join(near)}?" if near else "timm.list_models()",
            )
        name = str(self.model) if files is None else f"local-dir:{files.folder}"
        side = max(image_size) if self.size is None else self.size
        network = create(name, side, pretrained=self.pretrained, num_classes=num_classes)
        if self.pretrained:
            assert files is not None
            check_loaded(network, files)
        normalisation = files.normalisation if files is not None and self.pretrained else None
        return Enlarged(network, self.size, normalisation) if self.size or normalisation else network

    def optimizer(self) -> dict[str, Any]:
        transformer = self.architecture.startswith(TRANSFORMERS)
        if not self.pretrained:
            return dict(FRESH_TRANSFORMER) if transformer else {}
        from .hub_probe import TRANSFORMER
        from .pretrained import FINE_TUNING

        return {**TRANSFORMER, "shift": 0.0} if transformer else dict(FINE_TUNING)
