"""What comes back, as a protector of its own; and test images, protected with what is learnt from training images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from ue_bench.api import Context, ImageSet, Protector, UserError, digest_path
from ue_bench.catalogue.registry import registry
from ue_bench.store.perturbation import measure
from ue_bench_raeg import fit
from ue_bench_raeg.generator import Generator
from ue_bench_raeg.keys import write_generator
from ue_bench_raeg.protector import Raeg
from ue_bench_raeg.recovered import Recovered

from .helpers import patterned_set, randomised
from .test_raeg_protector import file_of

pytestmark = pytest.mark.usefixtures("one_block")


def psnr(clean: ImageSet, changed: ImageSet) -> float:
    found = measure(clean, changed, "none").psnr
    assert found is not None
    return found


def resolve(selector: str) -> Any:
    [found] = registry().resolve("protector", selector)
    return found


def test_recovered_images_are_what_recover_gives(tmp_path: Path, ctx: Context) -> None:
    path, data = file_of(tmp_path, 0.002), patterned_set(130)
    found = resolve(f'recovered[of="raeg[weights={path}]"]')
    back = found.protect(data, ctx)
    raeg = Raeg(weights=path)
    protected = raeg.protect(data, ctx)
    assert np.array_equal(back.images, raeg.recover(protected.images, ctx))
    assert np.array_equal(back.labels, data.labels)
    assert psnr(data, back) > psnr(data, protected) + 10


def test_the_key_of_a_protector_that_learns_is_used(
    tmp_path: Path, ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without weights, recovery needs the generator that protection has trained."""
    trained = train_instead(monkeypatch)
    data = patterned_set(12)
    back = Recovered(of=Raeg(preset="micro")).protect(data, ctx)
    assert trained == [data.fingerprint]
    assert psnr(data, back) > 35


def test_the_selector_names_no_folder_and_can_be_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file_of(tmp_path, 0.0)
    found = resolve(f'recovered[of="raeg[weights={path}]"]')
    assert found.selector == f'recovered[of="raeg[weights={path.name}#{digest_path(path)[:8]}]"]'
    monkeypatch.chdir(tmp_path)
    assert resolve(found.selector).identity() == found.identity()
    assert resolve("recovered[of=rae-igsm]").selector == "recovered[of=rae-igsm]"
    nested = "recovered[of=\"raeg[preset=micro,targets='resnet9[blocks=1]']\"]"
    assert resolve(nested).selector == nested
    assert resolve(nested) == resolve(resolve(nested).selector)


def test_what_is_in_the_weights_is_in_the_identity(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    one, other = file_of(tmp_path, 0.0), tmp_path / "elsewhere" / "generator-0.0.safetensors"
    other.write_bytes(file_of(tmp_path, 0.002).read_bytes())
    keys = [Recovered(of=Raeg(weights=path)) for path in (one, other)]
    assert keys[0].selector != keys[1].selector
    assert keys[0].identity() != keys[1].identity()
    assert Recovered(of=Raeg(preset="micro")).identity() != Raeg(preset="micro").identity()


def test_it_needs_what_the_protector_needs() -> None:
    of = Raeg(preset="micro")
    assert Recovered(of=of).uses_networks
    assert Recovered(of=of).cost(1000) == of.cost(1000)
    assert not Recovered(of=Raeg(weights=Path("x"))).uses_networks


@pytest.mark.parametrize("of", ["lsp", "'recovered[of=rae-igsm]'"])
def test_a_protector_without_a_way_back_is_refused(of: str) -> None:
    with pytest.raises(UserError, match="has no way back"):
        resolve(f"recovered[of={of}]")


def test_an_unknown_protector_is_refused() -> None:
    with pytest.raises(UserError, match="no protector 'reag'"):
        resolve("recovered[of=reag]")


class Forgetful(Protector):
    """Inverts images, and can undo that where the first pixel is below ``known``."""

    name: ClassVar[str] = "forgetful"
    known: int = 256

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        return data.with_images(255 - data.images)

    def recover(self, images: NDArray[np.uint8], ctx: Context) -> NDArray[np.uint8]:
        if (255 - images[:, 0, 0, 0] >= self.known).any():
            raise UserError("nothing is hidden in an image")
        return 255 - images


def test_images_without_a_way_back_stay_protected(ctx: Context) -> None:
    images = np.random.default_rng(0).integers(0, 256, (230, 4, 4, 3), dtype=np.uint8)
    data = ImageSet(images, np.zeros(230, np.int64), ("a",))
    lost = images[:, 0, 0, 0] >= 100
    assert lost[-1]
    back = Recovered(of=Forgetful(known=100)).protect(data, ctx).images
    assert np.array_equal(back[~lost], images[~lost])
    assert np.array_equal(back[lost], 255 - images[lost])
    with pytest.raises(UserError, match="nothing is hidden"):
        Recovered(of=Forgetful(known=0)).protect(data, ctx)


def train_instead(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Fingerprints of the sets that generators are trained on, without training them."""
    trained: list[str] = []

    def train_on(protector: Raeg, data: ImageSet, ctx: Context, key: Any, target: Path) -> None:
        trained.append(data.fingerprint)
        network = randomised(Generator(4, spectral=False), 0.002, seed=len(trained))
        write_generator(target / fit.FILE, network.plain_weights(), network.settings, {})

    monkeypatch.setattr(fit, "train_on", train_on)
    return trained


def test_test_images_are_protected_by_the_generator_of_the_training_images(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = train_instead(monkeypatch)
    train, test, raeg = patterned_set(12), patterned_set(9, seed=5), Raeg(preset="micro")
    raeg.protect(train, ctx)
    apart = replace(ctx, learn_from=train)
    protected = raeg.protect(test, apart)
    assert trained == [train.fingerprint]
    key = raeg.recovery_key(test, apart)
    assert trained == [train.fingerprint]
    back = raeg.recover(protected.images, replace(ctx, recovery_key=key))
    assert psnr(test, test.with_images(back)) > 35
    assert raeg.protect(test, ctx).images.tolist() != protected.images.tolist()  # this one learns from test images
    assert trained == [train.fingerprint, test.fingerprint]
