"""The torch modules of the vision transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPS = 1e-6  # of layer normalisation, as in the authors' code and torchvision


class VisionTransformer(nn.Module):
    """Patches as tokens, a class token, learned positions, pre-normalised encoder layers. No dropout.

    Dosovitskiy et al. (2021), equations 1 to 4. Initial weights: of layers, PyTorch's; of positions, normal with
    deviation 0.02; of the class token, zero.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: tuple[int, int],
        patch: int,
        width: int,
        depth: int,
        heads: int,
        expansion: int,
    ) -> None:
        super().__init__()
        tokens = (image_size[0] // patch) * (image_size[1] // patch)
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + tokens, width))
        # Not nn.TransformerEncoder: it copies one layer, so that all would start with the same weights.
        self.layers = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    width,
                    heads,
                    expansion * width,
                    dropout=0.0,
                    activation="gelu",
                    layer_norm_eps=EPS,
                    batch_first=True,
                    norm_first=True,
                )
                for _ in range(depth)
            )
        )
        self.norm = nn.LayerNorm(width, EPS)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), tokens], 1) + self.positions
        out: Tensor = self.linear(self.norm(self.layers(tokens)[:, 0]))
        return out
