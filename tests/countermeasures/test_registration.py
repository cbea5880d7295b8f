from __future__ import annotations

from typing import cast

import pytest

import ue_bench_countermeasures
from ue_bench.api import Countermeasure, Preprocessing, Register, UserError
from ue_bench.catalogue.describe import describe
from ue_bench.catalogue.registry import Registry
from ue_bench.contract.registration import PluginRecord
from ue_bench_countermeasures.sets import SETS

DEEP_HIDING_COLUMNS = [
    "vanilla",
    "cutout",
    "cutmix",
    "mixup",
    "mean",
    "median",
    "bdr",
    "gray",
    "gaussian-noise",
    "gaussian-filter",
    "jpeg[quality=10]",
    "jpeg[quality=50]",
    "at",
]


def registered() -> Registry:
    registry = Registry()
    ue_bench_countermeasures.ue_bench_register(register=Register(registry, "ue-bench 0"))
    return registry


ENTRIES = registered().of_kind("countermeasure")
TRAINING_ONLY = {"pca", "purifier", "control"}
TEST_TOO = {"comdefend", "dipdefend"}  # of the purifiers


FURTHER = [
    *("resize", "tvm", "wavelet", "pca", "rotation", "randaugment", "autoaugment", "ueraser", "coin", "fgsm-rs"),
    *("early-stopping", "deep-feature-reweighting"),
    *("diffpure", "avatar", "le-jcdp", "eclipse", "orthogonal-projection", "d-vae"),
    *("comdefend", "dipdefend"),
    *("colour-space", "n-fgsm", "at-l2", "sdaan"),
    *("bridgepure", "bridgepure-lite", "dilution"),
]


def test_twelve_countermeasures_of_deep_hiding_and_others() -> None:
    names = {entry.name for entry in ENTRIES}
    assert names > set(FURTHER)
    assert len(names) == 12 + len(FURTHER)


def test_set_has_the_columns_of_the_tables_in_order() -> None:
    resolved = registered().resolve("countermeasure", "@dh12")
    assert [plugin.selector for plugin in resolved] == DEEP_HIDING_COLUMNS


@pytest.mark.parametrize("name", SETS)
def test_sets_hold_what_exists_in_canonical_form_and_once(name: str) -> None:
    members, summary = SETS[name]
    resolved = registered().resolve("countermeasure", f"@{name}")
    assert [plugin.selector for plugin in resolved] == list(members)
    assert summary


def test_sets_of_papers() -> None:
    assert [plugin.selector for plugin in registered().resolve("countermeasure", "@iss")][-1] == (
        "bdr+gray+jpeg[quality=10]"  # in the order of its code
    )
    extended = [plugin.selector for plugin in registered().resolve("countermeasure", "@extended18")]
    assert extended[:13] == DEEP_HIDING_COLUMNS
    assert "Our reading" in SETS["extended18"][1]
    apbench = registered().resolve("countermeasure", "@apbench")
    published = ["Std", "Cutout", "CutMix", "Mixup", "Gauss", "BDR", "Gray", "JPEG", "U-max", "AVATAR", "AT"]
    assert len(apbench) == len(published)
    assert {"jpeg[quality=90]", "jpeg[quality=50]", "resize", "median"} < set(SETS["raeg"][0])


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
class TestEveryEntry:
    def test_class_is_documented_and_has_its_source(self, entry: PluginRecord) -> None:
        found = entry.plugin_class
        assert issubclass(found, Countermeasure)
        assert found.__doc__
        assert ("Deep Hiding, Table 1" in found.__doc__) == (entry.name not in FURTHER)
        assert found.paper
        assert found.revision >= 1

    def test_parameters_are_described(self, entry: PluginRecord) -> None:
        assert len(describe(entry.plugin_class)) == len(entry.plugin_class.model_fields)
        assert all(info.description for info in entry.plugin_class.model_fields.values())

    def test_does_something_unless_it_is_vanilla(self, entry: PluginRecord) -> None:
        found = entry.plugin_class
        assert issubclass(found, Countermeasure)
        methods = [
            method
            for method in ("purify", "augment", "loss", "selection_score", "after_training")
            if found.overrides(method)
        ]
        assert len(methods) == {"vanilla": 0, "eclipse": 2, "sdaan": 2}.get(entry.name, 1)
        # what most of them learn belongs to the training set, so that test images cannot be treated alike
        assert issubclass(found, Preprocessing) == (
            "purify" in methods and (entry.name in TEST_TOO or not {entry.name, *entry.tags} & TRAINING_ONLY)
        )

    def test_selector_of_the_defaults_is_the_name(self, entry: PluginRecord) -> None:
        assert entry.plugin_class().selector == entry.name


