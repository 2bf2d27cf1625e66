"""Which place a process has among those of one run, by what its environment says."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

_EXPLICIT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")


@dataclass(frozen=True)
class Place:
    """The place of this process among those of its run."""

    address: str  # host:port of process 0
    count: int
    index: int
    devices: tuple[int, ...] | None  # of this host, that are its own; None: all that it sees
    elsewhere: bool = False  # it is known to be on another host than process 0


def place_of(env: Mapping[str, str] = os.environ) -> Place | None:
    """What the environment says of this process; None if it is alone.

    SLURM counts where all of its five variables are set, as in a step of srun, and the step has
    several tasks: an interactive shell of a job with many tasks is alone. ValueError: the variables
    of JAX are incomplete or make no sense.
    """
    given = [name for name in _EXPLICIT if env.get(name)]
    in_step = all(env.get(name) for name in _SLURM)
    if given == list(_EXPLICIT):
        count, index = (_count(env, name) for name in _EXPLICIT[1:])
        if index >= count:
            raise ValueError(
                f"JAX_PROCESS_ID={index} is none of JAX_NUM_PROCESSES={count} processes; they "
                f"count from 0 to {count - 1}."
            )
        return Place(_address(env), count, index, None) if count > 1 else None
    if given and not (in_step and given == ["JAX_COORDINATOR_ADDRESS"]):
        lacking = " and ".join(name for name in _EXPLICIT if name not in given)
        raise ValueError(
            f"{' and '.join(given)} is set without {lacking}; several processes of one run need "
            "all three, a single one none."
        )
    if not in_step:
        return None
    count = _count(env, "SLURM_STEP_NUM_TASKS" if env.get("SLURM_STEP_NUM_TASKS") else _SLURM[2])
    if count < 2:
        return None
    address = _address(env) if given else f"{_first_host(env[_SLURM[1]])}:{_port(env)}"
    elsewhere = env.get("SLURM_NODEID", "0") != "0"
    return Place(address, count, _count(env, "SLURM_PROCID"), _devices(env), elsewhere)


def _count(env: Mapping[str, str], name: str) -> int:
    if not env[name].isdecimal():
        raise ValueError(f"{name}={env[name]} must be a number.")
    return int(env[name])


def _address(env: Mapping[str, str]) -> str:
    address, port = env["JAX_COORDINATOR_ADDRESS"], env.get("JAX_COORDINATOR_PORT")
    if not re.search(r":\d+$", address):
        if not port:
            raise ValueError(f"JAX_COORDINATOR_ADDRESS={address} lacks a port; give host:port.")
        address = f"{address}:{port}"
    return address


def _first_host(nodes: str) -> str:
    """node01 of "node[01-03,07],other2"."""
    head, bracket, rest = re.split(r",(?![^[]*\])", nodes)[0].partition("[")
    return head + re.split(r"[-,\]]", rest)[0] if bracket else head


def _port(env: Mapping[str, str]) -> int:
    """That of a step of a job, of the last 4,096: steps of one node meet at several."""
    step = env.get("SLURM_STEP_ID", "0")
    number = int(env["SLURM_JOB_ID"]) + 61 * int(step if step.isdecimal() else 0)
    return int(env.get("JAX_COORDINATOR_PORT") or 61_440 + number % 4_096)


def _devices(env: Mapping[str, str]) -> tuple[int, ...] | None:
    """The numbers of a task's GPUs among those that it sees.

    SLURM may show each task its own alone (--gpus-per-task) or all of the node to each. JAX would
    take number SLURM_LOCALID, which the first of these lacks, and only one where a task has four.
    """
    if env.get("JAX_LOCAL_DEVICE_IDS"):
        return None  # JAX reads it
    local, tasks = _count(env, "SLURM_LOCALID"), 1
    of_nodes = env.get("SLURM_STEP_TASKS_PER_NODE", env.get("SLURM_TASKS_PER_NODE", ""))
    runs = re.findall(r"(\d+)(?:\(x(\d+)\))?", of_nodes)  # as 4(x2),3
    each, node = [int(n) for n, x in runs for _ in range(int(x or 1))], env.get("SLURM_NODEID", "0")
    if node.isdecimal() and int(node) < len(each):
        tasks = each[int(node)]
    seen = len([name for name in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()])
    if not seen:
        return (local,) if tasks > 1 else None
    own = env.get("SLURM_GPUS_PER_TASK") or env.get("SLURM_TRES_PER_TASK") or seen < tasks
    if own or tasks == 1:
        return tuple(range(seen))
    share = seen // tasks
    return tuple(range(local * share, (local + 1) * share))


def refuse_several(command: str, env: Mapping[str, str] = os.environ) -> None:
    """Refuse, with a ValueError, a command that is not made for several processes of one run."""
    if (place := place_of(env)) is not None:
        by = "JAX_NUM_PROCESSES" if env.get("JAX_NUM_PROCESSES") else "SLURM"
        raise ValueError(
            f"{command} takes one process, and {by} says that this is number {place.index} of "
            f"{place.count}; start it once, with srun --ntasks=1 or without the variables of JAX."
        )
