"""Training of ComDefend's networks on clean images, and the file they are kept in.

Everything random follows from the seed and the step, so that the state of a training is its networks, its optimizer and
the number of its steps.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ue_bench.api import (
    Context,
    DivergenceCheck,
    ImageSet,
    UserError,
    derive,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
)

from .comdefend_network import ComDefendNetwork, loss
from .tiles import SIDE, draw

Report = Callable[[float, float, str], None]
NOISE = 20.0  # standard deviation of what is added to codes in training
SAVE_EVERY = 200  # steps
REPORT_EVERY = 10
RECORD = "comdefend"  # in the file's metadata


@dataclass(frozen=True)
class ComDefendRecipe:
    """How the networks are built and trained."""

    divisor: int  # of the paper's numbers of channels
    steps: int
    batch: int
    learning_rate: float  # of Adam
    seed: int = 0


def fit(data: ImageSet, recipe: ComDefendRecipe, device: str, checkpoint: Path, report: Report) -> ComDefendNetwork:
    """Train the networks on ``data``; return them in eval mode.

    The folder ``checkpoint`` holds the state of the run: one that was killed continues there and ends with the same
    weights; the caller removes it. A folder in which a run with other settings was begun is refused with UserError.
    Raises Diverged with the step when a loss or a weight is not finite.
    """
    recipe = replace(recipe, batch=min(recipe.batch, len(data)))
    network = untrained(recipe).to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), recipe.learning_rate)
    settings = {"data": data.fingerprint, "recipe": asdict(recipe)}
    state, done = checkpoint / "state.pt", 0
    if (stored := load_checkpoint(state, device)) is not None:
        if stored["settings"] != settings:
            raise UserError(f"{checkpoint} holds an unfinished training with other settings", "finish or remove it")
        network.load_state_dict(stored["network"])
        optimizer.load_state_dict(stored["optimizer"])
        done = stored["steps"]
    divergence = DivergenceCheck(recipe.steps, "ComDefend")
    while done < recipe.steps:
        step_loss = step(network, optimizer, data, recipe, done, device)
        done += 1
        divergence.add(step_loss)
        if done % REPORT_EVERY == 0 or done == recipe.steps:
            report(done, recipe.steps, f"train ComDefend, loss {float(step_loss):.4f}")
        if done % SAVE_EVERY == 0 or done == recipe.steps:
            divergence.check(done, network)
            parts = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
            save_checkpoint(state, {"settings": settings, "steps": done, **parts})
    return network.eval().requires_grad_(False)


def untrained(recipe: ComDefendRecipe) -> ComDefendNetwork:
    with torch.random.fork_rng(devices=[]):  # layers are initialised from the global generator
        torch.manual_seed(derive(recipe.seed, "weights"))
        return ComDefendNetwork(recipe.divisor)


def step(
    network: ComDefendNetwork,
    optimizer: torch.optim.Optimizer,
    data: ImageSet,
    recipe: ComDefendRecipe,
    done: int,
    device: str,
) -> torch.Tensor:
    """Take one step of the optimizer, after ``done`` others; return the loss before it."""
    random = torch.Generator("cpu").manual_seed(derive(recipe.seed, "step", done))
    per_pass = len(data) // recipe.batch
    order = np.random.default_rng(derive(recipe.seed, "pass", done // per_pass)).permutation(len(data))
    rows = np.sort(order[done % per_pass * recipe.batch :][: recipe.batch])  # sorted: they may lie in a file
    levels = draw(torch.tensor(data.images[rows]).permute(0, 3, 1, 2).float(), random)
    x = levels.div_(255).to(device).contiguous(memory_format=torch.channels_last)
    noise = NOISE * torch.randn((len(x), network.bits, SIDE, SIDE), generator=random).to(device)
    code, image = network(x, noise)
    step_loss = loss(code, image, x)
    optimizer.zero_grad(set_to_none=True)
    step_loss.backward()
    optimizer.step()
    return step_loss.detach()


def trained_file(data: ImageSet, recipe: ComDefendRecipe, ctx: Context) -> Path:
    """Return the file of networks that were trained on ``data``: an artifact, made when it is first asked for."""
    key = {"comdefend": 1, "data": data.fingerprint, "recipe": asdict(recipe)}

    def make(folder: Path) -> None:
        checkpoint = ctx.checkpoint_dir(key)
        network = fit(data, recipe, ctx.device, checkpoint, ctx.report)
        write(folder / "networks.safetensors", network, {"recipe": asdict(recipe)})
        shutil.rmtree(checkpoint)

    return ctx.cached(key, make) / "networks.safetensors"


def write(path: Path, network: ComDefendNetwork, record: dict[str, Any]) -> None:
    """Write the weights, with ``record`` in the file's metadata."""
    save_weights(path, network.state_dict(), RECORD, {"divisor": network.divisor, **record})


def load(path: Path, device: str) -> ComDefendNetwork:
    """Load the networks in a file of ``write``, in eval mode. Raises UserError when it is not one."""

    def build(record: dict[str, Any], weights: dict[str, torch.Tensor]) -> ComDefendNetwork:
        with torch.device("meta"):  # no weights are drawn that would be overwritten
            network = ComDefendNetwork(record["divisor"])
        network.load_state_dict({name: value.float() for name, value in weights.items()}, assign=True)
        return network

    network = load_weights(
        path, RECORD, build, "a file of ComDefend's networks", "'ue-bench purifier comdefend' writes them"
    )
    return network.to(device).to(memory_format=torch.channels_last)
