"""What a plugin is: a frozen, typed parameter object with one or two methods."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from ..catalogue.selectors import write_text
from ..errors import UserError
from ..files import absent

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from .context import Context, TrainContext
    from .imageset import ImageSet


def _ratio(value: Any) -> Any:
    """``8/255`` or ``0.8/255`` as a number, because the field writes its budgets that way."""
    if isinstance(value, str) and "/" in value:
        try:
            above, below = value.split("/")
            return float(above) / float(below)
        except (ValueError, ZeroDivisionError) as error:
            raise ValueError(f"{value!r} is not a fraction") from error
    return value


Ratio = Annotated[float, BeforeValidator(_ratio), Field(json_schema_extra={"format": "ratio"})]
"""A float that may be written, and is shown, as a fraction: ``8/255``."""


InputPath = Annotated[Path, AfterValidator(Path.expanduser)]
"""What the plugin reads; ``~`` is the home folder.

Its content enters the key. Results show its last part and the first digits of its content's digest, as in
``noise.npy#3f2a91bc``, and such a name can be given in place of a path.
"""

SHOWN_DIGITS = 8  # of a digest in a selector
_NAME_AND_DIGEST = re.compile(rf"(.+)#([0-9a-f]{{{SHOWN_DIGITS}}})")


@cache
def digest_path(path: Path) -> str:
    """SHA-256 (first 32 digits) of a file, or of the names and contents of a folder's files.

    Read once a process. Raises UserError when nothing is there or something cannot be read.
    """
    digest = hashlib.sha256()
    try:
        if path.is_file():
            files = [path]
        elif path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_file())
        else:
            raise absent(path)
        for file in files:
            digest.update(b"file" if file == path else os.fsencode(file.relative_to(path).as_posix()))
            with file.open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from error
    return digest.hexdigest()[:32]


def name_and_digest(path: Path) -> str:
    """How results name an input: ``noise.npy#3f2a91bc``, which tells files of one name apart and names no folder.

    Raises UserError like ``digest_path``.
    """
    name = Path(os.path.abspath(path)).name  # noqa: PTH100  ".." by its own name, a link by the name it has
    return f"{name}#{_content(path)[:SHOWN_DIGITS]}"


def _content(path: Path) -> str:
    """The digest of what ``path`` means now: in another current folder it is another file."""
    if not path.exists():
        raise UserError(f"no file or folder at {path}", "check the path")  # as it was given
    return digest_path(path.absolute())


def find_input(path: Path, folders: Iterable[Path] = ()) -> Path:
    """``path``, or what it stands for where it is written as in results: ``noise.npy#3f2a91bc``.

    That is looked for as ``noise.npy`` in the current folder, then in ``folders``, and must have this digest. A file
    whose name does end in such digits is itself. Raises UserError when there is none with this digest.
    """
    written = _NAME_AND_DIGEST.fullmatch(path.name)
    if written is None or path.exists():
        return path
    name, digest = written.groups()
    there = [folder.absolute() / path.with_name(name) for folder in (Path(), *folders)]
    there = [candidate for candidate in there if candidate.exists()]
    for candidate in there:
        if _content(candidate).startswith(digest):
            return candidate
    hint = "run from its folder, or give its path"
    if there:
        hint += f"; the one here is {name_and_digest(there[0])}"
    raise UserError(f"the file {name} with digest {digest} is not here", hint)


def _has_path(value: Any) -> bool:
    return isinstance(value, Path) or (isinstance(value, (list, tuple)) and any(map(_has_path, value)))


def _with_paths(value: Any, change: Callable[[Path], Any]) -> Any:
    """``value`` with every path in it changed."""
    if isinstance(value, Path):
        return change(value)
    return type(value)(_with_paths(v, change) for v in value) if _has_path(value) else value


def format_value(value: Any, ratio: bool = False) -> str:
    """A parameter value as a selector writes it; with ``ratio``, ``8/255`` or ``0.8/255`` for what is exactly that."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, Path):
        return write_text(name_and_digest(value))
    if isinstance(value, float):
        for digits in range(3 if ratio and 0 < value < 1 else 0):
            if round(value * 255, digits) / 255 == value:
                return f"{round(value * 255, digits):g}/255"
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(format_value(v) for v in value) + "]"
    return write_text(value) if isinstance(value, str) else str(value)


