"""Check what every plugin must keep to, for ``ue-bench check`` and for the tests of plugin authors.

    from ue_bench.testing import check_protector, failures, pictures

    def test_it_keeps_the_rules(ctx):
        assert failures(check_protector(Stripes(), pictures(), ctx)) == []

``pytest_plugins = ["ue_bench.testing.plugin"]`` in a ``conftest.py`` brings the fixtures ``conformance`` and ``ctx``.
"""

from __future__ import annotations

from .conformance import check_plugin
from .countermeasures import check_countermeasure
from .datasets import check_dataset
from .findings import Conformance, Finding, failures
from .pictures import pictures
from .protectors import check_protector
from .victims import check_victim

__all__ = [
    "Conformance",
    "Finding",
    "check_countermeasure",
    "check_dataset",
    "check_plugin",
    "check_protector",
    "check_victim",
    "failures",
    "pictures",
]
