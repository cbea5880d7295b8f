"""Networks of bridges, and their training on pairs of clean and protected images; a kill costs some steps."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ue_bench.api import Context, DivergenceCheck, ImageSet, UserError, derive, load_checkpoint, save_checkpoint

from ..diffusion.process import resized, to_model
from ..diffusion.weights import diffusers
from .schedule import LEAST, TOP, on_bridge, scalings, told

SAVE_EVERY = 500  # steps
REPORT_EVERY = 10


@dataclass(frozen=True)
class BridgeRecipe:
    """Defaults are those of the release for 32 px."""

    size: int  # side of the images, a multiple of ``multiple``
    channels: tuple[int, ...] = (192, 384, 576, 768)
    layers: int = 3
    attention: tuple[int, ...] = (32, 16, 8)  # sides of levels with self-attention
    head: int = 64  # channels of an attention head
    dropout: float = 0.1
    steps: int = 100_000
    batch: int = 256
    learning_rate: float = 1e-4  # of RAdam
    ema: float = 0.9999
    residual: float | None = None  # one step from the top: the protected image plus so many times the output
    seed: int = 0

    @property
    def multiple(self) -> int:
        return int(2 ** (len(self.channels) - 1))

    @property
    def network(self) -> dict[str, Any]:
        """Arguments of diffusers' ``UNet2DModel``: the bridged and the protected image in, a clean one out."""
        attended = [self.size >> level in self.attention for level in range(len(self.channels))]
        down = ("ResnetDownsampleBlock2D", "AttnDownBlock2D")
        up = ("ResnetUpsampleBlock2D", "AttnUpBlock2D")
        return {
            "sample_size": self.size,
            "in_channels": 6,
            "out_channels": 3,
            "block_out_channels": self.channels,
            "layers_per_block": self.layers,
            "down_block_types": tuple(down[a] for a in attended),
            "up_block_types": tuple(up[a] for a in reversed(attended)),
            "add_attention": bool(self.attention),
            "downsample_type": "resnet",
            "upsample_type": "resnet",
            "attention_head_dim": min(self.head, *self.channels),
            "attn_norm_num_groups": 32,
            "norm_num_groups": 32,
            "resnet_time_scale_shift": "scale_shift",
            "dropout": self.dropout,
            "flip_sin_to_cos": True,
            "freq_shift": 0,
        }


class Bridge(nn.Module):
    """A network that estimates the clean image behind one on the bridge, both in [-1, 1], N x 3 x H x W."""

    def __init__(self, recipe: BridgeRecipe) -> None:
        super().__init__()
        self.residual = recipe.residual
        self.network = diffusers().UNet2DModel(**recipe.network)

    def forward(self, x: Tensor, protected: Tensor, s: Tensor) -> Tensor:
        """Return the estimate; ``s`` is one level an image, N x 1 x 1 x 1."""
        keep, scale, into, _ = scalings(s)
        seen = torch.cat([into * x, protected], dim=1)
        out: Tensor = self.network(seen, told(s.flatten())).sample.float()
        estimate: Tensor = protected + self.residual * out if self.residual is not None else keep * x + scale * out
        return estimate

    def denoise(self, protected: Tensor, x: Tensor, s: float) -> Tensor:
        """Return the estimate at one level for all images, clipped."""
        estimate: Tensor = self(x, protected, torch.full((len(x), 1, 1, 1), s, device=x.device))
        return estimate.clamp(-1, 1)


def loss(bridge: Bridge, clean: Tensor, protected: Tensor, random: torch.Generator) -> Tensor:
    """Return the weighted squared error at levels drawn uniformly, or, for one step, the squared error at the top."""
    on: dict[str, Any] = {"generator": random, "device": random.device}
    if bridge.residual is not None:
        s = torch.full((len(clean), 1, 1, 1), TOP, device=clean.device)
        at_once: Tensor = (bridge(protected, protected, s) - clean).square().mean()
        return at_once
    s = (LEAST + (TOP - LEAST) * torch.rand(len(clean), 1, 1, 1, **on)).to(clean.device)
    noise = torch.randn(clean.shape, **on).to(clean.device)
    error: Tensor = (bridge(on_bridge(clean, protected, s, noise), protected, s) - clean).square()
    return (scalings(s)[3] * error).mean()


