"""What a data owner's command protects is drawn from their seed, not from the one a method's authors published."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from ue_bench.api import Context, Protector
from ue_bench.catalogue.registry import registry
from ue_bench.owner.contexts import owner_context
from ue_bench.owner.protecting import protect
from ue_bench.owner.request import ProtectionRequest


def silent(done: float, total: float, text: str) -> None:
    """Report to nobody."""


def test_a_method_s_seed_is_the_owner_s(tmp_path: Path) -> None:
    found = []
    for seed in (1, 1, 2):
        with owner_context(seed, "cpu", 1, "fp32", silent, tmp_path) as ctx:
            assert isinstance(ctx, Context)
            assert ctx.secret
            found.append(ctx.method_seed(0))

    assert found[0] == found[1] != found[2]
    assert min(found) > 2**32  # more than can be tried one after the other; 1 in 2**31 seeds would fail


def test_protect_writes_other_images_for_another_seed_and_the_same_for_the_same(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    for number, (name, size) in enumerate((("cat", (40, 50)), ("dog", (64, 33)), ("cat", (90, 71)), ("dog", (24, 24)))):
        (source / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (90 + 20 * number, 128, 140)).save(source / name / f"{number}.png")
    for method in ("lsp", "cuda", "ar"):
        images = []
        [protector] = registry().resolve("protector", method)
        assert isinstance(protector, Protector)
        for place, seed in (("a", 5), ("b", 5), ("c", 6)):
            out = tmp_path / f"{method}-{place}"
            request = ProtectionRequest(
                protector, source, out, tmp_path / f"{out.name}.json", tmp_path / f"{out.name}.key", seed=seed,
                cache_dir=tmp_path / f"cache-{place}",
            )  # fmt: skip
            assert protect(request, silent)["failed"] == {}, json.dumps(request.record.read_text())
            images.append([np.asarray(Image.open(path)) for path in sorted(out.rglob("*.png"))])
        first, again, other = images
        assert len(first) == 4
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
