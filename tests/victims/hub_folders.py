"""Tiny random networks of transformers in folders, as a hub has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

transformers = pytest.importorskip("transformers", reason="pip install 'ue-bench[pretrained]'", exc_type=ImportError)

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
SIZE = 28


def tiny(kind: str) -> Any:
    """A network of transformers with random weights."""
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(1)
    match kind:
        case "vit":
            return transformers.ViTModel(transformers.ViTConfig(**small, image_size=14, patch_size=7))
        case "vit classifier":
            return transformers.ViTForImageClassification(transformers.ViTConfig(**small, image_size=28, patch_size=7))
        case "dinov2":
            config = transformers.Dinov2Config(
                hidden_size=16, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=1, image_size=42, patch_size=7
            )
            return transformers.Dinov2Model(config)
        case "resnet":
            config = transformers.ResNetConfig(
                embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic"
            )
            return transformers.ResNetModel(config)
    vision = {**small, "image_size": 28, "patch_size": 7, "projection_dim": 6}
    match kind:
        case "clip":
            text = {**small, "vocab_size": 9, "max_position_embeddings": 5, "projection_dim": 6}
            return transformers.CLIPModel(
                transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=6)
            )
        case "clip projected":
            return transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**vision))
        case "clip tower":
            return transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**vision))
    raise ValueError(kind)


def stored(kind: str, folder: Path) -> Any:
    """Such a network in a folder, in evaluation mode."""
    network = tiny(kind).eval()
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": MEAN, "image_std": STD}))
    return network


def seen(x: Tensor, size: int = SIZE) -> Tensor:
    """Images as the networks are to see them."""
    large = F.interpolate(x, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
    return (large - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def pixels(count: int = 3, size: int = 16) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))
