"""Options that the commands share by which plugins train networks, and what all of these commands do with them."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import click

from ..progress import usable_device
from .common import apply_options, cache_option, data_dir_option

if TYPE_CHECKING:
    from ..contract.context import ProgressReport
    from ..contract.imageset import ImageSet

F = TypeVar("F", bound=Callable[..., Any])

device_option = click.option("--device", default="auto", show_default=True, help="Such as cuda:0 or cpu.")


def folder_options(command: F) -> F:
    """Add ``--data-dir`` and ``--cache-dir`` to a command."""
    return apply_options([data_dir_option, cache_option], command)


@dataclass(frozen=True)
class TrainingOptions:
    """What ``training_options`` has read from the command line."""

    dataset: str  # a selector
    out: Path  # what is written at the end
    seed: int
    device: str
    threads: int  # of the CPU
    data_dir: Path | None
    cache_dir: Path | None
    precision: Literal["auto", "bf16", "fp32"] | None = None  # None: the command does not offer it

    @property
    def unfinished(self) -> Path:
        """Where the state of the training is kept until it ends: beside ``out``, its name with ``.unfinished``."""
        return self.out.with_name(self.out.name + ".unfinished")

    @property
    def bf16(self) -> bool:
        """Whether layers run in bfloat16: as ``precision`` says; ``auto`` does so on a GPU."""
        return self.precision == "bf16" or (self.precision == "auto" and self.device.startswith("cuda"))

    def settled(self) -> TrainingOptions:
        """Limit torch to ``threads``, and return the options with nothing ``auto`` in them.

        Raises EnvironmentProblem when the device does not work.
        """
        import torch

        torch.set_num_threads(self.threads)
        usable = replace(self, device=usable_device(self.device))
        return usable if self.precision is None else replace(usable, precision="bf16" if usable.bf16 else "fp32")

    def open_dataset(self, report: ProgressReport) -> tuple[str, ImageSet]:
        """Return the canonical selector of the dataset and its training images, as ``open_dataset`` does."""
        from ..grid.opening import open_dataset

        return open_dataset(self.dataset, "train", self.data_dir, self.cache_dir, report)

    def command(self, name: str, selector: str, chosen: Mapping[str, Any]) -> str:
        """Return the command line that repeats the training: that of ``ue-bench NAME`` with settled options.

        ``selector`` is the canonical one of the dataset; ``chosen`` are further options by name, without dashes in
        front. One that is true is a flag. Folders are left out, files are named without theirs.
        """
        given = {"dataset": selector, **chosen, "seed": self.seed}
        if self.precision is not None:
            given["precision"] = self.precision
        given |= {"device": self.device, "threads": self.threads, "out": self.out.name}
        words = [f"--{option}" if value is True else f"--{option}={value}" for option, value in given.items()]
        return shlex.join(["ue-bench", *name.split(), *words])


def training_options(out: str, *, precision: bool = True) -> Callable[[F], F]:
    """Add the options of every training to a command, which gets them as the argument ``training``: TrainingOptions.

    ``out`` says in the help what is written. Without ``precision`` the command has no such option. Write it above the
    command's own options: the help lists them in that order.
    """
    options = [
        click.option("-D", "--dataset", required=True,
                     help="Clean training images, such as 'cifar10' or 'parquet[path=...]'."),
        click.option("--out", type=click.Path(path_type=Path), required=True, help=out),
        click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True,
                     help="Of everything random."),
        device_option,
        click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads."),
        data_dir_option,
        cache_option,
    ]  # fmt: skip
    if precision:
        options.append(click.option("--precision", type=click.Choice(["auto", "bf16", "fp32"]), default="auto",
                                    show_default=True, help="auto: bf16 on a GPU, fp32 on a CPU."))  # fmt: skip
    shared = {f.name for f in fields(TrainingOptions)}

    def add(command: F) -> F:
        @functools.wraps(command)
        def called(*args: Any, **given: Any) -> Any:
            training = TrainingOptions(**{name: given.pop(name) for name in shared & given.keys()})
            return command(*args, training=training, **given)

        return apply_options(options, cast(F, called))

    return add
