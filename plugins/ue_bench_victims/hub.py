"""Networks of the Hugging Face hub, or of a folder: where their files lie, and of what kind they are. Without torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ue_bench.api import EnvironmentProblem, UserError, digest_path, first_line

from .hub_ids import HUB_ID, Model, folder_or_id

EXTRA = "pip install 'ue-bench[pretrained]'"
# Of transformers: what is told apart by ``model_type``, and whether it is a transformer.
TYPES = {"vit": True, "dinov2": True, "clip": True, "clip_vision_model": True, "resnet": False}
# Beginnings of the names of timm's transformers, which are fine-tuned otherwise than convolutions.
TRANSFORMERS = ("vit", "deit", "beit", "eva", "swin", "cait", "xcit", "flexivit", "samvit", "naflexvit", "test_vit")


@dataclass(frozen=True)
class HubFiles:
    """A folder with ``config.json``, weights and perhaps what images are normalised by."""

    folder: Path
    source: str

    @property
    def config(self) -> dict[str, Any]:
        return read_json(self.folder / "config.json")

    @property
    def library(self) -> Literal["timm", "transformers"]:
        return "timm" if "architecture" in self.config else "transformers"

    @property
    def weights(self) -> list[Path]:
        """Files of weights: those of safetensors where there are any."""
        found = [*self.folder.glob("model*.safetensors")] or [*self.folder.glob("pytorch_model*.bin")]
        return sorted(found)

    @property
    def checksum(self) -> str:
        """SHA-256 (first 32 digits) of the configuration and of the weights."""
        content = [self.config, self.normalisation, *(digest_path(file) for file in self.weights)]
        return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()[:32]

    @property
    def identity(self) -> dict[str, str]:
        return {"checksum": self.checksum, "source": self.source}

    @property
    def is_transformer(self) -> bool:
        if self.library == "timm":
            return str(self.config["architecture"]).startswith(TRANSFORMERS)
        return TYPES[str(self.config["model_type"])]

    @property
    def normalisation(self) -> tuple[list[float], list[float]]:
        """Mean and deviation of the pixels in [0, 1] that the weights expect. Raises UserError where it is not said."""
        if self.library == "timm":
            said, names = self.config.get("pretrained_cfg", {}), ("mean", "std")
        else:
            said, names = read_json(self.folder / "preprocessor_config.json"), ("image_mean", "image_std")
        if not all(name in said for name in names):
            raise UserError(f"{self.folder.name} does not say by what images are normalised", "fetch it whole")
        return list(map(float, said[names[0]])), list(map(float, said[names[1]]))


def read_json(file: Path) -> dict[str, Any]:
    """Return what ``file`` holds; nothing when it is not there. Raises UserError when it cannot be read."""
    if not file.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read", "fetch the model again") from error
    return content


def locate(model: Model) -> HubFiles:
    """Return the files of a folder, or of a hub id, fetched when they are not on this machine.

    Raises EnvironmentProblem when there are none, UserError when the network is of no kind that is known here.
    """
    model = folder_or_id(model)
    if isinstance(model, Path):
        found = HubFiles(model, "folder")
    elif HUB_ID.fullmatch(model):
        found = HubFiles(fetch(model), f"hub {model}")
    else:
        raise EnvironmentProblem(f"no network at {model}", "give a folder, or the id of a repository on the hub")
    if not found.config or not found.weights:
        raise EnvironmentProblem(f"no network at {model}: config.json or weights are missing", "fetch it whole")
    if found.library == "transformers" and found.config.get("model_type") not in TYPES:
        raise UserError(
            f"{model} is a {found.config.get('model_type')}, whose features are not known here",
            f"networks of timm, and {', '.join(sorted(TYPES))} of transformers are",
        )
    return found


def fetch(model: str) -> Path:
    """Return the folder in which the hub's client keeps ``model``, filled when it is not there.

    Raises EnvironmentProblem when it cannot be had.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise EnvironmentProblem("networks of the hub need huggingface_hub", EXTRA) from error
    plain = ["config.json", "preprocessor_config.json"]
    reason = "no weights"
    for offline in (True, False):
        for weights in ("model*.safetensors", "pytorch_model*.bin"):
            try:
                root = Path(snapshot_download(model, allow_patterns=[*plain, weights], local_files_only=offline))
            except Exception as error:  # errors of hub, network and files of many kinds
                reason = first_line(error)
                break
            if (root / "config.json").is_file() and any(root.glob(weights)):
                return root
    raise EnvironmentProblem(
        f"no network {model} on this machine, nor from the hub: {reason}", "give a folder, or a hub id and a network"
    )


def timm_library() -> Any:
    """Import timm. Raises EnvironmentProblem when it is not installed or does not work."""
    try:
        import timm
    except Exception as error:  # without torchvision, or with one for another torch, there are errors of many kinds
        raise EnvironmentProblem("this network needs timm", EXTRA) from error
    return timm


def transformers_library() -> Any:
    """Import transformers. Raises EnvironmentProblem when it is not installed or does not work."""
    try:
        import transformers
    except Exception as error:
        raise EnvironmentProblem("this network needs transformers", EXTRA) from error
    return transformers
