"""``ue-bench doctor``: report what works here."""

from __future__ import annotations

import json
import platform
import shutil
from dataclasses import asdict
from importlib import metadata
from typing import Any

import click

from .. import __version__, machine
from ..catalogue.registry import registry
from ..errors import UserError, one_line
from .common import json_option

PACKAGES = ["torch", "torchvision", "numpy", "pillow", "pyarrow", "scikit-learn", "pydantic", "pluggy"]


@click.command("doctor")
@json_option
def command(as_json: bool) -> int:
    """Say what this machine and installation offer. Exit code 3 when something that is needed does not work."""
    report: dict[str, Any] = {
        "ue_bench": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {package: _version(package) for package in PACKAGES},
        "devices": [],
        "cores": machine.usable_cores(),
        "executors": executors(),
        "problems": [f"{p} is missing: pip install {p}" for p in PACKAGES if _version(p) is None],
        "remarks": [f"plugins of {p.distribution} cannot be used: {p.reason}" for p in registry().problems],
    }
    try:
        report["devices"] = [asdict(d) for d in machine.ask_torch()]
    except UserError as error:
        report["problems"].append(error.message)
    try:
        import torchvision  # noqa: F401  # only to see whether it can be
    except Exception as error:  # a build for another torch fails in its own ways
        report["remarks"].append(f"no downloads, no training of hiders: torchvision does not work: {one_line(error)}")
    print(json.dumps(report, indent=1, allow_nan=False) if as_json else _text(report))
    return 3 if report["problems"] else 0


def executors() -> dict[str, str]:
    """Return what is there of each executor, or what is missing."""
    ray, submitit = _version("ray"), _version("submitit")
    slurm = "sbatch and squeue" if shutil.which("sbatch") and shutil.which("squeue") else "no sbatch and squeue here"
    return {
        "local": "works",
        "ray": f"ray {ray}" if ray else "pip install 'ue-bench[ray]'",
        "slurm": f"submitit {submitit}, {slurm}" if submitit else f"pip install 'ue-bench[slurm]'; {slurm}",
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _text(report: dict[str, Any]) -> str:
    lines = [
        f"ue-bench {report['ue_bench']}, Python {report['python']}, {report['platform']}, {report['cores']} CPU cores"
    ]
    lines += [f"  {package} {version}" for package, version in report["packages"].items() if version]
    lines += [f"  device {d['name']}: {d['label']}, {d['precision']} by default" for d in report["devices"]]
    lines += [f"  executor {name}: {what}" for name, what in report["executors"].items()]
    lines += [f"  {line}" for line in (*report["problems"], *report["remarks"])]
    return "\n".join(lines)
