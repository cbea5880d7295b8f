from __future__ import annotations

from ue_bench.leaderboard.prose import blocks, spans

TEXT = """Do this,
in two lines.

Modes:
- ``a``: one,
  which goes on
- ``b``: two
Behind the list.

- a list alone
"""


def test_a_docstring_is_cut_into_paragraphs_and_lists() -> None:
    assert list(blocks(TEXT)) == [
        "Do this, in two lines.",
        "Modes:",
        ["``a``: one, which goes on", "``b``: two"],
        "Behind the list.",
        ["a list alone"],
    ]
    assert list(blocks("")) == []


def test_code_is_told_from_text() -> None:
    assert spans("``eps`` is at most `1`, say ``x[a=`b`]``.") == [
        ("eps", True),
        (" is at most ", False),
        ("1", True),
        (", say ", False),
        ("x[a=`b`]", True),
        (".", False),
    ]
    assert spans("one ` alone") == [("one ` alone", False)]
