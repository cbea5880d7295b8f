"""The fixtures as a stranger's tests use them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ue_bench.testing import pictures
from ue_bench.testing.pictures import likeness, sample

TESTS = """
import numpy as np
import pytest
from ue_bench.api import Countermeasure, Plugin, Protector

class Good(Protector):
    "Turns the last bit."
    name = "good"
    def protect(self, data, ctx):
        return data.with_images(data.images ^ np.uint8(1))

class Bad(Countermeasure):
    "Turns the order."
    name = "bad"
    def purify(self, data, ctx):
        return data.with_images(data.images[::-1])

def test_good(conformance):
    assert "images" in {f.check for f in conformance(Good())}

def test_bad(conformance):
    conformance(Bad())

def test_another_kind(conformance):
    with pytest.raises(TypeError, match="a Plugin cannot be checked"):
        conformance(Plugin())
"""


def test_fixture_fails_a_test_with_the_lines_that_say_why(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["ue_bench.testing.plugin"]\n')
    (tmp_path / "test_mine.py").write_text(TESTS)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        timeout=200,
    )
    assert ran.returncode == 1, ran.stdout
    assert "1 failed, 2 passed" in ran.stdout
    assert "fail  purify   order       images are no more like their own originals" in ran.stdout


def test_pictures_are_the_same_every_time_and_differ() -> None:
    data = pictures(12, (9, 14), classes=4)
    assert data.images.shape == (12, 9, 14, 3)
    assert (data.images == pictures(12, (9, 14), classes=4).images).all()
    assert len({image.tobytes() for image in data.images}) == 12
    assert data.labels.tolist() == [0, 1, 2, 3] * 3


def test_a_sample_is_balanced_and_no_larger_than_the_set() -> None:
    data = pictures(30)
    assert sorted(sample(data, 9, 0).labels.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len(sample(data, 100, 0)) == 30
    assert (sample(data, 9, 0).images == sample(data, 9, 0).images).all()
    assert (sample(data, 9, 0).images != sample(data, 9, 1).images).any()


def test_likeness_sees_through_contrast_and_tells_order() -> None:
    images = pictures(40, (40, 70)).images
    for changed in (images, 255 - images, images // 4, images[..., [1, 2, 0]], images[..., [0, 0, 0]]):
        errors, mine = likeness(images, changed)
        assert errors > 10
        assert mine > 0.9
    for changed in (images[::-1], images * 0):
        assert likeness(images, changed)[0] < 3
