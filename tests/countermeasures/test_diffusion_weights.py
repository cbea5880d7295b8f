"""Where the weights of purifiers come from, and that they are part of the key."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from ue_bench.api import EnvironmentProblem, UserError, ValidationError, digest_path
from ue_bench_countermeasures.diffusion import weights as module
from ue_bench_countermeasures.diffusion.weights import locate
from ue_bench_countermeasures.purifiers import Avatar, DiffPure
from ue_bench_countermeasures.relearning import Eclipse, LeJcdp

from .helpers import tiny_model

pytest.importorskip("diffusers")
WITH_MODEL = [DiffPure, Avatar, Eclipse, LeJcdp]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "model")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of the hub's client on a machine without a network."""
    from huggingface_hub import constants

    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


def put_on(hub: Path, name: str, model: Path) -> None:
    """``model`` as if it had been fetched."""
    folder = hub / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("c0ffee", encoding="utf-8")
    shutil.copytree(model, folder / "snapshots" / "c0ffee")


def flatten(model: Path) -> None:
    """As the oldest repositories are: everything in one folder."""
    for part in ("unet", "scheduler"):
        for file in (model / part).iterdir():
            file.rename(model / file.name)
        (model / part).rmdir()


def edit(file: Path, **values: Any) -> None:
    content = json.loads(file.read_text(encoding="utf-8")) | values
    file.write_text(json.dumps(content), encoding="utf-8")


class TestChecksum:
    def test_is_of_the_content_and_not_of_the_place(self, model: Path, tmp_path: Path) -> None:
        first = locate(model).identity
        assert first["source"] == "folder"
        assert len(first["checksum"]) == 32
        shutil.copytree(model, tmp_path / "elsewhere")
        edit(tmp_path / "elsewhere" / "unet" / "config.json", _diffusers_version="0.1", _name_or_path="x")
        (tmp_path / "elsewhere" / "README.md").write_text("words", encoding="utf-8")
        assert locate(tmp_path / "elsewhere").identity == first

    def test_tells_weights_network_and_noise_apart(self, model: Path, tmp_path: Path) -> None:
        found = {locate(model).checksum, locate(tiny_model(tmp_path / "seed", seed=1)).checksum}
        changes: list[tuple[str, str, dict[str, Any]]] = [
            ("noise", "scheduler/scheduler_config.json", {"beta_end": 0.03}),
            ("network", "unet/config.json", {"freq_shift": 1}),
        ]
        for name, file, change in changes:
            shutil.copytree(model, tmp_path / name)
            edit(tmp_path / name / file, **change)
            found.add(locate(tmp_path / name).checksum)
        assert len(found) == 4

    def test_is_the_same_where_everything_lies_in_one_folder(self, model: Path, tmp_path: Path) -> None:
        first = locate(model).checksum
        flat = shutil.copytree(model, tmp_path / "flat")
        flatten(flat)
        assert locate(flat).checksum == first
        assert locate(flat).scheduler["_class_name"] == "DDPMScheduler"


@pytest.mark.parametrize("kind", WITH_MODEL, ids=lambda k: k.name)
class TestKey:
    def test_holds_checksum_and_source(self, kind: Any, model: Path, tmp_path: Path) -> None:
        plugin = kind(model=model)
        assert plugin.identity()["parameters"]["model"] == {"checksum": locate(model).checksum, "source": "folder"}
        copy = shutil.copytree(model, tmp_path / "copy")
        assert kind(model=str(copy)).identity() == plugin.identity()
        assert kind(model=tiny_model(tmp_path / "other", seed=1)).identity() != plugin.identity()

    def test_selector_shows_no_folder(self, kind: Any, model: Path) -> None:
        assert kind(model=str(model)).selector == f"{kind.name}[model=model#{digest_path(model)[:8]}]"

    @pytest.mark.parametrize("missing", ["nobody/nothing", "/no/such/folder", "one two"])
    def test_missing_weights_are_one_line(self, kind: Any, missing: str, hub: Path) -> None:
        with pytest.raises(EnvironmentProblem, match=f"no diffusion model.*{missing}") as caught:
            kind(model=missing).identity()
        assert "\n" not in str(caught.value)
        assert "ue-bench purifier train" in caught.value.hint


