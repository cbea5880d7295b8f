from __future__ import annotations

from leaderboard.factory import result

from ue_bench.store.schema import Result, record_text


def test_records_share_the_names_of_their_fields_and_copies_do_not_change_them() -> None:
    first, second = (Result.model_validate_json(record_text(result(name))) for name in ("em", "ar"))
    before = set(first.model_fields_set)

    signed = first.model_copy(update={"author": "A. Person"})

    assert first.__pydantic_fields_set__ is second.__pydantic_fields_set__
    assert first.metrics.__pydantic_fields_set__ is second.metrics.__pydantic_fields_set__
    assert signed.model_fields_set - before == {"author"}
    assert first.model_fields_set == before
