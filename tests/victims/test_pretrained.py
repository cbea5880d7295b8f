"""Fine-tuning from ImageNet weights, and the probe on frozen ones; no test downloads any."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from sets import colours
from torch import Tensor, nn

from ue_bench.api import EnvironmentProblem, UserError
from ue_bench.catalogue.protocols import protocol
from ue_bench.catalogue.registry import registry
from ue_bench.contract.plugin import Countermeasure
from ue_bench.engine.loop import make_optimizer, train
from ue_bench_victims import pretrained
from ue_bench_victims.heads import Normalised, Probe, without_classifier
from ue_bench_victims.layers import resnet9

from .helpers import victim

TORCHVISION = {name: name for name in pretrained.FILES} | {
    "vgg16": "vgg16_bn", "vgg19": "vgg19_bn", "mobilenetv2": "mobilenet_v2",
}  # fmt: skip
SMALL = ["resnet18", "resnet50", "mobilenetv2", "densenet121"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of downloaded weights, and no network."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def unreachable(url: str, *rest: Any, **more: Any) -> None:
        raise OSError(f"no route to {url}\nand more")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    return tmp_path / "hub" / "checkpoints"


def theirs(torchvision: Any, name: str, classes: int = 1000) -> nn.Module:
    torch.manual_seed(3)
    network: nn.Module = getattr(torchvision, TORCHVISION[name])(num_classes=classes)
    for module in network.modules():  # statistics as of a trained network
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def saved(network: nn.Module, file: Path, **changes: Any) -> Path:
    torch.save({k: v for k, v in network.state_dict().items() if changes.get(k, ...) is not None}, file)
    return file


def classifier(network: nn.Module) -> nn.Linear:
    return [m for m in network.modules() if isinstance(m, nn.Linear)][-1]


@pytest.mark.parametrize("name", SMALL)
def test_a_fine_tuned_network_starts_as_torchvisions(name: str, torchvision: Any, tmp_path: Path) -> None:
    """But for the classifier, which is then given theirs."""
    network = theirs(torchvision, name)
    ours = victim(f"{name}[weights={saved(network, tmp_path / 'w.pth')}]").build(10, (64, 64)).eval()
    assert classifier(ours).out_features == 10
    last = classifier(network)
    classifier(ours).weight, classifier(ours).bias = last.weight, last.bias
    x = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = network((x - mean) / std)
        assert torch.allclose(ours(x), expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("name", sorted(pretrained.FILES))
def test_files_are_those_of_torchvision(name: str, torchvision: Any) -> None:
    weights = torchvision.get_model_weights(TORCHVISION[name]).IMAGENET1K_V1
    assert pretrained.HOME + pretrained.FILES[name] == weights.url
    assert f"-{pretrained.checksum(name)}." in weights.url


@pytest.mark.parametrize("name", sorted(pretrained.FILES))
def test_names_of_torchvision_fit(name: str, torchvision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        state = getattr(torchvision, TORCHVISION[name])().state_dict()
        ours = victim(name)
        assert isinstance(ours, pretrained.Pretrained)
        network = ours.network(7, small=False)
    old = {k.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): v for k, v in state.items()}
    for found in (state, old) if name == "densenet121" else (state,):
        monkeypatch.setattr(pretrained, "_read", lambda file, found=found: found)
        pretrained.load(network, Path("w.pth"), name)


def test_old_files_do_not_count_batches(torchvision: Any, tmp_path: Path) -> None:
    network = theirs(torchvision, "resnet18")
    without = {k: None for k in network.state_dict() if k.endswith("num_batches_tracked")}
    assert victim(f"resnet18[weights={saved(network, tmp_path / 'w.pth', **without)}]").build(10, (32, 32))


def test_safetensors_will_do(torchvision: Any, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    network = theirs(torchvision, "resnet18")
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    ours: Any = victim(f"resnet18[weights={tmp_path / 'w.safetensors'}]").build(10, (32, 32))
    assert torch.equal(ours.network.stem[0].weight, network.get_parameter("conv1.weight"))


class TestWhatDoesNotFit:
    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"layer3.1.bn2.bias": None}, "it lacks stage3.1.body.1.1.bias"),
            ({"extra": torch.zeros(1)}, "it has an unknown extra"),
            ({"conv1.weight": torch.zeros(64, 3, 3, 3)}, "it has another shape of stem.0.weight"),
        ],
    )
    def test_state_dict_is_refused_in_one_line(
        self, change: dict[str, Any], reason: str, torchvision: Any, tmp_path: Path
    ) -> None:
        state = theirs(torchvision, "resnet18").state_dict() | change
        torch.save({k: v for k, v in state.items() if v is not None}, tmp_path / "w.pth")
        with pytest.raises(UserError, match=f"w.pth does not fit resnet18: {reason}") as caught:
            victim(f"resnet18[weights={tmp_path / 'w.pth'}]").build(10, (32, 32))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("content", [b"", b"no weights", b"\x80\x04N."])
    def test_file_is_refused_in_one_line(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "w.pth").write_bytes(content)
        with pytest.raises(UserError, match=r"w\.pth (cannot be read as weights|holds more than weights)") as caught:
            victim(f"resnet18[weights={tmp_path / 'w.pth'}]").build(10, (32, 32))
        assert "\n" not in str(caught.value)

    def test_checkpoint_with_more_than_weights(self, tmp_path: Path) -> None:
        torch.save({"state_dict": {}, "epoch": 3}, tmp_path / "w.pth")
        with pytest.raises(UserError, match=r"w\.pth holds more than weights by name"):
            victim(f"resnet18[weights={tmp_path / 'w.pth'}]").build(10, (32, 32))

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=f"no file at {tmp_path}/w.pth"):
            victim(f"resnet18[weights={tmp_path / 'w.pth'}]").build(10, (32, 32))

    @pytest.mark.parametrize(
        ("selector", "reason"),
        [
            ("resnet18[pretrained=true,stem=cifar]", "belong to the ImageNet stem"),
            ("vgg16[pretrained=true,weights=w.pth]", "give pretrained or weights, not both"),
            ("linear-probe[features=random,weights=w.pth]", "random features take no weights"),
        ],
    )
    def test_contradictions_are_refused(self, selector: str, reason: str) -> None:
        with pytest.raises(UserError, match=reason):
            victim(selector)


class TestDownloads:
    @pytest.mark.parametrize("selector", ["resnet18[pretrained=true]", "linear-probe"])
    def test_without_a_network_say_in_one_line_where_weights_belong(self, selector: str, hub: Path) -> None:
        with pytest.raises(EnvironmentProblem, match="weights of resnet18 cannot be downloaded: no route to") as caught:
            victim(selector).build(10, (32, 32))
        assert "\n" not in str(caught.value)
        assert f"resnet18-f37072fd.pth into {hub}" in caught.value.hint
        assert "resnet18[weights=FILE]" in caught.value.hint

    def test_what_is_there_is_used_when_its_checksum_is_right(
        self, hub: Path, torchvision: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.mkdir(parents=True)
        network = theirs(torchvision, "resnet18")
        content = saved(network, hub / "w.pth").read_bytes()
        file = f"resnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth"
        monkeypatch.setitem(pretrained.FILES, "resnet18", file)
        (hub / "w.pth").rename(hub / file)
        ours: Any = victim("resnet18[pretrained=true]").build(10, (32, 32))
        assert torch.equal(ours.network.stem[0].weight, network.get_parameter("conv1.weight"))
        probe: Any = victim("linear-probe").build(10, (32, 32))
        assert torch.equal(probe.features.network.stem[0].weight, network.get_parameter("conv1.weight"))

    def test_damaged_ones_are_reported(self, hub: Path) -> None:
        hub.mkdir(parents=True)
        (hub / "resnet18-f37072fd.pth").write_bytes(b"half of it")
        with pytest.raises(EnvironmentProblem, match="is damaged") as caught:
            victim("resnet18[pretrained=true]").build(10, (32, 32))
        assert caught.value.hint == "remove it"


class TestKeys:
    def test_the_checksum_of_the_weights_is_in_them(self, tmp_path: Path) -> None:
        plain, tuned = (victim(s).identity()["parameters"] for s in ("resnet18", "resnet18[pretrained=true]"))
        assert plain == {}
        assert tuned == {"pretrained": True, "weights": "f37072fd"}
        assert victim("linear-probe[network=vgg16]").identity()["parameters"]["weights"] == "6c64b313"
        assert "weights" not in victim("linear-probe[features=random]").identity()["parameters"]

    @pytest.mark.parametrize("selector", ["resnet18[weights={}]", "linear-probe[weights={}]"])
    def test_the_content_of_a_file_is_in_them_and_not_its_name(self, selector: str, tmp_path: Path) -> None:
        for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
            (tmp_path / name).write_bytes(content)
        first, same, other = (victim(selector.format(tmp_path / name)).identity() for name in "abc")
        assert first == same != other


def test_fine_tuning_changes_rate_and_shift_and_nothing_else() -> None:
    recipe = protocol("fast").under([], victim("resnet18[pretrained=true]").optimizer())
    assert {k for k, v in recipe if v != getattr(protocol("fast"), k)} <= {"learning_rate", "shift"}
    assert (recipe.learning_rate, recipe.shift) == (0.01, 0.0)
    assert victim("resnet18").optimizer() == {}


def test_pixels_are_normalised_channel_by_channel() -> None:
    x = torch.stack([torch.full((2, 2), v) for v in (0.485, 0.456 + 0.224, 0.406 - 0.225)])[None]
    seen = Normalised(nn.Identity())(x)
    assert torch.allclose(seen.mean((2, 3)), torch.tensor([[0.0, 1.0, -1.0]]), atol=1e-5)
    assert Normalised(nn.Identity()).state_dict() == {}


class TestProbe:
    def probe(self) -> Probe:
        torch.manual_seed(0)
        return Probe(*without_classifier(resnet9(5, 8)), num_classes=3)

    def test_features_stay_as_they_are(self) -> None:
        """In training mode, and through a whole training, statistics of batch normalisation included."""
        model, outcome = train(
            self.probe, colours(96, 0, 16), colours(60, 1, 16), protocol("smoke").model_copy(update={"batch": 16}),
            Countermeasure(), "cpu", "fp32", 0, lambda *progress: None,
        )  # fmt: skip
        after: Any = model.network
        fresh, learnt = self.probe().state_dict(), after.state_dict()
        changed = {name.partition(".")[0] for name in fresh if not torch.equal(fresh[name], learnt[name])}
        assert changed == {"normalise", "linear"}
        assert outcome.accuracy_train[-1] is not None
        assert outcome.accuracy_train[-1] > 60

    def test_two_tensors_are_learnt(self) -> None:
        probe = self.probe()
        assert [n for n, p in probe.named_parameters() if p.requires_grad] == ["linear.weight", "linear.bias"]
        assert probe.linear.weight.shape == (3, 32)
        optimizer = make_optimizer(probe, protocol("smoke"))
        assert len(optimizer.param_groups) == 1

    def test_modes(self) -> None:
        probe = self.probe().train()
        assert (probe.training, probe.normalise.training, probe.features.training) == (True, True, False)
        assert not probe.eval().normalise.training

    def test_gradients_reach_the_image(self) -> None:
        x = torch.rand(4, 3, 16, 16, requires_grad=True)
        self.probe()(x).sum().backward()
        assert x.grad is not None
        assert x.grad.abs().max() > 0

    def test_random_features_are_those_of_the_network_before_its_classifier(self) -> None:
        torch.manual_seed(0)
        whole: Any = victim("resnet18").build(10, (32, 32)).eval()
        torch.manual_seed(0)
        probe: Any = victim("linear-probe[features=random]").build(10, (32, 32)).eval()
        x = torch.rand(2, 3, 32, 32)
        with torch.no_grad():
            features: Tensor = probe.features(x)
            assert torch.allclose(whole.linear(features), whole(x), atol=1e-5)
            assert torch.allclose(probe(x), probe.linear(features / (1 + 1e-5) ** 0.5), atol=1e-5)  # fresh statistics

    @pytest.mark.parametrize("name", ["vgg16", "densenet121", "mobilenetv2"])
    def test_takes_the_classifier_of_every_network_away(self, name: str) -> None:
        with torch.device("meta"):
            probe: Any = victim(f"linear-probe[network={name},features=random]").build(10, (32, 32))
            whole = victim(name).build(10, (32, 32))
        assert probe.linear.in_features == classifier(whole).in_features
        assert probe(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 10)


def test_registered() -> None:
    assert {"linear-probe", "simclr"} <= {e.name for e in registry().of_kind("victim")}
