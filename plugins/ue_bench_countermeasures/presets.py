"""Settings of countermeasures that train networks of their own: the paper's, and ones that fit two CPU cores."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from ue_bench.api import Countermeasure

Preset = Literal["paper", "micro"]


class WithPreset(Countermeasure):
    """A countermeasure whose parameters take the values of a named preset unless they are given."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {}

    preset: Preset = Field("paper", description="what parameters are unless given: the paper's, or for two CPU cores")

    def setting(self, name: str) -> Any:
        """Return the parameter ``name`` as given, else that of the preset."""
        value = getattr(self, name)
        return self.PRESETS[self.preset][name] if value is None else value
