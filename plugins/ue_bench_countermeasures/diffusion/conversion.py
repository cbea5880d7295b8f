"""Released diffusion models, converted to what diffusers reads: names, order of attention, shape of the network.

Names go strictly both ways: a released weight without a place, or a place without a weight, is an error. Sources are
the public code of DDPM in PyTorch (LE-JCDP's checkpoints) and of guided diffusion (ECLIPSE's, and OpenAI's for
ImageNet), whose networks compute the same as diffusers' ``UNet2DModel`` with these arguments; and of score-based models
in continuous time, whose averaged weights have no names: they go into ``DdpmPlusPlus`` in their order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ue_bench.api import UserError

from .ddpmpp import DdpmPlusPlus
from .recipe import Recipe

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Converted:
    """Weights under diffusers' names, arguments of ``UNet2DModel`` and of the scheduler, and what steps are called.

    ``timestep_scale``: the network is told so many times the step. ``continuous``: names and arguments are those of
    ``DdpmPlusPlus``, which is told a time.
    """

    weights: dict[str, Tensor]
    network: dict[str, Any]
    scheduler: dict[str, Any]
    timestep_scale: float = 1.0
    continuous: bool = False


@dataclass(frozen=True)
class GuidedLayout:
    """Shape of a guided-diffusion network, of which its weights do not say everything."""

    size: int  # pixels
    multipliers: tuple[int, ...]  # of channels, by level
    layers: int  # residual blocks a level
    attention: tuple[int, ...]  # sides of levels with self-attention
    head: int = 64  # channels of an attention head
    blocks_resize: bool = False  # whether residual blocks halve and double the side
    timesteps: int = 1000
    schedule: str = "linear"
    timestep_scale: float = 1.0


ECLIPSE = GuidedLayout(32, (1, 2, 2, 2), 3, (16, 8), timesteps=4000, schedule="squaredcos_cap_v2", timestep_scale=0.25)
IMAGENET = GuidedLayout(256, (1, 1, 2, 2, 4, 4), 2, (32, 16, 8), blocks_resize=True)

# Multipliers of channels, and residual blocks a level: of CIFAR-10's checkpoint_8.pth, and AVATAR's for CIFAR-100.
IN_TIME = [((1, 2, 2, 2), 8), ((2, 2, 2), 4)]

DDPM_NAMES = [
    (r"^temb\.dense\.0\.", "time_embedding.linear_1."),
    (r"^temb\.dense\.1\.", "time_embedding.linear_2."),
    (r"^norm_out\.", "conv_norm_out."),
    (r"^down\.(\d+)\.block\.", r"down_blocks.\1.resnets."),
    (r"^down\.(\d+)\.attn\.", r"down_blocks.\1.attentions."),
    (r"^down\.(\d+)\.downsample\.", r"down_blocks.\1.downsamplers.0."),
    (r"^up\.(\d+)\.block\.", r"up_blocks.\1.resnets."),
    (r"^up\.(\d+)\.attn\.", r"up_blocks.\1.attentions."),
    (r"^up\.(\d+)\.upsample\.", r"up_blocks.\1.upsamplers.0."),
    (r"^mid\.block_1\.", "mid_block.resnets.0."),
    (r"^mid\.block_2\.", "mid_block.resnets.1."),
    (r"^mid\.attn_1\.", "mid_block.attentions.0."),
    (r"\.temb_proj\.", ".time_emb_proj."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"(attentions\.\d+)\.norm\.", r"\1.group_norm."),
    (r"(attentions\.\d+)\.([qkv])\.", r"\1.to_\2."),
    (r"(attentions\.\d+)\.proj_out\.", r"\1.to_out.0."),
]
GUIDED_BLOCK = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}


def ddpm(released: Weights) -> Converted:
    """Convert a network of DDPM's PyTorch code; its shape is read off the weights."""
    levels = 1 + max(_numbers(released, r"down\.(\d+)\."))
    weights = {}
    for name, value in released.items():
        renamed = name
        for pattern, replacement in DDPM_NAMES:
            renamed = re.sub(pattern, replacement, renamed)
        # the highest level comes first on the way up
        renamed = re.sub(r"^up_blocks\.(\d+)", lambda match: f"up_blocks.{levels - 1 - int(match[1])}", renamed)
        if re.search(r"\.to_(q|k|v|out\.0)\.weight$", renamed):
            value = value.flatten(1)  # convolutions of one pixel
        weights[renamed] = value
    channels = tuple(len(_weight(released, f"down.{level}.block.0.conv1.bias")) for level in range(levels))
    attended = [f"down.{level}.attn.0.norm.weight" in released for level in range(levels)]
    layers = 1 + max(_numbers(released, r"down\.0\.block\.(\d+)\."))
    recipe = Recipe(channels=channels, layers=layers, attention=tuple(32 >> k for k in range(levels) if attended[k]))
    return Converted(weights, recipe.network, recipe.scheduler)


