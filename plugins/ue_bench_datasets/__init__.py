"""Datasets: the embedded demo, CIFAR, and whatever lies in folders, Parquet files and NumPy archives."""

from __future__ import annotations

from ue_bench.api import Register, hookimpl


@hookimpl
def ue_bench_register(register: Register) -> None:
    register(
        "dataset", "demo", "ue_bench_datasets.demo:Demo", "generated pictures of ten shapes, 32x32", ("generated",)
    )
    register("dataset", "cifar10", "ue_bench_datasets.cifar:Cifar10", "CIFAR-10, 60,000 photographs, 32x32", ("cifar",))
    register("dataset", "cifar100", "ue_bench_datasets.cifar:Cifar100", "CIFAR-100, 100 classes, 32x32", ("cifar",))
    register(
        "dataset",
        "imagefolder",
        "ue_bench_datasets.imagefolder:ImageFolder",
        "a folder with one subfolder of images for each class",
        ("local",),
    )
    register(
        "dataset",
        "parquet",
        "ue_bench_datasets.parquet:Parquet",
        "Parquet files as the Hugging Face hub keeps them",
        ("local",),
    )
    register(
        "dataset",
        "npz",
        "ue_bench_datasets.npz:Npz",
        "a NumPy archive with x_train, y_train, x_test, y_test",
        ("local",),
    )
    register("dataset", "idx", "ue_bench_datasets.arrays:Idx", "idx files, as those of MNIST", ("local",))
    register("dataset", "stl10", "ue_bench_datasets.arrays:Stl10", "the binary files of STL-10, 96x96", ("local",))
    register("dataset", "svhn", "ue_bench_datasets.arrays:Svhn", "the .mat files of SVHN's digits, 32x32", ("local",))
