"""One light grid through any executor: ``python -m schedule.cluster_grid FOLDER EXECUTOR MODE
SECONDS LONG``, the time that a task takes and that one of them takes.

Three 'protect' tasks, each needed by four 'train' tasks, as in ``driver``, but what a task stores follows from what it
reads. MODE names what happens in mid-run, see ``DISTURBANCES``; ``limit`` lets the time of a SLURM job be short,
``hang`` makes one task stand still until the driver's limit. Prints what happened as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ue_bench.schedule.call import Call
from ue_bench.schedule.choice import SlurmOptions
from ue_bench.schedule.devices import Slot
from ue_bench.schedule.driver import Driver
from ue_bench.schedule.executor import Event, Executor
from ue_bench.schedule.graph import Task
from ue_bench.schedule.local import LocalExecutor
from ue_bench.schedule.ray import RayExecutor
from ue_bench.schedule.rules import Limits
from ue_bench.schedule.slurm import SlurmExecutor

from .targets import write

PROTECTORS, VICTIMS = "abc", "wxyz"
TARGET = f"{__package__}.cluster_grid:step"
LONG = "aw"  # the task in which it happens
NAMES = [*PROTECTORS, *(p + v for p in PROTECTORS for v in VICTIMS)]


def step(name: str, slot: Slot, settings: dict[str, Any], report: Any, attempt: int) -> None:
    """Store what ``name`` stands for, unless an attempt before this one did."""
    out, log = Path(settings["out"]), settings["log"]
    write(log, f"start {name} {os.getpid()} {attempt}")
    path = out / f"{name}.json"
    if path.exists():
        return
    report(0, 1, "asleep")
    begun = time.monotonic()
    work_on(out / f"{name}.state", settings["seconds"] if name != LONG else settings["long"])
    if name == LONG and attempt == 1:
        time.sleep(settings["hang"])
    before = json.loads((out / f"{name[0]}.json").read_text())["value"] if len(name) > 1 else ""
    environment = {"device": slot.device, "packed": slot.packed, "gpu": os.environ.get("CUDA_VISIBLE_DEVICES")}
    value = hashlib.sha256(f"{name}{before}".encode()).hexdigest()
    result = {"name": name, "value": value, "environment": environment, "seconds": time.monotonic() - begun}
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(result))
    part.rename(path)
    write(log, f"made {name} {os.getpid()}")


def work_on(state: Path, seconds: float) -> None:
    """Take so long, less what earlier attempts have done."""
    done = float(state.read_text()) if state.exists() else 0.0
    while done < seconds:
        time.sleep(min(0.5, seconds - done))
        done += 0.5
        part = state.with_suffix(f".{os.getpid()}")
        part.write_text(str(done))
        part.rename(state)


def tasks(out: Path) -> list[Task]:
    every = [Task(p, f"protect {p}", p, kind="protect") for p in PROTECTORS]
    every += [Task(p + v, f"train {p}{v}", p + v, (p,), kind="train") for p in PROTECTORS for v in VICTIMS]
    return [t for t in every if not (out / f"{t.key}.json").exists()]


def stored(out: Path) -> dict[str, dict[str, Any]]:
    """Result files by name, without what depends on the place and the time."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(out.glob("*.json"))}
    return {
        name: {k: v for k, v in said.items() if k not in ("environment", "seconds")} for name, said in found.items()
    }


def job_of(folder: Path, key: str) -> str:
    """SLURM's id of the job that computes ``key``."""
    for record in (folder / "slurm").glob("*.json"):
        said = json.loads(record.read_text())
        if key in said["keys"]:
            return str(said["job"])
    raise LookupError(key)


def remove_node(cluster: Any, folder: Path, key: str) -> None:
    import ray

    here = ray.get_runtime_context().get_node_id()
    cluster.remove_node(next(node for node in cluster.list_all_nodes() if node.node_id != here))


def let_an_urgent_job_in(cluster: Any, folder: Path, key: str) -> None:
    subprocess.check_call(["sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"])


def tell_slurm(*words: str) -> Callable[[Any, Path, str], None]:
    def tell(cluster: Any, folder: Path, key: str) -> None:
        for _ in range(10):  # slurmctld may be busy, and says so by an exit code
            if subprocess.call([*words, job_of(folder, key)]) == 0:
                return
            time.sleep(0.3)
        raise RuntimeError(f"SLURM does not take {words}")

    return tell


def leave(cluster: Any, folder: Path, key: str) -> None:
    os._exit(9)


DISTURBANCES: dict[str, Callable[[Any, Path, str], None]] = {
    "node": remove_node,
    "cancel": tell_slurm("scancel"),
    "requeue": tell_slurm("scontrol", "requeue"),
    "time": tell_slurm("scancel", "--signal=USR2"),  # as SLURM does shortly before the time limit
    "preempt": let_an_urgent_job_in,
    "leave": leave,
}


def open_executor(kind: str, folder: Path, mode: str, seconds: float, long: float) -> tuple[Executor, Any]:
    """The executor, and the Ray cluster under it if there is one."""
    out = folder / "out"
    hang = 600.0 if mode == "hang" else 0.0
    settings = {"out": str(out), "log": str(folder / "log"), "seconds": seconds, "long": long, "hang": hang}
    call = Call(TARGET, settings)
    if kind == "local":
        return LocalExecutor([Slot(f"cpu#{i}", "cpu", 1) for i in range(3)], TARGET, settings), None
    if kind == "slurm":
        minutes = 2 if mode == "limit" else 5  # a job hears of it 90 seconds before
        return SlurmExecutor(
            call, folder / "slurm", SlurmOptions(time=minutes, gres="gpu:1", group=0.03), poll=0.3
        ), None
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    cluster.wait_for_nodes()
    return RayExecutor(call, cluster.address, jobs=2), cluster


def main(folder: Path, kind: str, mode: str, seconds: float, long: float) -> dict[str, Any]:
    (folder / "out").mkdir(parents=True, exist_ok=True)
    events: list[list[Any]] = []
    executor, cluster = open_executor(kind, folder, mode, seconds, long)
    disturbed = mode not in DISTURBANCES

    def on_event(event: Event) -> None:
        nonlocal disturbed
        events.append([event.kind, event.task.key if event.task else "", event.slot, event.attempt, event.failure])
        if not disturbed and event.kind == "started" and event.task and event.task.key == LONG:
            disturbed = True
            time.sleep(0.5)
            DISTURBANCES[mode](cluster, folder, event.task.key)

    try:
        limits = Limits(10.0 if mode == "hang" else None)
        failed = Driver(executor, on_event, limits=limits).run(tasks(folder / "out"))
    finally:
        if cluster is not None:
            cluster.shutdown()
    return {"failed": failed, "events": events}


if __name__ == "__main__":
    place, executor_name, disturbance, length, longest = sys.argv[1:]
    with suppress(BrokenPipeError):
        print(json.dumps(main(Path(place), executor_name, disturbance, float(length), float(longest))), flush=True)
