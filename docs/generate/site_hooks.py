"""Hooks of MkDocs: pages of plugins, and the pages of the repository that do not lie in ``docs/``.

A link in a page is one that works in the repository. Here it is turned into the link to the same file on the site.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from plugin_pages import HEADINGS, address, overview, plugin_page
from ue_bench.catalogue.facts import facts
from ue_bench.catalogue.registry import registry

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "LICENSE",
    "changes/README.md",
    "examples/ue-bench-hello/README.md",
)
LINK = re.compile(r"(?<!\\)\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(```.*?^```)$", flags=re.M | re.S)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of boards and plugins into the navigation, where it has an empty place for them."""
    assert config.nav is not None
    for section in config.nav:
        if "Boards" in section:
            over_all = {"all boards": site_path("leaderboards/README.md")}
            section["Boards"] = [over_all, *({path.parent.name: site_path(path.as_posix())} for path in boards())]
        if "Methods" in section:
            for kind, heading in HEADINGS.items():
                pages = [{r.name: address(kind, r.name)} for r in registry().of_kind(kind) if _own(r.distribution)]
                section["Methods"].append({heading: [address(kind), *pages]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of plugins, of boards, and those at the root of the repository."""
    measured = {path.parent.name for path in boards()}
    for kind in HEADINGS:
        known = [facts(record) for record in registry().of_kind(kind) if _own(record.distribution)]
        for src, content in {
            address(kind): overview(kind, known),
            **{address(kind, k.record.name): plugin_page(k, measured) for k in known},
        }.items():
            files.append(File.generated(config, src, content=content))
    for path in (*map(Path, OUTSIDE), *_files_of_boards()):
        files.append(File.generated(config, site_path(path.as_posix()), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between files of the site."""
    here = page.file.src_uri
    if page.file.generated_by and here.startswith("methods/"):
        return markdown
    pieces = FENCE.split(markdown)
    where = repository_path(here)
    pieces[::2] = [LINK.sub(lambda m: f"]({moved(m.group(1), where, here)})", piece) for piece in pieces[::2]]
    return "".join(pieces)


def on_post_build(config: MkDocsConfig) -> None:
    """Put the rest of the boards beside their pages: single results, curves, and tables as the repository has them."""
    there = Path(config.site_dir) / "leaderboards"
    for path in (ROOT / "leaderboards").rglob("*"):
        target = there / path.relative_to(ROOT / "leaderboards")
        if path.is_file() and not path.name.startswith(".") and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def moved(target: str, where: str, here: str) -> str:
    """Return a link of the file ``where`` of the repository as one of the page ``here`` of the site.

    Raises PluginError for a link to a file that is not on the site.
    """
    path, hash_, anchor = target.partition("#")
    if not path or "://" in path or path.startswith("mailto:"):
        return target
    file = posixpath.normpath(posixpath.join(posixpath.dirname(where), path))
    if not (ROOT / file).is_file():
        raise PluginError(f"{where}: a link to {target}, which is no file of the repository")
    there = posixpath.relpath(site_path(file), posixpath.dirname(here) or ".")
    return there + hash_ + anchor


def site_path(file: str) -> str:
    """Return where a file of the repository is on the site. The tables of a board stand beside its page to click."""
    if re.fullmatch(r"leaderboards/(.+/)?README\.md", file):
        return file.removesuffix("README.md") + "tables.md"
    return {"LICENSE": "LICENSE.txt"}.get(file, file.removeprefix("docs/"))


def repository_path(page: str) -> str:
    """Return which file of the repository a page of the site is."""
    if re.fullmatch(r"leaderboards/(.+/)?tables\.md", page):
        return page.removesuffix("tables.md") + "README.md"
    return page if page in OUTSIDE or page.startswith("leaderboards/") else f"docs/{page}"


def boards() -> list[Path]:
    """Return the tables of all boards, relative to the repository."""
    return sorted(path.relative_to(ROOT) for path in ROOT.glob("leaderboards/*/README.md"))


def _files_of_boards() -> list[Path]:
    """Return what is shown of boards: everything but single results and curves, and hidden files."""
    paths = [path.relative_to(ROOT) for path in ROOT.glob("leaderboards/**/*") if path.is_file()]
    hidden = {"results", "curves", "evasion", "failures", "requests", "logs"}
    return sorted(p for p in paths if not hidden & set(p.parts) and not any(part.startswith(".") for part in p.parts))


def _own(distribution: str) -> bool:
    return distribution.startswith("ue-bench ")
