"""``ue-bench deephiding prompts`` and ``images``. Everything heavy is imported inside the commands."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

import click

from ue_bench.api import ProgressLine, UserError, device_option, usable_device, write_atomically

from .command_tools import begin, not_below


@click.command("prompts")
@click.argument("collection", type=click.Path(path_type=Path))
@click.option("--classes", type=click.IntRange(2), default=10, show_default=True, help="Prompts to choose.")
@click.option("--clusters", type=click.IntRange(2), show_default="twice the classes, at least 40", help="Of k-means.")
@click.option("--encoder", default="lsa", show_default=True,
              help="lsa needs no model; else a CLIP model, a hub id or a folder.")  # fmt: skip
@click.option("--random", "at_random", is_flag=True, help="Draw prompts at random instead: the paper's ablation.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="New CSV file.")
def prompts(
    collection: Path,
    classes: int,
    clusters: int | None,
    encoder: str,
    at_random: bool,
    seed: int,
    out: Path | None,
) -> None:
    """Choose one prompt a class, far from each other, for images to hide.

    COLLECTION is a CSV file with a column 'prompt', such as captions. 'deephiding images' draws what they say, or a
    text-to-image model of yours does.

    \b
    ue-bench deephiding prompts captions.csv --classes 10
    """
    import numpy as np

    from . import prompts as clustering

    clusters = clusters or max(2 * classes, 40)
    if clusters < classes and not at_random:
        raise UserError(f"{clusters} clusters give no {classes} prompts", "give more --clusters")
    if out and out.exists():
        raise UserError(f"{out} exists already", "remove it or choose another --out")
    candidates = clustering.read_prompts(collection)
    needed = classes if at_random else clusters
    if len(candidates) < needed:
        raise UserError(f"{collection} holds {len(candidates)} distinct prompts, {needed} are needed", "see --clusters")
    texts = [prompt.text for prompt in candidates]
    report = ProgressLine(sys.stderr)
    report(0, 2, f"encode {len(texts)} prompts")
    features = (
        clustering.offline_features(texts)
        if encoder == clustering.OFFLINE
        else clustering.clip_features(texts, encoder)
    )
    drawn = np.random.default_rng(seed).permutation(len(texts))[:classes]
    if at_random:
        rows = [int(row) for row in drawn]
    else:
        report(1, 2, "cluster")
        kinds = len(np.unique(features.round(5), axis=0))
        if kinds < clusters:
            raise UserError(f"{encoder} features tell {kinds} prompts apart, {clusters} are needed", "see --clusters")
        rows = clustering.distinct(features, classes, clusters, seed)
    report(2, 2, "done")
    for number, row in enumerate(rows):
        print(f"{number}\t{candidates[row].image_id}\t{candidates[row].text}")
    closest = clustering.closest_pair(features[rows])
    by_chance = "" if at_random else f"; {clustering.closest_pair(features[drawn]):.2f} for as many at random"
    print(f"largest cosine of two prompts, {encoder} features: {closest:.2f}{by_chance}", file=sys.stderr)
    if out:
        table = io.StringIO(newline="")
        writer = csv.writer(table)
        writer.writerow(["class", "image_id", "prompt"])
        writer.writerows((n, candidates[row].image_id, candidates[row].text) for n, row in enumerate(rows))
        try:
            write_atomically(out, table.getvalue())
        except OSError as error:
            raise UserError(f"cannot write {out}: {error.strerror}", "choose another file") from error


@click.command("images")
@click.argument("prompts", type=click.Path(path_type=Path))
@click.argument("photos", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--semantic-model", required=True, help="Stable Diffusion: a hub id or a folder.")
@click.option("--controlnet-model", required=True, help="ControlNet for edges: a hub id or a folder.")
@click.option("--per-class", type=click.IntRange(1, 1000), default=100, show_default=True, help="Images a class.")
@click.option("--size", type=click.IntRange(8), default=512, show_default=True, help="Side in pixels.")
@click.option("--steps", type=click.IntRange(1), default=30, show_default=True, help="Denoising steps.")
@click.option("--guidance", type=click.FloatRange(0), default=7.5, show_default=True, help="Guidance scale.")
@device_option
def images(
    prompts: Path,
    photos: Path,
    out: Path,
    semantic_model: str,
    controlnet_model: str,
    per_class: int,
    size: int,
    steps: int,
    guidance: float,
    device: str,
) -> None:
    """Draw semantic images to hide, with Stable Diffusion and ControlNet.

    PROMPTS is a file of 'deephiding prompts --out'. PHOTOS is a folder with the photograph of each image id in it,
    whose edges all images of the class follow. OUT gets a folder a class; hide them with
    deephiding[hidden=folder,hidden_images=OUT]. Interrupted, the command continues when it is given again.

    \b
    ue-bench deephiding images prompts.csv val2014 semantic --semantic-model sd15 --controlnet-model canny
    """
    from ue_bench.api import digest_path

    from . import semantic

    scenes = semantic.read_scenes(prompts, photos)
    controls = semantic.edge_maps(scenes, size)
    not_below(out, photos)
    device = usable_device(device)
    pipeline = semantic.load_pipeline(semantic_model, controlnet_model, device)
    step = pipeline.vae_scale_factor
    if size % step:
        raise UserError(f"--size {size} does not suit this model", f"it needs a multiple of {step}")
    begin(out, {
        "models": f"{semantic_model} with {controlnet_model}",
        "prompts": [scene.prompt for scene in scenes],
        "photos": [digest_path(scene.photo) for scene in scenes],
        "size": size, "steps": steps, "guidance": guidance,
    }, semantic.RECORD)  # fmt: skip
    try:
        semantic.draw(
            pipeline, scenes, controls, per_class, out, steps=steps, guidance=guidance, report=ProgressLine(sys.stderr)
        )
    except OSError as error:
        raise UserError(f"cannot write in {out}: {error.strerror or error}", "the same command continues") from error
    print(out)
