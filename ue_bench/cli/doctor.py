"""``ue-bench doctor``: what works here."""

from __future__ import annotations

import platform
from importlib import metadata

import click

from .. import __version__
from ..plugins import one_line
from ..registry import registry

PACKAGES = ["torch", "torchvision", "numpy", "pillow", "pyarrow", "scikit-learn", "pydantic", "pluggy"]


@click.command("doctor")
def command() -> int:
    """Say what this machine and installation offer. Exit code 3 when something that is needed does not work."""
    print(f"ue-bench {__version__}, Python {platform.python_version()}, {platform.platform()}")
    broken = False
    for package in PACKAGES:
        try:
            print(f"  {package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            broken = True
            print(f"  {package} is missing: pip install {package}")
    try:
        from ..engine.loop import default_precision
        from ..schedule.devices import available, usable_cores
        from ..stages import device_name

        for device in available():
            print(f"  device {device}: {device_name(device)}, {default_precision(device)} by default")
        print(f"  {usable_cores()} CPU cores")
    except Exception as error:  # torch may fail in any way; that is what is being asked
        broken = True
        print(f"  torch does not work: {one_line(error)}")
    try:
        import torchvision  # noqa: F401  # only to see whether it can be
    except Exception as error:  # as above
        print(f"  torchvision does not work ({one_line(error)}): no downloads, no retraining of hiders")
    for problem in registry().problems:
        print(f"  plugin distribution {problem.distribution} does not work: {problem.reason}")
    return 3 if broken else 0
