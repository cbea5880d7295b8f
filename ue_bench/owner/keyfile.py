"""Read and write the owner's key: one safetensors file with what it takes to recover images.

Its metadata hold the protector and its parameters, its tensors the arrays of the protector (``key/NAME``) and, image by
image, digests of the protected and the clean pixels (``images/*``) and, where recovery is to be lossless, what the
protector's own recovery misses (``sidecar/*``). Images are known by their pixels, so that files may be renamed.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..errors import UserError
from .pictures import Pixels, digest

if TYPE_CHECKING:
    from ..contract.plugin import Protector

FORMAT = "ue-bench key 1"
SETTINGS = {
    "name": str, "revision": int, "parameters": dict, "seed": int, "device": str, "threads": int, "precision": str,
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A protected image: the digest of its clean pixels, whether recovery is exact, and whether the file was gray.

    ``sidecar`` is what has to be added to the recovered pixels, compressed; None where nothing is stored.
    """

    clean: bytes
    exact: bool
    gray: bool
    sidecar: bytes | None = None

    def restored(self, recovered: Pixels) -> Pixels:
        """Return the clean pixels, from those recovered. Raises UserError when the sidecar does not fit them."""
        if self.sidecar is None:
            return recovered
        try:
            # No more than fits: a few bytes of a key from elsewhere could fill the memory.
            unpacked = zlib.decompressobj().decompress(self.sidecar, recovered.size + 1)
            missing = np.frombuffer(unpacked, np.uint8).reshape(recovered.shape)
        except (zlib.error, ValueError) as error:
            raise UserError("its part of the key is damaged", "use another copy of the key") from error
        return recovered + missing


def entry(clean: Pixels, recovered: Pixels, gray: bool, lossless: bool) -> Entry:
    """Make the entry of an image whose clean pixels come back as ``recovered``."""
    exact = bool(np.array_equal(clean, recovered))
    sidecar = None
    if lossless and not exact:
        sidecar = zlib.compress((clean - recovered).tobytes(), 9)  # modulo 256: no sign to store
    return Entry(digest(clean), exact, gray, sidecar)


def merged(a: Entry, b: Entry) -> Entry:
    """Merge the entries of two files with the same protected pixels. If the clean ones differ, none is vouched for."""
    return replace(a, gray=a.gray and b.gray) if a.clean == b.clean else Entry(bytes(16), False, False)


@dataclass(frozen=True)
class Key:
    """A protector, where it computed, its arrays, and the images it protected, by the digest of their pixels."""

    name: str
    revision: int
    parameters: dict[str, Any]
    seed: int
    device: str
    threads: int
    precision: str
    arrays: Mapping[str, NDArray[Any]] = field(repr=False, default_factory=dict)
    images: dict[bytes, Entry] = field(repr=False, default_factory=dict)

    def protector(self) -> Protector:
        """Return the protector. Raises UserError when it is not installed, or has no such parameters here."""
        from ..catalogue.registry import registry

        return cast("Protector", registry().create("protector", self.name, self.parameters))


def encode(key: Key) -> bytes:
    """Return the file of ``key``."""
    from safetensors.numpy import save

    settings = {
        "format": FORMAT, "name": key.name, "revision": key.revision, "parameters": key.parameters, "seed": key.seed,
        "device": key.device, "threads": key.threads, "precision": key.precision, "ue_bench": __version__,
    }  # fmt: skip
    entries = list(key.images.values())
    sidecars = [e.sidecar or b"" for e in entries]
    tensors = {f"key/{name}": np.ascontiguousarray(array) for name, array in key.arrays.items()}
    tensors |= {
        "images/protected": _bytes(b"".join(key.images)).reshape(-1, 16),
        "images/clean": _bytes(b"".join(e.clean for e in entries)).reshape(-1, 16),
        "images/exact": np.array([e.exact for e in entries], np.uint8),
        "images/grey": np.array([e.gray for e in entries], np.uint8),
        "sidecar/data": _bytes(b"".join(sidecars)),
        "sidecar/end": np.cumsum([len(s) for s in sidecars], dtype=np.int64),
    }
    packed: bytes = save(tensors, {"ue-bench": json.dumps(settings, allow_nan=False)})
    return packed


def _bytes(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)


def load(path: Path) -> Key:
    """Read the key at ``path``. Raises UserError when there is none, or none that can be read."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"no key at {path}", "'ue-bench protect' writes it beside the protected images")
    try:
        with safe_open(path, framework="numpy") as file:
            settings = json.loads((file.metadata() or {})["ue-bench"])
            if settings.pop("format") != FORMAT:
                raise ValueError("another format")
            settings.pop("ue_bench")
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        if any(not isinstance(settings[name], kind) for name, kind in SETTINGS.items()):
            raise TypeError("a setting of another type")
        arrays = {name.removeprefix("key/"): stored[name] for name in stored if name.startswith("key/")}
        ends = stored["sidecar/end"].tolist()
        data = stored["sidecar/data"].tobytes()
        entries = {
            protected.tobytes(): Entry(clean.tobytes(), bool(exact), bool(gray), data[start:end] or None)
            for protected, clean, exact, gray, start, end in zip(
                stored["images/protected"], stored["images/clean"], stored["images/exact"], stored["images/grey"],
                [0, *ends][:-1], ends, strict=True,
            )
        }  # fmt: skip
        return Key(**settings, arrays=arrays, images=entries)
    # The last two are of settings that are no mapping, or nested without end.
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is not a key of ue-bench", "give the file that 'ue-bench protect' wrote") from error
