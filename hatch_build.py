"""Add the addresses of the project to the metadata of a wheel, where the environment says where the repository is.

``UE_BENCH_REPOSITORY`` is such as https://example.org/somebody/ue-bench, ``UE_BENCH_SITE`` the documentation. The
workflow of a release sets both; a build elsewhere has no addresses rather than wrong ones.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class CustomMetadataHook(MetadataHookInterface):
    """Hatchling's door to the metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set ``urls``."""
        metadata["urls"] = urls(os.environ)


def urls(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the project's addresses by their label on a package index."""
    repository = environment.get("UE_BENCH_REPOSITORY", "").rstrip("/")
    found: dict[str, str] = {}
    if repository:
        found |= {
            "Source": repository,
            "Issues": f"{repository}/issues",
            "Changelog": f"{repository}/blob/main/CHANGELOG.md",
            "Documentation": f"{repository}/tree/main/docs",
        }
    if environment.get("UE_BENCH_SITE"):
        found["Documentation"] = environment["UE_BENCH_SITE"]
    return found
