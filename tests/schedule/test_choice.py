"""Reading what is said of executors, and refusing what does not fit."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ue_bench.errors import EnvironmentProblem, UserError
from ue_bench.schedule.choice import LOCAL, ExecutorChoice, SlurmOptions, minutes, needed


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("1:30", 2), ("4:00:00", 240), ("1-00", 1440), ("1-02:30", 1590), ("2-0:0:1", 2881), ("0:30", 1)],
)
def test_times_are_read_as_sbatch_does(text: str, expected: int) -> None:
    assert minutes(text) == expected


@given(st.integers(0, 9), st.integers(0, 23), st.integers(0, 59), st.integers(1, 59))
def test_no_second_of_a_time_is_lost(days: int, hours: int, minute: int, seconds: int) -> None:
    asked = ((days * 24 + hours) * 60 + minute) * 60 + seconds
    assert 0 <= minutes(f"{days}-{hours}:{minute:02}:{seconds:02}") * 60 - asked < 60


@pytest.mark.parametrize("text", ["", "0", "-5", "a", "1:2:3:4", "1-", "-"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # int's own messages
        minutes(text)


def test_options_keep_commas_in_values() -> None:
    options = SlurmOptions.parse(["partition=gpu,nodelist=n[1,3],n7", "time=4:00:00,cpus-per-task=8"])
    assert (options.partition, options.nodelist, options.time) == ("gpu", "n[1,3],n7", 240)
    assert options.sbatch(2) == {"partition": "gpu", "nodelist": "n[1,3],n7", "cpus_per_task": 8}


def test_cpus_follow_the_threads() -> None:
    assert SlurmOptions().sbatch(4) == {"cpus_per_task": 4}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("partitoin=gpu", "'partitoin'", "did you mean partition"),
        ("gpu", "'gpu'", "partition=gpu"),
        ("time=soon", "time=soon", "4:00:00"),
        ("cpus_per_task=many", "cpus_per_task=many", "a number"),
    ],
)
def test_a_mistake_is_named(text: str, message: str, hint: str) -> None:
    with pytest.raises(UserError) as raised:
        SlurmOptions.parse([text])
    assert message in raised.value.message
    assert hint in raised.value.hint


@pytest.mark.parametrize(
    "words", [("locla",), ("local", "10.0.0.1"), ("slurm", "10.0.0.1"), ("ray", "", ["partition=gpu"])]
)
def test_what_does_not_fit_together_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as raised:
        ExecutorChoice.of(*words)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(("devices", "precision"), [("cuda:1", "bf16"), ("cuda,cpu", "fp32"), ("auto", "auto")])
def test_settings_of_this_machine_are_refused_elsewhere(devices: str, precision: str) -> None:
    LOCAL.check(devices, precision)
    for name in ("ray", "slurm"):
        with pytest.raises(UserError, match=f"--executor {name}|--precision"):
            ExecutorChoice.of(name).check(devices, precision)


@pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_extra_says_how_to_get_it(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EnvironmentProblem) as raised:
        ExecutorChoice.of(name).check("auto", "fp32")
    assert str(raised.value) == f"--executor {name} needs {package} (pip install 'ue-bench[{name}]')"


def test_what_is_there_is_imported() -> None:
    assert needed("json", "ray").dumps([1]) == "[1]"
