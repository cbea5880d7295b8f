from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from real import DATA as DATA
from torch import Tensor

from ue_bench.api import ImageSet
from ue_bench_deephiding.hinet import HidingNetwork
from ue_bench_deephiding.recipe import Recipe

# 2 blocks on 8 x 8 crops: a run of a second.
TINY = Recipe(
    steps=12, batch=4, size=8, learning_rate=1e-4, extractor_epochs=1, blocks=2, growth=4, validate_every=4, seed=3
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unit_images(
    count: int, size: tuple[int, int] = (32, 32), seed: int = 0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Random N x 3 x H x W in [0, 1]."""
    return torch.rand(count, 3, *size, generator=generator(seed), dtype=torch.float64).to(dtype)


def randomised(network: HidingNetwork, std: float = 0.01) -> HidingNetwork:
    """All parameters N(0, std^2), the last convolutions too, so that the network is not the identity."""
    source = generator(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source) * std)
    return network


def is_last_convolution(name: str) -> bool:
    return ".convs.4." in name


def smooth_set(count: int = 30, size: tuple[int, int] = (32, 32), classes: int = 3, seed: int = 0) -> ImageSet:
    """Images with slow gradients and values from 0 to 255, labels in turn."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 255, (count, 2, 2, 3))
    down, across = np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1])
    rows = corners[:, :1] * (1 - down)[:, None, None] + corners[:, 1:] * down[:, None, None]
    images = rows[:, :, :1] * (1 - across)[:, None] + rows[:, :, 1:] * across[:, None]
    names = tuple(f"class{label}" for label in range(classes))
    return ImageSet(np.rint(images).astype(np.uint8), np.arange(count) % classes, names)


def change(protected: ImageSet, clean: ImageSet) -> NDArray[np.int64]:
    """The perturbation in 8-bit levels."""
    return protected.images.astype(np.int64) - clean.images


def tiny_clip(folder: Path) -> tuple[Any, Any]:
    """Configuration of a CLIP text encoder, and its tokenizer of single bytes, which ``folder`` then holds."""
    import transformers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    symbols = list(bytes_to_unicode().values())
    words = [*symbols, *(s + "</w>" for s in symbols), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    with warnings.catch_warnings():  # some versions open files in a way that tokenizers gives up
        warnings.simplefilter("ignore", DeprecationWarning)
        tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.model_max_length = 77
    tokenizer.save_pretrained(folder)
    config = transformers.CLIPTextConfig(
        vocab_size=514, hidden_size=32, intermediate_size=37, projection_dim=16, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=77, bos_token_id=512, eos_token_id=513, pad_token_id=513,
    )  # fmt: skip
    return config, tokenizer
