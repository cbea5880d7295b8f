"""Paths as parameters: what results call them, and how such a name is found again."""

from __future__ import annotations

from pathlib import Path

import pytest
from toys import Needy, toy_registry

from ue_bench.catalogue.registry import registry
from ue_bench.catalogue.selectors import parse
from ue_bench.contract.plugin import Plugin, digest_path, find_input, name_and_digest
from ue_bench.errors import UserError
from ue_bench.grid.surrogates import training_passes


def file(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def needy(text: str, *folders: Path) -> Needy:
    [found] = toy_registry().resolve("protector", text, folders=folders)
    assert isinstance(found, Needy)
    return found


def test_files_of_one_name_have_selectors_of_their_own(tmp_path: Path) -> None:
    first, second = (Needy(path=file(tmp_path / n / "noise.npy", n.encode())) for n in "ab")

    assert first.selector != second.selector
    assert first.selector.startswith("needy[path=noise.npy#")


def test_a_selector_names_no_folder_whatever_way_the_path_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = file(tmp_path / "secret" / "set" / "x", b"1").parent
    monkeypatch.chdir(target)

    shown = {Needy(path=path).selector for path in (target, Path(), Path("../set"), Path("../set/."))}

    assert shown == {f"needy[path=set#{digest_path(target)[:8]}]"}


NAMES = ["noise.npy", "my, set", "[1]", "a#b", "a'b", 'it\'s "mine", [really]', "'\"", "猫 1.npz", "x#0123abcd"]


@pytest.mark.parametrize("name", NAMES)
def test_a_selector_that_is_shown_can_be_given_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    plugin = Needy(path=file(tmp_path / "here" / name, b"content"))
    monkeypatch.chdir(tmp_path / "here")

    again = needy(plugin.selector)

    assert again.identity() == plugin.identity()
    assert again.selector == plugin.selector
    assert len(parse(plugin.selector)) == 1


def test_it_is_looked_for_here_then_in_the_folders_and_where_a_path_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = file(tmp_path / "data" / "x.npz", b"wanted")
    written = name_and_digest(wanted)
    file(tmp_path / "here" / "x.npz", b"another of that name")
    monkeypatch.chdir(tmp_path / "here")

    assert needy(f"needy[path={written}]", tmp_path / "data").path == wanted
    assert needy(f"needy[path={tmp_path}/data/{written}]").path == wanted
    with pytest.raises(UserError) as missing:
        needy(f"needy[path={written}]")
    assert missing.value.message == f"the file x.npz with digest {written[-8:]} is not here"
    assert missing.value.hint == (
        f"run from its folder, or give its path; the one here is {name_and_digest(Path('x.npz'))}"
    )


def test_a_file_that_is_nowhere_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UserError) as missing:
        needy("needy[path=noise.npy#3f2a91bc]")

    assert missing.value.exit_code == 2
    assert str(missing.value) == (
        "the file noise.npy with digest 3f2a91bc is not here (run from its folder, or give its path)"
    )


def test_a_file_whose_name_ends_like_a_digest_is_itself(tmp_path: Path) -> None:
    literal = file(tmp_path / "x.npz#3f2a91bc", b"1")
    assert find_input(literal) == literal
    assert find_input(tmp_path / "y#3f2a91b") == tmp_path / "y#3f2a91b"  # seven digits are part of a name


def test_a_relative_path_is_read_in_the_folder_it_is_used_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    for folder in "ab":
        monkeypatch.chdir(file(tmp_path / folder / "x", folder.encode()).parent)
        shown.append(Needy(path=Path("x")).selector)
    assert shown[0] != shown[1]


def test_a_plain_path_is_an_input_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unmarked(Plugin):
        name = "unmarked"
        path: Path | None = None
        more: tuple[Path, ...] = ()

    monkeypatch.chdir(tmp_path)
    first, second = file(tmp_path / "x", b"1"), file(tmp_path / "b" / "x", b"2")

    assert Unmarked(path=Path(name_and_digest(first))).path == first
    assert Unmarked(path=first).identity() != Unmarked(path=second).identity()
    assert str(tmp_path) not in str(Unmarked(path=first, more=(second,)).identity())
    assert str(tmp_path) not in Unmarked(path=first, more=(second,)).selector


def test_a_folder_of_a_diffusion_model_is_an_input_and_a_hub_id_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = file(tmp_path / "micro" / "config.json", b"{}").parent
    monkeypatch.chdir(tmp_path)
    [given] = registry().resolve("countermeasure", f"diffpure[model={model}]")
    [again] = registry().resolve("countermeasure", given.selector)
    [hub] = registry().resolve("countermeasure", "diffpure[model=someone/model]")

    assert given.selector == f"diffpure[model={name_and_digest(model)}]"
    assert again.model_dump()["model"] == model
    assert hub.selector == "diffpure[model=someone/model]"


def test_a_selector_inside_a_parameter_says_which_file_it_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = file(tmp_path / "w.npz", b"weights")
    monkeypatch.chdir(tmp_path)
    [named] = registry().resolve("countermeasure", f"comdefend[weights={weights}]")

    with pytest.raises(UserError, match=r"in a parameter does not say which w\.npz it means") as refused:
        training_passes(f"comdefend[weights={weights}]")

    assert named.selector in refused.value.hint
    training_passes(named.selector)
