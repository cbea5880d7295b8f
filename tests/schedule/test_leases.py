"""Leases between processes that see each other through a folder alone, on a clock that the test moves."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ue_bench import leases as module
from ue_bench.leases import Lease, Leases
from ue_bench.processes import Identity


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Host(Leases):
    """A process on another host: it beats when the test says so."""

    def start(self) -> None:
        self.owners.mkdir(parents=True, exist_ok=True)
        if not self._beat_file.exists():
            self._beat_file.write_bytes(b"0".rjust(20))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hosts(tmp_path: Path, clock: Clock) -> list[Host]:
    return [Host(tmp_path / "leases", 60, clock) for _ in range(3)]


def wait(host: Host, clock: Clock, seconds: float, name: str = "x", every: float = 5) -> Lease | None:
    """Ask for the lease again and again for so long."""
    end = clock.now + seconds
    while clock.now < end:
        clock.now += every
        if lease := host.claim(name):
            return lease
    return None


def test_one_of_several_gets_it_and_the_next_after_it_was_given_back(hosts: list[Host]) -> None:
    taken = [host.claim("x", "a cell") for host in hosts]
    assert [lease is not None for lease in taken] == [True, False, False]
    assert taken[0] is not None
    assert taken[0].held()
    assert hosts[1].claim("y") is not None
    hosts[0].release(taken[0])
    assert not taken[0].held()
    assert hosts[2].claim("x") is not None


def test_a_lease_says_who_has_it(hosts: list[Host]) -> None:
    hosts[0].claim("x", "a cell")
    holder = hosts[1].held()["x"]
    assert (holder.label, holder.owner, holder.patience) == ("a cell", hosts[0].owner, 60)
    assert Identity.of(holder.process) == Identity.here()


def test_a_silent_owner_loses_its_lease_to_exactly_one(hosts: list[Host], clock: Clock) -> None:
    lost = hosts[0].claim("x")
    assert wait(hosts[1], clock, 55) is None
    won = wait(hosts[1], clock, 20)
    assert won is not None
    assert won.held()
    assert lost is not None
    assert not lost.held()
    assert wait(hosts[2], clock, 55) is None  # the new owner has just begun
    hosts[0].release(lost)  # one that wakes up takes nothing away
    assert won.held()


def test_an_owner_that_beats_keeps_it(hosts: list[Host], clock: Clock) -> None:
    hosts[0].claim("x")
    for _ in range(100):
        clock.now += 30
        hosts[0].beat()
        assert hosts[1].claim("x") is None


def test_clocks_of_files_do_not_matter(hosts: list[Host], clock: Clock, tmp_path: Path) -> None:
    """As where a host's clock is an hour behind, or is set back while it works."""
    hosts[0].claim("x")
    for number in range(20):
        clock.now += 30
        hosts[0].beat()
        for path in (tmp_path / "leases").rglob("*"):
            os.utime(path, (1 + number % 2, 1))
        assert hosts[1].claim("x") is None


def test_time_in_which_nobody_looked_is_not_silence(hosts: list[Host], clock: Clock) -> None:
    """As when the whole machine slept, and this process is the first to wake."""
    hosts[0].claim("x")
    assert hosts[1].claim("x") is None
    clock.now += 8 * 3600
    assert hosts[1].claim("x") is None
    hosts[0].beat()
    assert wait(hosts[1], clock, 55) is None


def test_an_owner_that_promised_to_beat_more_rarely_is_given_its_time(tmp_path: Path, clock: Clock) -> None:
    patient, hasty = Host(tmp_path, 600, clock), Host(tmp_path, 10, clock)
    patient.claim("x")
    assert wait(hasty, clock, 500, every=2) is None
    assert wait(hasty, clock, 700, every=2) is not None


def test_a_lease_that_is_taken_while_a_stale_one_is_removed_is_put_back(hosts: list[Host], tmp_path: Path) -> None:
    old = hosts[0].claim("x")
    assert old is not None
    hosts[0].release(old)
    new = hosts[1].claim("x")
    module._take_away(tmp_path / "leases" / "x", old.token)  # what a slow observer does that saw the old one
    assert new is not None
    assert new.held()


def test_half_of_a_lease_is_somebody_s_until_it_stays_so(hosts: list[Host], clock: Clock, tmp_path: Path) -> None:
    """Where there are no links a lease is created first and written then: its maker may die in between."""
    hosts[0].start()
    (tmp_path / "leases" / "x").touch()
    assert wait(hosts[1], clock, 55) is None
    assert wait(hosts[1], clock, 20) is not None


def test_file_systems_without_links(hosts: list[Host], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any, **__: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    test_one_of_several_gets_it_and_the_next_after_it_was_given_back(hosts)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are told apart by Linux' /proc")
def test_the_lease_of_a_process_that_died_here_is_free_at_once(hosts: list[Host], tmp_path: Path) -> None:
    code = f"from pathlib import Path; from ue_bench.leases import Leases; import os; \
Leases(Path({str(tmp_path / 'leases')!r})).claim('x'); os._exit(9)"
    subprocess.run([sys.executable, "-c", code], check=False)
    assert (tmp_path / "leases" / "x").exists()
    assert hosts[0].claim("x") is not None


def test_a_process_elsewhere_is_never_known_to_be_dead() -> None:
    assert not Identity("another machine/pid:[1]", 999_999_999, "1").has_ended
    assert not Identity.here().has_ended
    assert not Identity.of("").has_ended


def test_a_folder_that_went_away_is_noticed(
    hosts: list[Host], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lease = hosts[0].claim("x")
    (tmp_path / "leases").rename(tmp_path / "gone")
    hosts[0].beat()
    assert not hosts[0].working
    assert lease is not None
    assert not lease.held()
    assert "cannot be kept" in caplog.text


def test_beats_begin_with_the_first_lease_and_end_after_the_last(tmp_path: Path) -> None:
    real = Leases(tmp_path, 0.2)
    lease = real.claim("x")
    assert lease is not None
    [beat] = (tmp_path / "owners").iterdir()
    first = beat.read_bytes()
    while beat.read_bytes() == first:
        pass
    real.release(lease)
    thread = real._thread
    if thread is not None:
        thread.join(20)
    assert list((tmp_path / "owners").iterdir()) == []
    assert real.claim("x") is not None
    real.close()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
