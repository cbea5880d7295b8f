from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import ue_bench_datasets
from ue_bench.catalogue.registry import Registry
from ue_bench.contract.registration import Register

NAMES = ["cifar10", "cifar100", "demo", "idx", "imagefolder", "npz", "parquet", "stl10", "svhn"]


@pytest.fixture
def registered() -> Registry:
    registry = Registry()
    ue_bench_datasets.ue_bench_register(register=Register(registry, "ue-bench"))
    return registry


def test_all_datasets_register_and_load(registered: Registry) -> None:
    assert [entry.name for entry in registered.of_kind("dataset")] == NAMES
    assert all(entry.plugin_class.name == entry.name and entry.summary for entry in registered.of_kind("dataset"))


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_described(registered: Registry, name: str) -> None:
    fields = registered.find("dataset", name).plugin_class.model_fields
    assert [field for field, info in fields.items() if not info.description] == []


def test_plugin_modules_import_nothing_heavy() -> None:
    modules = [
        importlib.import_module(f"ue_bench_datasets.{n}").__name__
        for n in ("arrays", "demo", "cifar", "parquet", "npz")
    ]
    code = f"import sys, ue_bench_datasets, {', '.join([*modules, 'ue_bench_datasets.imagefolder'])}\n"
    code += "print([m for m in ('torch', 'torchvision', 'pyarrow', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
