"""A SLURM of one node on this machine, without systemd and cgroups, in a folder of its own.

    python tests/slurm/cluster.py COMMAND ...      # runs a command in it, and takes it down

It needs Debian's packages slurm-wlm and munge, whose services may be off. Two partitions share the
node: jobs in `urgent` preempt those in `usual`, which are requeued after GRACE_S seconds of notice.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # where Debian puts servers
CPUS = 2
GRACE_S = 60

CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=0
MpiDefault=none
ReturnToService=2
KillWait=30
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=usual Nodes={host} Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace}
PartitionName=urgent Nodes={host} PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str:
    """What this machine lacks for a cluster; "" if nothing."""
    lacking = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    return f"no {', '.join(lacking)} (Debian: slurm-wlm and munge)" if lacking else ""


class Cluster:
    """A running SLURM; `env` is the environment of commands in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.env = folder, {**os.environ, "PATH": PATH}
        self._servers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Cluster:
        host = socket.gethostname().partition(".")[0]
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        self.folder.chmod(0o755)  # munged insists
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        conf = self.folder / "slurm.conf"
        known = {"host": host, "user": getpass.getuser(), "folder": self.folder}
        conf.write_text(CONF.format(**known, ports=_ports(2), cpus=CPUS, grace=GRACE_S))
        self.env["SLURM_CONF"] = str(conf)
        try:
            self._start(
                "munged",
                *("--foreground", "--force", f"--socket={self.folder}/munge.socket"),
                *(f"--key-file={key}", f"--pid-file={self.folder}/munged.pid"),
                *(f"--log-file={self.folder}/munged.out", f"--seed-file={self.folder}/munge.seed"),
            )
            self._wait(lambda: (self.folder / "munge.socket").exists())
            self._start("slurmctld", "-D")
            self._start("slurmd", "-D", "-N", host)
            self._wait(lambda: "idle" in self.call("sinfo", "--noheader", "--format=%T"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(subprocess.SubprocessError):
            self.call("scancel", f"--user={getpass.getuser()}")
            end = time.monotonic() + 20
            while self.call("squeue", "--noheader") and time.monotonic() < end:
                time.sleep(0.5)
        for server in reversed(self._servers):
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()

    def call(self, *command: str) -> str:
        """What a command of SLURM prints; CalledProcessError if it fails."""
        done = subprocess.run(
            command, env=self.env, check=False, capture_output=True, text=True, timeout=60
        )
        return done.stdout.strip()

    def _start(self, name: str, *options: str) -> None:
        program = shutil.which(name, path=PATH) or name
        with (self.folder / f"{name}.start").open("wb") as said:
            self._servers.append(
                subprocess.Popen([program, *options], env=self.env, stdout=said, stderr=said)
            )

    def _wait(self, ready) -> None:
        end = time.monotonic() + 60
        while not ready():
            ended = [server.args for server in self._servers if server.poll() is not None]
            if ended or time.monotonic() > end:
                texts = [path.read_text()[-2000:] for path in self.folder.glob("*.start")]
                raise RuntimeError(f"SLURM does not start: {ended}\n" + "\n".join(texts))
            time.sleep(0.2)


def _ports(count: int) -> list[int]:
    """Ports that nobody uses."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


if __name__ == "__main__":
    if lacking := missing():
        sys.exit(f"error: {lacking}")
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, Cluster(Path(name)) as cluster:
        code = subprocess.run(sys.argv[1:], env=cluster.env, check=False).returncode
    sys.exit(code)
