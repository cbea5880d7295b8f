"""What docs/bad-days.md promises and no other test shows: one line, the right exit code, and nothing lost."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from toys import Install

from ue_bench.store.results import ResultStore

from .conftest import Command, Finished
from .helpers import random_image, write

PROTOCOL = """batch = 4
steps = 2
learning_rate = 0.1
schedule = "cosine"
"""
BOARD = """title = "Two rows"
dataset = "demo[train_per_class=2,test_per_class=2]"
protocol = "recipe.toml"
victims = ["resnet9[width=4,blocks=1]"]
reference = ["none"]
protectors = ["lsp"]
countermeasures = ["vanilla"]
"""
RUN = ["run", "--board", "./mine.toml", "--devices", "cpu", "--precision", "fp32", "--jobs", "1"]


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """The board ``mine.toml`` of two cells, in the folder that commands are called in."""
    (tmp_path / "recipe.toml").write_text(PROTOCOL, encoding="utf-8")
    (tmp_path / "mine.toml").write_text(BOARD, encoding="utf-8")
    return tmp_path / "mine.toml"


def users_error(ran: Finished) -> str:
    """Return the one line and its hint."""
    *_, line, hint = ran.err.splitlines()
    assert "Traceback" not in ran.err
    assert line.startswith("ue-bench: ")
    assert hint.startswith("  hint: ")
    return f"{line}\n{hint}"


BROKEN = """
from ue_bench.api import hookimpl

@hookimpl
def ue_bench_register(register):
    register("protector", "broken", "broken_plugin:Broken", "raises")
    raise OSError("cannot find my weights")
"""


def test_a_broken_plugin_costs_itself_alone(ue_bench: Command, install: Install) -> None:
    install("broken-plugin", BROKEN)
    listed = ue_bench("list", "protectors")
    assert listed.code == 0
    assert "broken-plugin 1.0 cannot be used: OSError: cannot find my weights" in listed.err
    assert "lsp" in listed.out
    asked = ue_bench("show", "brken")
    assert asked.code == 2


RAISING = """
from typing import ClassVar
from ue_bench.api import Protector, hookimpl

@hookimpl
def ue_bench_register(register):
    register("protector", "raising", "raising_plugin:Raising", "raises")

class Raising(Protector):
    name: ClassVar[str] = "raising"

    def protect(self, data, ctx):
        raise ZeroDivisionError("mine")
"""


def test_a_plugin_that_raises_costs_its_cells(
    ue_bench: Command, computed: list[str], board: Path, install: Install
) -> None:
    install("raising-plugin", RAISING)
    ran = ue_bench(*RUN, "-P", "raising,lsp")
    assert ran.code == 1
    assert "ZeroDivisionError: mine" in ran.err
    assert "2 of 3 cells have results" in ran.err


@pytest.mark.parametrize("option", ["--cache-dir", "--out"])
def test_a_folder_that_cannot_be_made(ue_bench: Command, computed: list[str], board: Path, option: str) -> None:
    (board.parent / "file").write_text("", encoding="utf-8")
    ran = ue_bench(*RUN, option, "file/below")
    assert ran.code == 3
    assert option in users_error(ran)
    assert computed == []


def test_a_home_folder_that_cannot_be_written(
    ue_bench: Command, computed: list[str], board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("UE_BENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", "/proc/1/nothing")  # where nobody can make a folder
    assert ue_bench("list", "boards").code == 0
    ran = ue_bench(*RUN)
    assert ran.code == 3
    assert "--cache-dir" in users_error(ran)
    assert ue_bench(*RUN, "--cache-dir", "here").code == 0


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
@pytest.mark.parametrize("option", ["--cache-dir", "--out"])
def test_a_folder_of_somebody_else(
    ue_bench: Command, computed: list[str], board: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another user where this is root, who may write everywhere; else in a folder that is read-only."""
    assert ue_bench(*RUN).code == 0  # and everything is imported: another user may not be able to
    with tempfile.TemporaryDirectory() as place:  # not tmp_path, which is for its owner only
        theirs, ours = Path(place, "theirs"), Path(place, "ours")
        for folder, mode in ((Path(place), 0o755), (theirs, 0o555), (ours, 0o777)):
            folder.mkdir(exist_ok=True)
            folder.chmod(mode)
        folders = {"--cache-dir": ours / "cache", "--out": ours / "out", option: theirs / "new"}
        words = ["-D", "demo[train_per_class=2,test_per_class=2]", "-P", "none", "-C", "vanilla", "--jobs", "1"]
        words += ["--devices", "cpu", "--precision", "fp32", *(str(word) for pair in folders.items() for word in pair)]
        monkeypatch.chdir(ours)
        if os.getuid() == 0:
            os.seteuid(65534)
        try:
            ran = ue_bench("run", *words)
        finally:
            os.seteuid(os.getuid())
        monkeypatch.chdir(board.parent)
    assert ran.code == 3
    assert "Permission denied" in users_error(ran)


