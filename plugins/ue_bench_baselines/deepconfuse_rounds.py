"""The rounds of DeepConfuse: a generator of noise, and the classifiers that it is trained to mislead.

Images and noise are on the [0, 1] scale, N x 3 x H x W. What is random is drawn for a round and a step by their number,
so that the state of a round is its networks and the two numbers.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ue_bench.api import Context, DivergenceCheck, ImageSet, UserError, derive, load_checkpoint, save_checkpoint

from .pgd import to_levels, to_unit
from .quantise import keep_linf, perturb
from .unet import UNet

SAVE_EVERY = 200  # steps; a round's end is saved too


def lookahead(network: nn.Module, seen: Tensor, clean: Tensor, labels: Tensor, rate: float) -> Tensor:
    """Return the loss of ``network`` on ``clean`` images after a step of plain gradient descent on ``seen`` ones.

    Both N x 3 x H x W with the same ``labels``. Differentiable in ``seen`` through the step. Weights and running
    statistics of the network stay as they are.
    """

    def loss(weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
        statistics = {name: value.clone() for name, value in network.named_buffers()}
        return F.cross_entropy(functional_call(network, (dict(weights), statistics), (x,)), labels)

    weights = dict(network.named_parameters())
    gradients = torch.autograd.grad(loss(weights, seen), list(weights.values()), create_graph=True)
    moved = {name: w - rate * g for (name, w), g in zip(weights.items(), gradients, strict=True)}
    return loss(moved, clean)


def full(values: Tensor) -> Tensor:
    """Convert to single precision where the precision is lower."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def with_noise(
    images: NDArray[np.uint8], protect: Callable[[Tensor], Tensor], eps: float, device: str
) -> NDArray[np.uint8]:
    """Return what ``protect`` makes of ``images``, N x 3 x H x W in [0, 1], rounded and within ``eps``."""
    x = to_unit(images, device)
    return keep_linf(perturb(images, to_levels(protect(x) - x)), images, eps)