@pytest.mark.parametrize("kind", [kind for kind in WITH_MODEL if kind is not LeJcdp], ids=lambda k: k.name)
def test_the_key_holds_nothing_where_no_model_is_used(kind: Any, hub: Path) -> None:
    assert kind(t=0).identity()["parameters"] == {"t": 0}


@pytest.mark.parametrize("kind", [DiffPure, Avatar])
def test_the_default_is_the_model_of_the_hub(kind: Any, hub: Path, model: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"google/ddpm-cifar10-32 on this machine, nor from the hub: \w"):
        kind().identity()
    put_on(hub, "google/ddpm-cifar10-32", model)
    assert kind().identity()["parameters"]["model"] == {
        "checksum": locate(model).checksum,
        "source": "hub google/ddpm-cifar10-32",
    }


@pytest.mark.parametrize("flat", [False, True])
def test_pickled_weights_of_the_hub_are_taken_where_there_are_no_others(hub: Path, model: Path, flat: bool) -> None:
    import torch
    from safetensors.torch import load_file

    [file] = (model / "unet").glob("*.safetensors")
    torch.save(load_file(file), file.with_suffix(".bin"))
    if flat:
        flatten(model)
    put_on(hub, "me/both", model)
    assert [f.suffix for f in locate("me/both").files] == [".safetensors"]
    for other in model.rglob("*.safetensors"):
        other.unlink()
    put_on(hub, "me/pickled", model)
    found = locate("me/pickled")
    assert [f.suffix for f in found.files] == [".bin"]
    assert found.source == "hub me/pickled"


@pytest.mark.parametrize("part", ["unet/config.json", "unet/diffusion_pytorch_model.safetensors"])
def test_a_folder_that_lacks_a_part_is_no_model(part: str, model: Path) -> None:
    (model / part).unlink()
    with pytest.raises(EnvironmentProblem, match="no diffusion model at"):
        locate(model)


def test_noise_is_that_of_ddpm_where_nothing_is_said(model: Path) -> None:
    shutil.rmtree(model / "scheduler")
    found = locate(model)
    assert found.scheduler == {}
    assert found.levels == 1000


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("unet/config.json", {"in_channels": 1}, "for 1 channels"),
        ("unet/config.json", {"out_channels": 4}, "4 output channels"),
        ("unet/config.json", {"num_class_embeds": 10}, "told the class"),
        ("unet/config.json", {"_class_name": "UNet2DConditionModel"}, "a UNet2DConditionModel, not"),
        ("scheduler/scheduler_config.json", {"_class_name": "ScoreSdeVeScheduler"}, "not a DDPM's"),
        ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}, "does not predict noise"),
    ],
)
def test_networks_of_other_kinds_are_refused(file: str, change: dict[str, Any], message: str, model: Path) -> None:
    edit(model / file, **change)
    with pytest.raises(UserError, match=message) as caught:
        locate(model)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_those_of_their_record_are_refused(model: Path) -> None:
    record = {"checksum": locate(model).checksum, "data": {"fingerprint": "f00d"}, "recipe": {"deepest": 7}}
    (model / module.RECORD).write_text(json.dumps(record), encoding="utf-8")
    found = locate(model)
    assert found.source == "trained on f00d"
    assert found.levels == 7
    edit(model / module.RECORD, checksum="0")
    with pytest.raises(ValidationError, match="are not those of its purifier"):
        locate(model)


@pytest.mark.parametrize("change", [{"layers_per_block": 2}, {"block_out_channels": [8, 16]}])
def test_files_that_do_not_fit_together_are_one_line(change: dict[str, Any], model: Path) -> None:
    """diffusers itself fills what is missing with random weights."""
    from ue_bench_countermeasures.diffusion.denoiser import load

    edit(model / "unet" / "config.json", **change)
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        load(locate(model), "cpu", "large")
    assert "\n" not in str(caught.value)


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(EnvironmentProblem, match=r"need diffusers \(pip install 'ue-bench\[diffusion\]'\)"):
        module.diffusers()
