"""The documentation as a site: pages of plugins, the navigation, and a strict build where MkDocs is installed."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ue_bench.catalogue.facts import facts
from ue_bench.catalogue.registry import registry
from ue_bench.contract.registration import KIND_NAMES, PluginRecord

from .helpers import ROOT, label

sys.path.insert(0, str(ROOT / "docs" / "generate"))
from plugin_pages import address, cell, escaped, overview, plugin_page, prose

needs_mkdocs = pytest.mark.skipif(
    importlib.util.find_spec("material") is None, reason="needs MkDocs: pip install 'ue-bench[docs]'"
)
OWN = [r for kind in KIND_NAMES for r in registry().of_kind(kind) if r.distribution.startswith("ue-bench ")]


def in_navigation() -> list[str]:
    return re.findall(r"^ +- ([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.M)


def test_every_page_is_in_the_navigation_once() -> None:
    pages = [p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").glob("*.md")]
    named = in_navigation()
    assert sorted(set(named)) == sorted(named)
    assert set(pages) <= set(named)
    assert [n for n in named if not ((ROOT / "docs" / n).is_file() or (ROOT / n).is_file())] == []


@pytest.mark.parametrize("record", OWN, ids=lambda r: f"{r.kind}-{r.name}")
def test_the_page_of_a_plugin_has_all_that_is_known_of_it(record: PluginRecord) -> None:
    if record.kind == "victim":
        from toys import torchvision_module

        torchvision_module("torchvision")
    known = facts(record)
    text = plugin_page(known)
    assert text.startswith(f"# {record.name}\n")
    for name, schema in known.parameters.items():
        assert f"| `{name}` |" in text
        assert cell(schema.get("description", "")) in text
    for part in (known.sections.opening, known.sections.deviations, known.sections.expected):
        assert prose(part) in text
    assert cell(known.paper) in text
    assert "``" not in text
    assert address(record.kind, record.name) == f"methods/{record.kind}s/{record.name}.md"


def test_the_overview_links_to_every_page() -> None:
    known = [facts(record) for record in registry().of_kind("dataset")]
    assert all(f"]({k.record.name}.md)" in overview("dataset", known) for k in known)


def test_text_stays_text() -> None:
    assert escaped("a < b, `c < d`, *e* f * g") == "a &lt; b, `c < d`, \\*e* f * g"
    assert cell("one | ``two``\n three") == "one \\| `two` three"
    assert prose("One of\n- a\n  more\n- b") == "One of\n\n- a\n    more\n- b"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    ran = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder


@needs_mkdocs
class TestBuilt:
    def test_every_page_and_plugin_is_there(self, site: Path) -> None:
        for page in (ROOT / "docs").glob("*.md"):
            there = site / page.stem / "index.html" if page.stem != "index" else site / "index.html"
            assert there.is_file(), label(page)
        for record in OWN:
            assert (site / "methods" / f"{record.kind}s" / record.name / "index.html").is_file()
        for board in (ROOT / "leaderboards").glob("*/README.md"):
            assert (site / "leaderboards" / board.parent.name / "tables" / "index.html").is_file()

    def test_links_lead_somewhere(self, site: Path) -> None:
        lost = []
        for page in site.rglob("*.html"):
            if page.name == "404.html":
                continue
            for target in re.findall(r'href="([^"#]+)(?:#[^"]*)?"', page.read_text(encoding="utf-8")):
                if "://" in target or target.startswith(("mailto:", "data:")):
                    continue
                there = page.parent / target
                if not (there.is_file() or (there / "index.html").is_file()):
                    lost.append((page.relative_to(site).as_posix(), target))
        assert lost == []

    def test_lists_are_lists(self, site: Path) -> None:
        """Markdown on the site needs an empty line before a list, which GitHub's does not."""
        merged = []
        for page in site.rglob("*.html"):
            if "leaderboards" not in page.parts:
                paragraphs = re.findall(r"<p>(.*?)</p>", page.read_text(encoding="utf-8"), flags=re.S)
                merged += [(page.parent.name, p[:80]) for p in paragraphs if re.search(r"\n(- |\| |\d\. )", p)]
        assert merged == []

    def test_nothing_is_loaded_from_elsewhere(self, site: Path) -> None:
        for page in site.rglob("*.html"):
            text = page.read_text(encoding="utf-8")
            loaded = re.findall(r'<(?:script|img|iframe)[^>]+src="([^"]+)"|<link rel="stylesheet" href="([^"]+)"', text)
            assert [url for pair in loaded for url in pair if "://" in url] == []
