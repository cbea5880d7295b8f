"""What a driver knows of the groups that SLURM has: where they are, what they said, what SLURM says of them."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import EnvironmentProblem, one_line
from .choice import SlurmOptions, needed
from .executor import FailureClass, Job
from .slurm_group import lines_of

NAME = "ue-bench"  # of all SLURM jobs: squeue --name ue-bench, scancel --name ue-bench
FAILURES: dict[str, FailureClass] = {"OUT_OF_MEMORY": "resource", "TIMEOUT": "timeout", "DEADLINE": "timeout"}
FINAL = {*FAILURES, "GONE", "COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED"}
OLD = 3600.0  # seconds after which nobody reads the files of a group any more that has ended
REQUEUES = 20  # times that a SLURM job goes on after its time limit
PATIENCE = 60.0  # seconds that a command of SLURM may take


@dataclass(eq=False)
class Sent:
    """The near side: a group in SLURM's hands, as this driver or an earlier one has sent it."""

    record: Path
    job: str  # SLURM's id of it
    open: set[str]  # keys that have not ended
    slot: str = ""  # the node it was last seen on
    running: str = ""  # key of the job at work, until it waits in a queue again
    begun: set[str] = field(default_factory=set)
    looked_over: int = 0  # times in a row that SLURM did not know it, or called it finished
    mine: bool = False  # this driver sent it; another one may still read the files of an earlier one
    stopped: bool = False  # by this driver
    failed: bool = False  # any job of it
    _offset: int = 0

    @classmethod
    def save(cls, record: Path, job: str, keys: list[str]) -> Sent:
        """Write down for later drivers what SLURM has been given."""
        temporary = record.with_suffix(".new")
        temporary.write_text(json.dumps({"job": job, "keys": keys}, allow_nan=False), encoding="utf-8")
        temporary.replace(record)
        return cls(record, job, set(keys), mine=True)

    def read(self) -> list[dict[str, Any]]:
        """Return the lines that were added since the last call."""
        lines, self._offset = lines_of(events_of(self.record), self._offset)
        return lines

    @property
    def log(self) -> Path:
        """The file with what the SLURM job printed, as submitit names it."""
        return self.record.with_name(f"{self.job}_0_log.err")

    def last_words(self) -> str:
        """Return the last line of the log."""
        try:
            return (self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""])[-1]
        except OSError:
            return ""

    def rewind(self) -> None:
        """Let ``read`` return everything once more."""
        self._offset = 0

    def stop(self) -> None:
        """Cancel the SLURM job."""
        self.stopped = True
        subprocess.run(["scancel", self.job], check=False, capture_output=True, timeout=PATIENCE)

    def forget(self, keep_logs: bool = False) -> None:
        """Remove its files."""
        logs = [] if keep_logs else list(self.record.parent.glob(f"{self.job}_0_log.*"))
        pickles = list(self.record.parent.glob(f"{self.job}_*.pkl"))
        for path in [self.record, events_of(self.record), *pickles, *logs]:
            path.unlink(missing_ok=True)


def events_of(record: Path) -> Path:
    """Return the file that the group of ``record`` appends to."""
    return record.with_suffix(".events")


def grouped(jobs: Iterable[Job], seconds: float) -> Iterator[list[Job]]:
    """Put short jobs together, up to so many seconds.

    A job of unknown length goes alone, and so does one that failed before: it shall not take others with it again.
    """
    together: list[Job] = []
    total = 0.0
    for job in jobs:
        if job.seconds is None or job.attempt > 1 or job.alone:
            yield [job]
            continue
        if together and total + job.seconds > seconds:
            yield together
            together, total = [], 0.0
        together.append(job)
        total += job.seconds
    if together:
        yield together


def states() -> dict[str, str]:
    """Return the state of every SLURM job of this user, by its id; one that SLURM has forgotten is missing.

    Not from sacct, which needs a database that not every cluster has. Raises OSError or SubprocessError when SLURM does
    not answer.
    """
    command = ["squeue", "--me", f"--name={NAME}", "--array", "--noheader", "--states=all", "--format=%i|%T"]
    asked = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    return dict(line.split("|") for line in asked.stdout.split())


def sent_earlier(folder: Path) -> list[Sent]:
    """Return the groups that earlier drivers sent and that SLURM still has; files of older ones are removed."""
    known, found = states(), []
    for record in folder.glob("*.json"):
        try:
            said = json.loads(record.read_text(encoding="utf-8"))
            sent = Sent(record, said["job"], set(said["keys"]))
            age = time.time() - record.stat().st_mtime
        except (OSError, ValueError, KeyError):  # another driver has just removed it
            continue
        if known.get(sent.job, "GONE") not in FINAL:
            found.append(sent)
        elif age > OLD:
            sent.forget()
    return found


def open_submitit(folder: Path, options: SlurmOptions, threads: int) -> Any:
    """Return submitit's executor. Raises EnvironmentProblem where SLURM does not answer."""
    submitit = needed("submitit", "slurm")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        executor = submitit.SlurmExecutor(folder, max_num_timeout=REQUEUES)
        states()
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        hint = "run this where squeue works, or choose another --executor"
        raise EnvironmentProblem(f"SLURM does not answer: {one_line(error)}", hint) from error
    asked = options.sbatch(threads)
    more = {"requeue": True, **{name: asked.pop(name) for name in ("reservation",) if name in asked}}
    cpus = [f"--cpus-per-task={asked['cpus_per_task']}"]  # which srun does not take from sbatch since SLURM 22.05
    executor.update_parameters(
        job_name=NAME, time=options.time, additional_parameters=more, srun_args=cpus, **asked
    )  # fmt: skip
    return executor
