"""Networks in files: weights by name, and in the metadata the settings that their network is built from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .atomic import write_atomically
from .errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    Network = TypeVar("Network", bound=nn.Module)


def save_weights(path: Path, weights: Mapping[str, Tensor], name: str, settings: Mapping[str, Any]) -> None:
    """Write ``weights`` in their own precision to a safetensors file, ``settings``, plain data, as ``name`` in it."""
    from safetensors.torch import save

    # Contiguous: loops keep weights of convolutions with channels last.
    plain = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    write_atomically(path, save(plain, {name: json.dumps(settings, allow_nan=False)}))


def load_weights(
    path: Path, name: str, build: Callable[[dict[str, Any], dict[str, Tensor]], Network], what: str, hint: str
) -> Network:
    """Return the network in a file of ``save_weights``, in eval mode and without gradients.

    ``build`` makes it of settings and weights, and raises any exception when they do not fit together; of anyone's
    file it had better count the weights before it makes a network of a size that the settings state. That, and a file
    of anything else, is a UserError: ``path`` is not ``what``, with ``hint``.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            settings = json.loads(file.metadata()[name])
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a dict
        network = build(settings, weights)
    except Exception as error:  # whatever the bytes of the file make of header, settings and network
        raise UserError(f"{path} is not {what}", hint) from error
    return network.eval().requires_grad_(False)
