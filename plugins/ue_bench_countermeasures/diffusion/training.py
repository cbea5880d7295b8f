"""Training of diffusion models on clean images: the one way, for ``ue-bench purifier train`` and for purifiers.

DDPM (Ho et al., NeurIPS 2020), algorithm 1: the network predicts the noise in images at a random noise level, and
Adam reduces its mean squared error. What is kept is a moving average of the weights.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ue_bench.api import (
    Context,
    DivergenceCheck,
    ImageSet,
    UserError,
    claim_checkpoint,
    derive,
    describe_data,
    describe_environment,
    load_checkpoint,
    save_checkpoint,
)

from .process import resized, to_model
from .recipe import Recipe
from .weights import RECORD, Weights, diffusers, locate

Report = Callable[[float, float, str], None]
POINTS = 100  # of the curve that is kept
SAVE_SECONDS = 60.0  # between two checkpoints
REPORTED = 50  # the loss that is shown is a mean over about so many steps


def fit(
    data: ImageSet,
    recipe: Recipe,
    device: str,
    amp: bool,
    checkpoint: Path,
    out: Path,
    report: Report,
    more: dict[str, Any] | None = None,
) -> None:
    """Train on ``data`` and fill the folder ``out``: a diffusers pipeline and a record of the training.

    ``amp`` is bfloat16 autocast. The folder ``checkpoint`` holds the state of the run: one that was killed continues
    there and ends with the same weights; the caller removes it. A folder in which a run with other settings was begun
    is refused with UserError. ``more`` is added to the record.

    Raises UserError when the size does not suit the network, Diverged when a loss or a weight is not finite,
    EnvironmentProblem without diffusers.
    """
    library = diffusers()
    if recipe.size % recipe.multiple:
        raise UserError(f"side {recipe.size} does not suit the network", f"it needs a multiple of {recipe.multiple}")
    recipe = replace(recipe, batch=min(recipe.batch, len(data)))
    settings = {
        "data": describe_data(data),
        "recipe": asdict(recipe),
        "precision": "bf16" if amp else "fp32",
    }
    claim_checkpoint(checkpoint, settings)
    with torch.random.fork_rng(devices=[]):  # layers are initialised from the global generator
        torch.manual_seed(recipe.seed)
        network = library.UNet2DModel(**recipe.network)
    network.to(device)
    scheduler = library.DDPMScheduler(**recipe.scheduler)
    run = _Run(network, scheduler, recipe, device, amp)
    file = checkpoint / "state.pt"
    if (state := load_checkpoint(file, device)) is not None:
        run.resume(state)
    run.train(data, report, lambda state: save_checkpoint(file, state))
    run.average.copy_to(network.parameters())
    library.DDPMPipeline(unet=network, scheduler=scheduler).save_pretrained(out)
    record = {
        "checksum": locate(out).checksum,
        **settings,
        "parameters": sum(p.numel() for p in network.parameters()),
        **(more or {}),
        "environment": describe_environment(device, "diffusers"),
        "seconds": round(run.seconds, 1),
        "curve": run.curve,
    }
    (out / RECORD).write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def own_weights(data: ImageSet, recipe: Recipe, ctx: Context) -> Weights:
    """Return weights trained on ``data``: an artifact, made when it is first asked for."""
    recipe = replace(recipe, seed=ctx.seed % 2**31)
    key = {"diffusion model": 1, "data": data.fingerprint, "recipe": asdict(recipe)}

    def make(folder: Path) -> None:
        checkpoint = ctx.checkpoint_dir(key)
        fit(data, recipe, ctx.device, False, checkpoint, folder, ctx.report)
        shutil.rmtree(checkpoint)

    return locate(ctx.cached(key, make))


class _Run:
    """One training: its network, average, optimizer and how far it is."""

    def __init__(self, network: nn.Module, scheduler: Any, recipe: Recipe, device: str, amp: bool) -> None:
        from diffusers.training_utils import EMAModel

        self.network, self.scheduler, self.recipe, self.device, self.amp = network, scheduler, recipe, device, amp
        self.average: Any = EMAModel(network.parameters(), decay=recipe.ema)
        self.optimizer = torch.optim.Adam(network.parameters(), recipe.learning_rate)
        self.step, self.seconds = 0, 0.0
        self.shown = math.nan  # the loss, smoothed
        self.sum, self.curve = 0.0, list[dict[str, float]]()

    def resume(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.shown = state["step"], state["seconds"], state["shown"]
        self.sum, self.curve = state["sum"], state["curve"]

    def state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(), "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(), "step": self.step, "seconds": self.seconds, "shown": self.shown,
            "sum": self.sum, "curve": self.curve,
        }  # fmt: skip

    def train(self, data: ImageSet, report: Report, save: Callable[[dict[str, Any]], None]) -> None:
        """Take all steps that are left. Raises Diverged when a loss or a weight is not finite."""
        divergence = DivergenceCheck(self.recipe.steps, "the diffusion model")
        every = max(1, self.recipe.steps // POINTS)
        started = time.monotonic() - self.seconds
        saved = time.monotonic()
        self.network.train()
        while self.step < self.recipe.steps:
            loss = self.take(data)
            self.step += 1
            self.seconds = time.monotonic() - started
            if not math.isfinite(loss):
                raise divergence.diverged("loss", self.step)
            self.sum += loss
            self.shown = loss if math.isnan(self.shown) else self.shown + (loss - self.shown) / REPORTED
            if self.step % every == 0 or self.step == self.recipe.steps:
                taken = self.step - (self.curve[-1]["step"] if self.curve else 0)
                self.curve.append({"step": self.step, "loss": round(self.sum / taken, 6)})
                self.sum = 0.0
            report(self.step, self.recipe.steps, f"train diffusion model, loss {self.shown:.4f}")
            if time.monotonic() - saved >= SAVE_SECONDS:
                divergence.check(self.step, self.network)
                save(self.state())
                saved = time.monotonic()
        divergence.check(self.step, self.network)
        self.network.eval()

    def take(self, data: ImageSet) -> float:
        """Take one step of the optimizer; return its loss. Everything random follows from the seed and the step."""
        recipe = self.recipe
        random = torch.Generator("cpu").manual_seed(derive(recipe.seed, "step", self.step))
        x = batch(data.images, recipe, self.step, random).to(self.device)
        level = torch.randint(recipe.levels, (len(x),), generator=random).to(self.device)
        noise = torch.randn(x.shape, generator=random).to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, self.step)
        with self._dropout(), torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.amp):
            predicted = self.network(self.scheduler.add_noise(x, noise, level), level).sample
            loss = F.mse_loss(predicted.float(), noise)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip)
        self.optimizer.step()
        self.average.step(self.network.parameters())
        return float(loss.detach())

    @contextlib.contextmanager
    def _dropout(self) -> Iterator[None]:
        """Seed the global generator, from which dropout draws, for this step; afterwards it is as before."""
        if not self.recipe.dropout:
            yield
            return
        on_gpu = [torch.device(self.device)] if self.device.startswith("cuda") else []
        with torch.random.fork_rng(devices=on_gpu):
            torch.manual_seed(derive(self.recipe.seed, "dropout", self.step))
            yield


def batch(images: NDArray[np.uint8], recipe: Recipe, step: int, random: torch.Generator) -> Tensor:
    """Return a step's images, N x 3 x size x size in [-1, 1]: mirrored and shifted at random, none twice in a pass."""
    per_pass = len(images) // recipe.batch
    order = np.random.default_rng(derive(recipe.seed, "pass", step // per_pass)).permutation(len(images))
    rows = np.sort(order[step % per_pass * recipe.batch :][: recipe.batch])  # sorted: they may lie in a file
    x = resized(to_model(images[rows], "cpu"), (recipe.size, recipe.size))
    mirrored = torch.rand(len(x), generator=random) < 0.5
    x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    if recipe.pad:
        shifts = torch.randint(2 * recipe.pad + 1, (len(x), 2), generator=random).tolist()
        padded = F.pad(x, [recipe.pad] * 4, value=-1.0)
        cut = [p[:, i : i + recipe.size, j : j + recipe.size] for p, (i, j) in zip(padded, shifts, strict=True)]
        x = torch.stack(cut)
    return x


def learning_rate(recipe: Recipe, step: int) -> float:
    """Return the rate of ``step``, counted from 0."""
    rate = recipe.learning_rate * min(1.0, (step + 1) / max(1, recipe.warmup))
    if recipe.decay == "cosine":
        rate *= (1 + math.cos(math.pi * step / recipe.steps)) / 2
    return rate
