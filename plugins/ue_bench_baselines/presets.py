"""Settings of protectors that depend on networks: the paper's, and ones that fit two CPU cores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ue_bench.api import Protector

Preset = Literal["paper", "micro"]

# A surrogate of the size of the victim on the board cifar10-micro, trained as it is there.
MICRO_NETWORK = "resnet9[blocks=1]"
MICRO_RECIPE: dict[str, Any] = {
    "batch": 64, "epochs": 8, "learning_rate": 0.1, "nesterov": True, "schedule": "onecycle", "pad": 0, "shift": 0.5,
}  # fmt: skip


class Presets(Protector):
    """A protector whose parameters take the values of a named preset, one of ``PRESETS``, unless they are given."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {}

    if TYPE_CHECKING:  # the field is each protector's own: not all have the same presets
        preset: str

    @property
    def uses_networks(self) -> bool:
        return True

    def setting(self, name: str) -> Any:
        """Return the parameter ``name`` as given, else that of the preset."""
        value = getattr(self, name)
        return self.PRESETS[self.preset][name] if value is None else value


class WithPreset(Presets):
    """A protector with the paper's settings and ones that fit two CPU cores."""

    preset: Preset = Field("paper", description="what parameters are unless given: the paper's, or for two CPU cores")


class WithSurrogate(WithPreset):
    """A protector that attacks a surrogate, whose training each preset describes under ``recipe``."""

    if TYPE_CHECKING:  # the field is each protector's own, where it stands in the list of its parameters
        surrogate_epochs: int | None

    def recipe(self) -> dict[str, Any]:
        """Return how the surrogate is trained, as fields of a protocol."""
        recipe: dict[str, Any] = self.PRESETS[self.preset]["recipe"]
        return recipe if self.surrogate_epochs is None else recipe | {"epochs": self.surrogate_epochs}
