"""Networks of transformers and timm as makers of features, and what is put before and behind them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ue_bench.api import UserError

from .hub import HubFiles, timm_library, transformers_library

CHUNK = 64  # images enlarged at a time where no gradients are kept

Take = Callable[[Any], Tensor]
# Of transformers, by type: class, what is put into its constructor, what of the output are the features, and what the
# stored weights may hold beside.
CLASSES: dict[str, tuple[str, dict[str, Any], Take, tuple[str, ...]]] = {
    "vit": (
        "ViTModel", {"add_pooling_layer": False}, lambda o: o.last_hidden_state[:, 0], ("pooler.", "classifier."),
    ),
    "dinov2": ("Dinov2Model", {}, lambda o: o.last_hidden_state[:, 0], ("classifier.",)),
    "clip": (
        "CLIPVisionModelWithProjection",
        {},
        lambda o: o.image_embeds,
        ("text_model.", "text_projection.", "logit_scale"),
    ),
    "CLIPVisionModelWithProjection": ("CLIPVisionModelWithProjection", {}, lambda o: o.image_embeds, ()),
    "clip_vision_model": ("CLIPVisionModel", {}, lambda o: o.pooler_output, ()),
    "resnet": ("ResNetModel", {}, lambda o: o.pooler_output.flatten(1), ("classifier.",)),
}  # fmt: skip


class Enlarged(nn.Module):
    """A network for pixels in [0, 1] that sees them enlarged, bicubic and antialiased, and normalised.

    ``size`` is the side of what it sees, None for images as they are; without ``normalisation``, mean and deviation of
    each channel, it sees [0, 1]. Where no gradients are kept, images are enlarged by and by.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, size: int | None, normalisation: tuple[list[float], list[float]] | None
    ) -> None:
        super().__init__()
        self.network, self.size = network, size
        mean, std = normalisation or ([0.0] * 3, [1.0] * 3)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or self.size is None:
            return self.seen(x)
        return torch.cat([self.seen(part) for part in x.split(CHUNK)])

    def seen(self, x: Tensor) -> Tensor:
        if self.size is not None and tuple(x.shape[2:]) != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)
        out: Tensor = self.network((x - self.mean) / self.std)
        return out


class Features(nn.Module):
    """A network of transformers that gives one vector an image."""

    def __init__(self, network: nn.Module, take: Take, options: dict[str, Any]) -> None:
        super().__init__()
        self.network, self.take, self.options = network, take, options

    def forward(self, x: Tensor) -> Tensor:
        return self.take(self.network(pixel_values=x, **self.options))


class OnFeatures(nn.Module):
    """A linear layer on features. ``frozen`` features stay in evaluation mode and learn nothing."""

    def __init__(self, features: nn.Module, width: int, num_classes: int, frozen: bool) -> None:
        super().__init__()
        self.features, self.frozen = features, frozen
        self.linear = nn.Linear(width, num_classes)
        if frozen:
            features.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> OnFeatures:
        super().train(mode)
        if self.frozen:
            self.features.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(self.features(x))
        return out


def feature_network(files: HubFiles, size: int, pretrained: bool) -> nn.Module:
    """Return the network of ``files`` without its classifier, for images of ``size``, normalised already.

    With its weights, or, as a control, with fresh ones. Raises UserError when files and network do not fit.
    """
    return _of_timm(files, size, pretrained) if files.library == "timm" else _of_transformers(files, size, pretrained)


def _of_transformers(files: HubFiles, size: int, pretrained: bool) -> nn.Module:
    library = transformers_library()
    config = files.config
    kind = config["model_type"]
    if kind == "clip_vision_model" and "CLIPVisionModelWithProjection" in (config.get("architectures") or []):
        kind = "CLIPVisionModelWithProjection"  # a plain class would drop the projection
    name, arguments, take, beside = CLASSES[kind]
    of_class = getattr(library, name)
    if pretrained:
        network, loading = of_class.from_pretrained(
            files.folder, local_files_only=True, output_loading_info=True, **arguments
        )
        odd = [n for n in loading["unexpected_keys"] if not n.startswith(beside) and not n.endswith("position_ids")]
        for what, names in (
            ("lacks", loading["missing_keys"]),
            ("has an unknown", odd),
            ("has another shape of", loading["mismatched_keys"]),
        ):
            if names:
                raise UserError(
                    f"{files.folder.name} does not fit {name}: it {what} {min(map(str, names))}", "fetch it whole"
                )
    else:
        network = of_class(of_class.config_class.from_pretrained(files.folder, local_files_only=True), **arguments)
    made_for = getattr(network.config, "image_size", size)
    interpolates = kind in ("vit", "clip", "clip_vision_model", "CLIPVisionModelWithProjection") and made_for != size
    return Features(network.float(), take, {"interpolate_pos_encoding": True} if interpolates else {})


def _of_timm(files: HubFiles, size: int, pretrained: bool) -> nn.Module:
    network = create(f"local-dir:{files.folder}", size, pretrained=pretrained, num_classes=0)
    if pretrained:
        check_loaded(network, files)
    return network


def create(name: str, size: int, **arguments: Any) -> nn.Module:
    """Return timm's network ``name``, told the size of the images where it asks for it."""
    library = timm_library()
    try:
        network: nn.Module = library.create_model(name, img_size=size, **arguments)
    except TypeError as error:  # convolutions do not
        if "img_size" not in str(error):
            raise
        network = library.create_model(name, **arguments)
    return network


def check_loaded(network: nn.Module, files: HubFiles) -> None:
    """Raise UserError unless weights of ``network`` are those in the files, to the bit: not those it was born with."""
    kept = network.state_dict()
    stored = read_weights(files.weights)
    common = [name for name, value in stored.items() if name in kept and value.shape == kept[name].shape]
    equal = all(torch.equal(kept[name], stored[name].to(kept[name].dtype)) for name in common)
    if not equal or 2 * len(common) < len(kept):  # positions are resized, a classifier is left out
        raise UserError(f"the weights of {files.folder.name} are not those of its network", "fetch it whole")


def read_weights(files: list[Path]) -> dict[str, Tensor]:
    """Read tensors by name."""
    from safetensors.torch import load_file

    found: dict[str, Tensor] = {}
    for file in files:
        plain = file.suffix == ".safetensors"
        found |= load_file(file) if plain else torch.load(file, map_location="cpu", weights_only=True)
    return found


@torch.no_grad()
def width_of(features: nn.Module, size: tuple[int, int]) -> int:
    """Return how many numbers ``features`` makes of an image of ``size``. Raises UserError when it is no vector."""
    before = features.training
    out = features.eval()(torch.zeros(1, 3, *size))
    features.train(before)
    if out.dim() != 2:
        raise UserError(f"the network gives {tuple(out.shape[1:])} for an image, not a vector", "choose another")
    return int(out.shape[1])
