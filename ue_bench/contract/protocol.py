"""The fields of a protocol: a named, versioned training recipe."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import to_json

PARAMETERS = "parameters"  # in overrides: of the countermeasure, not of the recipe
Color = tuple[float, float, float]
# Values for one optimizer mean nothing to another.
OF_THE_OPTIMIZER = {"optimizer", "learning_rate", "momentum", "nesterov", "weight_decay"}


# Field -> the field that it depends on, and the values of that under which it does something.
DEPENDENT: dict[str, tuple[str, tuple[str, ...]]] = {
    "milestones": ("schedule", ("multistep",)),
    "factor": ("schedule", ("multistep",)),
    "warmup": ("schedule", ("onecycle",)),
    "rate_changes": ("schedule", ("multistep", "cosine", "onecycle")),
    "pad": ("crop", ("pad",)),
}


class Protocol(BaseModel):
    """A recipe that trains a victim. Raise ``version`` whenever a change moves results."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    version: int = Field(ge=1)
    summary: str
    source: str = Field(description="where the recipe comes from")
    batch: int = Field(ge=1)
    drop_last: bool = Field(True, description="leave out the last, smaller batch of an epoch")
    rows: int | None = Field(None, ge=1, description="train on so many images from the first on, not on all")
    steps: int | None = Field(None, ge=1, description="length in optimizer steps; give this or epochs")
    epochs: int | None = Field(None, ge=1, description="length in passes over the training set")
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: float = Field(gt=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="decay of the mean of gradients; Adam's first beta")
    nesterov: bool = Field(False, description="sgd only")
    weight_decay: float = Field(5e-4, ge=0, description="added to the gradient; adamw shrinks weights by it instead")
    schedule: Literal["multistep", "cosine", "onecycle", "constant"]
    rate_changes: Literal["step", "epoch"] = Field("step", description="when the rate follows its schedule")
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (), description="multistep: fractions of the whole length"
    )
    factor: float = Field(0.1, gt=0, description="multistep: multiplier at each milestone")
    warmup: float = Field(0.2, ge=0, lt=1, description="onecycle: fraction of the length that rises linearly")
    clip: float | None = Field(None, gt=0, description="largest gradient norm")
    flip: bool = True
    crop: Literal["pad", "resized"] = Field("pad", description="zero-padded random crop, or random area and aspect")
    pad: int = Field(4, ge=0)
    rotation: float = Field(0.0, ge=0, le=180, description="degrees of a random rotation to either side")
    shift: float = Field(0.0, description="subtracted from pixels in [0, 1]")
    mean: Color | None = Field(None, description="subtracted from colors in [0, 1], in place of a shift")
    std: Color | None = Field(None, description="what colors are divided by afterwards")
    eval_every: int = Field(1, ge=1, description="epochs between points of the curve")
    overrides: dict[str, dict[str, Any]] = Field(
        {}, description="fields that differ under a named countermeasure or victim, and a countermeasure's parameters"
    )

    @model_validator(mode="after")
    def _one_length(self) -> Protocol:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        return self

    @model_validator(mode="after")
    def _nesterov_is_of_sgd(self) -> Protocol:
        if self.nesterov and self.optimizer != "sgd":
            raise ValueError(f"nesterov belongs to sgd, not to {self.optimizer}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self

    @model_validator(mode="after")
    def _one_normalization(self) -> Protocol:
        if (self.mean is None) != (self.std is None):
            raise ValueError("give both mean and std, or neither")
        if self.mean is not None and self.shift:
            raise ValueError("give either shift or mean and std")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError("std must be above 0")
        return self

    def idle(self, field: str) -> str:
        """Return why ``field`` does nothing in this recipe; the empty string where it does something."""
        if field not in DEPENDENT:
            return ""
        other, values = DEPENDENT[field]
        value = getattr(self, other)
        return "" if value in values else f"does nothing with {other} = {value}, only with {' or '.join(values)}"

    def under(self, countermeasures: list[str], optimizer: dict[str, Any], victim: str = "") -> Protocol:
        """Return this recipe under an architecture's ``optimizer`` fields and named countermeasures.

        A countermeasure goes before the architecture, save for the rates of an optimizer that the latter has replaced,
        and what the recipe says of the ``victim`` of that name before both. Where the optimizer is another than this
        recipe's, momentum and nesterov are their defaults unless given beside it. An architecture that asks for a shift
        has colors of its own: it gets no mean and std.
        """
        changed = dict(optimizer)
        if "shift" in changed:
            changed |= {"mean": None, "std": None}
        replaced = changed.get("optimizer", self.optimizer) != self.optimizer
        for name in countermeasures:
            fields = self.overrides.get(name, {})
            lost = OF_THE_OPTIMIZER if replaced else set()
            changed |= {k: v for k, v in fields.items() if k != PARAMETERS and k not in lost}
        changed |= self.overrides.get(victim, {})
        if {"steps", "epochs"} & set(changed):
            changed = {"steps": None, "epochs": None} | changed
        if changed.get("optimizer", self.optimizer) != self.optimizer:
            changed = {k: Protocol.model_fields[k].default for k in ("momentum", "nesterov")} | changed
        if not changed:
            return self
        # As text, where a list is a tuple, but neither true a number nor "8" one.
        merged = to_json({**self.model_dump(), **changed}, inf_nan_mode="constants")
        return Protocol.model_validate_json(merged, strict=True)

    def images(self, available: int) -> int:
        """Return how many of ``available`` training images are trained on."""
        return available if self.rows is None else min(self.rows, available)

    def steps_per_epoch(self, images: int) -> int:
        """Return the number of optimizer steps in a pass over so many images."""
        batch = min(self.batch, images)
        return images // batch if self.drop_last else -(-images // batch)

    def passes(self, available: int) -> float:
        """Return the length in passes over ``available`` training images."""
        images = self.images(available)
        batch, per_epoch = min(self.batch, images), self.steps_per_epoch(images)
        whole, rest = divmod(self.length(per_epoch), per_epoch)
        return (whole * min(per_epoch * batch, images) + rest * batch) / available

    def total_epochs(self, available: int) -> float:
        """Return the length in epochs, as curves count them; nothing without images."""
        per_epoch = self.steps_per_epoch(self.images(available)) if available else 0
        return self.length(per_epoch) / per_epoch if per_epoch else 0.0

    def length(self, steps_per_epoch: int) -> int:
        """Return the number of optimizer steps in all."""
        return self.steps if self.steps is not None else (self.epochs or 0) * steps_per_epoch

    def rate(self, step: int, total: int, steps_per_epoch: int = 1) -> float:
        """Return the learning rate of optimizer step ``step`` (from 0) of ``total``."""
        if self.rate_changes == "epoch":
            step -= step % steps_per_epoch
        done = step / total
        if self.schedule == "constant":
            return self.learning_rate
        if self.schedule == "multistep":
            return self.learning_rate * self.factor ** sum(done >= m for m in self.milestones)
        if self.schedule == "cosine":
            return self.learning_rate * (1 + math.cos(math.pi * done)) / 2
        if done < self.warmup:
            return self.learning_rate * (step + 1) / (self.warmup * total + 1)
        return self.learning_rate * (1 - done) / (1 - self.warmup)
