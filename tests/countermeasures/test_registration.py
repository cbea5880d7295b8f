from __future__ import annotations

import pytest

import ue_bench_countermeasures
from ue_bench.api import Countermeasure, Preprocessing, Register, UserError
from ue_bench.registry import Entry, Registry, describe

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


FURTHER = ["resize", "tvm", "wavelet", "pca", "rotation", "randaugment", "autoaugment", "ueraser", "coin", "fgsm-rs"]


def test_twelve_countermeasures_of_deep_hiding_and_others() -> None:
    names = {entry.name for entry in ENTRIES}
    assert names > set(FURTHER)
    assert len(names) == 12 + len(FURTHER)


def test_set_has_the_columns_of_the_tables_in_order() -> None:
    resolved = registered().resolve("countermeasure", "@dh12")
    assert [plugin.selector for plugin in resolved] == DEEP_HIDING_COLUMNS


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
class TestEveryEntry:
    def test_class_is_documented_and_has_its_source(self, entry: Entry) -> None:
        found = entry.plugin_class
        assert issubclass(found, Countermeasure)
        assert found.__doc__
        assert ("Deep Hiding, Table 1" in found.__doc__) == (entry.name not in FURTHER)
        assert found.paper
        assert found.revision >= 1

    def test_parameters_are_described(self, entry: Entry) -> None:
        assert len(describe(entry.plugin_class)) == len(entry.plugin_class.model_fields)
        assert all(info.description for info in entry.plugin_class.model_fields.values())

    def test_does_something_unless_it_is_vanilla(self, entry: Entry) -> None:
        found = entry.plugin_class
        assert issubclass(found, Countermeasure)
        methods = [method for method in ("purify", "augment", "loss") if found.overrides(method)]
        assert len(methods) == (0 if entry.name == "vanilla" else 1)
        # principal components belong to the training set, so that test images cannot be treated alike
        assert issubclass(found, Preprocessing) == ("purify" in methods and entry.name != "pca")

    def test_selector_of_the_defaults_is_the_name(self, entry: Entry) -> None:
        assert entry.plugin_class().selector == entry.name


GROUPS = {
    "augmentation": ["autoaugment", "coin", "cutmix", "cutout", "mixup", "randaugment", "rotation", "vanilla"],
    "preprocessing": [
        *("bdr", "gaussian-filter", "gaussian-noise", "gray", "jpeg", "mean", "median", "pca", "resize", "tvm"),
        "wavelet",
    ],
    "training": ["at", "fgsm-rs", "ueraser"],
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
