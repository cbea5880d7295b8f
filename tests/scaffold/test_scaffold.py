"""What ``ue-bench new`` makes works as it is, and what cannot be made is refused in one line."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from ue_bench.errors import EnvironmentProblem, UserError
from ue_bench.scaffold import KINDS, Blueprint, write

PLUGINS = [kind for kind in KINDS if kind != "board"]


def installed(folder: Path, name: str, module: str) -> None:
    """Add the metadata that an installer writes, so that the entry point of ``pyproject.toml`` is found."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["ue_bench"] == {name: module}
    info = folder / f"{module}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (info / "entry_points.txt").write_text(f"[ue_bench]\n{name} = {module}\n")


def make(folder: Path, prefix: str, smallest: bool = False) -> list[Path]:
    """Make and install one of every kind below ``folder``; return their folders."""
    made = []
    for kind in KINDS:
        blueprint = Blueprint(kind, f"{prefix}-{kind}", smallest)
        made.append(folder / blueprint.name)
        write(blueprint, made[-1])
        installed(made[-1], blueprint.name, blueprint.module)
    return made


def python(folders: list[Path], *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python where these distributions are installed."""
    path = os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])
    cwd = folders[0].parent
    environment = os.environ | {"PYTHONPATH": path, "UE_BENCH_CACHE": str(cwd / "cache")}
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=280
    )


def test_their_own_tests_pass(tmp_path: Path) -> None:
    made = make(tmp_path / "a folder", "my")

    ran = python(made, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-W", "error", ".")

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1].startswith("6 passed")  # two of the board, and one of every other kind


def test_the_smallest_keep_the_rules(tmp_path: Path) -> None:
    made = make(tmp_path, "tiny", smallest=True)
    images = ["-D", "demo[train_per_class=4,test_per_class=2]", "--images", "16", "--devices", "cpu"]
    board = ["--board", "tiny-board"]  # gives dataset and victim

    ran = python(made, "-m", "ue_bench", "check", *(f"tiny-{kind}" for kind in PLUGINS), *images, *board)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert [line for line in ran.stdout.splitlines() if line.startswith("tiny")] == [
        f"tiny-{kind} ({kind})" for kind in PLUGINS
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_the_smallest_are_small(kind: str) -> None:
    for path, text in Blueprint(kind, "a-name", smallest=True).render().items():
        assert len([line for line in text.splitlines() if line]) <= (8 if path.endswith(".toml") else 15)


def test_every_template_is_used_by_a_kind() -> None:
    """A template that nothing reads would be shipped for nothing."""
    root = Path(str(files("ue_bench.scaffold"))) / "templates"
    stored = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
    read: set[str] = set()

    for kind in KINDS:
        for smallest in (False, True):
            read |= set(Blueprint(kind, "x", smallest).templates().values()) | {f"{kind}/use.in"}
    assert stored == read


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("protector", "my stripes", "cannot be the name of a protector"),
        ("protector", "Stripes", "cannot be the name"),
        ("protector", "streifenüber", "cannot be the name"),
        ("protector", "", "cannot be the name"),
        ("protector", "-x", "cannot be the name"),
        ("protector", "../x", "cannot be the name"),
        ("protector", "9lives", "cannot be the name"),
        ("protector", "x" * 61, "cannot be the name"),
        ("protector", "lsp", "protector 'lsp' is already registered by ue-bench"),
        ("board", "demo", "board 'demo' is already registered by ue-bench"),
        ("victim", "class", "'class' means something else already"),
        ("victim", "true", "means something else"),
        ("victim", "victim", "means something else"),
        ("protector", "image-set", "means something else"),
        ("protector", "all", "means something else"),
        ("dataset", "exception", "means something else"),
        ("protector", "baselines", "there is a Python package ue_bench_baselines already"),
    ],
)
def test_names_that_are_refused(kind: str, name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        write(Blueprint(kind, name), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_name_of_another_kind_is_free(tmp_path: Path) -> None:
    assert write(Blueprint("victim", "lsp"), tmp_path / "new")


class TestFolders:
    blueprint = Blueprint("victim", "mine")

    def test_an_empty_one_is_taken(self, tmp_path: Path) -> None:
        assert write(self.blueprint, tmp_path)[0].parent == tmp_path

    @pytest.mark.parametrize("there", ["file", "full", "link"])
    def test_what_is_there_stays(self, there: str, tmp_path: Path) -> None:
        folder = tmp_path / "new"
        if there == "file":
            folder.write_text("mine")
        elif there == "link":
            folder.symlink_to(tmp_path / "nowhere")
        else:
            (folder / "src").mkdir(parents=True)
        before = sorted(tmp_path.rglob("*"))

        with pytest.raises(UserError, match="is there already"):
            write(self.blueprint, folder)

        assert sorted(tmp_path.rglob("*")) == before

    def test_a_parent_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(EnvironmentProblem, match=r"cannot write .*: Not a directory"):
            write(self.blueprint, tmp_path / "file" / "new")

    def test_one_that_cannot_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(self: Path, *_: Any, **__: Any) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

        monkeypatch.setattr(Path, "mkdir", refuse)
        with pytest.raises(EnvironmentProblem, match="Read-only file system"):
            write(self.blueprint, tmp_path / "new")

    def test_a_full_disk_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = Path.write_text

        def fill(self: Path, *arguments: Any, **options: Any) -> int:
            if self.name == "plugin.py":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
            return whole(self, *arguments, **options)

        monkeypatch.setattr(Path, "write_text", fill)
        with pytest.raises(EnvironmentProblem, match="No space left"):
            write(self.blueprint, tmp_path / "new")
        assert list(tmp_path.iterdir()) == []