def guided(released: Weights, layout: GuidedLayout) -> Converted:
    """Convert a network of guided diffusion; ``layout`` has what its weights do not say."""
    first = len(_weight(released, "input_blocks.0.0.bias"))
    places = dict(_guided_places(layout))
    weights = {}
    for name, value in released.items():
        module, _, kind = name.rpartition(".")
        where = max((p for p in places if module == p or module.startswith(f"{p}.")), key=len, default=None)
        if where is None:
            raise UserError(f"the released weight {name} has no place in this network", "is it of this format?")
        inner = module.removeprefix(where).lstrip(".")
        if inner == "qkv":
            for one, part in zip("qkv", _by_head(value, layout.head), strict=True):
                weights[f"{places[where]}.to_{one}.{kind}"] = part
            continue
        if ".attentions." in places[where]:
            inner = {"norm": "group_norm", "proj_out": "to_out.0"}.get(inner, inner)
            value = value.flatten(1) if inner == "to_out.0" and kind == "weight" else value
        elif inner == "op" or inner == "conv":
            inner = "conv"
        else:
            inner = GUIDED_BLOCK.get(inner, inner)
        weights[".".join(filter(None, (places[where], inner, kind)))] = value
    return Converted(
        weights, _guided_network(layout, first, released), _guided_scheduler(layout), layout.timestep_scale
    )


def in_time(released: Sequence[Tensor]) -> Converted:
    """Convert averaged weights of DDPM++, a list in the order of its parameters; their number tells its shape."""
    if not released or released[0].dim() != 2:
        raise UserError("the averaged weights are not those of DDPM++", "give a checkpoint as it was released")
    base = released[0].shape[1]
    for multipliers, layers in IN_TIME:
        network: dict[str, Any] = {
            "sample_size": 32,
            "base_channels": base,
            "block_out_channels": [base * multiplier for multiplier in multipliers],
            "layers_per_block": layers,
            "attention_sides": [16],
        }
        with torch.device("meta"):
            names = [name for name, _ in DdpmPlusPlus(**network).named_parameters()]
        if len(names) == len(released):
            weights = dict(zip(names, released, strict=True))
            return Converted(weights, network, Recipe().scheduler, continuous=True)
    raise UserError(f"{len(released)} averaged weights are of no DDPM++ that AVATAR has", "give its checkpoint_8.pth")


