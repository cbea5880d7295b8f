"""A real SLURM for one command: ``python -m schedule.slurm_cluster FOLDER COMMAND...``, in a network of its own.

Starts munged, slurmctld and slurmd with one node, this machine, that listens on its loopback interface only. The node
has four CPUs and two GPUs, which are plain files. Jobs of the partition ``urgent`` push those of ``main`` back into the
queue. What is requeued starts again after ``cred_expire`` seconds. The daemons end with the command.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
CPUS, GPUS = 4, 2
DEADLINE = 60.0  # seconds until the node takes jobs


def lacks() -> str:
    """Why there can be no such SLURM here; empty if there can."""
    missing = [name for name in (*DAEMONS, "sbatch", "srun") if not shutil.which(name, path=SBIN)]
    if missing:
        return f"{', '.join(missing)} not installed (Debian: slurm-wlm munge)"
    return no_network()


def no_network() -> str:
    """Why there can be no network of one's own here; empty if there can."""
    missing = [name for name in ("unshare", "ip") if not shutil.which(name, path=SBIN)]
    if missing:
        return f"{', '.join(missing)} not installed (Debian: util-linux iproute2)"
    tried = subprocess.run(in_own_network("true"), capture_output=True, text=True, check=False)
    return f"no network of one's own: {tried.stderr.strip()}" if tried.returncode else ""


def in_own_network(*command: str) -> list[str]:
    """``command`` where there is nothing but a loopback interface, and whose end is that of all it has started.

    That has a second address, of those kept for examples: SLURM looks up names as getaddrinfo does with AI_ADDRCONFIG,
    which finds nothing on a machine that has no address but 127.0.0.1.
    """
    network = "ip link set lo up && ip address add 192.0.2.1/32 dev lo"
    alone = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return [*alone, "sh", "-c", f'{network} && exec "$@"', "sh", *command]


def configure(folder: Path) -> None:
    host, user = socket.gethostname(), getpass.getuser()
    for index in range(GPUS):
        try:  # twins of /dev/null: for plain files SLURM counts GPUs, but does not say which one a job has
            os.mknod(folder / f"gpu{index}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        except PermissionError:
            (folder / f"gpu{index}").touch()
    (folder / "gres.conf").write_text(f"NodeName={host} Name=gpu File={folder}/gpu[0-{GPUS - 1}]\n")
    (folder / "key").write_bytes(secrets.token_bytes(1024))
    (folder / "key").chmod(0o400)
    (folder / "slurm.conf").write_text(f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
KillWait=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={CPUS} Gres=gpu:{GPUS} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES State=UP PriorityTier=1
PartitionName=urgent Nodes={host} State=UP PriorityTier=9
""")


def main(folder: Path, command: list[str]) -> int:
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    configure(folder)
    environment = {**os.environ, "PATH": SBIN, "SLURM_CONF": str(folder / "slurm.conf")}
    files = {
        "socket": "munge.socket",
        "key-file": "key",
        "pid-file": "pid",
        "seed-file": "seed",
        "log-file": "munge.log",
    }
    munge = [f"--{what}={folder}/{name}" for what, name in files.items()]
    starts = [["munged", "--foreground", "--force", *munge], ["slurmctld", "-D"], ["slurmd", "-D"]]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for words in starts:
            with (folder / f"{words[0]}.out").open("wb") as output:
                running.append(subprocess.Popen(words, env=environment, stdout=output, stderr=output))
        end = time.monotonic() + DEADLINE
        while "idle" not in _sinfo(environment):
            if time.monotonic() > end or any(daemon.poll() is not None for daemon in running):
                for log in sorted(folder.glob("*.log")) + sorted(folder.glob("*.out")):
                    print(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}", file=sys.stderr)
                return 70
            time.sleep(0.2)
        return subprocess.run(command, env=environment, check=False).returncode
    finally:
        for daemon in reversed(running):
            daemon.terminate()
        for daemon in running:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()


def _sinfo(environment: dict[str, str]) -> str:
    command = ["sinfo", "--noheader", "--format=%t"]
    asked = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return asked.stdout


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
