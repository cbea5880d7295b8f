from __future__ import annotations

from typing import Any

import pytest

from ue_bench.contract.table import Ask, Line, Setting, Table


def test_an_ask_knows_its_unit() -> None:
    assert Ask("a", ("v",)).unit == "percent"
    assert Ask("a", ("v",), of="evasion", value="psnr").unit == "dB"
    assert Ask("a", ("v",), of="features", value="intra").unit == "cosine"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"countermeasures": ()}, "at least one countermeasure"),
        ({"value": "psnr"}, "training has no 'psnr', only accuracy"),
        ({"of": "features"}, "features has no 'accuracy', only intra, inter"),
        ({"fraction": 1.5}, "a share from 0 to 1"),
        ({"of": "evasion", "fraction": 0.5}, "a share from 0 to 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ask(**({"protector": "a", "countermeasures": ("v",)} | fields))


def test_a_line_has_one_unit() -> None:
    with pytest.raises(ValueError, match="is in percent and asks for dB"):
        Line(("x",), {}, {"c": Ask("a", ("v",), of="evasion", value="psnr")})


def test_labels_are_complete_and_differ() -> None:
    with pytest.raises(ValueError, match="two lines of one label"):
        Table("t", "title", "source", ("row",), (Line(("x",)), Line(("x",))))
    with pytest.raises(ValueError, match="has 1 heads"):
        Table("t", "title", "source", ("row",), (Line(("x", "y")),))


def test_columns_are_printed_ones_first() -> None:
    ask = Ask("a", ("v",))
    table = Table(
        "t",
        "title",
        "source",
        ("row",),
        (
            Line(("x",), {}, {"here": ask}),
            Line(("y",), {"one": 1.0}, {"here": ask}, dataset="b"),
            Line(("z",), {"two": 2.0, "one": 1.0}, dataset="b"),
        ),
    )
    assert table.columns == ("one", "two", "here")
    assert table.printed == ("one", "two")
    assert table.measured == ("here",)
    assert table.asks == [ask, ask]
    assert table.datasets == ("b",)
    assert table.lines[0].protectors == ("a",)


def test_a_default_is_one_of_the_choices() -> None:
    assert Setting("size", "of a patch", choices=("4", "8")).default is None
    with pytest.raises(ValueError, match="the default of size is none of its choices, 4, 8"):
        Setting("size", "of a patch", "5", ("4", "8"))