def surroundings(**changes: str) -> dict[str, str]:
    """Return an environment in which this code is found from any folder."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **changes}


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_what_users_share_is_for_their_group(ue_bench: Command, computed: list[str], board: Path) -> None:
    before = os.umask(0o002)  # as groups that share folders have it
    try:
        assert ue_bench(*RUN, "--cache-dir", "shared", "--out", "results").code == 0
    finally:
        os.umask(before)
    for path in (p for name in ("shared", "results") for p in [Path(name), *Path(name).rglob("*")]):
        mode = stat.S_IMODE(path.stat().st_mode)
        wanted = 0o775 if path.is_dir() else 0o444
        assert mode & wanted == wanted, f"{path} has {mode:o}"


@pytest.mark.parametrize("words", [["list", "boards"], ["plan", "-P", "lsp", "-C", "vanilla"]])
@pytest.mark.parametrize("start", [["-m", "ue_bench"], ["-c", "from ue_bench.cli.main import main; main()"]])
def test_modules_of_ones_own_in_the_folder(tmp_path: Path, start: list[str], words: list[str]) -> None:
    for name in ("random", "statistics", "numpy", "click"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('mine')", encoding="utf-8")
    if start[0] == "-c":
        start = ["-P", *start]  # as the script ue-bench, which does not look into the folder either
    ran = subprocess.run(
        [sys.executable, *start, *words], cwd=tmp_path, env=surroundings(UE_BENCH_CACHE=str(tmp_path / "cache")),
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr.count("mine")) == (0, 0), ran.stderr


def test_names_of_all_languages_with_spaces(ue_bench: Command, computed: list[str], board: Path) -> None:
    photos = board.parent / "Fotos von früher" / "bilder 猫"
    for split in ("train", "test"):
        for number in range(4):
            write(
                photos / split / ("größe 1" if number % 2 else "ñandú") / f"nº {number}.png",
                random_image((8, 8), number),
            )
    words = ["-D", f'imagefolder[path="{photos.relative_to(board.parent)}"]', "-P", "none", "--jobs", "1"]
    ran = ue_bench(*RUN, *words, "--out", "meine Ergebnisse ü", "--cache-dir", "mein Zwischenspeicher 猫")
    assert ran.code == 0, ran.err
    assert "1 of 1 cells have results in meine Ergebnisse ü" in ran.err
    assert ue_bench("leaderboard", "build", "--board", "./mine.toml", "--out", "meine Ergebnisse ü").code == 0


def test_line_ends_and_marks_of_windows(ue_bench: Command, computed: list[str], board: Path) -> None:
    for path in (board, board.with_name("recipe.toml")):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert ue_bench(*RUN).code == 0
    [result] = [p for p in Path("ue-bench-results/mine/results").rglob("*.json") if "lsp" in p.parts]
    result.write_bytes(b"\xef\xbb\xbf" + result.read_bytes().replace(b"\n", b"\r\n"))
    [curve] = [p for p in Path("ue-bench-results/mine/curves").glob("*.json") if p.stem[:16] in result.name]
    curve.write_bytes(b"\xef\xbb\xbf" + curve.read_bytes())
    assert ResultStore(Path("ue-bench-results/mine")).curve(curve.stem) is not None
    again = ue_bench(*RUN)
    assert "nothing to compute, all 2 cells have results" in again.err
    write(Path("in") / "a.png", random_image())
    Path("in/labels.csv").write_bytes(b"\xef\xbb\xbfname,class\r\na.png,cat\r\n")
    assert ue_bench("protect", "-P", "lsp", "--device", "cpu", "--threads", "1", "in", "out").code == 0
    assert "a.png,cat" in Path("out/labels.csv").read_text(encoding="utf-8")


def test_files_where_folders_are_and_the_other_way_round(ue_bench: Command, computed: list[str], board: Path) -> None:
    assert ue_bench(*RUN, "--out", "out").code == 0
    Path("file").write_text("", encoding="utf-8")
    ran = ue_bench("results", "export", "out", "file/x.csv")
    assert (ran.code, "file" in users_error(ran)) == (3, True), ran.err
    for name in ("x.csv", "x.sqlite", "x.parquet"):  # a folder in which nothing can be made
        ran = ue_bench("results", "export", "out", f"/proc/{name}")
        assert (ran.code, f"/proc/{name}" in users_error(ran)) == (3, True), ran.err
    Path("out/index.html").mkdir()
    for what in ("build", "check"):
        ran = ue_bench("leaderboard", what, "--board", str(board), "--out", "out")
        assert (ran.code, "index.html" in users_error(ran)) == (3, True), ran.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["run", "--devices", "cuda:77"], 3),
        (["run", "--devices", "quantum"], 3),
        (["protect", "-P", "lsp", "--device", "cuda:77", "in", "out"], 3),
        (["run", "--ray-address", "10.0.0.1"], 2),
        (["run", "--executor", "slurm", "--precision", "auto"], 2),
        (["evade", "--json", "--markdown"], 2),
        (["leaderboard", "submit", "--undo", "x.json", "--board", "demo"], 2),
        (["status", "somewhere"], 2),
        (["run", "--shard", "3/2"], 2),
        (["run", "--fraction", "2"], 2),
        (["run", "--retry", "nothing", "--retry", "oom"], 2),
        (["run", "-P", "lsp", "-C", "vanilla,^vanilla"], 5),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_what_is_not_there_or_does_not_fit_together(ue_bench: Command, words: list[str], code: int) -> None:
    write(Path("in") / "a" / "a.png", random_image())
    ran = ue_bench(*words)
    assert ran.code == code, ran.err
    assert "Traceback" not in ran.err
    assert len(ran.err.strip().splitlines()) <= 4