def fitted(clean: ImageSet, protected: ImageSet, recipe: BridgeRecipe, ctx: Context) -> Bridge:
    """Return a bridge trained on these pairs, in eval mode and frozen: an artifact, made when it is first asked for."""
    key = {
        "bridge": 1, "clean": clean.fingerprint, "protected": protected.fingerprint, "recipe": asdict(recipe),
        "precision": ctx.precision,
    }  # fmt: skip

    def make(folder: Path) -> None:
        kept = ctx.checkpoint_dir(key)
        weights = fit(clean, protected, recipe, ctx, kept / "state.pt")
        save_file(weights, folder / "bridge.safetensors", {"recipe": json.dumps(asdict(recipe), allow_nan=False)})
        shutil.rmtree(kept)

    folder = ctx.cached(key, make)
    with torch.random.fork_rng(devices=[]):
        bridge = Bridge(recipe)
    bridge.load_state_dict(load_file(folder / "bridge.safetensors"), strict=True)
    return bridge.to(ctx.device).eval().requires_grad_(False)


def fit(clean: ImageSet, protected: ImageSet, recipe: BridgeRecipe, ctx: Context, state: Path) -> dict[str, Tensor]:
    """Train on pairs, and return the moving average of the weights, on the CPU.

    Raises UserError when there are no pairs of the size, Diverged with the step when something is not finite.
    """
    if not len(clean) or len(clean) != len(protected):
        raise UserError(f"{len(clean)} clean images and {len(protected)} protected ones are no pairs", "give as many")
    with torch.random.fork_rng(devices=[]):  # layers are initialised from the global generator
        torch.manual_seed(derive(recipe.seed, "weights"))
        bridge = Bridge(recipe).to(ctx.device).train()
    optimizer = torch.optim.RAdam(bridge.parameters(), recipe.learning_rate)
    average = {name: value.detach().clone() for name, value in bridge.state_dict().items()}
    done = 0
    if (stored := load_checkpoint(state, ctx.device)) is not None:
        bridge.load_state_dict(stored["network"])
        optimizer.load_state_dict(stored["optimizer"])
        average, done = stored["average"], stored["steps"]
    divergence = DivergenceCheck(recipe.steps, "bridge")
    while done < recipe.steps:
        with torch.random.fork_rng(devices=[]):  # dropout draws from the global generator
            torch.manual_seed(derive(recipe.seed, "dropout", done))
            step_loss = step(bridge, optimizer, clean, protected, recipe, ctx, done)
        done += 1
        with torch.no_grad():
            for name, value in bridge.state_dict().items():
                average[name].lerp_(value, 1 - recipe.ema)
        divergence.add(step_loss)
        if done % REPORT_EVERY == 0 or done == recipe.steps:
            ctx.report(done, recipe.steps, "train the bridge")
        if done % SAVE_EVERY == 0 or done == recipe.steps:
            divergence.check(done, bridge)
            parts = {"network": bridge.state_dict(), "optimizer": optimizer.state_dict(), "average": average}
            save_checkpoint(state, {"steps": done, **parts})
    return {name: value.cpu().contiguous() for name, value in average.items()}


def step(
    bridge: Bridge, optimizer: torch.optim.Optimizer, clean: ImageSet, protected: ImageSet, recipe: BridgeRecipe,
    ctx: Context, done: int,
) -> Tensor:  # fmt: skip
    """Take one step after ``done`` others; return the loss before it. Both images of a pair are mirrored together."""
    random = torch.Generator("cpu").manual_seed(derive(recipe.seed, "step", done))
    rows = torch.randint(len(clean), (recipe.batch,), generator=random).numpy()
    mirrored = torch.rand(recipe.batch, generator=random).numpy() < 0.5
    pair = [
        np.where(mirrored[:, None, None, None], s.images[rows][:, :, ::-1], s.images[rows]) for s in (clean, protected)
    ]
    x, worse = (resized(to_model(images, ctx.device), (recipe.size, recipe.size)) for images in pair)
    with ctx.autocast():
        value = loss(bridge, x, worse, random)
    optimizer.zero_grad(set_to_none=True)
    value.backward()
    optimizer.step()
    return value.detach()
