"""Several processes of one run: which place each has, and a run that changes their number."""

import json
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny import tiny_experiment

from benchmarks.processes import apart, codes, together, wait_for_step
from ssm_jax.commands import runs
from ssm_jax.stop import EXIT_STOPPED, StopRequest
from ssm_jax.training import loop, processes
from ssm_jax.training.checkpoint.io import list_steps
from ssm_jax.training.places import Place, place_of

TINY = Path(__file__).with_name("tiny.py")
EXPLICIT = {
    "JAX_COORDINATOR_ADDRESS": "head:1234",
    "JAX_NUM_PROCESSES": "4",
    "JAX_PROCESS_ID": "3",
}
STEP = {
    "SLURM_JOB_ID": "4097", "SLURM_STEP_NODELIST": "gpu[07-09,12],other", "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
}  # fmt: skip


def test_jax_variables_name_a_place():
    assert place_of(EXPLICIT) == Place("head:1234", 4, 3, None)
    apart_port = {"JAX_COORDINATOR_ADDRESS": "head", "JAX_COORDINATOR_PORT": "77"}
    assert place_of({**EXPLICIT, **apart_port}).address == "head:77"
    assert place_of({**EXPLICIT, "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}) is None
    assert place_of({}) is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"JAX_PROCESS_ID": ""}, "without JAX_PROCESS_ID"),
        ({"JAX_COORDINATOR_ADDRESS": ""}, "without JAX_COORDINATOR_ADDRESS"),
        ({"JAX_PROCESS_ID": "4"}, "count from 0 to 3"),
        ({"JAX_NUM_PROCESSES": "four"}, "JAX_NUM_PROCESSES=four must be a number"),
        ({"JAX_COORDINATOR_ADDRESS": "head"}, "lacks a port"),
    ],
)
def test_half_a_place_is_refused_in_one_line(changed, said):
    with pytest.raises(ValueError, match=said) as error:
        place_of({**EXPLICIT, **changed})
    assert len(str(error.value).splitlines()) == 1


def test_all_meet_once_a_program_is_compiled(monkeypatch, data_dir):
    """Else the first to have it sends, and gives up on one that compiles for another 30 s."""
    experiment, met = tiny_experiment(data_dir), []
    program = SimpleNamespace(memory_analysis=lambda: None)
    monkeypatch.setattr(experiment, "compile_step", lambda *_, **__: program)
    monkeypatch.setattr(processes, "meet", lambda: met.append(experiment))
    batch = next(experiment.train_batches(0))
    for _ in range(2):
        assert experiment.step_for(batch, training=True) is program
    assert met == [experiment]


def test_a_step_of_slurm_names_a_place():
    assert place_of(STEP) == Place("gpu07:61441", 8, 5, (1,), elsewhere=True)
    assert place_of({**STEP, "SLURM_STEP_ID": "2"}).address == "gpu07:61563"
    assert place_of({**STEP, "SLURM_STEP_NODELIST": "a,b"}).address == "a:61441"
    assert place_of({**STEP, "SLURM_STEP_NODELIST": "n[3,5]"}).address == "n3:61441"
    named = {"JAX_COORDINATOR_ADDRESS": "ib0:9"}
    assert place_of({**STEP, **named}).address == "ib0:9"


@pytest.mark.parametrize("lacking", ["SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID"])
def test_a_batch_script_or_an_allocation_is_alone(lacking):
    assert place_of({name: value for name, value in STEP.items() if name != lacking}) is None


def test_an_interactive_step_of_a_larger_job_is_alone():
    assert place_of({**STEP, "SLURM_STEP_NUM_TASKS": "1"}) is None


@pytest.mark.parametrize(
    ("changed", "devices"),
    [
        ({"CUDA_VISIBLE_DEVICES": "3"}, (0,)),  # its own alone: JAX would ask for number 1
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, (1,)),  # all of the node
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, (2, 3)),
        ({"CUDA_VISIBLE_DEVICES": "4,5,6,7", "SLURM_GPUS_PER_TASK": "4"}, (0, 1, 2, 3)),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3", "SLURM_STEP_TASKS_PER_NODE": "1(x8)"}, (0, 1, 2, 3)),
        ({"JAX_LOCAL_DEVICE_IDS": "2,3", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, None),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x8)"}, None),
    ],
)
def test_gpus_of_a_task_are_counted_among_those_that_it_sees(changed, devices):
    assert place_of({**STEP, **changed}).devices == devices


@pytest.mark.parametrize("command", [runs.evaluate, runs.analyze])
def test_commands_for_one_process_refuse_several(command, tmp_path, monkeypatch):
    for name, value in EXPLICIT.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"takes one process, .* number 3 of 4; start it once"):
        command([str(tmp_path)])


def test_a_run_of_one_process_goes_on_in_two_and_then_in_one(tmp_path, data_dir, monkeypatch):
    """With SIGTERM to one of the two; against a run of one process, within 1e-6.

    The two have four devices, the one has one.
    """
    options = {
        "model.depth": 1, "train.steps": 200, "train.eval_every": 50, "log.every": 5,
        "checkpoint.every": 15,
    }  # fmt: skip
    alone = tiny_experiment(data_dir, **options)
    reference, run = tmp_path / "reference", tmp_path / "run"
    assert loop.train_and_evaluate(alone, reference) == loop.EXIT_DONE

    def poll(self: StopRequest, step: int) -> bool:
        self.requested = "SIGTERM" if step == 10 else None
        return self.requested is not None

    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "poll", poll)
        assert loop.train_and_evaluate(alone, run) == EXIT_STOPPED

    words = [f"--config.{name}={value}" for name, value in options.items()]
    where = f"--workdir={run}", f"--data_dir={data_dir}"
    with together(tmp_path, [f"--config={TINY}", *where, *words]) as both:
        wait_for_step(run, 20, both)
        both[1].send_signal(signal.SIGTERM)
        assert codes(both) == [EXIT_STOPPED] * 2, (tmp_path / "0.txt").read_text()
    stopped = list_steps(run / "checkpoints")[-1]
    told = [(tmp_path / f"{index}.txt").read_text() for index in range(2)]
    assert "going on from step 10 of 200" in told[0] and "4 x cpu of 2 processes" in told[0]
    assert f"SIGTERM: saved step {stopped}; the same command goes on." in told[0]
    said = "process 1 of 2 on "  # where process 0 is, and no more
    ours = [line for line in told[1].splitlines() if line and line[0] not in "[W"]
    assert len(ours) == 1 and ours[0].startswith(said), told[1]

    assert 20 <= stopped < 200
    assert loop.train_and_evaluate(alone, run) == loop.EXIT_DONE
    assert 0 < apart(run, reference) < 1e-6  # not 0: the sums were of four devices
    tests = [json.loads((path / "summary.json").read_text())["test"] for path in (run, reference)]
    assert tests[0] == pytest.approx(tests[1], abs=1e-6)
