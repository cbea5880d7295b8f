from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import Toy, toy_registry

from ue_bench.catalogue.selectors import Part, Term, parse
from ue_bench.contract.plugin import Plugin
from ue_bench.contract.values import format_value, scalar, write_text
from ue_bench.errors import UserError


def only(text: str) -> Part:
    [term] = parse(text)
    [part] = term.parts
    return part


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name", [Term((Part("name"),))]),
        ("two-words.x_1", [Term((Part("two-words.x_1"),))]),
        ("glob*", [Term((Part("glob*"),))]),
        ("all", [Term((Part("all"),))]),
        ("@tag", [Term((Part("@tag"),))]),
        ("^exclude", [Term((Part("exclude"),), exclude=True)]),
        ("^@tag", [Term((Part("@tag"),), exclude=True)]),
        ("a+b", [Term((Part("a"), Part("b")))]),
        ("a+b+c", [Term((Part("a"), Part("b"), Part("c")))]),
        ("one,two", [Term((Part("one"),)), Term((Part("two"),))]),
        ("name[p=v,q=[1,2]]", [Term((Part("name", {"p": ["v"], "q": [1, 2]}),))]),
        ("a+b[p=1],^c", [Term((Part("a"), Part("b", {"p": [1]}))), Term((Part("c"),), exclude=True)]),
        (" a [ p = 1 , q = [ x , y ] ] + b , c ", [
            Term((Part("a", {"p": [1], "q": ["x", "y"]}), Part("b"))), Term((Part("c"),))
        ]),
    ],
)  # fmt: skip
def test_every_form_of_the_grammar(text: str, expected: list[Term]) -> None:
    assert parse(text) == expected


def test_several_selectors_are_read_in_order() -> None:
    assert [t.parts[0].name for t in parse(["a,b", "c"])] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("false", False),
        ("null", None),
        ("12", 12),
        ("-3", -3),
        ("0.5", 0.5),
        ("1e-5", 1e-5),
        ("8/255", "8/255"),
        ("4:2:0", "4:2:0"),
        ("inf", "inf"),
        ("nan", "nan"),
        ("True", "True"),
        ("a b", "a b"),
    ],
)
def test_bare_values(text: str, value: Any) -> None:
    found = scalar(text)
    assert (found, type(found)) == (value, type(value))
    assert only(f"x[p={text}]").parameters == {"p": [value]}


@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize("text", ["a,b]", "10", "true", "", " padded ", "[1,2]", "x=1"])
def test_quoted_values_are_text_as_it_stands(text: str, quote: str) -> None:
    assert only(f"x[p={quote}{text}{quote},q=1]").parameters == {"p": [text], "q": [1]}


def test_lists_sweep_with_the_last_parameter_fastest() -> None:
    found = list(only("x[a=[1,2],b=['u',v],c=3]").combinations())
    assert found == [
        {"a": 1, "b": "u", "c": 3},
        {"a": 1, "b": "v", "c": 3},
        {"a": 2, "b": "u", "c": 3},
        {"a": 2, "b": "v", "c": 3},
    ]


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("", "‸", "a name"),
        ("a,", "a,‸", "a name"),
        ("a+", "a+‸", "a name"),
        ("^", "^‸", "a name"),
        ("@", "@‸", "a tag"),
        ("a[", "a[‸", "a parameter name"),
        ("a[p", "a[p‸", "'='"),
        ("a[p=", "a[p=‸", "a value"),
        ("a[p=1", "a[p=1‸", "']'"),
        ("a[p=,q=1]", "a[p=‸,q=1]", "a value"),
        ("a[p=[1,2]", "a[p=[1,2]‸", "']'"),
        ("a[p='x]", "a[p=‸'x]", "a closing '"),
        ("a[p='x'y]", "a[p='x'‸y]", "']'"),
        ("a b", "a ‸b", "',', '+' or the end"),
        ("a]", "a‸]", "',', '+' or the end"),
    ],
)
def test_errors_point_at_the_place(text: str, place: str, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(text)
    assert repr(place) in caught.value.message
    assert caught.value.message.endswith(f"expected {expected}")
    assert caught.value.hint


def test_a_parameter_given_twice_is_an_error() -> None:
    with pytest.raises(UserError, match="'p' is given twice"):
        parse("a[p=1,p=2]")


@pytest.mark.parametrize(
    ("value", "ratio", "shown"),
    [
        (8 / 255, True, "8/255"),
        (1 / 255, True, "1/255"),
        (0.2, True, "51/255"),
        (0.2, False, "0.2"),
        (8 / 255, False, repr(8 / 255)),
        (8 / 255 + 1e-12, True, repr(8 / 255 + 1e-12)),
        (0.1, True, "25.5/255"),
        (1.0, True, "1.0"),
        (True, False, "true"),
        (None, True, "null"),
        (3, False, "3"),
        ("3", False, "'3'"),
        ("it's, so", False, '"it\'s, so"'),
    ],
)
def test_values_as_a_selector_shows_them(value: Any, ratio: bool, shown: str) -> None:
    assert format_value(value, ratio) == shown


def test_only_parameters_that_differ_from_their_defaults_are_shown() -> None:
    assert Toy().selector == "toy"
    assert Toy(count=3, flag=False).selector == "toy"
    assert Toy(eps="16/255", text="a,b").selector == "toy[eps=16/255,text='a,b']"


READABLE = st.text(max_size=12).filter(lambda t: not ("'" in t and '"' in t))
RATIOS = st.integers(1, 255).map(lambda n: n / 255) | st.floats(0, 1, exclude_min=True)


@given(
    st.builds(
        Toy,
        count=st.integers(-1000, 1000),
        scale=st.floats(allow_nan=False, allow_infinity=False),
        eps=RATIOS,
        radius=st.none() | RATIOS,
        text=READABLE | st.sampled_from(["true", "null", "10", "1e3", "inf", "8/255", "[1]", "'", '"']),
        mode=st.sampled_from(["class", "sample"]),
        flag=st.booleans(),
    )
)
@settings(max_examples=300)
def test_a_canonical_selector_stands_for_the_same_plugin(plugin: Plugin) -> None:
    [found] = toy_registry().resolve("protector", plugin.selector)
    assert found == plugin
    assert found.selector == plugin.selector


@given(READABLE)
def test_text_survives_writing_and_reading(text: str) -> None:
    assert only(f"x[p={write_text(text)},q=1]").parameters == {"p": [text], "q": [1]}
