"""Measure the engine on one GPU, in at most eight minutes: one command, which goes on where it was stopped.

    python benchmarks/gpu.py --out gpu.json [--dataset cifar10 --data-dir DIR]

The file has one entry a part, written as soon as it is measured; a part that is there is not measured again. Every
part is measured against yardsticks of the same run. ``--toy`` runs all of it at sizes for which a CPU will do: that the
script ends is all it shows.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ue_bench import machine
from ue_bench.api import Context, Countermeasure, Dataset, ImageSet, Victim, write_atomically
from ue_bench.catalogue.protocols import protocol
from ue_bench.catalogue.registry import registry
from ue_bench.contract.protocol import Protocol
from ue_bench.engine import loop
from ue_bench.engine.loop import make_optimizer, train
from ue_bench.engine.numerics import full_float32
from ue_bench.engine.precision import default_precision
from ue_bench.engine.replay import CudaGraphs, StepRunner
from ue_bench_baselines.pgd import descend
from ue_bench_countermeasures.preprocessing import Jpeg
from ue_bench_deephiding.hinet import HidingNetwork

MINUTES = 8.0
LEAST_REPLAY, LEAST_LANES = 1.5, 1.15  # times as fast as without, or it is not worth its code

Numbers = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    steps: int = 220
    warm: int = 20  # of these, before the clock starts: recording, and the choice of algorithms
    batch: int = 128
    repeats: int = 50
    side: int = 8192  # of matrices
    copied: int = 2**30  # bytes
    lanes: int = 4
    images: int = 1000  # through JPEG and the hiding network
    victims: tuple[str, ...] = ("resnet18", "resnet9")
    attack_steps: int = 10
    cell_images: int | None = None  # of the dataset
    cell_epochs: int | None = None  # of the protocol


TOY = Sizes(
    steps=20, warm=10, batch=2, repeats=1, side=16, copied=2**10, lanes=2, images=1, victims=("linear", "mlp[width=4]"),
    attack_steps=1, cell_images=256, cell_epochs=1,
)  # fmt: skip


@dataclass
class Bench:
    """A device, the sizes, and where a cell finds its images."""

    device: torch.device
    sizes: Sizes
    dataset: str
    data_dir: Path

    @property
    def precision(self) -> str:
        return default_precision(str(self.device))

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def seconds(self, work: Callable[[], object], repeats: int | None = None) -> float:
        """Return the seconds of one call of ``work``, from the median of three times ``repeats`` calls."""
        repeats = repeats or self.sizes.repeats
        work()
        times = []
        for _ in range(3):
            self.wait()
            started = time.perf_counter()
            for _ in range(repeats):
                work()
            self.wait()
            times.append((time.perf_counter() - started) / repeats)
        return sorted(times)[1]

    def victim(self, selector: str) -> Victim:
        [found] = registry().resolve("victim", selector)
        assert isinstance(found, Victim)
        return found

    # Yardsticks

    def matrix_product(self) -> Numbers:
        a = torch.randn(self.sizes.side, self.sizes.side, device=self.device, dtype=torch.bfloat16)
        seconds = self.seconds(lambda: a @ a)
        return {"side": self.sizes.side, "bf16_tflops": 2 * self.sizes.side**3 / seconds / 1e12}

    def copy(self) -> Numbers:
        source = torch.zeros(self.sizes.copied, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        seconds = self.seconds(lambda: target.copy_(source))
        return {"bytes": self.sizes.copied, "gb_per_second_read_and_written": 2 * self.sizes.copied / seconds / 1e9}

    def empty_replay(self) -> Numbers:
        """Time a graph of one small kernel; on a CPU there are no graphs, and the kernel is timed alone."""
        number = torch.zeros((), device=self.device)

        def step() -> Tensor:
            return number.add_(1)

        work: Callable[[], object] = step
        if self.device.type == "cuda":
            graphs = CudaGraphs(self.device, ())
            graphs.warm_up(step)
            work = graphs.record(step)
        return {"microseconds": 1e6 * self.seconds(work, 10 * self.sizes.repeats)}

    # Trainings, by the engine's own loop

    def training(self, victim: str, countermeasure: str, steps: int, recorded: bool) -> Numbers:
        """Return the images a second of a training after its first steps."""
        [action] = registry().resolve("countermeasure", countermeasure)
        assert isinstance(action, Countermeasure)
        data = noise(self.sizes.batch * steps)
        recipe = protocol("fast").model_copy(
            update={"batch": self.sizes.batch, "epochs": None, "steps": steps, "learning_rate": 0.01}
        )
        ticks: list[tuple[float, float]] = []

        def report(done: float, total: float, text: str) -> None:
            self.wait()
            ticks.append((done, time.perf_counter()))

        as_it_is = contextlib.nullcontext() if recorded else patch.object(loop, "choose_recorder", no_recorder)
        with as_it_is:
            _, outcome = train(
                lambda: self.victim(victim).build(10, (32, 32)), data, None, recipe, action, str(self.device),
                self.precision, 0, report,
            )  # fmt: skip
        (first, started), (last, ended) = next(tick for tick in ticks if tick[0] >= self.sizes.warm), ticks[-1]
        rate = self.sizes.batch * (last - first) / (ended - started)
        return {"images_per_second": rate, **({"eager": outcome.eager} if outcome.eager else {})}

    def replay(self, victim: str, countermeasure: str, steps: int) -> Numbers:
        """Compare steps one by one with replayed ones, in the order eager, replay, replay, eager."""
        runs = [
            (recorded, self.training(victim, countermeasure, steps, recorded))
            for recorded in (False, True, True, False)
        ]
        rates = {
            name: [run["images_per_second"] for was, run in runs if was == recorded]
            for name, recorded in (("eager", False), ("replay", True))
        }
        replayed = self.device.type == "cuda" and not any("eager" in run for was, run in runs if was)
        gain = sum(rates["replay"]) / sum(rates["eager"])
        return {"victim": victim, "countermeasure": countermeasure, "batch": self.sizes.batch,
                "precision": self.precision, "images_per_second": rates, "replayed": replayed,
                "gain": gain}  # fmt: skip

    def adversarial(self) -> Numbers:
        steps = max(self.sizes.warm + 10, self.sizes.steps // 4)
        return self.replay(self.sizes.victims[0], f"at[steps={self.sizes.attack_steps}]", steps)

    # Several trainings at once

    def lanes(self) -> Numbers:
        """Time the replayed steps of one to four networks, each on a stream of its own."""
        recipe = protocol("fast")
        lanes = [self.lane(recipe) for _ in range(self.sizes.lanes)]
        curve = []
        for count in range(1, self.sizes.lanes + 1):

            def round_of_steps(count: int = count) -> None:
                for step in lanes[:count]:
                    step()

            curve.append(count * self.sizes.batch / self.seconds(round_of_steps))
        return {"victim": self.sizes.victims[-1], "batch": self.sizes.batch, "images_per_second": curve,
                "replayed": self.device.type == "cuda", "gain": max(curve) / curve[0]}  # fmt: skip

    def lane(self, recipe: Protocol) -> Callable[[], None]:
        """Return a function that starts one training step of a network of its own on a stream of its own."""
        on_gpu = self.device.type == "cuda"
        model = self.victim(self.sizes.victims[-1]).build(10, (32, 32)).to(self.device)
        model = model.to(memory_format=torch.channels_last).train()
        optimizer = make_optimizer(model, recipe, recorded=on_gpu)
        x = torch.rand(self.sizes.batch, 3, 32, 32, device=self.device).to(memory_format=torch.channels_last)
        y = torch.randint(10, (self.sizes.batch,), device=self.device)

        def step(where: Tensor, rate: float | Tensor) -> Tensor:
            with self.autocast():
                logits = model(x)
            loss = F.cross_entropy(logits.float(), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            return loss.detach()

        runner = StepRunner(step, model, optimizer, (), (), CudaGraphs(self.device, ()) if on_gpu else None)
        stream = torch.cuda.Stream(self.device) if on_gpu else None
        if stream is not None:
            stream.wait_stream(torch.cuda.current_stream(self.device))
        where = torch.arange(self.sizes.batch, device=self.device)

        def start() -> None:
            with torch.cuda.stream(stream) if stream is not None else contextlib.nullcontext():
                runner(where, 0.01)

        return start

    # Protection and columns

    def gradient_steps(self) -> Numbers:
        """Time the signed gradient steps with which EM, REM, TAP and others craft noise, in batches of 512."""
        count = min(512, 4 * self.sizes.batch)
        network = self.victim(self.sizes.victims[0]).build(10, (32, 32)).to(self.device).eval().requires_grad_(False)
        network = network.to(memory_format=torch.channels_last)
        x = torch.rand(count, 3, 32, 32, device=self.device).to(memory_format=torch.channels_last)
        y = torch.randint(10, (count,), device=self.device)

        def objective(p: Tensor, _: int) -> Tensor:
            with self.autocast():
                logits = network(p)
            return F.cross_entropy(logits.float(), y, reduction="none")

        steps = self.sizes.attack_steps
        seconds = self.seconds(lambda: descend(x, x * 0, objective, 8 / 255, 1 / 255, steps), 2)
        return {"victim": self.sizes.victims[0], "images": count, "image_steps_per_second": count * steps / seconds}

    def hiding(self) -> Numbers:
        """Time the hiding network of Deep Hiding on images of 32 px, in float32."""
        network = HidingNetwork().eval().requires_grad_(False).to(self.device).to(memory_format=torch.channels_last)
        x = torch.rand(min(500, self.sizes.images), 3, 32, 32, device=self.device)
        x = x.to(memory_format=torch.channels_last)
        with torch.inference_mode():
            seconds = self.seconds(lambda: network.hide(x, x), 2)
        return {"batch": len(x), "images_per_second": len(x) / seconds}

    def jpeg(self) -> Numbers:
        """Time JPEG of stored images: on the host, on one core, once a set and before training."""
        data = noise(self.sizes.images)
        with tempfile.TemporaryDirectory() as folder:
            ctx = Context("cpu", 0, Path(folder), Path(folder), Path(folder))
            seconds = self.seconds(lambda: Jpeg(quality=10).purify(data, ctx), 1)
        return {"quality": 10, "images_per_second": len(data) / seconds}

    def cell(self) -> Numbers:
        """Train one cell under protocol ``fast``, without protection and countermeasure, to its clean accuracy."""
        [dataset] = registry().resolve("dataset", self.dataset, folders=(self.data_dir,))
        [action] = registry().resolve("countermeasure", "vanilla")
        assert isinstance(dataset, Dataset)
        assert isinstance(action, Countermeasure)
        with tempfile.TemporaryDirectory() as folder:
            ctx = Context("cpu", 0, Path(folder), Path(folder), self.data_dir)
            splits = [first_of(dataset.load(split, ctx), self.sizes.cell_images) for split in ("train", "test")]
        recipe = protocol("fast")
        if self.sizes.cell_epochs is not None:
            recipe = recipe.model_copy(update={"epochs": self.sizes.cell_epochs})
        victim = self.victim(self.sizes.victims[0])
        train_set, test_set = splits
        started = time.perf_counter()
        _, outcome = train(
            lambda: victim.build(train_set.num_classes, train_set.size), train_set, test_set, recipe, action,
            str(self.device), self.precision, 0, lambda done, total, text: None,
        )  # fmt: skip
        return {"dataset": self.dataset, "images": len(train_set), "victim": victim.selector, "n": 1,
                "epochs": recipe.epochs, "accuracy": outcome.accuracy_last, "seconds": time.perf_counter() - started,
                "train_seconds": outcome.train_seconds, "images_per_second": outcome.images_per_second,
                **({"eager": outcome.eager} if outcome.eager else {})}  # fmt: skip

    def parts(self) -> Iterator[tuple[str, Callable[[], Numbers]]]:
        """Yield what is measured, in the order of its worth."""
        yield "bf16 matrix product", self.matrix_product
        yield "copy", self.copy
        yield "empty replay", self.empty_replay
        for victim in self.sizes.victims:
            yield f"replay of {victim}", partial(self.replay, victim, "vanilla", self.sizes.steps)
        yield "cell", self.cell
        yield "adversarial training", self.adversarial
        yield "lanes", self.lanes
        yield "gradient steps of protectors", self.gradient_steps
        yield "hiding network", self.hiding
        yield "jpeg", self.jpeg


def no_recorder(*arguments: object) -> tuple[None, str]:
    return None, ""


def noise(count: int) -> ImageSet:
    """Return random images of 32 px in ten classes."""
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return ImageSet(images, np.arange(count) % 10, tuple("abcdefghij"))


def first_of(data: ImageSet, count: int | None) -> ImageSet:
    return ImageSet(data.images[:count], data.labels[:count], data.class_names)


def verdicts(parts: dict[str, Numbers]) -> dict[str, str]:
    """Return what of the replayed steps and lanes that were measured is worth keeping."""
    said = {}
    for name, numbers in parts.items():
        least = LEAST_LANES if name == "lanes" else LEAST_REPLAY
        if "gain" in numbers and numbers.get("replayed", True):
            kept = "kept" if numbers["gain"] >= least else "dropped"
            said[name] = f"{numbers['gain']:.2f}x, at least {least}x asked: {kept}"
        elif "gain" in numbers:
            said[name] = "not replayed"
    return said


def measure(bench: Bench, out: Path, toy: bool, minutes: float) -> dict[str, Any]:
    """Measure the parts that the file ``out`` does not hold yet, while there is time; return what it holds then."""
    about = {"device": machine.label(str(bench.device)), "torch": torch.__version__, "toy": toy}
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    if found and {name: found.get(name) for name in about} != about:
        raise SystemExit(f"{out} is of another device, torch or size: give another --out")
    parts: dict[str, Numbers] = found.get("parts", {})
    started = time.monotonic()
    for name, work in bench.parts():
        if name in parts:
            continue
        if time.monotonic() - started > 60 * minutes:
            print(f"{name}: no time left; run again to go on", file=sys.stderr)
            continue
        with full_float32(str(bench.device)):
            parts[name] = work()
        found = about | {"verdicts": verdicts(parts), "parts": parts}
        write_atomically(out, (json.dumps(found, indent=1) + "\n").encode())
        print(f"{name}: {json.dumps(parts[name])}", file=sys.stderr)
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="file that grows, part by part")
    parser.add_argument("--toy", action="store_true", help="sizes for which a CPU will do")
    parser.add_argument("--dataset", default="demo", help="selector of the dataset of the cell")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where that dataset lies")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="no part is begun after so many")
    options = parser.parse_args(arguments)
    on_gpu = torch.cuda.is_available()
    if not on_gpu and not options.toy:
        print("no CUDA device here; --toy runs on a CPU", file=sys.stderr)
        return 3
    device = torch.device("cuda:0" if on_gpu else "cpu")
    if not on_gpu:
        torch.set_num_threads(1)
    bench = Bench(device, TOY if options.toy else Sizes(), options.dataset, options.data_dir)
    found = measure(bench, options.out, options.toy, options.minutes)
    for name, verdict in found.get("verdicts", {}).items():
        print(f"{name}: {verdict}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
