"""``ue-bench purifier train``, and the training behind it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from ue_bench.api import Diverged, EnvironmentProblem, ImageSet, UserError, open_dataset
from ue_bench.cli.main import cli
from ue_bench.grid.surrogates import Surrogates
from ue_bench_countermeasures.diffusion import training
from ue_bench_countermeasures.diffusion.recipe import PRESETS, Recipe
from ue_bench_countermeasures.diffusion.weights import locate
from ue_bench_countermeasures.purifier_commands import without_first
from ue_bench_countermeasures.purifiers import Avatar

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.usefixtures("one_thread")

TINY: dict[str, Any] = {
    "size": 8, "channels": (8, 8), "layers": 1, "attention": (), "middle_attention": False, "groups": 4,
    "dropout": 0.2, "steps": 5, "batch": 4, "learning_rate": 1e-3, "warmup": 2, "ema": 0.5, "pad": 1,
}  # fmt: skip


def smooth(count: int, side: int = 8) -> ImageSet:
    y, x = np.mgrid[:side, :side]
    phases = np.random.default_rng(0).uniform(0, 6, (count, 1, 1, 3))
    images = 128 + 100 * np.sin(x[..., None] / 3 + phases) * np.cos(y[..., None] / 4 + phases)
    return ImageSet(images.astype(np.uint8), np.arange(count) % 3, ("a", "b", "c"), "waves")


def silent(done: float, total: float, text: str) -> None:
    pass


def fit(tmp_path: Path, name: str = "model", report: Any = silent, **recipe: Any) -> dict[str, torch.Tensor]:
    """Weights after a training on waves; its checkpoint is ``tmp_path/checkpoint``."""
    out = tmp_path / name
    training.fit(smooth(10), Recipe(**(TINY | recipe)), "cpu", False, tmp_path / "checkpoint", out, report)
    found: dict[str, torch.Tensor] = diffusers.UNet2DModel.from_pretrained(out / "unet").state_dict()
    return found


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


class TestFit:
    def test_loss_falls_and_the_record_says_what_was_done(self, tmp_path: Path) -> None:
        fit(tmp_path, steps=60, learning_rate=3e-3, batch=8, dropout=0.0)
        record = json.loads((tmp_path / "model" / "purifier.json").read_text(encoding="utf-8"))
        losses = [point["loss"] for point in record["curve"]]
        assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])
        assert record["curve"][-1]["step"] == 60
        assert record["data"]["fingerprint"] == smooth(10).fingerprint
        assert record["recipe"] == json.loads(json.dumps(vars(Recipe(**TINY)))) | {
            "steps": 60, "learning_rate": 3e-3, "batch": 8, "dropout": 0.0,
        }  # fmt: skip
        assert record["checksum"] == locate(tmp_path / "model").checksum
        assert locate(tmp_path / "model").source == f"trained on {smooth(10).fingerprint}"

    def test_the_pipeline_of_the_library_reads_it(self, tmp_path: Path) -> None:
        fit(tmp_path, timesteps=50, schedule="cosine")
        pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path / "model")
        assert pipeline.scheduler.config.num_train_timesteps == 50
        assert pipeline.scheduler.config.beta_schedule == "squaredcos_cap_v2"
        assert pipeline.unet.config.sample_size == 8

    @pytest.mark.parametrize("stop", [1, 3])
    def test_a_training_that_was_killed_ends_the_same(
        self, stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(training, "SAVE_SECONDS", 0.0)
        seen: list[float] = []

        def report(done: float, total: float, text: str) -> None:
            seen.append(done)
            if len(seen) == stop + 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "a", report=report)
        continued = fit(tmp_path / "a", report=report)
        assert seen == [*range(1, stop + 2), *range(stop + 1, 6)]
        assert same(continued, fit(tmp_path / "b"))
        curves = [json.loads((tmp_path / n / "model/purifier.json").read_text())["curve"] for n in "ab"]
        assert curves[0] == curves[1]

    def test_another_training_does_not_continue_it(self, tmp_path: Path) -> None:
        fit(tmp_path, "first")
        with pytest.raises(UserError, match="holds an unfinished training with other settings"):
            fit(tmp_path, "second", steps=6)

    def test_the_global_generator_is_left_alone_and_does_not_matter(self, tmp_path: Path) -> None:
        torch.manual_seed(1)
        first = fit(tmp_path / "a")
        expected = torch.Generator().manual_seed(1)
        assert torch.equal(torch.rand(3), torch.rand(3, generator=expected))
        assert same(first, fit(tmp_path / "b"))
        assert not same(first, fit(tmp_path / "c", seed=1))

    def test_dropout_is_on(self, tmp_path: Path) -> None:
        assert not same(fit(tmp_path / "a"), fit(tmp_path / "b", dropout=0.0))

    def test_gradients_are_clipped(self, tmp_path: Path) -> None:
        """To so little that Adam's own constant outweighs them."""
        clipped, untrained = fit(tmp_path / "a", clip=1e-13), fit(tmp_path / "b", learning_rate=1e-12)
        moved = [float((clipped[name] - untrained[name]).abs().max()) for name in clipped]
        assert max(moved) < 1e-5

    def test_weights_are_a_moving_average(self, tmp_path: Path) -> None:
        """Its decay is that of the recipe, but (1 + n) / (10 + n) in early step n, as in diffusers."""
        recipe = Recipe(**TINY)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            network = diffusers.UNet2DModel(**recipe.network).train()
        run = training._Run(network, diffusers.DDPMScheduler(**recipe.scheduler), recipe, "cpu", False)
        average: dict[str, torch.Tensor] = {}
        for step in range(5):
            run.take(smooth(10))
            run.step += 1
            decay = min(0.5, (1 + step) / (10 + step)) if step else 0.0
            for name, value in network.state_dict().items():
                average[name] = value.clone() + decay * (average.get(name, value) - value)
        found = fit(tmp_path)
        assert not same(found, network.state_dict())
        for name, value in average.items():
            torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-5)

    def test_only_the_lowest_noise_levels_are_trained(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[int] = []
        add_noise = diffusers.DDPMScheduler.add_noise

        def watch(scheduler: Any, x: torch.Tensor, noise: torch.Tensor, level: torch.Tensor) -> Any:
            seen.extend(level.tolist())
            return add_noise(scheduler, x, noise, level)

        monkeypatch.setattr(diffusers.DDPMScheduler, "add_noise", watch)
        fit(tmp_path, deepest=3, steps=15)
        assert set(seen) == {0, 1, 2}
        monkeypatch.undo()
        avatar = Avatar(model=tmp_path / "model", t=4)
        with pytest.raises(UserError, match="knows 3 noise levels, t=4 needs more"):
            avatar.purify(smooth(2), context(tmp_path))
        assert len(Avatar(model=tmp_path / "model", t=3).purify(smooth(2), context(tmp_path))) == 2

    def test_images_of_another_size_are_resized(self, tmp_path: Path) -> None:
        training.fit(smooth(6, side=13), Recipe(**TINY), "cpu", False, tmp_path / "c", tmp_path / "model", silent)
        assert locate(tmp_path / "model").size == (8, 8)

    def test_a_side_that_does_not_suit_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"side 9 does not suit the network \(it needs a multiple of 2\)"):
            fit(tmp_path, size=9)

    def test_a_training_that_fails_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(Diverged, match=r"at step \d of \d+: loss of the diffusion model not finite"):
            fit(tmp_path, learning_rate=1e30, warmup=0, steps=20)
        assert not (tmp_path / "model").exists()
        assert not (tmp_path / "checkpoint" / "state.pt").exists()