def _guided_places(layout: GuidedLayout) -> Iterator[tuple[str, str]]:
    """Yield the modules of a guided-diffusion network, and what diffusers calls them."""
    yield from (
        ("time_embed.0", "time_embedding.linear_1"),
        ("time_embed.2", "time_embedding.linear_2"),
        ("input_blocks.0.0", "conv_in"),
        ("middle_block.0", "mid_block.resnets.0"),
        ("middle_block.1", "mid_block.attentions.0"),
        ("middle_block.2", "mid_block.resnets.1"),
        ("out.0", "conv_norm_out"),
        ("out.2", "conv_out"),
    )
    attended, last = _attended(layout), len(layout.multipliers) - 1
    entry = 1
    for level, attention in enumerate(attended):
        for layer in range(layout.layers):
            yield f"input_blocks.{entry}.0", f"down_blocks.{level}.resnets.{layer}"
            if attention:
                yield f"input_blocks.{entry}.1", f"down_blocks.{level}.attentions.{layer}"
            entry += 1
        if level < last:
            yield f"input_blocks.{entry}.0", f"down_blocks.{level}.downsamplers.0"
            entry += 1
    entry = 0
    for block, attention in enumerate(reversed(attended)):
        for layer in range(layout.layers + 1):
            yield f"output_blocks.{entry}.0", f"up_blocks.{block}.resnets.{layer}"
            if attention:
                yield f"output_blocks.{entry}.1", f"up_blocks.{block}.attentions.{layer}"
            if layer == layout.layers and block < last:
                yield f"output_blocks.{entry}.{2 if attention else 1}", f"up_blocks.{block}.upsamplers.0"
            entry += 1


def _attended(layout: GuidedLayout) -> list[bool]:
    return [layout.size >> level in layout.attention for level in range(len(layout.multipliers))]


def _by_head(value: Tensor, head: int) -> Tensor:
    """Return queries, keys and values, which guided diffusion keeps one head after the other: 3 x C x C, or 3 x C."""
    channels = len(value) // 3
    split = value.reshape(channels // head, 3, head, *value.shape[1:2])
    return split.transpose(0, 1).reshape(3, channels, *value.shape[1:2])


def _guided_network(layout: GuidedLayout, first: int, released: Weights) -> dict[str, Any]:
    plain = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if layout.blocks_resize else (
        "DownBlock2D", "UpBlock2D",
    )  # fmt: skip
    attended, resize = _attended(layout), "resnet" if layout.blocks_resize else "conv"
    return {
        "sample_size": layout.size,
        "out_channels": len(_weight(released, "out.2.bias")),
        "block_out_channels": tuple(first * multiplier for multiplier in layout.multipliers),
        "layers_per_block": layout.layers,
        "down_block_types": tuple("AttnDownBlock2D" if a else plain[0] for a in attended),
        "up_block_types": tuple("AttnUpBlock2D" if a else plain[1] for a in reversed(attended)),
        "downsample_type": resize,
        "upsample_type": resize,
        "attention_head_dim": layout.head,
        "attn_norm_num_groups": 32,  # else the attention in the middle has no normalisation beside a scale and shift
        "norm_num_groups": 32,
        "norm_eps": 1e-5,
        "resnet_time_scale_shift": "scale_shift",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "downsample_padding": 1,
    }


def _guided_scheduler(layout: GuidedLayout) -> dict[str, Any]:
    linear = {"beta_start": 1e-4, "beta_end": 0.02} if layout.schedule == "linear" else {}
    return {
        "num_train_timesteps": layout.timesteps, "beta_schedule": layout.schedule, **linear,
        "variance_type": "learned_range", "clip_sample": True,
    }  # fmt: skip


def _numbers(released: Weights, pattern: str) -> list[int]:
    found = [int(match[1]) for name in released if (match := re.match(pattern, name))]
    if not found:
        raise UserError("the file holds no network of this format", "'ue-bench purifier import --help' lists formats")
    return found


def _weight(released: Weights, name: str) -> Tensor:
    if name not in released:
        raise UserError(f"the file has no weight {name}", "'ue-bench purifier import --help' lists formats")
    return released[name]


def only_tensors(content: Any) -> dict[str, Tensor]:
    """Return the weights of a stored state without the prefix of data-parallel training.

    Raises UserError when it holds anything else.
    """
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError("the file holds more than weights by name", "give a checkpoint as it was released")
    return {name.removeprefix("module."): value.float() for name, value in content.items()}
