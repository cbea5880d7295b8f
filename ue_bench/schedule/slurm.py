"""Jobs under SLURM, through submitit: arrays of SLURM jobs, each of which does a group of short jobs or one long one.

They outlive the driver: what happens in a group is appended to a file, which this driver or a later one reads.
"""

from __future__ import annotations

import secrets
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import EnvironmentProblem, one_line
from .call import Call
from .choice import SlurmOptions
from .endings import Ending
from .executor import Event, Job
from .slurm_group import ENDED, Group
from .slurm_sent import FAILURES, FINAL, Sent, events_of, grouped, open_submitit, sent_earlier, states

QUEUED = 1000  # jobs that are submitted at once by default; SLURM's own limits are of that size
GATHER = 2.0  # seconds for which jobs are gathered into one array
REFUSED = 60.0  # seconds after which sbatch is asked again


class SlurmExecutor:
    """Submits jobs from a machine with sbatch; ``folder``, the cache and the results are shared with the nodes.

    At most ``jobs`` are submitted at once. SLURM is asked for its jobs every ``poll`` seconds. Raises
    EnvironmentProblem where SLURM does not answer.
    """

    detached = True

    def __init__(
        self, call: Call, folder: Path, options: SlurmOptions, jobs: int | None = None, devices: str = "auto",
        poll: float = 5.0,
    ) -> None:  # fmt: skip
        gpus = devices == "cuda" or (devices == "auto" and options.asks_for_gpus)
        self.call = replace(call, device="cuda:0" if gpus else "cpu")
        self.folder, self.options, self.most, self.poll = folder, options, jobs or QUEUED, poll
        self._pending: list[Job] = []
        self._jobs: dict[str, Job] = {}  # that have not ended, pending ones too
        self._events: list[Event] = []
        self._excluded = [options.exclude] if options.exclude else []
        self._due, self._looked = 0.0, -poll
        self.submitit = open_submitit(folder, options, call.threads)
        self._sent = sent_earlier(folder)

    def capacity(self) -> int:
        """Return how many more jobs can be submitted."""
        return self.most - len(self._jobs)

    def submit(self, job: Job) -> None:
        """Take a job. One that an earlier driver has sent, and that SLURM still has, is only followed."""
        self._jobs[job.task.key] = job
        if sent := next((s for s in self._sent if job.task.key in s.open), None):
            sent.rewind()
        else:
            self._wait(job)

    def events(self, timeout: float) -> list[Event]:
        """Return what happened, in order."""
        self._send()
        self._look()
        if not self._events:
            time.sleep(timeout)
        events, self._events = self._events, []
        return events

    def retire(self, slot: str) -> None:
        """Send no more jobs to the node ``slot``."""
        self._excluded.append(slot)
        self.submitit.update_parameters(exclude=",".join(self._excluded))

    def cancel(self, key: str) -> str:
        """Stop the job with that key; return where its output lies. Others of its group are sent again."""
        self._jobs.pop(key, None)
        self._pending = [job for job in self._pending if job.task.key != key]
        log = ""
        for sent in [s for s in self._sent if key in s.open]:
            sent.open.discard(key)
            sent.failed, log = True, str(sent.log)
            sent.stop()
        return log

    def close(self) -> None:
        """Leave; what SLURM has goes on."""

    def _wait(self, job: Job) -> None:
        self._due = self._due if self._pending else time.monotonic() + GATHER
        self._pending.append(job)

    def _send(self) -> None:
        """Submit what waits, in one array of groups."""
        if not self._pending or time.monotonic() < self._due:
            return
        groups = [
            (self.folder / f"{secrets.token_hex(8)}.json", jobs)
            for jobs in grouped(self._pending, 60 * min(self.options.group, self.options.time / 2))
        ]
        try:
            submitted = self.submitit.submit_array(
                [Group(self.call, [(j.task.key, j.payload, j.attempt) for j in jobs], events_of(record))
                 for record, jobs in groups]
            )  # fmt: skip
        except (RuntimeError, OSError) as error:  # submitit passes on what sbatch says
            if not self._sent:
                raise EnvironmentProblem(f"sbatch refuses: {one_line(error)}", "see --slurm and sinfo") from error
            self._events.append(Event("warning", text=f"sbatch refuses, asked again in a minute: {one_line(error)}"))
            self._due = time.monotonic() + REFUSED
            return
        self._pending = []
        for one, (record, jobs) in zip(submitted, groups, strict=True):
            self._sent.append(Sent.save(record, one.job_id, [job.task.key for job in jobs]))

    def _look(self) -> None:
        """Read what groups say, and notice those that SLURM has put back or that ended without a word."""
        if time.monotonic() - self._looked < self.poll:
            return
        self._looked = time.monotonic()
        for sent in self._sent:
            for line in sent.read():
                self._hear(sent, **line)
        try:
            known = states()
        except (OSError, subprocess.SubprocessError) as error:  # slurmctld restarts, or is busy
            self._events.append(Event("warning", text=f"squeue does not answer: {one_line(error)}"))
            return
        for sent in list(self._sent):
            state = known.get(sent.job, "GONE")
            if state == "PENDING" and (job := self._jobs.get(sent.running)):  # requeued
                self._events.append(Event("waiting", job.task, sent.slot))
                sent.running = ""
            # Twice: the last lines of a group may reach this machine after the news of its end.
            sent.looked_over = sent.looked_over + 1 if state in FINAL else 0
            if sent.looked_over > 1:
                self._bury(sent, state)

    def _hear(self, sent: Sent, key: str, kind: Any, said: Any = (), slot: str = "", **how: Any) -> None:
        """Take in a line of a group."""
        job = self._jobs.get(key) if key in sent.open else None  # the next attempt at what was cancelled is not meant
        if kind == "started":
            sent.slot, sent.running = slot, key
            sent.begun.add(key)
        if kind in ENDED:
            sent.open.discard(key)
            seconds = how.pop("seconds")
            if job:
                self._end(sent, job, Ending(kind, **how), seconds)
        elif job:
            self._events.append(Event.of(job, sent.slot, kind, *said))

    def _end(self, sent: Sent, job: Job, ending: Ending, seconds: float | None = None) -> None:
        del self._jobs[job.task.key]
        sent.failed = sent.failed or ending.kind == "failed"
        self._events.append(ending.event(job, sent.slot, str(sent.log), seconds))

    def _bury(self, sent: Sent, state: str) -> None:
        """Forget a group that has ended. What it had not begun when it broke is sent again, for it is not at fault."""
        self._sent.remove(sent)
        for job in [self._jobs[key] for key in sorted(sent.open) if key in self._jobs]:
            if sent.stopped or (sent.begun and job.task.key not in sent.begun):
                self._wait(job)
            else:
                text = f"SLURM job {sent.job} ended: {state} {sent.last_words()}".strip()
                self._end(sent, job, Ending("failed", text, failure=FAILURES.get(state, "infrastructure")))
        if sent.mine:
            sent.forget(keep_logs=sent.failed)