def context(tmp_path: Path) -> Any:
    from ue_bench.api import Context

    return Context(
        device="cpu",
        seed=0,
        scratch=tmp_path,
        artifacts=tmp_path / "artifacts",
        data_dir=tmp_path,
        networks=Surrogates(),
    )


class TestBatch:
    def rows(self, recipe: Recipe, step: int) -> list[int]:
        """Which images a step takes, told by their constant level."""
        images = np.broadcast_to(np.arange(10, dtype=np.uint8)[:, None, None, None], (10, 8, 8, 3))
        x = training.batch(images, recipe, step, torch.Generator().manual_seed(step))
        return [round(v) for v in ((x.amax(dim=(1, 2, 3)) + 1) * 127.5).tolist()]

    def test_no_image_comes_twice_in_a_pass(self) -> None:
        recipe = Recipe(**TINY)
        passes = [self.rows(recipe, 2 * n) + self.rows(recipe, 2 * n + 1) for n in range(20)]
        assert all(len(set(p)) == 8 for p in passes)
        assert set().union(*passes) == set(range(10))
        assert len({tuple(p) for p in passes}) == 20

    def test_images_are_mirrored_and_shifted(self) -> None:
        image = np.arange(192, dtype=np.uint8).reshape(1, 8, 8, 3)
        recipe = Recipe(**(TINY | {"batch": 1}))
        whole = torch.tensor(image).permute(0, 3, 1, 2).float() / 127.5 - 1
        padded = torch.nn.functional.pad(whole, [1] * 4, value=-1.0)
        mirrored = torch.nn.functional.pad(whole.flip(3), [1] * 4, value=-1.0)
        seen = set()
        for step in range(100):
            x = training.batch(image, recipe, step, torch.Generator().manual_seed(step))
            seen |= {
                (flip, i, j)
                for flip, frame in enumerate((padded, mirrored))
                for i in range(3)
                for j in range(3)
                if torch.equal(x, frame[:, :, i : i + 8, j : j + 8])
            }
        assert len(seen) == 18


