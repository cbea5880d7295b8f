"""Boards and protocols that are brought: in files, and by other distributions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toys import Install

from ue_bench.catalogue import boards, protocols
from ue_bench.catalogue.registry import registry
from ue_bench.contract.board import Board
from ue_bench.contract.registration import Register, Registrations
from ue_bench.errors import EnvironmentProblem, UserError, ValidationError
from ue_bench.grid.cell import protocol_identity

BOARD = """
dataset = "demo[train_per_class=4]"
protocol = "smoke"
victims = ["resnet9[width=4]"]
protectors = ["lsp"]
countermeasures = ["vanilla", "jpeg[quality=10]"]
"""
PROTOCOL = """
batch = 32
epochs = 2
learning_rate = 0.1
schedule = "cosine"
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, text: str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")
    return name


def refused(load: Any, argument: str) -> UserError:
    with pytest.raises(UserError) as caught:
        load(argument)
    assert "\n" not in str(caught.value)
    return caught.value


class TestBoards:
    def test_a_file_is_a_board_of_its_own_name(self) -> None:
        board = boards.board(write("mine.toml", BOARD))
        assert (board.name, board.title, board.argument) == ("mine", "mine", "mine.toml")
        assert board.countermeasures == ("vanilla", "jpeg[quality=10]")
        assert (board.reference, board.clean, board.plain) == (("@reference",), "@clean", "@plain")

    def test_a_name_with_a_slash_is_a_file_whatever_it_ends_in(self) -> None:
        board = boards.board(write("sub/board", BOARD))
        assert (board.name, board.argument) == ("board", "sub/board")
        write("board", BOARD.replace('"smoke"', '"./recipe"'))
        write("recipe", PROTOCOL)
        board = boards.board("./board")
        assert boards.board(board.argument) == board
        recipe = protocols.protocol(board.protocol)
        assert recipe.name.startswith("recipe#")
        assert protocols.protocol(recipe.name) == recipe

    def test_a_protocol_is_looked_for_beside_the_board(self) -> None:
        write("sub/recipe.toml", PROTOCOL)
        board = boards.board(write("sub/mine.toml", BOARD.replace('"smoke"', '"recipe.toml"')))
        assert board.protocol == "sub/recipe.toml"
        assert protocols.protocol(board.protocol).epochs == 2

    @pytest.mark.parametrize("name", boards.names())
    def test_our_own_name_only_what_there_is(self, name: str) -> None:
        boards._check(name, boards.board(name))

    def test_references_of_a_board_that_names_none(self) -> None:
        found = registry().resolve("protector", "@reference")
        assert [p.selector for p in found] == ["none", "noise"]
        assert [p.selector for p in registry().resolve("protector", "@clean")] == ["none"]
        assert [p.selector for p in registry().resolve("countermeasure", "@plain")] == ["vanilla"]

    @pytest.mark.parametrize(
        ("change", "message", "hint"),
        [
            (("seeds = [0, 1]\nsed = 1",), "mine.toml: no key is called 'sed'", "did you mean seeds?"),
            (("name = 'x'",), "mine.toml: no key is called 'name'", ""),
            (('victims = ["resnet9[width=4]"]', ""), "mine.toml: victims is missing", "victims: list of strings"),
            (('["lsp"]', "'lsp'"), "mine.toml: protectors: Input should be a valid array", "list of strings"),
            (('["lsp"]', "[]"), "mine.toml: protectors: Tuple should have at least 1 item", "list of strings"),
            (("seeds = [0, -1]",), "mine.toml: seeds.1: Input should be greater than or equal to 0", "seeds of every"),
            (("seeds = [0, 1, 0]",), "mine.toml: seeds: seed 0 is there twice", "seeds of every cell"),
            (('["lsp"]', '["lps"]'), "mine.toml: protectors: no protector 'lps'", "did you mean"),
            (('"smoke"', '"smok"'), "mine.toml: protocol: no protocol 'smok'", "did you mean smoke?"),
            (('"demo[', '"demmo['), "mine.toml: dataset: no dataset 'demmo'", "did you mean demo?"),
            (('plain = "gray,jpeg"',), "mine.toml: plain: 'gray,jpeg' is 2 countermeasures", "name one"),
            (("title = ",), "mine.toml is not TOML: ", "toml.io"),
            (("title = ''",), "mine.toml: title: String should have at least 1", "heading"),
            (("seeds = [true]",), "mine.toml: seeds.0: Input should be a valid integer", "list of integers 0.."),
            (("seeds = ['1']",), "mine.toml: seeds.0: Input should be a valid integer", "list of integers 0.."),
            (
                ("clean = 'noise'\nreference = ['none']",),
                "mine.toml: clean: noise is none of the board's rows",
                "add it",
            ),
            (
                ("plain = 'bdr'",),
                "mine.toml: plain: bdr is none of the board's columns",
                "add it to its countermeasures",
            ),
        ],
    )
    def test_what_is_wrong_is_said_with_the_file_and_the_key(
        self, change: tuple[str, ...], message: str, hint: str
    ) -> None:
        text = BOARD.replace(*change) if len(change) == 2 else f"{change[0]}\n{BOARD}"
        error = refused(boards.board, write("mine.toml", text))
        assert isinstance(error, ValidationError)
        assert error.message.startswith(message)
        assert hint in error.hint

    def test_files_that_cannot_be_read(self) -> None:
        assert str(refused(boards.board, "./gone.toml")) == "no file gone.toml (check the path)"
        assert "is a folder" in refused(boards.board, "./").message
        Path("latin.toml").write_bytes(b"title = '\xe9'")
        assert "it is not UTF-8 text" in refused(boards.board, "latin.toml").message

    def test_a_name_that_is_a_file_here_gets_the_hint(self) -> None:
        write("mine.toml", BOARD)
        assert str(refused(boards.board, "mine")) == "no board 'mine' (mine.toml for the file of that name here)"


