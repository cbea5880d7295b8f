from __future__ import annotations

import pytest
from toys import Halver, Needy, Toy, toy_registry

from ue_bench.catalogue.describe import describe
from ue_bench.catalogue.registry import Registry, registry
from ue_bench.contract.combination import Combination
from ue_bench.contract.plugin import Plugin
from ue_bench.contract.registration import Register
from ue_bench.errors import EnvironmentProblem, NothingSelected, UserError, did_you_mean


def names(plugins: list[Plugin]) -> list[str]:
    return [p.selector for p in plugins]


def columns(*selectors: str) -> list[str]:
    return names(toy_registry().resolve("countermeasure", selectors))


def message(kind: str, selector: str) -> str:
    with pytest.raises(UserError) as caught:
        toy_registry().resolve(kind, selector)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return str(caught.value)


def test_a_typo_gets_the_nearest_name() -> None:
    assert message("countermeasure", "briter") == "no countermeasure 'briter' (did you mean brighter?)"


def test_a_name_like_no_other_gets_the_list() -> None:
    assert "known: clean, needy, toy" in message("protector", "xyzzy")


def test_an_unknown_parameter_gets_the_valid_ones_with_their_ranges() -> None:
    text = message("protector", "toy[cuont=1]")
    assert "has no parameter 'cuont'" in text
    assert "count=integer -1000..1000, default 3" in text
    assert "eps=number 0..1, default 8/255" in text
    assert "mode=class|sample, default class" in text
    assert "flag=boolean, default false" in text


def test_a_missing_parameter_is_named() -> None:
    assert message("protector", "needy").startswith("protector 'needy' needs path=... (parameters: path=path")


@pytest.mark.parametrize(
    ("selector", "place"),
    [
        ("toy[count=1001]", "toy[count=1001]: Input should be less than or equal to 1000"),
        ("toy[count=x]", "toy[count=x]: Input should be a valid integer"),
        ("toy[eps=0/255]", "toy[eps=0.0]: Input should be greater than 0"),
        ("toy[eps=1/0]", "toy[eps=1/0]: '1/0' is not a fraction"),
        ("toy[mode=both]", "toy[mode=both]: Input should be 'class' or 'sample'"),
        ("toy[text=5]", "toy[text=5]: Input should be a valid string"),
    ],
)
def test_a_bad_value_is_shown_with_its_parameter(selector: str, place: str) -> None:
    text = message("protector", selector)
    assert text.startswith(place)
    assert "count=integer -1000..1000" in text


def test_fractions_are_numbers() -> None:
    [plugin] = toy_registry().resolve("protector", "toy[eps=16/255]")
    assert isinstance(plugin, Toy)
    assert plugin.eps == 16 / 255


def test_globs_take_names_in_alphabetical_order() -> None:
    assert columns("*er") == ["brighter", "doubler", "halver", "other"]


def test_a_glob_passes_its_parameters_on() -> None:
    assert columns("brigh*[by=[2,3]]") == ["brighter[by=2]", "brighter[by=3]"]


def test_a_glob_without_a_match_selects_nothing() -> None:
    with pytest.raises(NothingSelected, match=r"no countermeasure matches 'zz\*'"):
        columns("zz*")