def test_learning_rate_rises_and_falls() -> None:
    recipe = Recipe(**(TINY | {"steps": 100, "warmup": 10}))
    assert [training.learning_rate(recipe, s) for s in (0, 4, 9, 50, 99)] == pytest.approx([1e-4, 5e-4] + 3 * [1e-3])
    falling = replace(recipe, decay="cosine", warmup=0)
    assert [training.learning_rate(falling, s) for s in (0, 50, 99)] == pytest.approx([1e-3, 5e-4, 0], abs=3e-7)


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    data = smooth(12)
    path = tmp_path / "small.npz"
    np.savez(path, x_train=data.images, y_train=data.labels, x_test=data.images[:6], y_test=data.labels[:6])
    monkeypatch.setitem(PRESETS, "micro", TINY)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)  # it is the test process' own
    monkeypatch.setenv("UE_BENCH_CACHE", str(tmp_path / "cache"))
    return ["purifier", "train", "--dataset", f"npz[path={path}]", "--preset", "micro", "--steps", "3",
            "--device", "cpu", "--precision", "fp32", "--out", str(tmp_path / "new")]  # fmt: skip


def run(arguments: list[str]) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


class TestCommand:
    def test_it_writes_a_model_that_purifies(self, arguments: list[str], tmp_path: Path) -> None:
        result = run(arguments)
        assert result.stdout.strip() == str(tmp_path / "new")
        assert "train diffusion model, loss" in result.stderr
        assert not (tmp_path / "new.unfinished").exists()
        record = json.loads((tmp_path / "new" / "purifier.json").read_text(encoding="utf-8"))
        assert re.sub("#[0-9a-f]{8}", "", record["command"]) == (  # the digest of the file
            "ue-bench purifier train '--dataset=npz[path=small.npz]' --preset=micro --steps=3 --seed=0 "
            "--precision=fp32 --device=cpu --threads=1 --out=new"
        )
        assert str(tmp_path) not in json.dumps(record)
        purified = Avatar(model=tmp_path / "new", t=3).purify(smooth(3), context(tmp_path))
        assert (purified.images != smooth(3).images).any()

    def test_the_recorded_command_can_be_given_again(self, arguments: list[str], tmp_path: Path) -> None:
        run([*arguments, "--seed=3", "--ema=0.9", "--schedule=cosine", "--deepest=9", "--leave-out=1"])
        record = json.loads((tmp_path / "new" / "purifier.json").read_text(encoding="utf-8"))
        again = shlex.split(record["command"].replace("small.npz", str(tmp_path / "small.npz")))[1:]
        run([*again[:-1], f"--out={tmp_path / 'again'}"])
        assert locate(tmp_path / "again").checksum == record["checksum"]

    def test_options_reach_the_recipe(self, arguments: list[str], tmp_path: Path) -> None:
        arguments[arguments.index("--steps") + 1] = "1"
        options = {"size": 10, "batch": 2, "learning_rate": 0.01, "ema": 0.9, "timesteps": 70, "schedule": "cosine"}
        run([*arguments, *(f"--{name.replace('_', '-')}={value}" for name, value in options.items()), "--deepest=5"])
        record = json.loads((tmp_path / "new" / "purifier.json").read_text(encoding="utf-8"))
        assert options.items() <= record["recipe"].items()
        assert (record["recipe"]["deepest"], record["recipe"]["steps"]) == (5, 1)

    def test_images_that_others_train_on_can_be_left_out(self, arguments: list[str], tmp_path: Path) -> None:
        run([*arguments, "--leave-out", "3"])
        record = json.loads((tmp_path / "new" / "purifier.json").read_text(encoding="utf-8"))
        _, data = open_dataset(f"npz[path={tmp_path / 'small.npz'}]")
        # three classes take turns, so that the first three of each are the first nine
        rest = ImageSet(data.images[9:], data.labels[9:], data.class_names, data.source)
        assert record["data"]["fingerprint"] == rest.fingerprint
        assert record["data"]["images"] == 3

    def test_it_continues_where_it_was_killed(
        self, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(training, "SAVE_SECONDS", 0.0)
        taken: list[int] = []
        take = training._Run.take

        def killed(self: Any, data: ImageSet) -> float:
            taken.append(self.step)
            if len(taken) == 3:
                raise KeyboardInterrupt
            return take(self, data)

        monkeypatch.setattr(training._Run, "take", killed)
        assert CliRunner().invoke(cli, arguments).exit_code != 0
        assert (tmp_path / "new.unfinished" / "state.pt").exists()
        assert not (tmp_path / "new").exists()
        run(arguments)
        assert taken == [0, 1, 2, 2]
        assert not (tmp_path / "new.unfinished").exists()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"--size": "9"}, "--size 9 does not suit"),
            ({"--deepest": "1001"}, "--deepest 1001 is more than 1000"),
            ({"--device": "cuda:99"}, "no device 'cuda:99'"),
            ({"--dataset": "nothing_like_it"}, "no dataset"),
            ({"--leave-out": "4"}, "no class has more than 4"),
        ],
    )
    def test_mistakes_are_one_line(self, arguments: list[str], change: dict[str, str], message: str) -> None:
        for option, value in change.items():
            if option in arguments:
                arguments[arguments.index(option) + 1] = value
            else:
                arguments += [option, value]
        with pytest.raises(UserError, match=message) as caught:
            run(arguments)
        assert "\n" not in str(caught.value)

    def test_nothing_is_overwritten(self, arguments: list[str], tmp_path: Path) -> None:
        (tmp_path / "new").mkdir()
        with pytest.raises(UserError, match="exists already"):
            run(arguments)
        with pytest.raises(EnvironmentProblem, match="cannot write"):
            run([*arguments[:-1], str(tmp_path / "no" / "where")])

    def test_help_imports_no_torch(self) -> None:
        code = "import sys; from ue_bench.cli.main import cli; "
        code += "cli(['purifier', 'train', '--help'], standalone_mode=False); assert 'torch' not in sys.modules"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "--leave-out" in done.stdout


def test_first_images_of_every_class_are_left_out() -> None:
    labels = np.array([2, 0, 0, 2, 1, 0, 2, 1])
    images = np.broadcast_to(np.arange(8, dtype=np.uint8)[:, None, None, None], (8, 2, 2, 3))
    found = without_first(ImageSet(images, labels, ("a", "b", "c")), 1)
    assert found.images[:, 0, 0, 0].tolist() == [2, 3, 5, 6, 7]
    assert found.labels.tolist() == [0, 2, 0, 2, 1]
