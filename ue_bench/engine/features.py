"""Look into a trained victim: how alike its features are, where it looks, and what it hands its classifier."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..contract.imageset import ImageSet
from .batches import EVAL_BATCH
from .crops import to_unit
from .loop import Pixels
from .numerics import full_float32

# What ends the convolutional part of a classifier.
HEAD = (nn.Linear, nn.Flatten, nn.modules.pooling._AdaptiveAvgPoolNd, nn.modules.pooling._AvgPoolNd)


def last_convolution(network: nn.Module, x: Tensor) -> Tensor:
    """Return what ``network`` makes of ``x`` up to pooling and classifier: N x C x H x W.

    That is the last four-dimensional output of a module that holds no pooling to averages, flattening or linear layer;
    a residual block counts as a whole. Raises ValueError when there is none.
    """
    return _convolution_and_logits(network, x)[0]


def _convolution_and_logits(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    outputs: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output: outputs.__setitem__(slice(None), [output]))
        for module in network.modules()
        if not any(isinstance(part, HEAD) for part in module.modules())
    ]
    try:
        logits: Tensor = network(x)
    finally:
        for hook in hooks:
            hook.remove()
    if not outputs or outputs[0].dim() != 4:
        raise ValueError("the network has no convolutional features")
    return outputs[0], logits


@full_float32()
def grad_cam(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """Return where ``model`` looks to tell the class ``labels`` of images ``x`` in [0, 1]: N x H x W, each in [0, 1].

    The output of the last convolution is summed over channels with the spatial means of the logit's gradient as
    weights, cut at zero, brought to the size of the images and stretched from its smallest to its largest value. A map
    that is the same everywhere is zero.

    Source: Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1 and 2; drawn in Deep Hiding, Figure 2.
    """
    model.eval()
    with torch.enable_grad():
        features, logits = _convolution_and_logits(model, x.detach().requires_grad_())
        [gradient] = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), features)
    maps = (gradient.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True).relu().detach()
    maps = F.interpolate(maps, x.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny)


@torch.no_grad()
@full_float32()
def penultimate(model: nn.Module, x: Tensor) -> Tensor:
    """Return what the last linear layer of ``model`` is given for images ``x`` in [0, 1]: N x D.

    Raises ValueError when it has none.
    """
    model.eval()
    inputs: list[Tensor] = []
    hooks = [
        module.register_forward_pre_hook(lambda _module, given: inputs.__setitem__(slice(None), [given[0]]))
        for module in model.modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        model(x)
    finally:
        for hook in hooks:
            hook.remove()
    if not inputs:
        raise ValueError("the network has no linear layer")
    return inputs[0].flatten(1).float()


@torch.no_grad()
@full_float32()
def cosines(model: nn.Module, data: ImageSet, device: str, precision: str) -> tuple[float, float]:
    """Return the mean cosine of a feature with its class mean, and of a class mean with the mean of all images.

    Features are flattened outputs of the last convolution of ``model`` (which takes pixels in [0, 1]), in eval mode.
    Source: Deep Hiding, Table J.
    """
    model.eval()
    pixels = Pixels(data, torch.device(device))

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(data), EVAL_BATCH):
            where = torch.arange(start, min(start + EVAL_BATCH, len(data)), device=pixels.device)
            with torch.autocast(pixels.device.type, torch.bfloat16, enabled=precision == "bf16"):
                features = last_convolution(model, to_unit(pixels.take(where)))
            yield features.flatten(1).float(), pixels.labels[where]

    sums: Tensor | None = None
    for features, labels in batches():
        if sums is None:
            sums = features.new_zeros(data.num_classes, features.shape[1])
        sums.index_add_(0, labels, features)
    assert sums is not None  # a training set has images
    present = torch.tensor(np.unique(data.labels), device=pixels.device)
    total = torch.zeros((), device=pixels.device)
    for features, labels in batches():
        total += F.cosine_similarity(features, sums[labels]).sum()
    between = F.cosine_similarity(sums[present], sums.sum(0, keepdim=True)).mean()
    return total.item() / len(data), between.item()