def split(
    labels: NDArray[np.int64], share: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split rows into those to train on and those to judge with: of every class ``share``, at least one and never all.

    Raises UserError when that leaves none to judge with, or fewer than two to train on.
    """
    judging: list[NDArray[np.int64]] = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        judging.append(members[: min(len(members) - 1, max(1, round(share * len(members))))])
    validation = np.sort(np.concatenate(judging))
    training = np.setdiff1d(np.arange(len(labels)), validation)
    if not len(validation) or len(training) < 2:
        raise UserError("deepconfuse needs two images of a class, and three in all", "add images")
    return training, validation


class Confusion:
    """All networks and how far they are.

    A round is ``interval`` epochs of the game and ``judge_epochs`` of a fresh classifier that tells how well the
    generator does. ``target`` is the generator that learns, ``frozen`` what it was when the round began and, while it
    is judged, what it has become; ``best`` the weights of the one that was judged best, by ``score``, the accuracy
    that its judge had on clean images. ``classifier`` is the network at play or the judge, and ``shown`` the whole set
    as the frozen generator protects it, from which both learn: made once for each.
    """

    def __init__(
        self,
        data: ImageSet,
        ctx: Context,
        victim: str,
        width: int,
        eps: float,
        rate: float,
        classifier_rate: float,
        batch: int,
        interval: int,
        judge_epochs: int,
        validation: float,
        wide: int,
    ) -> None:
        self.data, self.ctx, self.victim, self.eps, self.wide = data, ctx, victim, eps, wide
        self.classifier_rate = classifier_rate
        self.training, self.validation = split(data.labels, validation, ctx.rng("validation"))
        self.batch = min(batch, len(self.training))
        self.per_epoch = len(self.training) // self.batch
        self.game_steps, self.judge_steps = interval * self.per_epoch, judge_epochs * self.per_epoch
        self.labels = torch.tensor(data.labels, device=ctx.device)
        self.target = self.generator(width)
        self.frozen = copy.deepcopy(self.target).eval().requires_grad_(False)
        self.adam = torch.optim.Adam(self.target.parameters(), rate)
        self.round = 0
        self.step = 0  # of the round
        self.scores: list[float] = []  # one a round
        self.best: dict[str, Tensor] | None = None
        self.kept: tuple[Path, ImageSet] | None = None  # ``shown``, and the folder it is in
        self.renew("classifier")

    def generator(self, width: int) -> UNet:
        """Return an untrained generator, its weights drawn from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(self.ctx.seed, "generator"))
            built = UNet(width)
        return built.to(self.ctx.device).to(memory_format=torch.channels_last)

    def renew(self, role: str) -> None:
        """Start with another classifier, its weights drawn for this round and ``role``."""
        ctx = replace(self.ctx, seed=derive(self.ctx.seed, role, self.round))
        self.classifier = ctx.network(self.data, self.victim).train()
        self.sgd = torch.optim.SGD(self.classifier.parameters(), self.classifier_rate)

    @property
    def score(self) -> float:
        """Return the lowest accuracy of a judge so far."""
        return min(self.scores, default=1.0)

    def play(self, state: Path, rounds: int) -> None:
        """Play all rounds that are left; the file ``state`` holds the last step that was saved.

        Raises Diverged with the step, counted over all rounds, when a loss or a weight is not finite: a judge that
        learned nothing would find its generator the best.
        """
        if (stored := load_checkpoint(state, self.ctx.device)) is not None:
            self.resume(stored)
        length = self.game_steps + self.judge_steps
        divergence = DivergenceCheck(rounds * length, "the networks at play")
        while self.round < rounds:
            so_far = f", lowest accuracy {self.score:.1%}" if self.scores else ""
            self.ctx.report(self.round * length + self.step, rounds * length, f"round {self.round + 1}{so_far}")
            if self.step < self.game_steps:
                divergence.add(self.train())
            else:
                if self.step == self.game_steps:
                    self.hand_over()
                divergence.add(self.learn())
            self.step += 1
            if self.step in (self.game_steps, length) or self.step % SAVE_EVERY == 0:
                divergence.check(self.round * length + self.step, self.target, self.classifier)
            if self.step == length:
                self.judge()
            if self.step % SAVE_EVERY == 0:  # 0 is a round's end
                save_checkpoint(state, self.state())
        self.ctx.report(1, 1, f"lowest accuracy {self.score:.1%}")

    def state(self) -> dict[str, Any]:
        return {
            "target": self.target.state_dict(), "frozen": self.frozen.state_dict(), "adam": self.adam.state_dict(),
            "classifier": self.classifier.state_dict(), "best": self.best, "scores": self.scores, "round": self.round,
            "step": self.step,
        }  # fmt: skip

    def resume(self, state: dict[str, Any]) -> None:
        for name in ("target", "frozen", "adam", "classifier"):
            getattr(self, name).load_state_dict(state[name])
        self.best, self.scores, self.round, self.step = (state[name] for name in ("best", "scores", "round", "step"))
        self.forget()

    def next_batch(self) -> NDArray[np.int64]:
        """Return rows to train on: batches of one size, in an order that is drawn for each pass."""
        epoch, place = divmod(self.step, self.per_epoch)
        order = self.ctx.rng("order", self.round, epoch).permutation(self.training)
        return np.sort(order[place * self.batch : (place + 1) * self.batch])

    def train(self) -> Tensor:
        """Take one step of both players, on the same images; return the sum of their losses.

        The generator goes up the loss on clean images that the classifier would have after learning from its images;
        the classifier then learns from the frozen generator's.
        """
        rows = self.next_batch()
        x, y = to_unit(self.data.images[rows], self.ctx.device), self.labels[rows]
        self.target.train()
        # In single precision: a step this small is lost in the rounding of bf16 weights. On untrained ResNet-18, over 4
        # batches of 32 at a rate of 0.01, gradients of the generator in bf16 had a cosine of 0.6 to those without.
        loss = -lookahead(self.classifier, self.protected(self.target, x), x, y, self.classifier_rate)
        weights = list(self.target.parameters())
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.grad = gradient
        self.adam.step()
        return loss.detach() + self.descend(rows)

    def hand_over(self) -> None:
        """Freeze the generator as it has become, for a fresh classifier to judge."""
        self.frozen.load_state_dict(self.target.state_dict())
        self.forget()
        self.renew("judge")

    def learn(self) -> Tensor:
        """Take one step of the judge; return its loss."""
        return self.descend(self.next_batch())

    def descend(self, rows: NDArray[np.int64]) -> Tensor:
        """Take a training step of the classifier on the frozen generator's images; return its loss."""
        with self.ctx.autocast():
            logits = self.classifier(to_unit(self.shown.images[rows], self.ctx.device))
        self.sgd.zero_grad(set_to_none=True)
        loss = F.cross_entropy(full(logits), self.labels[rows])
        loss.backward()
        self.sgd.step()
        return loss.detach()

    def judge(self) -> None:
        """End the round: the frozen generator is the best one if its judge does worst."""
        accuracy = self.accuracy()
        if accuracy < self.score or self.best is None:
            self.best = copy.deepcopy(self.frozen.state_dict())
        self.scores.append(accuracy)
        self.round, self.step = self.round + 1, 0
        self.renew("classifier")

    @torch.no_grad()
    def accuracy(self) -> float:
        """Return the accuracy of the classifier, in eval mode, on the clean images that nothing is trained on."""
        self.classifier.eval()
        right = 0
        for start in range(0, len(self.validation), self.wide):
            rows = self.validation[start : start + self.wide]
            with self.ctx.autocast():
                guessed = self.classifier(to_unit(self.data.images[rows], self.ctx.device)).argmax(1)
            right += int((guessed == self.labels[rows]).sum())
        return right / len(self.validation)

    def protected(self, generator: nn.Module, x: Tensor) -> Tensor:
        """Return images ``x`` with the generator's noise, within [0, 1]."""
        with self.ctx.autocast():
            noise = generator(x)
        return (x + self.eps * full(noise)).clamp(0, 1)

    @property
    def shown(self) -> ImageSet:
        """Return the set as the frozen generator protects it."""
        if self.kept is None:
            folder = Path(tempfile.mkdtemp(dir=self.ctx.scratch))
            self.kept = folder, self.published(replace(self.ctx, scratch=folder, report=lambda *said: None))
        return self.kept[1]

    def forget(self) -> None:
        """Remove the set that is kept of the frozen generator, which is another one now."""
        if self.kept is not None:
            shutil.rmtree(self.kept[0])
            self.kept = None

    def finish(self) -> ImageSet:
        """Return the set as the best generator protects it."""
        assert self.best is not None, "no round has ended"
        self.forget()
        self.frozen.load_state_dict(self.best)
        return self.published(self.ctx)

    def published(self, ctx: Context) -> ImageSet:
        """Return the set as the frozen generator protects it, in ``ctx.scratch``; in eval mode, image by image."""

        @torch.no_grad()
        def change(images: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
            return with_noise(images, lambda x: self.protected(self.frozen, x), self.eps, self.ctx.device)

        return ctx.map_images(self.data, change, "add noise", self.wide)
