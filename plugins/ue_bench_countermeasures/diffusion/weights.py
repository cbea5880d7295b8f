"""Where the weights of a diffusion model lie, and what tells one from another. Nothing here needs torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ue_bench.api import EnvironmentProblem, UserError, ValidationError, digest_path, first_line
from ue_bench_victims.hub_ids import HUB_ID, Model, folder_or_id

RECORD = "purifier.json"  # beside weights that were trained or imported here
WEIGHTS = "diffusion_pytorch_model"
SCHEDULERS = ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler")  # they noise images as DDPM does
CONTINUOUS = "DdpmPlusPlus"  # our class for a network in continuous time
HINT = "give model=FOLDER, as 'ue-bench purifier train' writes them, or a hub id and a network"


def diffusers() -> ModuleType:
    """Import diffusers. Raises EnvironmentProblem when it is not installed or does not work."""
    try:
        import diffusers

        for name in ("UNet2DModel", "DDPMScheduler"):
            getattr(diffusers, name)  # imported when first asked for
    except (ImportError, RuntimeError) as error:  # RuntimeError: a part of it that cannot be imported
        raise EnvironmentProblem("diffusion models need diffusers", "pip install 'ue-bench[diffusion]'") from error
    library: ModuleType = diffusers
    return library


@dataclass(frozen=True)
class Weights:
    """A UNet and its scheduler as diffusers stores them, or a network in continuous time in the same shape.

    ``files`` are weights beside the UNet's ``config.json``; ``scheduler`` is that of a DDPM with its defaults where
    none is stored; ``record`` is that of the training or import, empty for others' models; ``source`` says where they
    are from.
    """

    files: tuple[Path, ...]
    unet: dict[str, Any]
    scheduler: dict[str, Any]
    record: dict[str, Any]
    source: str

    @property
    def folder(self) -> Path:
        return self.files[0].parent

    @property
    def checksum(self) -> str:
        """SHA-256 (first 32 digits) of the weights and of what shapes network and noise."""
        kept = [{k: v for k, v in c.items() if not k.startswith("_")} for c in (self.unet, self.scheduler)]
        content: list[Any] = [kept, *(digest_path(file) for file in self.files)]
        if self.timestep_scale != 1:
            content.append({"timestep_scale": self.timestep_scale})
        return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()[:32]

    @property
    def timestep_scale(self) -> float:
        """How many times the step the UNet is told."""
        return float(self.record.get("timestep_scale", 1))

    @property
    def continuous(self) -> bool:
        """Whether the network is one in continuous time, for which step i of N is time (i + 1) / N."""
        return self.unet.get("_class_name") == CONTINUOUS

    @property
    def released(self) -> bool:
        """Whether they are an imported release, which is used as its authors do."""
        return "format" in self.record

    @property
    def identity(self) -> dict[str, str]:
        return {"checksum": self.checksum, "source": self.source}

    @property
    def levels(self) -> int:
        """Noise levels the UNet knows, from the lowest on."""
        known = self.record.get("recipe", {}).get("deepest")
        count = int(self.scheduler.get("num_train_timesteps", 1000))
        return count if known is None else min(int(known), count)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width the UNet is for; None where it does not say."""
        size = self.unet.get("sample_size")
        if size is None:
            return None
        height, width = (size, size) if isinstance(size, int) else size
        return int(height), int(width)

    @property
    def multiple(self) -> int:
        """What sides must be multiples of."""
        return int(2 ** (len(self.unet["block_out_channels"]) - 1))


def locate(model: Model) -> Weights:
    """Return the weights in a folder, or those of a hub id, fetched when they are not on this machine.

    Raises EnvironmentProblem when there are none, UserError when they are not those of an unconditional DDPM for
    colour images, ValidationError when they are not those of the record beside them.
    """
    model = folder_or_id(model)
    if isinstance(model, Path):
        root, source = model, "folder"
    elif HUB_ID.fullmatch(model):
        root, source = _from_hub(model), f"hub {model}"
    else:
        raise EnvironmentProblem(f"no diffusion model at {model}", HINT)
    at = root / "unet" if (root / "unet").is_dir() else root
    # diffusers takes safetensors where there are both
    files = next(filter(None, (tuple(sorted(at.glob(f"{WEIGHTS}*.{end}"))) for end in ("safetensors", "bin"))), ())
    unet = _json(at / "config.json")
    if not files or not unet:
        raise EnvironmentProblem(f"no diffusion model at {model}", HINT)
    scheduler = next(filter(None, map(_json, _scheduler_files(root))), {})
    _check(str(model), unet, scheduler)
    record = _json(root / RECORD)
    if "format" in record:
        source = f"released for {record['format']}"
    elif record:
        source = f"trained on {record['data']['fingerprint']}"
    weights = Weights(files, unet, scheduler, record, source)
    if record and record["checksum"] != weights.checksum:
        raise ValidationError(f"the weights in {model} are not those of its {RECORD}", "train them again")
    return weights


def _scheduler_files(root: Path) -> Iterator[Path]:
    yield root / "scheduler" / "scheduler_config.json"
    yield root / "scheduler_config.json"


def _json(file: Path) -> dict[str, Any]:
    """Return what ``file`` holds; nothing when it is not there."""
    if not file.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read", "fetch or train the model again") from error
    return content


def _check(model: str, unet: dict[str, Any], scheduler: dict[str, Any]) -> None:
    """Raise UserError for a network or noise that the purifiers cannot use."""
    for wrong, what in [
        (
            unet.get("_class_name", "UNet2DModel") not in ("UNet2DModel", CONTINUOUS),
            f"a {unet.get('_class_name')}, not a UNet2DModel",
        ),
        (unet.get("in_channels", 3) != 3, f"for {unet.get('in_channels')} channels, not for three"),
        (unet.get("out_channels", 3) not in (3, 6), f"one with {unet.get('out_channels')} output channels"),
        (unet.get("num_class_embeds") or unet.get("class_embed_type"), "told the class of an image"),
        (
            scheduler and scheduler.get("_class_name") not in SCHEDULERS,
            f"trained for a {scheduler.get('_class_name')}, whose noise is not a DDPM's",
        ),
        (scheduler.get("prediction_type", "epsilon") != "epsilon", "one that does not predict noise"),
    ]:
        if wrong:
            raise UserError(f"the network in {model} is {what}", "choose an unconditional DDPM")


def _from_hub(model: str) -> Path:
    """Return the folder in which the hub's client keeps ``model``, filled when it is not there.

    Raises EnvironmentProblem when it cannot be had.
    """
    diffusers()  # it brings the client
    from huggingface_hub import snapshot_download

    plain = ["*.json", "unet/*.json", "scheduler/*.json"]
    try:
        for offline in (True, False):
            for end in ("safetensors", "bin"):
                wanted = [*plain, f"{WEIGHTS}*.{end}", f"unet/{WEIGHTS}*.{end}"]
                try:
                    root = Path(snapshot_download(model, allow_patterns=wanted, local_files_only=offline))
                except OSError:
                    if not offline:
                        raise
                    break  # nothing of it is here: ask the hub
                if any(root.rglob(f"{WEIGHTS}*.{end}")) and any(root.rglob("config.json")):
                    return root
    except Exception as error:  # errors of hub, network and files of many kinds
        reason = first_line(error)
        raise EnvironmentProblem(
            f"no diffusion model {model} on this machine, nor from the hub: {reason}", HINT
        ) from error
    raise EnvironmentProblem(f"no weights in {model}", HINT)
