"""A diffusion model at work: loading it, and applying it to all images of a set."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ue_bench.api import Context, ImageSet, UserError, first_line, kept_images

from .process import Pixels, Predict, Streams, resized, streams, to_levels, to_model
from .weights import Weights, diffusers

Variance = Literal["large", "small"]
BATCH_PIXELS = 64 * 32 * 32  # of images that are purified at a time, and written down when they are
GPU_FACTOR = 8


@dataclass(frozen=True)
class Denoiser:
    """A network in eval mode and the scheduler of its noise."""

    predict: Predict
    scheduler: Any


def load(weights: Weights, device: str, variance: Variance) -> Denoiser:
    """Load the network of ``weights`` on ``device``.

    Reverse steps have ``variance``: ``large`` is beta, or what the network has learned; ``small`` that of the
    posterior. Their estimates of the image are clipped. Raises UserError when the files do not fit together.
    """
    library = diffusers()
    try:
        network = _in_time(weights) if weights.continuous else _discrete(weights, library)
    except Exception as error:  # of files, shapes and configurations, of many kinds
        reason = first_line(error)
        raise UserError(
            f"the weights in {weights.folder} cannot be loaded: {reason}", "fetch or train them again"
        ) from error
    network = network.float().to(device).eval().requires_grad_(False)
    learned = variance == "large" and weights.unet.get("out_channels", 3) == 6
    scheduler = library.DDPMScheduler.from_config(
        {k: v for k, v in weights.scheduler.items() if not k.startswith("_")},
        variance_type="learned_range" if learned else f"fixed_{variance}",
        clip_sample=True,
        thresholding=False,
    )

    scale, count = weights.timestep_scale, int(scheduler.config.num_train_timesteps)

    def predict(x: Tensor, step: int) -> Tensor:
        if weights.continuous:
            noise: Tensor = network(x, torch.tensor((count - 1) * (step + 1) / count, device=x.device))
            return noise
        told = step if scale == 1 else torch.tensor(step * scale, device=x.device)
        output: Tensor = network(x, told).sample
        return output if learned else output[:, :3]

    return Denoiser(predict, scheduler)


def _discrete(weights: Weights, library: ModuleType) -> Any:
    network, loading = library.UNet2DModel.from_pretrained(
        weights.folder, low_cpu_mem_usage=False, output_loading_info=True
    )
    if loading["missing_keys"]:  # it would be left with random ones
        raise ValueError(f"{len(loading['missing_keys'])} arrays are missing")
    return network


def _in_time(weights: Weights) -> nn.Module:
    from safetensors.torch import load_file

    from .ddpmpp import DdpmPlusPlus

    [file] = weights.files
    with torch.device("meta"):  # no weights are drawn that would be overwritten
        network = DdpmPlusPlus(**{k: v for k, v in weights.unet.items() if not k.startswith("_")})
    network.load_state_dict(load_file(file), strict=True, assign=True)
    return network


def check(weights: Weights, t: int, size: tuple[int, int], name: str) -> tuple[int, int]:
    """Return the size at which images of ``size`` are purified: the network's own.

    Raises UserError when the network does not know noise of ``t`` steps, or is for smaller images.
    """
    if t > weights.levels:
        raise UserError(
            f"{name}: the network knows {weights.levels} noise levels, t={t} needs more",
            "choose a smaller t, or 'ue-bench purifier train' with --deepest",
        )
    network_size, step = weights.size, weights.multiple
    if network_size is None:
        network_size = size
        if size[0] % step or size[1] % step:
            raise UserError(f"{name}: images of {_by(size)} do not suit the network", f"it needs multiples of {step}")
    if size[0] > network_size[0] or size[1] > network_size[1]:
        raise UserError(
            f"{name}: the network is for images of {_by(network_size)}, these are {_by(size)}",
            "'ue-bench purifier train --size' makes one for them",
        )
    return network_size


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def purify(
    data: ImageSet,
    ctx: Context,
    key: Any,
    size: tuple[int, int],
    clean: Callable[[Tensor, Streams], Tensor],
    text: str,
    finish: Callable[[Tensor], Pixels] = to_levels,
    batch: int | None = None,
) -> ImageSet:
    """Apply ``clean(x, random)`` to batches N x 3 x H x W in [-1, 1] of ``size``, and return ``data`` with the results.

    ``random`` are the streams of the images, one each. Smaller images are enlarged to ``size`` and reduced again.
    ``finish`` makes levels of what comes out. Batches are written down under ``key``, so that a process which was
    killed continues; their number of images changes results by rounding errors at most.
    """
    if batch is None:
        pixels = BATCH_PIXELS * (GPU_FACTOR if ctx.device.startswith("cuda") else 1)
        batch = max(1, pixels // (size[0] * size[1]))
    folder = ctx.checkpoint_dir(key)

    def change(images: Pixels, where: slice) -> Pixels:
        def cleaned() -> Pixels:
            with torch.no_grad():
                x = resized(to_model(images, ctx.device), size)
                return finish(resized(clean(x, streams(ctx.seed, where)), data.size))

        return kept_images(folder / f"{where.start}-{where.stop}.npz", cleaned)

    purified = ctx.map_images(data, change, text, batch)
    shutil.rmtree(folder, ignore_errors=True)
    return purified
