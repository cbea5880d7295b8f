from __future__ import annotations

from pathlib import Path

import pytest

from ue_bench.catalogue.registry import Registry, registry
from ue_bench.contract.registration import Register

from .helpers import EXAMPLE, blocks, page, section


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """All installed plugins and those of the example distribution, which the pages speak of."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    import ue_bench_hello

    installed = registry()
    found = Registry(dict(installed.entries), dict(installed.sets), dict(installed.boards), dict(installed.protocols))
    if ("protector", "hello") not in found.entries:
        ue_bench_hello.ue_bench_register(register=Register(found, "ue-bench-hello"))
    return found


@pytest.fixture
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with the board and the protocol of the page on bringing one's own."""
    board, recipe = blocks(section(page("docs/protocols-and-boards.md"), "## Bring your own"), "toml")
    (tmp_path / "mine.toml").write_text(board, encoding="utf-8")
    (tmp_path / "recipe.toml").write_text(recipe, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
