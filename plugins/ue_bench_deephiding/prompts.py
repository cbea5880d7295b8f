"""Text prompt clustering: one prompt for each class, as far from the others as the collection allows.

Source: Deep Hiding, Semantic Images Generation: text features, k-means, the clusters that differ most from the rest,
and of each the prompt nearest to its centre. The paper names neither the number of clusters nor the measure of
difference; both are our choices and are documented where they are made.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ue_bench.api import EnvironmentProblem, UserError, first_line

Features = NDArray[np.float32]
OFFLINE = "lsa"
WORDS, COMPONENTS = 2048, 96
BATCH = 256


@dataclass(frozen=True)
class Prompt:
    """A text and the id of the image it describes, empty when the collection has none. The id is text: it has zeros in
    front."""

    text: str
    image_id: str = ""


def read_prompts(path: Path) -> list[Prompt]:
    """Read prompts from a CSV file with a column ``prompt`` (and perhaps ``image_id``), each text once, in file order.

    Raises UserError when the file cannot be read or has no such column.
    """
    if not path.is_file():
        raise UserError(f"no file {path}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if "prompt" not in (reader.fieldnames or ()):
                raise UserError(f"{path} has no column 'prompt'", f"it has {', '.join(reader.fieldnames or ['none'])}")
            by_text: dict[str, Prompt] = {}
            for row in reader:
                text = " ".join((row["prompt"] or "").split())
                if text:
                    by_text.setdefault(text, Prompt(text, row.get("image_id") or ""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a readable CSV file", "expected UTF-8 with a header line") from error
    return list(by_text.values())


def offline_features(texts: list[str]) -> Features:
    """Return latent semantic features, N x at most 96, unit rows: hashed words, TF-IDF, principal components.

    They need no model, and stand in for CLIP's. Plain TF-IDF does not: centres of large clusters collect common words.
    """
    from sklearn.decomposition import PCA
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    counts = HashingVectorizer(n_features=WORDS, alternate_sign=False, norm=None).transform(texts)
    weighted = TfidfTransformer().fit_transform(counts)
    components = min(COMPONENTS, len(texts) - 1, WORDS)
    with np.errstate(invalid="ignore"):  # where all texts are alike there is no variance to explain
        return _unit_rows(PCA(components, svd_solver="covariance_eigh").fit_transform(weighted))


def clip_features(texts: list[str], model: str) -> Features:
    """Return text embeddings of a CLIP model, N x its dimension, unit rows. ``model`` is a hub id or a folder.

    Raises EnvironmentProblem when transformers is missing or the model cannot be loaded.
    """
    try:
        from transformers import AutoTokenizer, CLIPTextModelWithProjection
    except ImportError as error:
        raise EnvironmentProblem("CLIP features need transformers", "pip install 'ue-bench[diffusion]'") from error
    import torch

    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
        loaded: Any = CLIPTextModelWithProjection.from_pretrained(model, output_loading_info=True)
        network, loading = loaded  # in eval mode
    except Exception as error:  # hub, file and configuration errors of many kinds
        reason = first_line(error)
        raise EnvironmentProblem(
            f"CLIP model {model} cannot be loaded: {reason}", "give a local folder, or --encoder lsa"
        ) from error
    if loading["missing_keys"]:  # they would be random
        raise EnvironmentProblem(
            f"CLIP model {model} lacks {', '.join(sorted(loading['missing_keys']))}",
            "a text encoder with projection is needed",
        )
    parts = []
    for first in range(0, len(texts), BATCH):
        tokens = tokenizer(texts[first : first + BATCH], padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            parts.append(network(**tokens).text_embeds.float().numpy())
    return _unit_rows(np.concatenate(parts))


def _unit_rows(x: NDArray[np.floating]) -> Features:
    unit: Features = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    return unit


def distinct(features: Features, count: int, clusters: int, seed: int) -> list[int]:
    """Return the row of ``features`` nearest to the centre, for the ``count`` most distinct of ``clusters`` clusters.

    k-means++ with 10 restarts. The first centre is the one with the largest mean distance to all others, each further
    one that whose distance to the chosen ones is largest.
    """
    from sklearn.cluster import KMeans

    fitted = KMeans(clusters, n_init=10, random_state=seed).fit(features)
    centres, members = fitted.cluster_centers_, fitted.labels_
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    chosen = [int(apart.mean(axis=1).argmax())]
    while len(chosen) < count:
        nearest = apart[:, chosen].min(axis=1)
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
    rows = []
    for cluster in chosen:
        in_cluster = np.flatnonzero(members == cluster)
        rows.append(int(in_cluster[np.linalg.norm(features[in_cluster] - centres[cluster], axis=1).argmin()]))
    return rows


def closest_pair(features: Features) -> float:
    """Return the largest cosine between two rows."""
    cosines = features @ features.T
    np.fill_diagonal(cosines, -1)
    return float(cosines.max())
