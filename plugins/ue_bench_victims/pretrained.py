"""Victims that may start from weights trained on ImageNet."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from ue_bench.api import EnvironmentProblem, InputPath, UserError, first_line

from .stem import Stemmed, check_side

if TYPE_CHECKING:
    from torch import Tensor, nn

# torchvision's first version of the weights (IMAGENET1K_V1); the digits are the first of their SHA-256.
FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "vgg16": "vgg16_bn-6c64b313.pth",
    "vgg19": "vgg19_bn-c79401a0.pth",
    "densenet121": "densenet121-a639ec97.pth",
    "mobilenetv2": "mobilenet_v2-b0353104.pth",
}
HOME = "https://download.pytorch.org/models/"
FINE_TUNING = {"learning_rate": 0.01, "shift": 0.0}

# From torchvision's names to those of the modules here.
RENAMED: dict[str, list[tuple[str, str | Callable[[re.Match[str]], str]]]] = {
    "resnet": [
        (r"^conv1\.", "stem.0."),
        (r"^bn1\.", "stem.1."),
        (r"^layer(\d)\.", r"stage\1."),
        (r"\.(conv|bn)(\d)\.", lambda match: f".body.{int(match[2]) - 1}.{int(match[1] == 'bn')}."),
        (r"\.downsample\.", ".shortcut."),
        (r"^fc\.", "linear."),
    ],
    "densenet": [(r"\.(norm|conv)\.(\d)\.", r".\1\2.")],  # as in files of torch before 0.4
}


class Pretrained(Stemmed):
    """A victim with an ImageNet architecture for which torchvision has weights.

    Fine-tuning trains all layers, at a peak rate of 0.01 whatever the protocol has (a tenth of the field's 0.1; own
    choice), on pixels normalised as torchvision's are, not shifted. The classifier starts fresh. Images are not
    enlarged: at 32 px the ImageNet stem leaves one place of the last feature map.
    """

    least: ClassVar[tuple[int, int]] = (1, 1)  # pixels a side, with the layers for small images and the others
    breadth: ClassVar[str]  # name of the parameter for its width; ImageNet weights are of its default

    pretrained: bool = Field(False, description="start from torchvision's ImageNet weights; takes the ImageNet stem")
    weights: InputPath | None = Field(None, description="start from this state dict of torchvision's network instead")

    @model_validator(mode="after")
    def _weights_fit_the_stem(self) -> Pretrained:
        if self.pretrained and self.weights:
            raise ValueError("give pretrained or weights, not both")
        if self.fine_tuned and self.stem == "cifar":
            raise ValueError("pretrained weights belong to the ImageNet stem")
        whole = type(self).model_fields[self.breadth].default
        if self.fine_tuned and getattr(self, self.breadth) != whole:
            raise ValueError(f"pretrained weights belong to {self.breadth}={whole}")
        return self

    @property
    def fine_tuned(self) -> bool:
        """Whether training starts from weights that were trained on other images."""
        return self.pretrained or self.weights is not None

    def small(self, image_size: tuple[int, int]) -> bool:
        return not self.fine_tuned and super().small(image_size)

    def optimizer(self) -> dict[str, Any]:
        return dict(FINE_TUNING) if self.fine_tuned else {}

    def identity(self) -> dict[str, Any]:
        identity = super().identity()
        if self.pretrained:
            identity["parameters"]["weights"] = checksum(self.name)
        return identity

    def build(self, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
        small = self.small(image_size)
        check_side(self, image_size, self.least[not small])
        network = self.network(num_classes, small)
        if not self.fine_tuned:
            return network
        from .heads import Normalised

        load(network, self.weights or imagenet_file(self.name), self.name)
        return Normalised(network)

    def network(self, num_classes: int, small: bool) -> nn.Module:
        """Build the network with fresh weights; ``small`` is the one for small images."""
        raise NotImplementedError


def checksum(name: str) -> str:
    """Return the first digits of the SHA-256 of torchvision's weights of ``name``."""
    return FILES[name].rpartition("-")[2].removesuffix(".pth")


def imagenet_file(name: str) -> Path:
    """Return torchvision's weights of ``name``, downloaded where they are not there yet, their checksum compared.

    Raises EnvironmentProblem when they cannot be had or are damaged.
    """
    import torch

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / FILES[name]
    if not file.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(HOME + file.name, str(file), checksum(name), progress=False)
        except (OSError, RuntimeError) as error:
            reason = first_line(error)
            raise EnvironmentProblem(
                f"ImageNet weights of {name} cannot be downloaded: {reason}",
                f"put {HOME}{file.name} into {folder}, or give {name}[weights=FILE]",
            ) from error
    if not _sha256(file).startswith(checksum(name)):
        raise EnvironmentProblem(f"{file} is damaged: its checksum is not in its name", "remove it")
    return file


@cache
def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def load(network: nn.Module, file: Path, name: str) -> None:
    """Give ``network`` all weights of a state dict but those of its classifier, which may have other classes.

    ``file`` is what ``torch.save`` or safetensors wrote of torchvision's ``name``, or of ``network`` itself. Raises
    UserError when it is not one, or does not fit.
    """
    from .heads import classifier_of

    classifier = classifier_of(network)[0] + "."
    family = re.sub(r"\d", "", name)
    weights = {}
    for old, value in _read(file).items():
        new = old
        for pattern, replacement in RENAMED.get(family, []):
            new = re.sub(pattern, replacement, new)
        if not new.startswith(classifier):
            weights[new] = value
    wanted = {k: v for k, v in network.state_dict().items() if not k.startswith(classifier)}
    # Old files do not count batches.
    missing = [k for k in wanted if k not in weights and not k.endswith("num_batches_tracked")]
    strange = [k for k in weights if k not in wanted]
    other = [k for k, v in weights.items() if k in wanted and v.shape != wanted[k].shape]
    for what, names in (("lacks", missing), ("has an unknown", strange), ("has another shape of", other)):
        if names:
            raise UserError(f"{file.name} does not fit {name}: it {what} {names[0]}", f"give a state dict of {name}")
    network.load_state_dict(weights, strict=False)


def _read(file: Path) -> dict[str, Tensor]:
    """Read the tensors in ``file`` by name. Raises UserError when it holds anything else."""
    import torch

    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        stored = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the bytes of the file make of an unpickler
        if isinstance(error, FileNotFoundError):
            raise UserError(f"no file at {file}", "check the path") from error
        reason = type(error).__name__ if isinstance(error, UnpicklingError) else str(error).strip().partition("\n")[0]
        raise UserError(f"{file.name} cannot be read as weights: {reason}", "save a state dict") from error
    if not isinstance(stored, dict) or not all(isinstance(value, torch.Tensor) for value in stored.values()):
        raise UserError(f"{file.name} holds more than weights by name", "save a state dict")
    return stored
