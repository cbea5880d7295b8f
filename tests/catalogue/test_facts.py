"""What a plugin says of itself, by what it is about."""

from __future__ import annotations

import pytest
from toys import torchvision_module

from ue_bench.catalogue.facts import facts, sections
from ue_bench.catalogue.registry import registry
from ue_bench.contract.registration import KIND_NAMES

TEXT = """Moves every image, section 3.

The step is ``eps``. Deviations: ours is
shorter.

- and whole

Raises UserError for
nothing.

Expect 10 % (the paper).

More of the method: one of

- ``a``
- ``b``
"""


def test_paragraphs_are_sorted_by_what_they_begin_with() -> None:
    parts = sections(TEXT)
    assert parts.opening == "Moves every image, section 3."
    assert parts.method == "The step is ``eps``.\n\nMore of the method: one of\n\n- ``a``\n- ``b``"
    assert parts.deviations == "Deviations: ours is\nshorter.\n\n- and whole"
    assert parts.expected == "Expect 10 % (the paper)."
    assert parts.raises == "Raises UserError for\nnothing."


def test_the_first_paragraph_is_the_opening_whatever_it_begins_with() -> None:
    assert sections("Expect nothing.").opening == "Expect nothing."
    assert sections("").opening == ""


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_nothing_of_a_docstring_is_lost(kind: str) -> None:
    torchvision_module("torchvision")  # which some victims are made of
    for record in registry().of_kind(kind):
        known = facts(record)
        parts = known.sections
        together = " ".join([parts.opening, parts.method, parts.deviations, parts.expected, parts.raises])
        assert sorted(together.split()) == sorted(known.text.split()), record.name


def test_facts_are_those_of_the_parameters() -> None:
    record = registry().find("protector", "hypo")
    assert facts(record).budget.startswith("l2")
    assert facts(record, "hypo[norm=linf]").budget.startswith("linf")
    assert facts(record).uses_networks
    assert facts(record).clean_images == 0
    assert facts(registry().find("countermeasure", "at")).passes == pytest.approx(23 / 3)
    assert facts(registry().find("victim", "mlp")).protocol_fields["optimizer"] == "adam"


def test_a_plugin_that_needs_parameters_has_facts_too() -> None:
    record = registry().find("protector", "precomputed")
    known = facts(record)
    assert known.plugin is None
    assert (known.budget, known.largest_image) == ("", 0)
    assert "path" in known.parameters


def test_protectors_of_papers_say_what_to_expect_or_that_nothing_is_published() -> None:
    protectors = [facts(record) for record in registry().of_kind("protector")]
    assert [known.record.name for known in protectors if known.paper and not known.sections.expected] == []
