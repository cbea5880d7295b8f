"""Semantic images from Stable Diffusion with ControlNet, guided by one prompt and one edge map for each class.

Source: Deep Hiding, Semantic Images Generation. The paper names neither the versions nor the settings: 512 x 512
pixels, 30 steps, guidance 7.5 and ControlNet's full strength are our choices, as are the edge thresholds.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ue_bench.api import EnvironmentProblem, UserError, first_line, replacing

from . import banks

Pixels = NDArray[np.uint8]
RECORD = "images.json"
THRESHOLDS = (0.1, 0.2)  # of gradient magnitudes of a gray image in [0, 1]; kornia's defaults


@dataclass(frozen=True)
class Scene:
    """What all images of a class have in common."""

    label: int
    prompt: str
    photo: Path


def read_scenes(prompts: Path, photos: Path) -> list[Scene]:
    """Read the rows of a file that ``ue-bench deephiding prompts`` wrote, each with its photograph in ``photos``.

    A photograph belongs to a row when its file name without suffix is the row's image id, or ends in it after something
    else than a digit. Raises UserError when the file is not one, or a photograph is missing.
    """
    try:
        with prompts.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
        labelled = [(int(row["class"]), row["image_id"], row["prompt"]) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{prompts} is not a list of prompts", "expected columns class, image_id and prompt; see 'prompts --out'"
        ) from error
    if not all(prompt for _, _, prompt in labelled):
        raise UserError(f"{prompts} has a class without a prompt")
    if sorted(label for label, _, _ in labelled) != list(range(len(labelled))) or not labelled:
        raise UserError(f"{prompts} does not number its classes from 0", "one row a class")
    files = banks.image_files(photos)
    scenes = []
    for label, image_id, prompt in sorted(labelled):
        ends = re.compile(rf"(?:.*\D)?{re.escape(image_id)}", re.DOTALL)
        matching = [file for file in files if image_id and ends.fullmatch(file.stem)]
        if len(matching) != 1:
            raise UserError(
                f"{len(matching)} images in {photos} belong to image id {image_id!r} of class {label}",
                "one file whose name ends in the id is needed",
            )
        scenes.append(Scene(label, prompt, matching[0]))
    return scenes


def edge_map(photo: Pixels, size: tuple[int, int]) -> Pixels:
    """Return the Canny edges of the centre of ``photo`` (H x W x 3) at ``size``: 0 or 255, in three equal channels."""
    try:
        from kornia.filters import canny
    except ImportError as error:
        raise EnvironmentProblem("edge maps need kornia", "pip install 'ue-bench[diffusion]'") from error
    gray = banks.resized(photo, size) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    edges = canny(torch.from_numpy(gray.astype(np.float32))[None, None], *THRESHOLDS)[1][0, 0]
    return np.repeat(((edges > 0).numpy() * 255).astype(np.uint8)[..., None], 3, axis=2)


def edge_maps(scenes: list[Scene], side: int) -> list[Pixels]:
    """Return the edges of every scene's photograph, square. Raises UserError when one cannot be read."""
    photos = (banks.decode(banks.Picture(str(scene.photo), scene.photo)) for scene in scenes)
    return [edge_map(photo, (side, side)) for photo in photos]


def load_pipeline(semantic_model: str, controlnet_model: str, device: str) -> Any:
    """Load diffusers' ``StableDiffusionControlNetPipeline`` of two models, each a hub id or a folder.

    In half precision on CUDA. Raises EnvironmentProblem when diffusers or transformers is missing, or a model cannot be
    loaded.
    """
    try:
        import diffusers

        control_type: Any = diffusers.ControlNetModel
        pipeline_type: Any = diffusers.StableDiffusionControlNetPipeline
    except (ImportError, RuntimeError) as error:  # diffusers raises RuntimeError for a part it cannot import
        raise EnvironmentProblem(
            "semantic images need diffusers and transformers", "pip install 'ue-bench[diffusion]'"
        ) from error
    try:
        controlnet = control_type.from_pretrained(controlnet_model)
        pipeline = pipeline_type.from_pretrained(
            semantic_model, controlnet=controlnet, safety_checker=None, requires_safety_checker=False
        )
    except Exception as error:  # hub, file and configuration errors of many kinds
        reason = first_line(error)
        raise EnvironmentProblem(
            f"{semantic_model} with {controlnet_model} cannot be loaded: {reason}",
            "give folders that hold the models, or hub ids and a network",
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    # Loaded in single precision first: the argument for another one has changed its name between versions.
    return pipeline.to(device, torch.float16 if device.startswith("cuda") else torch.float32)


def draw(
    pipeline: Any,
    scenes: list[Scene],
    controls: list[Pixels],
    images: int,
    out: Path,
    *,
    steps: int,
    guidance: float,
    report: Callable[[float, float, str], None] = lambda *_: None,
) -> None:
    """Fill ``out/<class>/<number>.png`` with ``images`` images a class, of the size of its edge map.

    Files that are there are kept. Image ``j`` of class ``y`` comes from the seed 1000 y + j on the CPU, so that it is
    the same in any order.
    """
    from PIL import Image

    total, done = len(scenes) * images, 0
    for scene, edges in zip(scenes, controls, strict=True):
        folder = out / str(scene.label)
        folder.mkdir(parents=True, exist_ok=True)
        control = Image.fromarray(edges)
        for number in range(images):
            target = folder / f"{number:04d}.png"
            if not target.exists():
                generator = torch.Generator("cpu").manual_seed(1000 * scene.label + number)
                drawn = pipeline(
                    scene.prompt, image=control, height=control.height, width=control.width, num_inference_steps=steps,
                    guidance_scale=guidance, generator=generator,
                ).images[0]  # fmt: skip
                with replacing(target) as unfinished:
                    drawn.convert("RGB").save(unfinished, "PNG")
            done += 1
            report(done, total, "draw semantic images")
