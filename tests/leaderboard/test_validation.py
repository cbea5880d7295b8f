"""Files that lie, break or set traps: each is refused by name, in one line, with exit code 4."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ue_bench.catalogue import protocols
from ue_bench.catalogue.registry import registry
from ue_bench.grid.cell import protocol_identity
from ue_bench.keys import digest

from .forging import (
    BOARD,
    Plain,
    Run,
    changed,
    clean_but_changed,
    lacking,
    on_board,
    plain,
    reference,
    set_in,
    text,
    without_reference,
)

ONE = {"metrics__accuracy_last": 1.0, "metrics__accuracy_peak": 1.0}
FORGED: dict[str, tuple[str, str]] = {
    "accuracy of a share of one": (changed(**ONE), "is far below guessing"),
    "accuracy over 100": (changed(metrics__accuracy_last=101.0), "metrics.accuracy_last"),
    "accuracy below 0": (changed(metrics__accuracy_last=-1.0), "metrics.accuracy_last"),
    "accuracy that no count of images gives": (changed(metrics__accuracy_last=19.505), "no whole number of 10,000"),
    "peak below last": (changed(metrics__accuracy_peak=11.0), "accuracy_peak 11 is below"),
    "peak after the end": (changed(metrics__peak_epoch=900.0), "its peak is in epoch 900 of 8"),
    "not a number": (text('"accuracy_last": 19', '"accuracy_last": NaN, "x": 19'), "it holds NaN"),
    "infinite": (text('"loss_train": ', '"loss_train": Infinity, "x": '), "it holds Infinity"),
    "infinite in digits": (text('"loss_train": ', '"loss_train": 1e999, "x": '), "too large"),
    "huge whole number": (text('"seed": 0', f'"seed": {"9" * 100}'), "100 digits"),
    "negative seed": (changed(seed=-1, cell__seed=-1, id=plain()["id"].removesuffix("s0") + "s-1"), "its seed is -1"),
    "dated 9999": (changed(finished="9999-01-01T00:00:00+00:00"), "dated in the future"),
    "dated before": (changed(finished="1970-01-01T00:00:00+00:00"), "dated before"),
    "no date": (changed(finished="yesterday"), "finished is no date"),
    "no time zone": (changed(finished="2026-01-01T00:00:00"), "has no time zone"),
    "key of another cell": (text('"key": "', '"key": "0000'[:-1]), "key"),
    "key that is not its cell's": (json.dumps(plain() | {"key": "0" * 32}), "the key is not that of the cell"),
    "one name twice": (text('"seed": 0', '"seed": 0, "seed": 0'), "it says seed twice"),
    "deep nesting of lists": ("[" * 1000 + "]" * 1000, "nested too deeply"),
    "deep nesting in the cell": (changed(cell__protector__parameters={"a": [[[[[[[[[[[[1]]]]]]]]]]]]}), "nested"),
    "number as text": (changed(seed="0"), "seed"),
    "truth as number": (changed(metrics__learned=1), "metrics.learned"),
    "text as number": (changed(protector=5), "protector"),
    "unknown field": (changed(rank=1), "rank: Extra inputs"),
    "lacks a field": (lacking("metrics"), "metrics"),
    "a list": ("[]", "holds no object"),
    "empty": ("", "it is not JSON"),
    "cut": (json.dumps(plain())[:700], "it is not JSON"),
    "newer version": (changed(version=3), "of a newer version"),
    "version without a cell": (changed(version=1), "without a cell"),
    "version that is true": (changed(version=True), "its version is True"),
    "path in the environment": (changed(environment__device="/home/me/gpu"), "environment.device holds a path"),
    "path of Windows": (changed(environment__device="C:\\gpu"), "holds a path"),
    "host name": (changed(environment__device="Xeon on node7.cluster"), "name of a host or user"),
    "user and host": (changed(dataset__source="me@workstation"), "name of a host or user"),
    "path as commit": (changed(environment__commit="main"), "environment.commit is no version or commit"),
    "formula as name": (changed(dataset__source="=HYPERLINK(1)"), "begins like a spreadsheet formula"),
    "path within a text": (changed(dataset__source="see/home/user/images"), "dataset.source holds a path"),
    "path as author": (changed(author="/home/x"), "author holds a path"),
    "formula as author": (changed(author="@SUM(A1)"), "author begins like a spreadsheet formula"),
    "control character": (changed(dataset__source="CIFAR\u001b[2J"), "holds a control character"),
    "reversed text": (changed(dataset__source="CIFAR\u202e01"), "holds a control character"),
    "half a character": (text("CIFAR-10 (", "CIFAR\\ud800 ("), ""),
    "script as link": (changed(link="javascript:alert(1)"), "link is no https address"),
    "long author": (changed(author="a" * 101), "author is empty, too long"),
    "unknown plugin": (
        changed(protector="evil", cell__protector__name="evil", id=plain()["id"].replace("em[preset=micro]", "evil")),
        "there is no protector evil",
    ),
    "unknown revision": (changed(cell__protector__revision=99), "protector em has revision 99"),
    "unknown training loop": (changed(cell__engine=99), "its training loop has revision 99"),
    "revision that is true": (changed(cell__engine=True), "its training loop has revision True"),
    "seed of another type": (changed(cell__seed=0.0), "seed is 0, and written 0.0 in its cell"),
    "recipe of other types": (changed(cell__protocol__epochs=8.0), "is not that of protocol micro v2"),
    "id of another cell": (changed(id="cifar10/none/vanilla"), "its id is not cifar10[limit_per_class=1000]/em"),
    "other name of the same images": (
        changed(dataset__selector="cifar10", id=plain()["id"].replace("[limit_per_class=1000]", "")),
        "its dataset.selector is cifar10",
    ),
    "cell that says more": (changed(cell__again=1), "its cell has again"),
    "parameters that the name does not say": (
        changed(cell__protector__parameters={"preset": "micro", "eps": 0.5}),
        "its cell holds another one",
    ),
    "parameter that is none": (
        changed(protector="em[speed=9]", id=plain()["id"].replace("preset=micro", "speed=9")),
        "has no parameter",
    ),
    "unknown protocol": (
        changed(protocol="best", cell__protocol__name="best", id=plain()["id"].replace("/micro/", "/best/")),
        "there is no protocol best",
    ),
    "protocol of another version": (changed(protocol_version=9, cell__protocol__version=9), "its protocol is micro v9"),
    "recipe that is not the protocol's": (changed(cell__protocol__epochs=80), "is not that of protocol micro v2"),
    "digest of another protocol": (changed(protocol_digest="0" * 12), "its protocol digest is 000000000000"),
    "other images": (changed(dataset__fingerprint="0" * 16), "dataset is"),
    "other images, told whole": (
        changed(cell__train="0" * 32, dataset__fingerprint=digest(["0" * 32, plain()["cell"]["test"]])[:16]),
        "it was measured on other images",
    ),
    "other source of the same images": (changed(dataset__source="CIFAR-10"), "its dataset.source is CIFAR-10"),
    "more test images": (changed(dataset__test=20_000), "its dataset.test is 20000"),
    "no test images": (changed(dataset__test=0), "dataset.test: Input should be greater than or equal to 1"),
    "one class": (changed(dataset__classes=1), "fewer than two classes"),
    "Linf over the declared one": (changed(budget__linf_max=40), "its measured Linf 40 exceeds"),
    "another budget": (changed(budget__declared="none"), "it declares the budget none"),
    "a smaller Linf": (changed(budget__declared="linf 4/255"), "it declares the budget linf 4/255"),
    "a bound of another kind": (changed(budget__declared="rms 8/255"), "it declares the budget rms 8/255"),
    "PSNR of another change": (changed(budget__psnr=60.0), "are not of one change"),
    "mean change above the largest": (changed(budget__linf_mean=9.0), "have a mean or RMS above their maximum, 8"),
    "more changed pixels than there are": (changed(budget__l0_mean=1025.0), "is more than the 1,024 pixels"),
    "attempts without number": (changed(attempts=1_001), "it took 1,001 attempts"),
    "long text": (changed(dataset__source="CIFAR" * 41), "dataset.source has 205 characters"),
    "precision of its own": (changed(precision="fp8", cell__precision="fp8"), "its precision is fp8, not bf16 or fp32"),
    "victims in a victim": (
        changed(
            cell__victim={"name": ["x"], "combination": [{"name": "resnet9"}]},
            victim="resnet9",
            id=plain()["id"].replace("[blocks=1]", ""),
        ),
        "its victim is several",
    ),
    "bound that cannot be read": (changed(budget__declared="linf 8/255 or so"), "it declares the budget linf 8/255 or"),
    "no plugin in the cell": (changed(cell__victim="resnet9"), "the cell is incomplete"),
    "one plugin under two names": (
        changed(protector="em[preset='micro']", id=plain()["id"].replace("preset=micro", "preset='micro'")),
        "is written em[preset=micro]",
    ),
    "no reference": (without_reference(), "there is no clean reference, none under gray+jpeg[quality=10]"),
    "clean row of changed images": (clean_but_changed(), "is the clean reference, and its images were changed"),
    "reference that is too good": (reference(93.0), "none under vanilla is 93.00"),
    "other number for a cell of the board": (
        changed(metrics__accuracy_last=69.5, metrics__accuracy_peak=69.5),
        "apart",
    ),
}


def refused(run: Run, path: Path) -> str:
    """Validate one file that has to be refused; return the line that says why."""
    code, out, err = run("validate", *on_board(path))
    assert code == 4
    [line] = out.splitlines()
    assert line.startswith(f"{path}: ")
    assert len(line) < 600
    assert line.isprintable()
    assert err == "ue-bench: 0 new results, 0 known ones, 1 refused\n"
    return line


@pytest.mark.parametrize("name", FORGED)
def test_forged_results_are_refused_by_name(run: Run, tmp_path: Path, name: str) -> None:
    content, why = FORGED[name]
    path = tmp_path / "forged.json"
    path.write_text(content, encoding="utf-8")
    assert why in refused(run, path)


def under_iss23(parameters: Plain) -> str:
    """A result of ``at`` under that protocol, with these parameters in its cell."""
    fields, recipe = plain(countermeasure="at"), protocols.protocol("iss23")
    fields["cell"]["countermeasure"]["parameters"] = parameters
    fields["cell"]["protocol"] = protocol_identity(recipe.under(["at"], {}, "resnet9"))
    fields |= {"protocol": recipe.name, "protocol_version": recipe.version, "key": digest(fields["cell"])}
    fields["id"] = fields["id"].replace("/micro/", "/iss23/")
    return json.dumps(fields)


def test_parameters_that_a_protocol_sets_are_in_the_cell(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "at.json"
    path.write_text(under_iss23({}), encoding="utf-8")
    assert "its countermeasure is called at, and its cell holds another one" in refused(run, path)
    path.write_text(under_iss23({"eps": 0.031, "start": "gauss", "step_size": 0.007}), encoding="utf-8")
    assert "there is no clean reference" in refused(run, path)  # else it is sound


def test_what_is_no_small_text_file_is_refused(run: Run, tmp_path: Path) -> None:
    long = tmp_path / "long.json"
    long.write_text(changed(protector="x" * 10_000_000), encoding="utf-8")
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    link = tmp_path / "link.json"
    link.symlink_to(next((BOARD / "results" / "ar").iterdir()))
    fifo = tmp_path / "fifo.json"
    os.mkfifo(fifo)
    assert "and a result has at most 2,048" in refused(run, long)
    assert "it is not text" in refused(run, binary)
    assert "it is not a regular file" in refused(run, link)
    assert "it is not a regular file" in refused(run, fifo)


def test_two_files_of_one_key_are_both_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(changed(), encoding="utf-8")
    (tmp_path / "b.json").write_text(changed(attempts=2), encoding="utf-8")
    code, out, _ = run("validate", *on_board(tmp_path))
    assert code == 4
    assert [line.rpartition("/")[2].partition(":")[0] for line in out.splitlines()] == ["a.json", "b.json"]
    assert "it has the same key as b.json" in out


def test_a_name_of_a_file_cannot_write_to_the_terminal(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a\x1b[2J\n.json").write_text("[]", encoding="utf-8")
    code, out, _ = run("validate", *on_board(tmp_path))
    assert code == 4
    assert out.rstrip("\n").isprintable()


def test_the_boards_own_results_are_valid(run: Run) -> None:
    code, out, err = run("validate", *on_board(BOARD / "results"))
    assert (code, out) == (0, "")
    assert "0 refused" in err


def test_a_declaration_that_was_put_otherwise_is_no_reason_where_ranks_are_the_same(run: Run) -> None:
    """lsp declares more than 6/255 now, for its sums are rounded; rows before that are of the same kind of bound."""
    [path] = (BOARD / "results" / "lsp").glob("vanilla-*-s0-*.json")
    assert '"rms 6/255"' in path.read_text(encoding="utf-8")
    assert run("validate", *on_board(path))[0] == 0


def test_a_plugin_that_is_not_here_needs_its_distribution_named(run: Run, tmp_path: Path) -> None:
    new = {"protector": "mine", "cell__protector__name": "mine"}
    ident = plain()["id"].replace("em[preset=micro]", "mine")
    path = tmp_path / "mine.json"
    path.write_text(changed(**new, id=ident, distributions={"protector/mine": "mine-protector 1.0"}), encoding="utf-8")
    code, out, err = run("validate", *on_board(path))
    assert (code, out) == (0, "")
    assert "1 new results" in err


class TestABoardWhoseProtocolIsAFile:
    @pytest.fixture
    def mine(self, tmp_path: Path) -> tuple[str, Path]:
        """A board of the images of the committed one with a protocol of its own, and a clean result for it."""
        recipe = tmp_path / "mine.toml"
        recipe.write_text("batch=64\nlearning_rate=0.2\nepochs=3\nschedule='cosine'\n[overrides.at]\nepochs=2")
        (tmp_path / "b.toml").write_text(
            "dataset='cifar10[limit_per_class=1000]'\nprotocol='mine.toml'\nvictims=['resnet9[blocks=1]']\n"
            "protectors=['none','noise']\nreference=['none']\ncountermeasures=['vanilla']"
        )
        protocol = protocols.protocol(str(recipe))
        fields = plain("none", "vanilla")
        fields["cell"]["protocol"] = protocol_identity(protocol)
        fields |= {"protocol": protocol.name, "protocol_version": 1, "key": digest(fields["cell"])}
        fields["protocol_digest"] = protocols.content_digest(protocol)
        fields["id"] = fields["id"].replace("/micro/", f"/{protocol.name}/")
        fields["metrics"]["peak_epoch"] = 3.0
        result = tmp_path / "r.json"
        result.write_text(json.dumps(fields))
        return str(tmp_path / "b.toml"), result

    def test_its_results_are_valid(self, run: Run, mine: tuple[str, Path], tmp_path: Path) -> None:
        board, result = mine
        code, out, err = run("validate", "--board", board, "--out", tmp_path / "out", result)
        assert (code, out) == (0, "")
        assert "1 new results" in err

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"cell.protocol.epochs": 4}, "is not that of protocol mine.toml#"),
            ({"metrics.peak_epoch": 4.0}, "its peak is in epoch 4 of 3"),
            ({"protocol_digest": "0" * 12}, "its protocol digest is 000000000000"),
        ],
    )
    def test_they_are_held_to_it(
        self, run: Run, mine: tuple[str, Path], tmp_path: Path, changes: dict[str, Any], why: str
    ) -> None:
        board, result = mine
        fields = json.loads(result.read_text())
        for where, value in changes.items():
            set_in(fields, where, value)
        result.write_text(json.dumps(fields | {"key": digest(fields["cell"])}))
        code, out, _ = run("validate", "--board", board, "--out", tmp_path / "out", result)
        assert code == 4
        assert why in out

    def test_another_board_does_not_know_it(self, run: Run, mine: tuple[str, Path]) -> None:
        assert "there is no protocol mine.toml#" in refused(run, mine[1])


ELSEWHERE = {"distributions": {"protector/mine": "mine-protector 1.0"}, "id": plain()["id"].replace(
    "em[preset=micro]", "mine")} | {"protector": "mine", "cell__protector__name": "mine"}  # fmt: skip
FOREIGN: dict[str, tuple[dict[str, Any], str]] = {
    "shorter training": ({"cell__protocol__epochs": 1}, "is not that of protocol micro v2"),
    "no learning": ({"cell__protocol__learning_rate": 0.0}, "is not that of protocol micro v2"),
    "peak after the end": ({"metrics__peak_epoch": 900.0}, "its peak is in epoch 900 of 8"),
    "another victim": ({"cell__victim__parameters": {"blocks": 9}}, "its victim is called resnet9[blocks=1]"),
    "another countermeasure": ({"cell__countermeasure__parameters": {"eps": 0}}, "its countermeasure is called gray"),
    "Linf over the declared one": ({"budget__linf_max": 40}, "its measured Linf 40 exceeds"),
    "L2 over the declared one": ({"budget__declared": "l2 1.0", "budget__l2_mean": 50.0}, "its measured mean L2 50"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_plugin_that_is_not_here_excuses_nothing_else(run: Run, tmp_path: Path, name: str) -> None:
    changes, why = FOREIGN[name]
    path = tmp_path / "mine.json"
    path.write_text(changed(**ELSEWHERE | changes), encoding="utf-8")
    assert why in refused(run, path)


def test_a_file_that_is_not_here_excuses_nothing_else(run: Run, tmp_path: Path) -> None:
    new = {"protector": "precomputed[path=x.npy#01234567]", "cell__protector__name": "precomputed"}
    ident = plain()["id"].replace("em[preset=micro]", new["protector"])
    path = tmp_path / "mine.json"
    revision = registry().find("protector", "precomputed").plugin_class.revision
    sound = {**new, "id": ident, "cell__protector__revision": revision, "budget__declared": "none"}
    path.write_text(changed(**sound), encoding="utf-8")
    assert run("validate", *on_board(path))[0] == 0
    path.write_text(changed(**sound, cell__protocol__epochs=1), encoding="utf-8")
    assert "is not that of protocol micro v2" in refused(run, path)


def test_an_architecture_that_is_not_here_may_ask_for_rates(run: Run, board: Path, tmp_path: Path) -> None:
    """Any rate of its own is taken, and no other length of training."""
    fields = plain("none", "vanilla")
    fields["cell"]["victim"] = {"name": "mine", "parameters": {}, "revision": 1}
    fields["cell"]["protocol"] |= {"learning_rate": 0.001, "weight_decay": 0.0}
    fields |= {"victim": "mine", "distributions": {"victim/mine": "mine-victim 1.0"}, "key": digest(fields["cell"])}
    fields["id"] = fields["id"].replace("resnet9[blocks=1]", "mine")
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(fields), encoding="utf-8")
    assert run("validate", *on_board(path, out=board))[0] == 0
    fields["cell"]["protocol"]["epochs"] = 1
    path.write_text(json.dumps(fields | {"key": digest(fields["cell"])}), encoding="utf-8")
    assert "is not that of protocol micro v2" in refused(run, path)


def test_json_has_all_three_lists(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]", encoding="utf-8")
    code, out, _ = run("validate", *on_board(tmp_path, "--json"))
    assert code == 4
    assert json.loads(out) == {"new": [], "known": [], "refused": [f"{tmp_path / 'a.json'}: it holds no object"]}
