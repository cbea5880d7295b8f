"""Write a released diffusion model as a folder that diffusers reads, with a record of where it is from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ue_bench.api import UserError

from .conversion import ECLIPSE, IMAGENET, Converted, ddpm, guided, in_time, only_tensors
from .ddpmpp import DdpmPlusPlus
from .weights import CONTINUOUS, RECORD, WEIGHTS, diffusers, locate

PROBE_STEP = 10


def ema_of_list(content: Any) -> dict[str, Tensor]:
    """Return the averaged weights of LE-JCDP's checkpoint, a list that ends with them. Raises UserError for others."""
    if not isinstance(content, list) or len(content) < 2:
        raise UserError("the file is no checkpoint of LE-JCDP, which is a list", "give a ckpt_*.pth of its release")
    return only_tensors(content[-1])


def ema_in_order(content: Any) -> list[Tensor]:
    """Return the averaged weights of a score-based model's checkpoint, a list without names. Raises UserError."""
    averages = content.get("ema") if isinstance(content, Mapping) else None
    weights = averages.get("shadow_params") if isinstance(averages, Mapping) else None
    if not isinstance(weights, list) or not all(isinstance(value, torch.Tensor) for value in weights):
        raise UserError("the file has no list of averaged weights", "give the checkpoint_8.pth of its release")
    return [value.float() for value in weights]


READERS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Converted]]] = {
    "le-jcdp": (ema_of_list, ddpm),
    "eclipse": (only_tensors, partial(guided, layout=ECLIPSE)),
    "imagenet256": (only_tensors, partial(guided, layout=IMAGENET)),
    "avatar": (ema_in_order, in_time),
}


def read(path: Path) -> Any:
    """Return what a checkpoint of torch holds. Raises UserError when that is more than tensors and plain values."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the bytes of the file make of an unpickler
        raise UserError(
            f"{path.name} cannot be read as weights ({type(error).__name__})", "download it again"
        ) from error


def convert(content: Any, form: str) -> Converted:
    """Return the network of a checkpoint in a format of ``READERS``."""
    reader, converter = READERS[form]
    return converter(reader(content))


def write(converted: Converted, out: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Fill the folder ``out`` with the model, and return its record, to which ``record`` is added.

    Raises UserError when weights and network do not fit, both ways.
    """
    library = diffusers()
    kind = DdpmPlusPlus if converted.continuous else library.UNet2DModel
    with torch.device("meta"):  # no weights are drawn that would be overwritten
        network = kind(**converted.network)
    wanted = network.state_dict()
    for what, names in (
        ("lacks", [name for name in wanted if name not in converted.weights]),
        ("has an unknown", [name for name in converted.weights if name not in wanted]),
        (
            "has another shape of",
            [k for k, v in converted.weights.items() if k in wanted and v.shape != wanted[k].shape],
        ),
    ):
        if names:
            raise UserError(f"the file does not fit the network of this format: it {what} {names[0]}", "choose another")
    network.load_state_dict(converted.weights, strict=True, assign=True)
    network.eval().requires_grad_(False)
    scheduler = library.DDPMScheduler(**converted.scheduler)
    if converted.continuous:
        _save_in_time(network, converted, out / "unet")
        scheduler.save_pretrained(out / "scheduler")
    else:
        library.DDPMPipeline(unet=network, scheduler=scheduler).save_pretrained(out)
    record = {
        **record,
        "parameters": sum(value.numel() for value in wanted.values()),
        "timestep_scale": converted.timestep_scale,
        "probe": probe(network, converted),
    }
    record = {"checksum": replace(locate(out), record=record).checksum, **record}
    (out / RECORD).write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return record


def _save_in_time(network: nn.Module, converted: Converted, folder: Path) -> None:
    """Write a network that diffusers does not know, in the files that it would have."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    shape = json.dumps({"_class_name": CONTINUOUS, **converted.network}, indent=1, allow_nan=False)
    (folder / "config.json").write_text(shape + "\n", encoding="utf-8")
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / f"{WEIGHTS}.safetensors")


@torch.no_grad()
def probe(network: Any, converted: Converted) -> dict[str, float]:
    """Return mean and deviation of what the network says of a fixed wave, to tell two conversions apart by eye."""
    side = converted.network["sample_size"]
    wave = torch.linspace(0, 3, side).sin()
    x = (wave[:, None] * wave).expand(1, 3, side, side)
    said = network(x, torch.tensor(PROBE_STEP * converted.timestep_scale))
    said = said if converted.continuous else said.sample
    return {"mean": round(float(said.mean()), 6), "deviation": round(float(said.std()), 6)}