class TestProtocols:
    def test_a_file_is_a_protocol_named_by_its_content(self) -> None:
        recipe = protocols.protocol(write("mine.toml", PROTOCOL))
        assert recipe.name.startswith("mine.toml#")
        assert len(recipe.name) == len("mine.toml#3f2a91bc")
        assert protocol_identity(recipe).items() >= {"batch": 32, "epochs": 2, "learning_rate": 0.1}.items()

    def test_two_files_of_one_name_are_two_protocols(self) -> None:
        first = protocols.protocol(write("a/mine.toml", PROTOCOL))
        second = protocols.protocol(write("b/mine.toml", PROTOCOL.replace("epochs = 2", "epochs = 3")))
        assert first.name != second.name
        assert protocol_identity(first) != protocol_identity(second)
        assert protocols.protocol(write("c/mine.toml", PROTOCOL)) == first
        at = PROTOCOL + "[overrides.at]\nepochs = 3"
        assert protocols.protocol(write("d/mine.toml", at)).name not in (first.name, second.name)

    def test_a_field_that_an_override_alone_makes_use_of_may_stand_in_the_recipe(self) -> None:
        text = PROTOCOL + "milestones = [0.5]\n[overrides.at]\nschedule = 'multistep'"
        recipe = protocols.protocol(write("mine.toml", text))
        assert recipe.under(["at"], {}).rate(5, 10) == pytest.approx(0.1 * recipe.learning_rate)

    def test_words_about_a_recipe_make_no_other_one(self) -> None:
        first = protocols.protocol(write("mine.toml", PROTOCOL))
        second = protocols.protocol(write("mine.toml", PROTOCOL + "summary = 'mine'"))
        assert (second.name, second.summary) == (first.name, "mine")

    def test_the_shown_name_stands_for_the_file_while_it_holds_the_same(self) -> None:
        recipe = protocols.protocol(write("mine.toml", PROTOCOL))
        assert protocols.protocol(recipe.name) == recipe
        write("mine.toml", PROTOCOL.replace("32", "64"))
        assert refused(protocols.protocol, recipe.name).message.startswith(
            "mine.toml is another protocol than mine.toml#"
        )

    @pytest.mark.parametrize(
        ("change", "message", "hint"),
        [
            (("batch", "bach"), "mine.toml: no key is called 'bach'", "did you mean batch?"),
            (("batch = 32", ""), "mine.toml: batch is missing", "batch: integer 1.."),
            (("epochs = 2", ""), "mine.toml: give either steps or epochs", ""),
            (("0.1", "-0.1"), "mine.toml: learning_rate: Input should be greater than 0", "learning_rate: number 0.."),
            (("0.1", "inf"), "mine.toml: learning_rate: Input should be a finite number", "learning_rate: number"),
            (("cosine", "step"), "mine.toml: schedule: Input should be", "multistep|cosine|onecycle"),
            (
                ("batch", "milestones = [16000]\nbatch"),
                "mine.toml: milestones.0: Input should be less than 1",
                "list of",
            ),
            (('"cosine"', '"cosine"\n[overrides.at]\nepoch = 1'), "mine.toml: overrides.at: no key", "epochs"),
            (('"cosine"', '"cosine"\n[overrides.at]\nepochs = 0'), "mine.toml: overrides.at: epochs: Input", "1.."),
            (('"cosine"', '"cosine"\n[overrides.att]\nepochs = 3'), "mine.toml: overrides.att: no counterm", "at"),
            (('"cosine"', '"cosine"\n[overrides.at]\nversion = 3'), "mine.toml: overrides.at: no key is", ""),
            (("batch = 32", "batch = '32'"), "mine.toml: batch: Input should be a valid integer", "integer 1.."),
            (("batch", "clip = true\nbatch"), "mine.toml: clip: Input should be a valid number", "number 0.."),
            (("batch", "flip = 1\nbatch"), "mine.toml: flip: Input should be a valid boolean", ""),
            (("batch", "mean = [0.5]\nbatch"), "mine.toml: mean", "list of 3 numbers"),
            (('"cosine"', '"cosine"\n[overrides.at]\nbatch = "8"'), "mine.toml: overrides.at: batch: Input", "1.."),
            (
                ("batch", "milestones = [0.5]\nbatch"),
                "mine.toml: milestones: does nothing with schedule = cos",
                "leave it",
            ),
            (("batch", "factor = 0.1\nbatch"), "mine.toml: factor: does nothing with schedule = cosine", "leave it"),
            (("batch", "warmup = 0.1\nbatch"), "mine.toml: warmup: does nothing with schedule = cosine", "leave it"),
            (
                ("batch", "pad = 2\ncrop = 'resized'\nbatch"),
                "mine.toml: pad: does nothing with crop = resiz",
                "leave it",
            ),
            (("cosine", "multistep"), "mine.toml: multistep needs milestones", ""),
            (('"cosine"', '"constant"\nrate_changes = "epoch"'), "mine.toml: rate_changes: does nothing", "leave it"),
            (
                ('"cosine"', '"cosine"\n[overrides.at]\nwarmup = 0.1'),
                "mine.toml: overrides.at: warmup: does not",
                "leave",
            ),
        ],
    )
    def test_what_is_wrong_is_said_with_the_file_and_the_key(
        self, change: tuple[str, str], message: str, hint: str
    ) -> None:
        error = refused(protocols.protocol, write("mine.toml", PROTOCOL.replace(*change)))
        assert isinstance(error, ValidationError)
        assert error.message.startswith(message)
        assert hint in error.hint


