from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open

from ue_bench.api import Context, Diverged, ImageSet, UserError
from ue_bench.cli.main import cli
from ue_bench_countermeasures import comdefend_training as training
from ue_bench_countermeasures import tiles
from ue_bench_countermeasures.comdefend import ComDefend
from ue_bench_countermeasures.comdefend_network import ComDefendNetwork, loss
from ue_bench_countermeasures.comdefend_training import ComDefendRecipe, fit, load, write

from .helpers import Images, Purify, image_set, is_kept

RECIPE = ComDefendRecipe(divisor=16, steps=4, batch=2, learning_rate=0.01)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("comdefend") / "networks.safetensors"
    network = training.untrained(RECIPE)
    with torch.no_grad():
        for values in network.parameters():
            values.mul_(2)  # so that bits differ from pixel to pixel
    write(path, network, {})
    return path


@pytest.fixture
def images() -> Images:
    """Neither side is a multiple of 32."""
    return np.random.default_rng(0).integers(0, 256, (5, 40, 33, 3), dtype=np.uint8)


def as_batch(images: Images) -> torch.Tensor:
    return torch.tensor(images).permute(0, 3, 1, 2).float() / 255


class TestNetwork:
    def test_the_paper_s_size(self) -> None:
        with torch.device("meta"):
            network = ComDefendNetwork()
        assert sum(p.numel() for p in network.compressor.parameters()) == 783_372
        assert sum(p.numel() for p in network.reconstructor.parameters()) == 783_363
        kinds = [type(layer).__name__ for layer in network.compressor]
        assert kinds == ["Conv2d", "ELU"] * 8 + ["Conv2d"] == [type(x).__name__ for x in network.reconstructor]

    def test_images_come_from_bits(self, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        network = load(weights, "cpu")
        seen: list[torch.Tensor] = []
        plain = network.reconstruct

        def watched(code: torch.Tensor) -> torch.Tensor:
            seen.append(code)
            return plain(code)

        monkeypatch.setattr(network, "reconstruct", watched)
        x = torch.rand(2, 3, 32, 32)
        found = network.purify(x)
        assert found.shape == x.shape
        assert 0 < found.min() <= found.max() < 1
        [code] = seen
        assert code.shape == (2, 12, 32, 32)
        assert set(code.flatten().tolist()) == {0, 1}
        assert torch.equal(code.bool(), network.compress(x).sigmoid() > 0.5)

    def test_codes_of_training_are_soft_and_noisy(self, weights: Path) -> None:
        network, x = load(weights, "cpu"), torch.rand(2, 3, 32, 32)
        noise = torch.full((2, 12, 32, 32), 1.5)
        code, image = network(x, noise)
        torch.testing.assert_close(code.logit(), network.compress(x) - 1.5)
        assert torch.equal(image, network.reconstruct(code))

    def test_loss(self) -> None:
        x = torch.full((2, 3, 4, 4), 0.5)
        assert loss(torch.full((2, 12, 4, 4), 0.5), x - 0.1, x).item() == pytest.approx(0.01 + 1e-4 * 0.25)


class TestTiles:
    @pytest.mark.parametrize(("size", "count"), [((32, 32), 1), ((64, 96), 6), ((40, 33), 4), ((7, 9), 1)], ids=str)
    def test_there_and_back(self, size: tuple[int, int], count: int) -> None:
        x = torch.rand(3, 2, *size)
        squares = tiles.cut(x)
        assert squares.shape == (3 * count, 2, 32, 32)
        assert torch.equal(tiles.joined(squares, size), x)

    def test_order_and_edges(self) -> None:
        x = torch.arange(2 * 40 * 70.0).reshape(2, 1, 40, 70)
        squares = tiles.cut(x).reshape(2, 2, 3, 32, 32)
        assert torch.equal(squares[1, 0, 1], x[1, 0, :32, 32:64])
        assert torch.equal(squares[0, 1, 0, :8], x[0, 0, 32:, :32])
        assert (squares[0, 0, 2, :, 6:] == x[0, 0, :32, 69:]).all()
        assert (squares[0, 1, 0, 8:] == x[0, 0, 39, :32]).all()

    def test_squares_of_training_come_from_everywhere(self) -> None:
        x = torch.arange(34 * 33.0).expand(400, 1, -1).reshape(400, 1, 34, 33)
        found = tiles.draw(x, torch.Generator().manual_seed(0))
        corners = {(int(c) // 33, int(c) % 33) for c in found[:, 0, 0, 0]}
        assert corners == {(top, left) for top in range(3) for left in range(2)}
        assert torch.equal(found[:, 0] - found[:, :, 0, 0][..., None], x[:, 0, :32, :32])
        small = torch.rand(2, 3, 20, 32)
        assert torch.equal(tiles.draw(small, torch.Generator()), tiles.cut(small))


class TestPurify:
    def test_what_it_does(self, weights: Path, images: Images, ctx: Context) -> None:
        before = image_set(images.copy())
        after = ComDefend(weights=weights).purify(before, ctx)
        assert after.labels is before.labels
        np.testing.assert_array_equal(before.images, images)
        with torch.no_grad():
            squares = load(weights, "cpu").purify(tiles.cut(as_batch(images)))
        expected = (255 * tiles.joined(squares, (40, 33))).round().permute(0, 2, 3, 1).numpy()
        assert np.abs(after.images - expected).max() <= 1  # a number next to zero may become the other bit
        assert (after.images != expected).mean() < 1e-3

    def test_squares_are_processed_each_for_itself(self, weights: Path, images: Images, purify: Purify) -> None:
        changed = images.copy()
        changed[:, 32:] = 255 - changed[:, 32:]
        one, other = (purify(ComDefend(weights=weights), x) for x in (images, changed))
        np.testing.assert_array_equal(one[:, :32], other[:, :32])
        assert (one[:, 32:] != other[:, 32:]).mean() > 0.1

    def test_noise_is_an_image_s_own(self, weights: Path, images: Images, ctx: Context) -> None:
        same = image_set(np.repeat(images[:1], 3, axis=0))
        plain, again, noisy, other = (
            ComDefend(weights=weights, noise=noise).purify(same, replace(ctx, seed=seed)).images
            for noise, seed in ((0.0, 0), (0.0, 1), (0.05, 0), (0.05, 1))
        )
        np.testing.assert_array_equal(plain, again)
        assert (plain[0] == plain[1]).all()
        assert (noisy[0] != noisy[1]).any()
        assert (noisy != plain).any()
        assert (noisy != other).any()
        barely = ComDefend(weights=weights, noise=1e-4).purify(same, ctx).images
        assert 0 < (barely != plain).mean() < 0.1 * (noisy != plain).mean()
        np.testing.assert_array_equal(ComDefend(weights=weights, noise=0.05).purify(same, ctx).images, noisy)

    def test_test_images_are_left_alone_unless_asked_for(self, weights: Path) -> None:
        assert not ComDefend(weights=weights).apply_to_test

    def test_purified_sets_are_kept(self, weights: Path) -> None:
        assert is_kept(ComDefend(weights=weights))

    def test_it_is_trained_on_clean_images_once(
        self, images: Images, ctx: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[tuple[ImageSet, ComDefendRecipe]] = []

        def watched(data: ImageSet, recipe: ComDefendRecipe, *rest: Any) -> ComDefendNetwork:
            seen.append((data, recipe))
            return fit(data, recipe, *rest)

        monkeypatch.setattr(training, "fit", watched)
        clean = image_set(images[3:])
        plugin = ComDefend(preset="micro", clean=2, steps=1, divisor=16)
        assert plugin.clean_images == 2
        first = plugin.purify(image_set(images), replace(ctx, clean=clean))
        second = plugin.purify(image_set(images[::-1].copy()), replace(ctx, clean=clean))
        np.testing.assert_array_equal(first.images, second.images[::-1])
        [(data, recipe)] = seen
        assert data is clean
        assert recipe == ComDefendRecipe(divisor=16, steps=1, batch=20, learning_rate=recipe.learning_rate, seed=0)
        assert recipe.learning_rate == ComDefend.PRESETS["micro"]["learning_rate"]
        plugin.purify(image_set(images), replace(ctx, clean=image_set(images[:3])))
        assert len(seen) == 2
        assert not list((ctx.artifacts / "unfinished").iterdir())

    def test_given_weights_need_no_clean_images(self, weights: Path) -> None:
        assert ComDefend(weights=weights).clean_images == 0
        with pytest.raises(ValueError, match="clean, preset, steps would do nothing with weights that are given"):
            ComDefend(weights=weights, clean=3, preset="micro", steps=2)

    @pytest.mark.parametrize("content", [b"", b"no networks", None])
    def test_other_files_are_refused(
        self, content: bytes | None, tmp_path: Path, images: Images, purify: Purify
    ) -> None:
        path = tmp_path / "x.safetensors"
        if content is None:
            from safetensors.torch import save_file

            save_file({"x": torch.zeros(1)}, path)
        else:
            path.write_bytes(content)
        with pytest.raises(UserError, match="is not a file of ComDefend's networks"):
            purify(ComDefend(weights=path), images)


class TestTraining:
    def test_it_learns_to_pass_images_through_bits(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(training, "NOISE", 2.0)  # more takes longer
        y, x = np.mgrid[:32, :32]
        phases = np.random.default_rng(3).uniform(0, 6, (24, 1, 1, 3))
        smooth = (128 + 100 * np.sin(x[..., None] / 9 + phases) * np.cos(y[..., None] / 11 + phases)).astype(np.uint8)
        recipe = ComDefendRecipe(divisor=8, steps=60, batch=3, learning_rate=0.01)
        network = fit(image_set(smooth[:20]), recipe, "cpu", tmp_path, lambda *_: None)
        clean = as_batch(smooth[20:])
        with torch.no_grad():
            error = (network.purify(clean) - clean).square().mean()
        assert error < 0.7 * clean.var()  # 0.48; one image for all has 1, at best

    def test_noise_of_training(self, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[torch.Tensor] = []
        forward = ComDefendNetwork.forward

        def watched(self: ComDefendNetwork, x: torch.Tensor, noise: torch.Tensor) -> Any:
            seen.append(noise)
            return forward(self, x, noise)

        monkeypatch.setattr(ComDefendNetwork, "forward", watched)
        fit(image_set(images), RECIPE, "cpu", tmp_path, lambda *_: None)
        assert float(torch.stack(seen).std()) == pytest.approx(20, rel=0.02)
        assert not torch.equal(seen[0], seen[1])

    @pytest.mark.parametrize(("deadly", "left"), [(2, 4), (4, 1)])
    def test_it_continues_where_it_was_killed(
        self, deadly: int, left: int, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """4 steps, saved after 3 and in the end."""
        monkeypatch.setattr(training, "SAVE_EVERY", 3)
        data, quiet = image_set(images), (lambda *_: None)
        (tmp_path / "whole").mkdir()
        whole = fit(data, RECIPE, "cpu", tmp_path / "whole", quiet).state_dict()
        steps: list[int] = []
        step = training.step

        def dying(*arguments: Any) -> torch.Tensor:
            steps.append(1)
            if len(steps) == deadly:
                raise KeyboardInterrupt
            return step(*arguments)

        monkeypatch.setattr(training, "step", dying)
        with pytest.raises(KeyboardInterrupt):
            fit(data, RECIPE, "cpu", tmp_path, quiet)
        found = fit(data, RECIPE, "cpu", tmp_path, quiet).state_dict()
        assert len(steps) == deadly + left
        assert all(torch.equal(found[name], value) for name, value in whole.items())
        with pytest.raises(UserError, match="unfinished training with other settings"):
            fit(data, replace(RECIPE, seed=1), "cpu", tmp_path, quiet)

    def test_seed_decides_and_the_global_generator_stays(self, images: Images, tmp_path: Path) -> None:
        state = torch.get_rng_state()
        networks = (training.untrained(replace(RECIPE, seed=seed)) for seed in (0, 1))
        one, other = (network.get_parameter("compressor.0.weight") for network in networks)
        assert not torch.equal(one, other)
        found = []
        for run, seed in enumerate((0, 0, 1)):
            (tmp_path / str(run)).mkdir()
            recipe = replace(RECIPE, seed=seed, steps=2)
            found.append(fit(image_set(images), recipe, "cpu", tmp_path / str(run), lambda *_: None))
        one, again, other = (network.get_parameter("compressor.0.weight") for network in found)
        assert torch.equal(one, again)
        assert not torch.equal(one, other)
        assert torch.equal(torch.get_rng_state(), state)

    def test_a_rate_that_is_too_high_is_said(self, images: Images, tmp_path: Path) -> None:
        with pytest.raises(Diverged, match=r"at step 2 of 4: loss of ComDefend not finite"):
            fit(image_set(images), replace(RECIPE, learning_rate=1e30), "cpu", tmp_path, lambda *_: None)
        assert not (tmp_path / "state.pt").exists()


class TestCommand:
    @pytest.fixture
    def arguments(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)  # it is the test process' own
        images = np.random.default_rng(1).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
        labels = np.array([0, 1] * 3)
        np.savez(tmp_path / "small.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
        return [
            *("purifier", "comdefend", "-D", f"npz[path={tmp_path / 'small.npz'}]", "--preset", "micro"),
            *("--divisor", "16", "--steps", "2", "--batch", "3", "--device", "cpu", "--leave-out", "1"),
            *("--cache-dir", str(tmp_path / "cache"), "--out", str(tmp_path / "new.safetensors")),
        ]

    def test_networks_and_record(self, arguments: list[str], tmp_path: Path, images: Images, purify: Purify) -> None:
        done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        out = tmp_path / "new.safetensors"
        assert done.stdout == f"{out}\n"
        assert not out.with_name(out.name + ".unfinished").exists()
        with safe_open(out, framework="pt") as file:
            record = json.loads(file.metadata()["comdefend"])
        assert (record["divisor"], record["images"]) == (16, 4)
        assert re.search("--leave-out=1 --preset=micro --divisor=16 --steps=2 --batch=3 --seed=0", record["command"])
        assert purify(ComDefend(weights=out), images).shape == images.shape

    def test_nothing_is_overwritten(self, arguments: list[str], tmp_path: Path) -> None:
        (tmp_path / "new.safetensors").touch()
        with pytest.raises(UserError, match="exists already"):
            CliRunner().invoke(cli, arguments, catch_exceptions=False, standalone_mode=False)