class Plugin(BaseModel):
    """Common ground of all plugins. The fields of a subclass are its parameters.

    Class attributes: ``name`` on the command line; ``revision``, an integer to raise whenever a change moves results,
    because it is part of every cell's key; ``paper``, the source in one line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    kind: ClassVar[str] = ""
    name: ClassVar[str] = ""
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = ""

    @field_validator("*", mode="after")
    @classmethod
    def _find_inputs(cls, value: Any, info: ValidationInfo) -> Any:
        """A path that is written as in results, as the path that it stands for."""
        folders = (info.context or {}).get("folders", ())
        return _with_paths(value, lambda path: find_input(path, folders))

    @property
    def selector(self) -> str:
        """Canonical selector: the name with every parameter that differs from its default.

        It names no folder, and whoever has the files can give it again. Raises UserError when an input is not there.
        """
        shown = []
        for field, value in self.changed().items():
            markers = _metadata(type(self).model_fields[field])
            ratio = any(isinstance(m, BeforeValidator) and m.func is _ratio for m in markers)
            shown.append(f"{field}={format_value(value, ratio)}")
        return f"{self.name}[{','.join(shown)}]" if shown else self.name

    def changed(self) -> dict[str, Any]:
        """The parameters that have no default, or another value than their default."""
        found = {}
        for field, info in type(self).model_fields.items():
            value = getattr(self, field)
            if info.is_required() or value != info.get_default(call_default_factory=True):
                found[field] = value
        return found

    def identity(self) -> dict[str, Any]:
        """Everything of the plugin that can change a number, as plain data: name, revision and changed parameters.

        Defaults are left to the revision, so that a new parameter leaves old results valid; a default that changes
        needs a new revision.
        """
        changed = self.changed()
        values = self.model_dump(mode="json", include=set(changed))
        values |= {field: _with_paths(value, _content) for field, value in changed.items() if _has_path(value)}
        return {"name": self.name, "revision": self.revision, "parameters": values}


def _metadata(info: Any) -> list[Any]:
    """The markers on a field, also inside ``InputPath | None``."""
    found = list(info.metadata)
    for argument in getattr(info.annotation, "__args__", ()):
        found.extend(getattr(argument, "__metadata__", ()))
    return found


class Dataset(Plugin):
    """A labelled image set with a training and a test split."""

    kind: ClassVar[str] = "dataset"

    def files(self, data_dir: Path) -> list[Path]:
        """Files and folders that loading reads; the stored copy is made anew when one of them changes."""
        return []

    def load(self, split: str, ctx: Context) -> ImageSet:
        """The images of ``split`` ("train" or "test")."""
        raise NotImplementedError


@dataclass(frozen=True)
class NetworkCost:
    """Passes through a network: ``victim`` is its selector, ``passes`` are per image.

    Unit: forward and backward, as in training. To the image alone, without gradients of weights, is two thirds of one,
    forward alone a third.
    """

    victim: str
    passes: float


class Protector(Plugin):
    """Makes images unlearnable. ``budget`` declares the bound it keeps, such as ``linf 8/255``, or ``none``.

    ``changes_images`` is false where images that are left as they were are a right result, not a failure.
    """

    kind: ClassVar[str] = "protector"
    changes_images: ClassVar[bool] = True

    @property
    def budget(self) -> str:
        return "none"

    @property
    def uses_networks(self) -> bool:
        """Whether protection trains or attacks networks: the precision they run in is then part of the set's key."""
        return False

    def cost(self, images: int) -> NetworkCost | None:
        """What protecting so many images asks of a network, as far as it is known before; None where it asks nothing.

        For progress and for ``plan``; no number depends on it.
        """
        return None

    @property
    def one_size(self) -> bool:
        """Whether all images must be of one size, because something is learned from all of them together.

        Where they need not, images of different sizes are protected in groups of one size each.
        """
        return self.uses_networks

    @property
    def classes_needed(self) -> int:
        """How many classes must have images: two where an image is moved by what tells its class from others.

        Fewer are refused before protection starts.
        """
        return 1

    @property
    def largest_image(self) -> int:
        """Pixels of the largest image that is taken, in some 8 GB of memory; ``check_size`` refuses larger ones.

        512 x 512 where networks are trained or attacked, whose layers hold about 2 kB a pixel for each image of a
        batch, else 100 million.
        """
        return 2**18 if self.uses_networks else 100_000_000

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        """Protected images in the same order, shape and with the same labels. Never sees test images."""
        raise NotImplementedError

    def recovery_key(self, data: ImageSet, ctx: Context) -> dict[str, NDArray[Any]]:
        """Arrays by name that ``recover`` needs beside the parameters, such as weights of a network.

        Asked for after ``protect`` and with the same arguments. Must not depend on the images where ``one_size`` is
        false: there is one key for all sizes.
        """
        return {}

    def recover(self, images: NDArray[np.uint8], ctx: Context) -> NDArray[np.uint8]:
        """The clean images behind protected ones, N x H x W x 3, as well as they can be restored.

        What comes of an image depends on no other in the batch. ``ctx.recovery_key`` holds the arrays of
        ``recovery_key``. Raises UserError when one of the images was not protected in this way.
        """
        raise NotImplementedError

    @classmethod
    def recovers(cls) -> bool:
        """Whether this class has its own ``recover``."""
        return cls.recover is not Protector.recover