REGISTERS = """
from ue_bench.api import hookimpl

@hookimpl
def ue_bench_register(register):
    register.board("brought", {{**{board!r}, "protocol": "quick"}})
    register.protocol("quick", "bringing_data:quick.toml")
    register.table("printed", "bringing_data:table", "Numbers of a paper")
"""


class TestRegistered:
    @pytest.fixture
    def bringing(self, install: Install, tmp_path: Path) -> Install:
        """A distribution with a board as plain data and a protocol as a file of its package."""
        fields = {
            "title": "Brought", "dataset": "demo", "victims": ["linear"], "protectors": ["lsp"],
            "countermeasures": ["vanilla"],
        }  # fmt: skip
        install("bringing", REGISTERS.format(board=fields))
        package = tmp_path / "site" / "bringing_data"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "quick.toml").write_text(f"version = 3\nsummary = 's'\nsource = 'own'\n{PROTOCOL}", encoding="utf-8")
        return install

    def test_can_be_named_like_our_own(self, bringing: Install) -> None:
        board = boards.board("brought")
        assert isinstance(board, Board)
        assert (board.title, board.argument, board.protocol) == ("Brought", "brought", "quick")
        recipe = protocols.protocol("quick")
        assert (recipe.name, recipe.version, recipe.epochs) == ("quick", 3, 2)
        assert registry().tables["printed"].distribution == "bringing 1.0"
        assert "brought" in boards.names()
        assert registry().problems == []

    def test_nobody_takes_the_name_of_one_of_ours(self, install: Install) -> None:
        code = "from ue_bench.api import hookimpl\n@hookimpl\ndef ue_bench_register(register):\n"
        install("aaa-thief", code + "    register.board('demo', {'title': 'x'})\n")
        assert boards.board("demo").title == "Demo"
        [problem] = registry().problems
        assert problem.reason.startswith("ValueError: board 'demo' is already registered by ue-bench ")

    def test_one_that_is_wrong_says_whose_it_is(self, bringing: Install, tmp_path: Path) -> None:
        (tmp_path / "site" / "bringing_data" / "quick.toml").write_text("batch = 1\nlr = 1", encoding="utf-8")
        assert str(refused(protocols.protocol, "quick")).startswith(
            "protocol 'quick' of bringing 1.0: no key is called 'lr'"
        )
        (tmp_path / "site" / "bringing_data" / "quick.toml").unlink()
        error = refused(protocols.protocol, "quick")
        assert isinstance(error, EnvironmentProblem)
        assert error.message.startswith("protocol 'quick' of bringing 1.0 cannot be read: FileNotFoundError")

    @pytest.mark.parametrize(
        ("name", "source", "reason"),
        [
            ("a b", {}, "cannot be the name of a board"),
            ("a.toml", {}, "it would be read as a file"),
            ("a", "boards/a.toml", "is not written package:folder/file.toml"),
            ("a", 5, "neither the name of a file nor a mapping"),
        ],
    )
    def test_nonsense_is_refused(self, name: str, source: Any, reason: str) -> None:
        with pytest.raises(ValueError, match=reason):
            Register(Registrations(), "x 1").board(name, source)
