from __future__ import annotations

import errno

import pytest
import torch

from ue_bench.errors import Unwritable, UserError, batch_problem, first_line, one_line
from ue_bench.schedule.endings import describe, ending_of


def left_over() -> ValueError:
    """Return what torch raises of one image, of which one value a channel is left."""
    with pytest.raises(ValueError, match="more than 1 value") as caught:
        torch.nn.BatchNorm2d(4)(torch.zeros(1, 4, 1, 1))
    return caught.value


def test_a_batch_of_one_image_ends_in_one_line_that_says_what_to_do() -> None:
    ending = ending_of(left_over())
    assert ending.text.startswith("a batch of one image is left over")
    assert "choose another batch size" in ending.text
    assert not ending.trace
    assert ending.reusable


def test_another_wrong_value_keeps_its_traceback() -> None:
    try:
        raise ValueError("more than 1 value")
    except ValueError as error:
        known, ending = batch_problem(error), ending_of(error)
    assert known is None
    assert ending.text == "ValueError: more than 1 value"
    assert "Traceback" in ending.trace


def test_it_is_an_error_of_the_users() -> None:
    assert isinstance(batch_problem(left_over()), UserError)


def test_a_folder_that_is_not_to_be_written_is_no_failure_of_the_cell() -> None:
    ours = ending_of(Unwritable(errno.EACCES, "Permission denied", "out/results/x.json"))
    assert (ours.failure, ours.storage) == ("infrastructure", True)
    try:
        raise PermissionError(errno.EACCES, "Permission denied", "/somebody/weights.pt")
    except PermissionError as error:
        theirs = ending_of(error)
    assert (theirs.failure, theirs.storage) == ("task", False)


def test_what_an_error_says_cannot_write_to_the_terminal() -> None:
    assert one_line(ValueError("no\x00thing \x1b[2J here\nsecond")) == "ValueError: no?thing ?[2J here"
    assert first_line(ValueError("\x07")) == "?"
    assert describe(ValueError("no\x00thing")) == "ValueError: no?thing"