def check_size(protector: Protector, size: tuple[int, int]) -> None:
    """Raise UserError when images of ``size``, height and width, are larger than ``protector`` takes."""
    height, width = size
    if height * width > protector.largest_image:
        side = math.isqrt(protector.largest_image)
        raise UserError(
            f"{protector.name} takes images of up to {megapixels(protector.largest_image)}, not {width}x{height}",
            f"bring them to {side}x{side} or less (--size of 'ue-bench protect', size= of a dataset)",
        )


def megapixels(pixels: int) -> str:
    """``8.39 megapixels``."""
    return f"{pixels / 1e6:.3g} megapixels"


class Countermeasure(Plugin):
    """What a thief does about protection. A subclass overrides one or more of the five methods.

    ``uses_labels``: whether labels are read or changed. ``identity_note``: set, in one sentence, when the operation at
    its defaults is known to change nothing; tables say so. ``cache_purified``: purified sets are kept in the store.
    ``passes``: network passes a training image costs, in forward-and-backward passes, 1 for plain training.
    """

    kind: ClassVar[str] = "countermeasure"
    uses_labels: ClassVar[bool] = False
    identity_note: ClassVar[str] = ""
    cache_purified: ClassVar[bool] = False

    @property
    def passes(self) -> float:
        return 1.0

    @property
    def clean_images(self) -> int:
        """How many training images the thief must own unprotected; they are ``clean_data`` of the context."""
        return 0

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        """Clean the stored images, once, before training."""
        raise NotImplementedError

    def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Change a batch: ``x`` N x 3 x H x W in [0, 1] after crop and flip, ``y`` int64 labels."""
        raise NotImplementedError

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        """The scalar to minimise for a batch in [0, 1]. ``model`` takes such a batch and normalises it itself."""
        raise NotImplementedError

    def selection_score(self, model: nn.Module, ctx: TrainContext) -> float:
        """How good the network is, asked at every evaluation: the first one with the highest score is kept.

        ``model`` takes a batch in [0, 1] and normalises it itself; it may be left in either mode.
        """
        raise NotImplementedError

    def after_training(self, model: nn.Module, ctx: TrainContext) -> None:
        """Change the weights of the trained network in place, before it is measured for the last time."""
        raise NotImplementedError

    @classmethod
    def overrides(cls, method: str) -> bool:
        """Whether this class has its own ``method``: purify, augment, loss, selection_score or after_training."""
        return getattr(cls, method) is not getattr(Countermeasure, method)


class Preprocessing(Countermeasure):
    """A countermeasure that works on stored images, and may be asked to treat the test images alike."""

    apply_to_test: bool = Field(False, description="treat the test images in the same way")


class Victim(Plugin):
    """A classifier architecture. The training loop belongs to the harness."""

    kind: ClassVar[str] = "victim"

    def build(self, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
        """A fresh network for N x 3 x H x W inputs. Initialised from torch's generator, which the harness seeds."""
        raise NotImplementedError

    def pretrain(self, data: ImageSet, ctx: Context) -> dict[str, Tensor]:
        """Weights of the network, by name, learnt from the training images before the protocol trains it.

        ``data`` is what the protocol trains on, purified already. Keep what takes long with ``ctx.cached``: its key
        holds ``data.fingerprint``, ``ctx.seed`` and ``ctx.precision``. Weights that are not named stay fresh.
        """
        return {}

    def cost(self, images: int) -> NetworkCost | None:
        """What ``pretrain`` on so many images asks of a network; None where it does nothing. For ``plan`` alone."""
        return None

    def optimizer(self) -> dict[str, Any]:
        """Protocol fields that this architecture needs otherwise, such as ``{"learning_rate": 0.01}``.

        Name learning rate and weight decay beside another ``optimizer``: a protocol's are meant for its own.
        """
        return {}


KINDS: dict[str, type[Plugin]] = {c.kind: c for c in (Protector, Countermeasure, Victim, Dataset)}
