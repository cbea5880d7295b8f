"""How a diffusion model is built and trained: every number that shapes it, and nothing that needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Recipe:
    """Defaults are those of the CIFAR-10 model of DDPM (Ho et al., NeurIPS 2020); the rest says whose choice it is."""

    size: int = 32  # side in pixels, square
    channels: tuple[int, ...] = (128, 256, 256, 256)  # of each level; the side is halved from one to the next
    layers: int = 2  # residual blocks a level
    attention: tuple[int, ...] = (16,)  # sides of levels with self-attention
    middle_attention: bool = True
    groups: int = 32  # of group normalisation
    dropout: float = 0.1
    timesteps: int = 1000  # noise levels
    schedule: Literal["linear", "cosine"] = "linear"  # variances 1e-4 to 0.02, or those of improved diffusion
    deepest: int | None = None  # train this many noise levels, the lowest; ours: a purifier needs no others
    steps: int = 800_000  # of the optimizer
    batch: int = 128
    learning_rate: float = 2e-4
    warmup: int = 5000  # steps of a linear rise
    decay: Literal["constant", "cosine"] = "constant"  # cosine: to nothing, for short trainings
    ema: float = 0.9999  # of the average of the weights that is kept
    clip: float = 1.0  # gradient norm
    pad: int = 0  # random crops out of images with such a frame of black; flips always
    seed: int = 0

    @property
    def levels(self) -> int:
        """Noise levels that are trained."""
        return self.timesteps if self.deepest is None else min(self.deepest, self.timesteps)

    @property
    def multiple(self) -> int:
        """What the side must be a multiple of."""
        return int(2 ** (len(self.channels) - 1))

    @property
    def network(self) -> dict[str, Any]:
        """Arguments of diffusers' ``UNet2DModel``; small ones are those of the published CIFAR-10 checkpoint."""
        with_attention = [self.size // 2**level in self.attention for level in range(len(self.channels))]
        return {
            "sample_size": self.size,
            "block_out_channels": self.channels,
            "layers_per_block": self.layers,
            "down_block_types": tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in with_attention),
            "up_block_types": tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(with_attention)),
            "add_attention": self.middle_attention,
            "attention_head_dim": None,
            "norm_num_groups": self.groups,
            "norm_eps": 1e-6,
            "dropout": self.dropout,
            "downsample_padding": 0,
            "flip_sin_to_cos": False,
            "freq_shift": 1,
        }

    @property
    def scheduler(self) -> dict[str, Any]:
        """Arguments of diffusers' ``DDPMScheduler``."""
        curves: dict[str, dict[str, Any]] = {
            "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
            "cosine": {"beta_schedule": "squaredcos_cap_v2"},
        }
        return {
            "num_train_timesteps": self.timesteps,
            **curves[self.schedule],
            "variance_type": "fixed_large",
            "clip_sample": True,
        }


# A network for two CPU cores, our choice: a hundredth of DDPM's size, for the noise levels that purifiers use.
_SMALL: dict[str, Any] = {
    "channels": (16, 32, 48), "layers": 1, "attention": (), "middle_attention": False, "groups": 8, "dropout": 0.0,
    "deepest": 150, "steps": 2000, "batch": 32, "learning_rate": 2e-3, "warmup": 50, "decay": "cosine", "ema": 0.995,
}  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    "ddpm": {},
    # ECLIPSE: improved diffusion with 4000 cosine steps; its crops and flips are fresh, not four copies of an image
    "eclipse": {
        "layers": 3, "attention": (16, 8), "timesteps": 4000, "schedule": "cosine", "steps": 250_000, "pad": 4,
    },
    "micro": _SMALL,
}  # fmt: skip
