"""``ue-bench deephiding images``: diffusers' own pipeline, with tiny components of random weights."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from ue_bench.api import EnvironmentProblem, UserError
from ue_bench.cli.main import cli
from ue_bench_deephiding import semantic

from .helpers import tiny_clip

pytest.importorskip("diffusers")
pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of a Stable Diffusion and of a ControlNet, 100,000 parameters in all."""
    from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
    from diffusers import StableDiffusionControlNetPipeline as Pipeline
    from transformers import CLIPTextModel

    folder = tmp_path_factory.mktemp("models")
    config, tokenizer = tiny_clip(folder / "tokenizer")
    shared: dict[str, Any] = {
        "block_out_channels": (4, 8), "layers_per_block": 2, "in_channels": 4, "cross_attention_dim": 32,
        "norm_num_groups": 1, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=32, out_channels=4, up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **shared
        )
        controlnet: Any = ControlNetModel(conditioning_embedding_out_channels=(16, 32), **shared)
        # They start at zero, where the edges have no influence.
        for layer in [*controlnet.controlnet_down_blocks, controlnet.controlnet_cond_embedding.conv_out]:
            torch.nn.init.normal_(layer.weight)
        vae = AutoencoderKL(
            block_out_channels=[4, 8], latent_channels=4, norm_num_groups=2,
            down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
        )  # fmt: skip
        text = CLIPTextModel(config)
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False
    )
    pipeline: Any = Pipeline(
        vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet, controlnet=controlnet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, image_encoder=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder / "semantic")
    controlnet.save_pretrained(folder / "controlnet")
    return folder / "semantic", folder / "controlnet"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Prompts of two classes, and a photograph for each: a bright square, left or right."""
    with (tmp_path / "prompts.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["class", "image_id", "prompt"])
        writer.writerows([[0, "000000000017", "a train"], [1, "000000000203", "two cats"]])
    (tmp_path / "photos").mkdir()
    for name, column in (("COCO_val2014_000000000017", 10), ("COCO_val2014_000000000203", 60), ("other", 30)):
        photo = np.full((90, 120, 3), 40, np.uint8)
        photo[30:60, column : column + 30] = 220
        Image.fromarray(photo).save(tmp_path / "photos" / f"{name}.png")
    return tmp_path


@pytest.fixture
def arguments(work: Path, models: tuple[Path, Path]) -> list[str]:
    return ["deephiding", "images", str(work / "prompts.csv"), str(work / "photos"), str(work / "out"),
            "--semantic-model", str(models[0]), "--controlnet-model", str(models[1]),
            "--per-class", "2", "--size", "64", "--steps", "2", "--device", "cpu"]  # fmt: skip


def run(arguments: list[str]) -> Result:
    return CliRunner().invoke(cli, arguments)


def drawn(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*.png"))}


def test_edges_are_where_the_picture_changes(work: Path) -> None:
    photo = np.asarray(Image.open(work / "photos" / "other.png"))
    edges = semantic.edge_map(photo, (90, 90))
    assert edges.shape == (90, 90, 3)
    assert set(np.unique(edges)) == {0, 255}
    rows, columns = np.nonzero(edges[..., 0])
    # The centre begins 15 pixels in, so that the square spans columns 15 to 45.
    assert abs(rows.min() - 30) <= 1
    assert abs(rows.max() - 59) <= 1
    assert abs(columns.min() - 15) <= 1
    assert abs(columns.max() - 44) <= 1
    assert not edges[35:55, 20:40].any()


def test_images_are_drawn_and_drawn_again_the_same(arguments: list[str], work: Path) -> None:
    result = run(arguments)
    assert result.exit_code == 0, result.output
    first = drawn(work / "out")
    assert list(first) == ["0/0000.png", "0/0001.png", "1/0000.png", "1/0001.png"]
    assert len(set(first.values())) == 4
    with Image.open(work / "out" / "0" / "0000.png") as image:
        assert image.size == (64, 64)
    # Interrupted, it continues with what is missing, and makes it the same.
    (work / "out" / "0" / "0001.png").unlink()
    (work / "out" / "1" / "0000.png").write_bytes(b"kept")
    assert run(arguments).exit_code == 0
    assert drawn(work / "out") == {**first, "1/0000.png": b"kept"}
    other = run([*arguments, "--steps", "3"]).exception
    assert isinstance(other, UserError)
    assert "holds something else" in str(other)


def test_edges_and_prompt_matter(arguments: list[str], work: Path) -> None:
    run(arguments)
    first = drawn(work / "out")
    Image.new("RGB", (90, 90)).save(work / "photos" / "COCO_val2014_000000000017.png")
    text = (work / "prompts.csv").read_text(encoding="utf-8").replace("two cats", "a very different scene")
    (work / "prompts.csv").write_text(text, encoding="utf-8")
    arguments[4] = str(work / "again")
    run(arguments)
    again = drawn(work / "again")
    assert first["0/0000.png"] != again["0/0000.png"]
    assert first["1/0000.png"] != again["1/0000.png"]


def test_the_images_can_be_hidden(arguments: list[str], work: Path) -> None:
    from ue_bench_deephiding import banks

    run(arguments)
    bank = banks.folder(work / "out", ("aeroplane", "cat"), 2, (32, 32))
    assert bank.shape == (2, 2, 32, 32, 3)
    assert len({image.tobytes() for image in bank.reshape(-1, 32, 32, 3)}) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("class,prompt\n0,a\n", "is not a list of prompts"),
        ("class,image_id,prompt\nx,1,a\n", "is not a list of prompts"),
        ("class,image_id,prompt\n", "does not number its classes"),
        ("class,image_id,prompt\n0,000000000017,a\n2,000000000203,b\n", "does not number its classes"),
        ("class,image_id,prompt\n0,555,a\n", "0 images in"),
        ("class,image_id,prompt\n0,,a\n", "0 images in"),
        ("class,image_id,prompt\n0,7,a\n", "0 images in"),  # not the end of a longer number
        ("class,image_id,prompt\n0,000000000017\n", "without a prompt"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(content: str, message: str, arguments: list[str], work: Path) -> None:
    (work / "prompts.csv").write_text(content, encoding="utf-8")
    error = run(arguments).exception
    assert isinstance(error, UserError)
    assert message in str(error)
    assert not (work / "out").exists()


def test_results_among_the_photographs_are_refused(arguments: list[str], work: Path) -> None:
    arguments[4] = str(work / "photos" / "out")
    error = run(arguments).exception
    assert isinstance(error, UserError)
    assert "lies in" in str(error)


def test_models_and_sizes_that_do_not_work_are_refused(arguments: list[str], work: Path) -> None:
    error = run([*arguments, "--size", "63"]).exception
    assert isinstance(error, UserError)
    assert "multiple of" in str(error) or "multiple of" in str(error.hint)
    error = run([*arguments, "--controlnet-model", str(work / "nothing")]).exception
    assert isinstance(error, EnvironmentProblem)
    assert "cannot be loaded" in str(error)
    assert not (work / "out").exists()