def test_a_tag_tells_who_needs_clean_data() -> None:
    resolved = [cast(Countermeasure, registered().resolve("countermeasure", entry.name)[0]) for entry in ENTRIES]
    needy = {plugin.name for plugin in resolved if plugin.clean_images}
    assert needy == {e.name for e in ENTRIES if "needs-clean-data" in e.tags}
    assert needy >= {"early-stopping", "deep-feature-reweighting", "le-jcdp", "eclipse"}


GROUPS = {
    "augmentation": ["autoaugment", "coin", "cutmix", "cutout", "mixup", "randaugment", "rotation", "vanilla"],
    "preprocessing": [
        *("bdr", "colour-space", "gaussian-filter", "gaussian-noise", "gray", "jpeg", "mean", "median", "pca"),
        *("resize", "tvm"),
        "wavelet",
    ],
    "training": ["at", "at-l2", "fgsm-rs", "n-fgsm", "ueraser"],
    "diffusion": ["avatar", "bridgepure", "diffpure", "eclipse", "le-jcdp"],
    "needs-pairs": ["bridgepure", "bridgepure-lite", "dilution"],
    "purifier": [
        *(
            "avatar",
            "bridgepure",
            "bridgepure-lite",
            "comdefend",
            "d-vae",
            "diffpure",
            "dipdefend",
            "eclipse",
            "le-jcdp",
        ),
        *("orthogonal-projection", "sdaan"),
    ],
}


@pytest.mark.parametrize("tag", GROUPS)
def test_groups(tag: str) -> None:
    names = [plugin.name for plugin in registered().resolve("countermeasure", f"@{tag}")]
    assert sorted(names) == GROUPS[tag]


@pytest.mark.parametrize(
    "selector",
    [
        "jpeg[quality=0]",
        "jpeg[quality=101]",
        "jpeg[subsampling=4:1:1]",
        "bdr[bits=9]",
        "bdr[variant=floor]",
        "gray[variant=lightness]",
        "colour-space[variant=hue]",
        "at[eps=0]",
        "at[steps=-1]",
        "gaussian-noise[std=0]",
        "gaussian-filter[sigma=-1]",
        "cutout[length=1]",
        "cutout[fill=1]",
        "mixup[variant=em]",
        "resize[scale=0]",
        "resize[scale=1.5]",
        "tvm[weight=0]",
        "wavelet[wavelet=bior1.3]",
        "pca[components=0]",
        "rotation[degrees=181]",
        "randaugment[ops=0]",
        "randaugment[magnitude=31]",
        "ueraser[variant=half]",
        "ueraser[copies=0]",
        "coin[alpha=-1]",
        "fgsm-rs[steps=1]",
        "n-fgsm[noise=-1]",
        "at-l2[steps=0]",
        "at-l2[eps=0]",
        "early-stopping[clean=0]",
        "deep-feature-reweighting[clean=0]",
        "deep-feature-reweighting[rounds=0]",
        "deep-feature-reweighting[learning_rate=0]",
        "diffpure[t=-1]",
        "avatar[steps=1]",
        "avatar[reverse=ode]",
        "le-jcdp[t=0]",
        "le-jcdp[guidance=0,distance=pixels]",
        "eclipse[t=0,clean=5]",
        "eclipse[model=a/b,preset=micro]",
        "orthogonal-projection[epochs=0]",
        "d-vae[rate=-1]",
        "sdaan[eps=-1]",
        "sdaan[width=0]",
        "d-vae[width=1]",
        "d-vae[preset=small]",
        "comdefend[noise=-1]",
        "comdefend[weights=a,clean=5]",
        "dipdefend[iterations=0]",
        "dipdefend[recipe=svhn]",
    ],
)
def test_values_out_of_range_are_refused_in_one_line(selector: str) -> None:
    with pytest.raises(UserError) as caught:
        registered().resolve("countermeasure", selector)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "selector",
    [
        "jpeg[quality=10,subsampling=4:4:4]",
        "cutout[fill=mean]",
        "at[eps=4/255]",
        "gray+jpeg[quality=10]",
        "mixup+gray",
        "resize+ueraser[variant=max]",
    ],
)
def test_selectors_are_canonical(selector: str) -> None:
    [plugin] = registered().resolve("countermeasure", selector)
    assert plugin.selector == selector
    assert registered().resolve("countermeasure", plugin.selector) == [plugin]
