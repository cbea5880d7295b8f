"""UC, unlearnable clusters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ue_bench.api import Context, ImageSet, NetworkCost, Protector, Ratio, load_arrays, save_arrays

from .quantise import budget, keep_linf, perturb

if TYPE_CHECKING:
    from .uc_clusters import Embed

CPU_BATCH, GPU_BATCH = 50, 512
FILE = "clusters.npz"


class UC(Protector):
    """Zhang et al., "Unlearnable Clusters: Towards Label-agnostic Unlearnable Examples", CVPR 2023.

    Labels are never read. Images are brought to ``side`` px, where a network that was trained on other images sees
    features in them (the input of its last linear layer), and k-means makes ``clusters`` of these. Every cluster gets
    one noise, which a generator makes of numbers drawn once: it learns, on all images, cropped and mirrored, to give
    noisy images the features of the next cluster's centre (the divergence of two softmaxes). The noise is within
    ``eps`` in Linf; it is resized to the image, to the nearest pixel, added and rounded to the nearest gray level.

    ``surrogate`` is the network: a victim selector, by default torchvision's ResNet-50 with its weights for ImageNet,
    which are downloaded, or ``resnet50[weights=NAME#DIGEST]`` for a file of yours. One that starts fresh sees little;
    one that was trained on these images has read their labels. Generator: Adam at 1e-4, weight decay 5e-4, a cosine to
    1e-6 by steps, batches of 256 in the order of the set, 50 epochs for each cluster, batch normalisation of a batch of
    one.

    There is no preset for two CPU cores: 10 x 50 passes of a ResNet-50 at 224 px an image.

    Deviations from the authors' release: an image has the cluster whose centre is nearest, which is k-means' own; noise
    is resized to the image, where the release's default writes images of 224 px; its L2 bound and CLIP's network are
    not here; what is drawn is drawn for each cluster from the run's seed.

    Raises UserError when ``surrogate`` has no linear layer, EnvironmentProblem when its weights cannot be had, Diverged
    when a generator does.

    No published accuracy is quoted: none was checked.
    """

    name: ClassVar[str] = "uc"
    paper: ClassVar[str] = "Zhang et al., Unlearnable Clusters: Towards Label-agnostic Unlearnable Examples, CVPR 2023"

    eps: Ratio = Field(16 / 255, gt=0, le=1, description="Linf radius on the [0, 1] scale")
    clusters: int = Field(10, ge=2, le=100_000, description="groups of images that have one noise each")
    surrogate: str = Field("resnet50[pretrained=true]", description="victim selector of the network that sees features")
    side: int = Field(224, ge=16, le=512, multiple_of=4, description="of the squares that it sees, in pixels")
    epochs: int = Field(50, ge=1, le=100_000, description="of each cluster's generator")
    batch: int = Field(256, ge=1, le=100_000, description="images a step")
    rate: float = Field(1e-4, gt=0, description="of the generator's Adam at its start")
    width: int = Field(64, ge=1, le=1024, description="channels of the generator's first layer")

    @property
    def budget(self) -> str:
        return budget("linf", self.eps)

    @property
    def uses_networks(self) -> bool:
        return True

    def cost(self, images: int) -> NetworkCost:
        """Count the passes of the feature network, at ``side`` and not at the images' own size."""
        return NetworkCost(self.surrogate, self.clusters * self.epochs * 2 / 3 + 1 / 3, (self.side, self.side))

    @property
    def answers_queries(self) -> bool:
        return True

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        import torch
        from torch.nn import functional as F

        from .pgd import to_levels
        from .uc_clusters import features, nearest

        embed = self.embedding(data, ctx)
        learnt = self.learnt(*ctx.learning(data), embed)
        of_image = nearest(features(embed, data, self.side, ctx, self.wide(ctx)), learnt["centres"])
        levels = to_levels(F.interpolate(torch.from_numpy(learnt["noise"]), list(data.size), mode="nearest"))

        def change(images: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
            return keep_linf(perturb(images, levels[of_image[where]]), images, self.eps)

        return ctx.map_images(data, change, "add noise")

    def wide(self, ctx: Context) -> int:
        """Return how many images are looked at once, which moves no number."""
        return GPU_BATCH if ctx.device.startswith("cuda") else CPU_BATCH

    def embedding(self, data: ImageSet, ctx: Context) -> Embed:
        """Return a function to the features of images."""
        from .embedding import embedding

        network = ctx.network(data, self.surrogate).eval().requires_grad_(False)
        return embedding(network, self.surrogate, ctx)

    def learnt(self, data: ImageSet, ctx: Context, embed: Embed) -> dict[str, NDArray[np.float32]]:
        """Return ``centres``, K x D, and their ``noise``, K x 3 x side x side, learnt from ``data`` once."""
        import shutil

        import torch

        from .uc_clusters import ClusterNoise, cluster_centres, features

        key = {"uc": self.identity(), "data": data.fingerprint, "seed": ctx.seed, "precision": ctx.precision}

        def make(folder: Path) -> None:
            checkpoint = ctx.checkpoint_dir(key)
            centres = cluster_centres(features(embed, data, self.side, ctx, self.wide(ctx)), self.clusters, ctx.seed)
            wanted = torch.from_numpy(np.roll(centres, -1, axis=0)).to(ctx.device)
            noise = []
            for number, centre in enumerate(wanted):
                cluster = ClusterNoise(data, ctx, embed, centre, number, self.side, self.width, self.eps)
                made = cluster.learn(checkpoint / f"{number}.pt", self.epochs, self.batch, self.rate)
                noise.append(made.cpu().numpy())
            save_arrays(folder / FILE, {"centres": centres, "noise": np.stack(noise)})
            shutil.rmtree(checkpoint)

        arrays = load_arrays(ctx.cached(key, make) / FILE)
        assert arrays is not None, "an artifact is whole"
        return arrays
