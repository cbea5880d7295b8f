"""Pages over several boards: the index, the pages of methods, and what ``check`` says of them."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ue_bench.catalogue import boards
from ue_bench.catalogue.registry import registry
from ue_bench.errors import NothingSelected
from ue_bench.leaderboard import build, method_pages, site
from ue_bench.leaderboard.board import board_info
from ue_bench.store.results import ResultStore

from .factory import result
from .folders import two_boards, write_results


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Boards with all their pages, to be read alone."""
    root = two_boards(tmp_path_factory.mktemp("site") / "boards")
    site.write(root, with_methods=True)
    return root


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(built, tmp_path / "boards"))


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


class Links(HTMLParser):
    """Addresses and anchors of a page, and whether anything else is loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.hrefs: list[str] = []
        self.anchors: set[str] = set()
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        self.hrefs += [found["href"] or ""] if "href" in found else []
        self.anchors |= {found["id"] or ""} if "id" in found else set()


def test_the_same_results_give_the_same_bytes_and_check_agrees(built: Path, root: Path) -> None:
    assert site.check(root) == []

    site.write(root, with_methods=True)

    assert contents(root) == contents(built)


def test_every_link_leads_to_a_page_that_is_there(built: Path) -> None:
    own = [path for path in built.rglob("*.html") if path.parent.name not in ("demo", "cifar10-micro")]
    pages = {path.resolve(): Links(path.read_text(encoding="utf-8")) for path in own}

    for page, links in pages.items():
        assert not links.tags & {"script", "img", "iframe", "object"}
        for href in links.hrefs:
            address, _, anchor = href.partition("#")
            if href == "data:,":
                continue
            target = (page.parent / address).resolve() if address else page
            assert target.is_file(), href
            if anchor:
                assert anchor in Links(target.read_text(encoding="utf-8")).anchors, href


def test_pages_of_a_board_lead_back_to_the_index_they_were_built_with(root: Path, tmp_path: Path) -> None:
    results, info = ResultStore(root / "demo").results(), board_info(boards.board("demo"))
    text = (root / "demo" / "index.html").read_text(encoding="utf-8")
    assert '<a href="../index.html">All boards</a>' in text

    assert build.check(results, info, root / "demo") == []
    build.build(results, info, root / "demo")
    assert (root / "demo" / "index.html").read_text(encoding="utf-8") == text

    shutil.copytree(root / "demo", tmp_path / "alone" / "demo")
    assert build.check(results, info, tmp_path / "alone" / "demo")
    (tmp_path / "alone" / "index.html").write_text("a page of something else", encoding="utf-8")
    build.build(results, info, tmp_path / "alone" / "demo")
    assert "../index.html" not in (tmp_path / "alone" / "demo" / "index.html").read_text(encoding="utf-8")


def test_the_index_has_the_findings_of_every_board(tmp_path: Path) -> None:
    root = two_boards(tmp_path / "boards")
    site.write(root, with_methods=False)
    text = re.sub("<[^>]+>", "", (root / "index.html").read_text(encoding="utf-8"))
    markdown = (root / "README.md").read_text(encoding="utf-8")

    for name in ("demo", "cifar10-micro"):
        assert board_info(boards.board(name)).title in text
    for shown in (text, markdown):
        assert shown.count("An adversary gets most with ") == 2
        assert shown.count("leaves an adversary least: a recovered share of") == 2
        assert shown.count("of 3 protectors with a bound") == 2
    assert "`em`" in markdown
    assert not (root / "methods").exists()
    assert "methods/" not in (root / "index.html").read_text(encoding="utf-8")
    assert site.check(root) == []


def test_a_method_page_has_its_text_its_parameters_and_its_numbers(built: Path) -> None:
    em = (built / "methods" / "protectors" / "em.html").read_text(encoding="utf-8")
    text = re.sub("<[^>]+>", "", em)

    assert "Huang et al., Unlearnable Examples" in text
    assert "sample|class, default sample" in text
    assert "linf 8/255" in text
    assert text.count("20.0") >= 2  # under vanilla, the first column, of both boards
    assert ">em[" not in text
    sample = (built / "methods" / "protectors" / "deephiding.html").read_text(encoding="utf-8")
    assert "deephiding<wbr>[<wbr>mode=<wbr>sample]" in sample or "mode=<wbr>sample]" in sample
    jpeg = (built / "methods" / "countermeasures" / "jpeg.html").read_text(encoding="utf-8")
    assert jpeg.count("quality=<wbr>10]") == 2
    ar = (built / "methods" / "protectors" / "ar.html").read_text(encoding="utf-8")
    assert "No board here has a result of it." in ar


def test_there_is_a_page_for_every_protector_and_countermeasure(built: Path) -> None:
    for kind in method_pages.KINDS:
        there = {path.stem for path in (built / "methods" / f"{kind}s").glob("*.html")}
        assert there == {record.name for record in registry().of_kind(kind)}


def test_check_names_what_differs_what_is_missing_and_what_is_of_no_method(root: Path) -> None:
    pages = root / "methods" / "protectors"
    (pages / "em.html").write_text("x", encoding="utf-8")
    (pages / "lsp.html").unlink()
    (pages / "gone.html").write_text("x", encoding="utf-8")
    index = (root / "index.html").read_text(encoding="utf-8")
    (root / "index.html").write_text(index.replace("gets most with", "gets least with", 1), encoding="utf-8")

    found = "\n".join(site.check(root))

    assert "methods/protectors/em.html differs from the results in line 1" in found
    assert "methods/protectors/lsp.html is missing" in found
    assert "methods/protectors/gone.html is the page of nothing that is here" in found
    assert "index.html differs from the results in line" in found


def test_a_folder_without_boards_says_so(tmp_path: Path) -> None:
    with pytest.raises(NothingSelected, match="no board with results"):
        site.site(tmp_path, with_methods=False)


def test_names_in_results_are_text_and_never_markup(tmp_path: Path) -> None:
    write_results(tmp_path / "demo", [result("none", "vanilla", 90.0), result("<b>bad</b>", "vanilla", 20.0)])
    texts = site.site(tmp_path, with_methods=True)

    assert "<b>bad" not in texts["index.html"]
    assert "<b>bad" not in texts["README.md"].replace("\\<b\\>bad", "")
    assert "<b>bad" not in texts["methods/countermeasures/vanilla.html"]
    assert "&lt;b&gt;bad" in texts["methods/countermeasures/vanilla.html"]
