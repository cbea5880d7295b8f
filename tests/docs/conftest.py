from __future__ import annotations

import pytest

from ue_bench.catalogue.registry import Registry, registry
from ue_bench.contract.registration import Register

from .helpers import EXAMPLE


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """All installed plugins and those of the example distribution, which the pages speak of."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    import ue_bench_hello

    found = Registry(dict(registry().entries), dict(registry().sets))
    if ("protector", "hello-stripes") not in found.entries:
        ue_bench_hello.ue_bench_register(register=Register(found, "ue-bench-hello"))
    return found