class TestWhatCannotBeHad:
    @pytest.fixture(autouse=True)
    def no_weights(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def identity(plugin: Plugin) -> None:
            raise EnvironmentProblem("no weights", "put them there")

        monkeypatch.setattr(Halver, "identity", identity)

    @pytest.mark.parametrize(
        ("selectors", "left"),
        [
            ("*er", ["brighter", "doubler", "other"]),
            ("brighter+*er,plain", ["brighter+brighter", "brighter+doubler", "brighter+other", "plain"]),
            ("halver,*er", ["halver", "brighter", "doubler", "other"]),
            ("halver,plain,^*er", ["plain"]),
        ],
        ids=["a glob", "a combination", "named as well", "taken away"],
    )
    def test_only_what_a_glob_stands_for_is_left_out(self, selectors: str, left: list[str]) -> None:
        said: list[str] = []

        def left_out(name: str, problem: UserError) -> None:
            said.append(f"{name}: {problem.message}")

        found = toy_registry().resolve("countermeasure", selectors, left_out=left_out)
        assert names(found) == left
        wanted = {"*er": ["halver: no weights"], "brighter+*er,plain": ["brighter+halver: no weights"]}
        assert said == wanted.get(selectors, [])

    def test_nobody_who_hears_of_it_keeps_it(self) -> None:
        assert [p.name for p in toy_registry().resolve("countermeasure", "ha*")] == ["halver"]


def test_the_same_plugin_is_taken_once() -> None:
    assert columns("plain,brighter", "plain", "brighter[by=1]") == ["plain", "brighter"]


def test_plugins_on_files_of_one_name_are_kept_apart() -> None:
    found = toy_registry().resolve("protector", "needy[path=a/x.npz],needy[path=b/x.npz]")
    assert len(found) == 2


def test_all_is_the_list_of_the_board() -> None:
    found = toy_registry().resolve("countermeasure", "all", ["halver", "brighter[by=5]"])
    assert names(found) == ["halver", "brighter[by=5]"]


def test_all_without_a_board_is_everything() -> None:
    assert columns("all") == ["brighter", "doubler", "halver", "other", "plain", "procedure"]


@pytest.mark.parametrize(
    ("selector", "left"),
    [
        ("brighter,brighter[by=2],plain,^brighter", ["plain"]),
        ("brighter,brighter[by=2],plain,^brighter[by=2]", ["brighter", "plain"]),
        ("brighter,brighter[by=2],plain,^brighter[by=1]", ["brighter[by=2]", "plain"]),
        ("plain,halver,brighter,^*er", ["plain"]),
        ("plain,halver,^plain,plain", ["halver", "plain"]),
        ("plain,plain+halver,^plain+halver", ["plain"]),
        ("plain,^halver", ["plain"]),
    ],
)
def test_exclusion_takes_away_what_stands_before_it(selector: str, left: list[str]) -> None:
    assert columns(selector) == left


def test_what_needs_parameters_is_taken_away_by_its_name_alone() -> None:
    for exclusion in ("^precomputed", "^pre*"):
        left = registry().resolve("protector", f"precomputed[path={__file__}],noise,{exclusion}")
        assert [plugin.name for plugin in left] == ["noise"]


def test_a_typo_in_an_exclusion_is_an_error() -> None:
    assert "did you mean halver?" in message("countermeasure", "all,^halvr")


def test_excluding_everything_selects_nothing() -> None:
    with pytest.raises(NothingSelected, match="the selection of countermeasures is empty"):
        columns("plain,^plain")


def test_tags_and_sets() -> None:
    found = Registry()
    register = Register(found, "toys 1.0")
    for name, tags in (("plain", ("cheap",)), ("brighter", ("cheap", "light")), ("halver", ())):
        register("countermeasure", name, f"toys:{name.title()}", name, tags)
    register.set("countermeasure", "table", ["halver", "brighter[by=[2,3]]"], "columns of a table")
    assert names(found.resolve("countermeasure", "@cheap")) == ["brighter", "plain"]
    assert names(found.resolve("countermeasure", "@table")) == ["halver", "brighter[by=2]", "brighter[by=3]"]
    assert names(found.resolve("countermeasure", "@table,^@light")) == ["halver"]
    with pytest.raises(UserError, match=r"no countermeasure is tagged @tabel.*did you mean table"):
        found.resolve("countermeasure", "@tabel")
    with pytest.raises(UserError, match="@table takes no parameters"):
        found.resolve("countermeasure", "@table[by=2]")


def test_dh12_has_the_thirteen_columns_of_the_tables() -> None:
    assert len(registry().resolve("countermeasure", "@dh12")) == 13


def test_combinations_keep_their_order_and_sweep() -> None:
    assert columns("halver+brighter[by=[2,3]]+plain") == ["halver+brighter[by=2]+plain", "halver+brighter[by=3]+plain"]
    assert columns("brighter+halver", "halver+brighter") == ["brighter+halver", "halver+brighter"]


def test_a_combination_has_at_most_one_training_procedure() -> None:
    [found] = toy_registry().resolve("countermeasure", "procedure+halver")
    assert isinstance(found, Combination)
    text = message("countermeasure", "procedure+halver+other")
    assert text.startswith("procedure and other are both training procedures")


def test_only_countermeasures_can_be_combined() -> None:
    assert "protectors cannot be combined" in message("protector", "toy+clean")


@pytest.mark.parametrize("name", ["all", "a*", "a b", "a+b", "@x", "", "a?"])
def test_names_that_selectors_cannot_write_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name"):
        Register(Registry(), "x 1")("victim", name, "x:X", "")


def test_kinds_and_repetitions_are_checked() -> None:
    register = Register(Registry(), "first 1.0")
    register("victim", "net", "x:X", "")
    register.set("victim", "few", ["net"], "")
    with pytest.raises(ValueError, match=r"already registered by first 1\.0"):
        register("victim", "net", "x:Y", "")
    with pytest.raises(ValueError, match="@few is already registered"):
        register.set("victim", "few", ["net"], "")
    register.table("printed", "x:table", "")
    with pytest.raises(ValueError, match=r"table 'printed' is already registered by first 1\.0"):
        register.table("printed", "x:other", "")
    with pytest.raises(ValueError, match="'a b' cannot be the name of a table"):
        register.table("a b", "x:table", "")
    with pytest.raises(ValueError, match="no kind 'vicitm'"):
        register("vicitm", "net2", "x:X", "")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("nowhere:X", "cannot be loaded: ModuleNotFoundError"),
        ("toys:Nothing", "cannot be loaded: AttributeError"),
        ("toys:PROTOCOL", "is not a Protector class"),
        ("toys:Plain", "is not a Protector class"),
        ("toys:Clean", "calls itself 'clean' but is registered as 'x'"),
    ],
)
def test_a_class_that_cannot_be_used_is_reported_with_its_distribution(target: str, reason: str) -> None:
    found = Registry()
    Register(found, "stranger 0.3")("protector", "x", target, "")
    with pytest.raises(EnvironmentProblem) as caught:
        found.resolve("protector", "x")
    assert reason in str(caught.value)
    assert "stranger 0.3" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_describe_shows_bounds_of_optional_fractions() -> None:
    assert "radius=number, default null" in describe(Toy)
    assert describe(Needy) == ["path=path", "other=path, default null"]


def test_did_you_mean_without_anything_known() -> None:
    assert did_you_mean("x", []) == "known: none"
