"""Keep the state of a long training, so that one that is killed loses minutes."""

from __future__ import annotations

import shutil
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..atomic import load_checkpoint, save_checkpoint
from ..checksums import log

if TYPE_CHECKING:
    from torch import nn

SAVE_EVERY = 180.0  # seconds between states; a training that takes no longer writes none
SHARE = 0.02  # of the time that saving may take: on a slow disk states are further apart
VERSION = 2  # of the states that ``loop.train`` offers; it continues no others


class SavedState:
    """The state of one training in the file ``path``, in a folder of its own that holds nothing else.

    The first state is due ``SAVE_EVERY`` seconds from now. ``path`` lies where ``Context.checkpoint_dir`` puts things:
    in ``unfinished``, under the key of the work.
    """

    def __init__(self, path: Path, device: str) -> None:
        self.path, self.device = path, device
        self.next = monotonic() + SAVE_EVERY

    def load(self) -> dict[str, Any] | None:
        """Return the state to continue from; None if there is none, or it is damaged, which the user is told."""
        return load_checkpoint(self.path, self.device)

    def due(self) -> bool:
        """Return whether it is time to save."""
        return monotonic() >= self.next

    def offer(self, state: dict[str, Any]) -> None:
        """Save ``state`` if it is time to. Where that fails, the training goes on and the state before it is kept."""
        if not self.due():
            return
        started = monotonic()
        try:
            save_checkpoint(self.path, state)
        except OSError as error:
            log.warning("ue-bench: the state of a training is not kept in %s: %s", self.path.parent, error.strerror)
        now = monotonic()
        self.next = now + max(SAVE_EVERY, (now - started) / SHARE)

    def remove(self) -> None:
        """Remove the state, once nobody needs it; there may be none."""
        shutil.rmtree(self.path.parent, ignore_errors=True)


def fits(state: dict[str, Any], model: nn.Module) -> bool:
    """Return whether ``state`` is of a training of this ``model``, offered by this version of the loop.

    Code can have changed since the state was saved without a change of what it computes.
    """
    if state.get("version") != VERSION:
        return False
    saved, here = state["model"], model.state_dict()
    return saved.keys() == here.keys() and all(saved[name].shape == here[name].shape for name in here)
