"""`ssm-jax launch`: what it writes, and what it says to a SLURM that is played."""

from __future__ import annotations

import os
import shlex
import subprocess

import pytest
from launched import CONFIG, POD, RUN, SWEEP

from ssm_jax.commands.launch import FLAGS, launch
from ssm_jax.launch import queue

# A SLURM in a file: each call is a line of calls.txt; states.txt has what squeue answers next.
PLAYED = """\
#!/bin/bash
cd "$SLURM_PLAYED"
name=$(basename "$0")
echo "$name $*" >> calls.txt
if [ $name = sbatch ]; then
  if [ -e refuse ] && [[ "$*" = *tables* ]]; then cat refuse >&2; exit 1; fi
  echo "$((40 + $(grep -c ^sbatch calls.txt)));cluster"
elif [ $name = squeue ]; then
  if [ ! -s states.txt ]; then echo "slurm_load_jobs error: Invalid job id" >&2; exit 1; fi
  head -n 1 states.txt | tr ' ' '\\n'
  sed -i 1d states.txt
fi
"""


@pytest.fixture
def played(here, monkeypatch):
    """The folder of a SLURM that is played."""
    folder = here / "played"
    folder.mkdir()
    for name in ("sbatch", "squeue", "scancel"):
        (folder / name).write_text(PLAYED)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_PLAYED", str(folder))
    monkeypatch.setattr(queue, "EVERY_S", 0.01)
    (folder / "states.txt").touch()
    return folder


def calls(played):
    return (played / "calls.txt").read_text().splitlines()


def options_of(script):
    """The lines for sbatch, as it reads them: words in quotes are one."""
    return [word for line in script.splitlines() if line.startswith("#SBATCH")
            for word in shlex.split(line)[1:]]  # fmt: skip


def test_one_run_is_a_job_that_calls_the_same_command(played, here, capsys):
    words = ("--nodes=2", "--processes", "4", "--gpus=h200:4", "--cpus=8", "--mem=64G")
    more = ("--time=1-00:00:00", "--options=--partition=gpu --account=me")
    name = "--config.name=a b;c"
    assert launch(["slurm", *words, "--config", "e.py", "--workdir=runs/a", *more, name]) == 0
    script = (here / "runs/a.slurm/run.sbatch").read_text()
    assert options_of(script) == [
        "--job-name=ssm-a",
        f"--output={here}/runs/a.slurm/%j.log",
        "--open-mode=append",
        "--nodes=2",
        "--ntasks-per-node=4",
        "--gpus-per-node=h200:4",
        "--cpus-per-task=8",
        "--mem=64G",
        "--time=1-00:00:00",
        "--partition=gpu",
        "--account=me",
        "--requeue",
        "--signal=B:TERM@120",
    ]
    (line,) = [line for line in script.splitlines() if line.startswith("srun ")]
    command = ["ssm-jax", "train", "--config", "e.py", "--workdir=runs/a", name]
    assert shlex.split(line) == ["srun", *command, "&"]
    assert calls(played) == [f"sbatch --parsable {here}/runs/a.slurm/run.sbatch"]
    assert "job 41: run.sbatch" in capsys.readouterr().out
    assert not (here / "runs/a").exists(), "the run itself makes its folder"


def test_a_sweep_is_an_array_and_a_job_for_the_tables_that_waits_for_it(played, here):
    assert launch(["slurm", *SWEEP, "--seeds=2", "--at_once=4", "--gpus=1"]) == 0
    folder = here / "runs/My Sweep.slurm"
    runs, tables = ((folder / f"{name}.sbatch").read_text() for name in ("runs", "tables"))
    assert "--array=0-5%4" in options_of(runs) and "--gpus-per-node=1" in options_of(runs)
    assert f"--output={folder}/%A_%a.log" in options_of(runs), "a space in its name"
    sweep = "srun ssm-jax sweep --config=e.py '--folder=runs/My Sweep' --seeds=2"
    assert f"{sweep} --run=$SLURM_ARRAY_TASK_ID &" in runs
    assert f"{sweep} --report_only &" in tables
    assert not any(word.startswith(("--gpus", "--array")) for word in options_of(tables))
    wait = "--dependency=afterany:41"
    assert calls(played)[1] == f"sbatch --parsable {wait} {folder}/tables.sbatch"


def test_percent_in_the_folder_is_no_pattern_of_slurm(here):
    launch(["slurm", "--config=e.py", "--workdir=runs/50%j", "--nosubmit"])
    folder = here / "runs/50%j.slurm"
    assert f"--output={here}/runs/50%%j.slurm/%j.log" in options_of(
        (folder / "run.sbatch").read_text()
    )
    job = queue.Job("41", "a", str(folder / "%A_%a.log"))
    assert queue.log_of([job], "41_2") == str(folder / "41_2.log")


@pytest.mark.parametrize("engine", ["slurm", "k8s", "sky"])
def test_workers_share_a_sweep_and_have_no_number_of_a_run(here, engine):
    more = ["--nosubmit"] if engine == "slurm" else POD
    assert launch([engine, *SWEEP, "--workers=2", *more]) == 0
    file = "My Sweep.slurm/runs.sbatch" if engine == "slurm" else f"My Sweep.{engine}.yaml"
    text = (here / "runs" / file).read_text()
    assert "--run" not in text and "sweep" in text
    many = {"slurm": "--array=0-1", "k8s": "completions: 2", "sky": "--num-jobs 2"}
    assert many[engine] in text


@pytest.mark.parametrize(
    ("env", "job"),
    [
        ({"SLURM_JOB_ID": "7"}, "7"),
        ({"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}, "7_3"),
    ],
)
@pytest.mark.parametrize(
    ("code", "state", "again"),
    [
        (75, "RUNNING", True),
        (75, "COMPLETING", False),
        (0, "RUNNING", False),
        (1, "RUNNING", False),
    ],
)
def test_the_script_passes_a_signal_on_and_requeues_its_own_task_on_75(
    here, env, job, code, state, again
):
    """The last task of an array has the array's number: 7 alone would stop all of its tasks."""
    launch(["slurm", *RUN, "--nosubmit"])
    tools = here / "tools"
    tools.mkdir()
    stopped = f"echo $$ > pid; trap 'sleep 0.1; exit {code}' TERM; kill -TERM $PPID"
    program = f"{stopped}; while :; do sleep 0.05; done"
    texts = {
        "srun": program if code == 75 else f"exit {code}",
        "squeue": f'echo "squeue $*" >> calls; echo {state}',
        "scontrol": 'echo "scontrol $*" >> calls',
        "scancel": 'echo "scancel $*" >> calls; kill -TERM $(cat pid)',
    }
    for name, text in texts.items():
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    path = {"PATH": f"{tools}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "runs/a.slurm/run.sbatch"], env=path | env, timeout=60)
    assert done.returncode == code
    known = (here / "calls").read_text().splitlines() if (here / "calls").exists() else []
    assert (f"scancel --signal=TERM {job}" in known) == (code == 75)
    assert ([line for line in known if "scontrol" in line] == [f"scontrol requeue {job}"]) == again


def test_the_same_command_follows_and_does_not_submit_twice(played, here, capsys):
    assert launch(["slurm", *SWEEP]) == 0
    name, states = "ssm-my-sweep", played / "states.txt"
    runs = [f"41_0|{s}|{name}" for s in ("RUNNING", "RUNNING", "COMPLETED")]
    wait, end = f"42|PENDING|{name}-tables", f"42|COMPLETED|{name}-tables"
    states.write_text("\n".join([runs[0], wait, runs[1], wait, runs[2], end]))
    (here / "runs/My Sweep").mkdir(parents=True)
    (here / "runs/My Sweep/sweep.md").write_text("the table\n")
    assert launch(["slurm", *SWEEP, "--follow"]) == 0
    out, err = capsys.readouterr()
    assert sum(call.startswith("sbatch") for call in calls(played)) == 2
    assert "41 and 42 of My Sweep.slurm is still in the queue, and not submitted again." in out
    assert [line[10:] for line in err.splitlines()[1:]] == ["1 pending, 1 running", "2 completed"]
    assert out.endswith("the table\n")
    assert launch(["slurm", *SWEEP]) == 0, "they have left the queue: it goes on"
    assert sum(call.startswith("sbatch") for call in calls(played)) == 4


def test_jobs_that_fail_or_vanish_are_named_with_their_output(played, here, capsys):
    name = "ssm-my-sweep"
    first = f"41_0|RUNNING|{name} 41_1|RUNNING|{name} 41_2|FAILED|{name}"
    rows = [
        first,
        f"42|PENDING|{name}-tables",
        f"41_1|COMPLETED|{name}",
        f"42|CANCELLED|{name}-tables",
    ]
    (played / "states.txt").write_text("\n".join(rows) + "\n")
    assert launch(["slurm", *SWEEP, "--follow"]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    logs = {"41_0": "41_0.log", "41_2": "41_2.log", "42": "tables.log"}
    assert lines == [
        f"error: job {job} has not completed; see {here}/runs/My Sweep.slurm/{log}."
        for job, log in sorted(logs.items())
    ]


def test_what_sbatch_refuses_is_one_line_and_leaves_neither_files_nor_jobs(played, here):
    (played / "refuse").write_text("sbatch: error: Batch job submission failed: no account\n")
    with pytest.raises(ValueError, match=r"sbatch refuses tables.sbatch: Batch job .* no account$"):
        launch(["slurm", *SWEEP])
    assert calls(played)[-1] == "scancel 41", "the array would have no tables"
    assert not (here / "runs").exists()
    (here / "runs").mkdir()
    with pytest.raises(ValueError, match="no account"):
        launch(["slurm", *SWEEP])
    assert (here / "runs").is_dir() and not list((here / "runs").iterdir())


def test_a_queue_that_does_not_answer_is_asked_again_for_some_time(played, monkeypatch, capsys):
    (played / "squeue").write_text("#!/bin/sh\necho 'slurm_load_jobs error: refused' >&2; exit 1\n")
    monkeypatch.setattr(queue, "PATIENCE_S", 0.1)
    with pytest.raises(RuntimeError, match="squeue fails: slurm_load_jobs error: refused"):
        queue.follow([queue.Job("41", "a", "log")])
    assert "asking again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ([], "no engine given; choose one of slurm, k8s, sky."),
        (["slum", *RUN], "'slum' is no engine; choose one of slurm, k8s, sky."),
        (["slurm", "--config=e.py"], "--workdir is missing"),
        (["slurm", "--sweep", "--config=e.py"], "--folder is missing"),
        (["slurm", *RUN, "--config.model.alhpa=1"], "did you mean --config.model.alpha"),
        (["slurm", "--config=e.py", "--folder=a"], "--folder and --seeds are for a sweep"),
        (["slurm", *SWEEP, "--nodes=2"], "--nodes and --processes are for one run"),
        (["slurm", *SWEEP, "--run=1"], "--run is not for a job that is repeated"),
        (["slurm", *SWEEP, "--status"], "--status is not for a job that is repeated"),
        (["slurm", *RUN, "--fresh"], "--fresh is not for a job that is repeated"),
        (["slurm", *RUN, "--image=a"], "--image is not for slurm"),
        (["slurm", *RUN, "--nodes=0"], "--nodes=0 must be at least 1"),
        (["slurm", *RUN, "--nosubmit", "--follow"], "--follow and --nosubmit are both given"),
        (["slurm", *RUN, "--at_once=2"], "--at_once is for a sweep"),
        (["slurm", *RUN, "--workers=2"], "--workers is for a sweep"),
        (["k8s", *SWEEP, *POD, "--sampler=optuna", "--search.model.alpha=1..2",
          "--storage=postgresql://me:secret@h/n"],
         "give --storage=postgresql://me@h/n, and the password in ~/.pgpass"),
        (["k8s", *RUN, "--image=a"], "--volume is missing"),
        (["k8s", *RUN, *POD, "--time=1"], "--time is not for k8s"),
        (["sky", *RUN, *POD, "--nosubmit"], "--nosubmit is not for sky"),
        (["k8s", *RUN, *POD, "--follow"], "--follow is not for k8s"),
        (["k8s", *RUN, *POD, "--gpus=h200:1"], "--gpus=h200:1 does not fit: k8s takes a number"),
        (["k8s", *RUN, *POD, "--mount=work"], "--mount=work does not fit"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line_and_leaves_nothing(here, capsys, words, fault):
    with pytest.raises(SystemExit) as end:
        launch(list(words))
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and fault in line and sorted(os.listdir(here)) == ["e.py"]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (
            ["slurm", *RUN],
            "sbatch is not on the path; .* --nosubmit writes|sbatch is not on the path",
        ),
        (["slurm", "--sweep", "--config=plain.py", "--folder=a"], r"no function sweep\(\)"),
        (["slurm", *RUN, "--nosubmit", "--options=a\n#b"], "options has a line break"),
        (
            ["k8s", "--config=e.py", "--workdir=/x/a", *POD],
            "/x/a is not in /work, where the shared",
        ),
        (["sky", "--config=e.py", "--workdir=../a", *POD], "../a is not in /work"),
    ],
)
def test_what_cannot_be_launched_is_said_and_leaves_nothing(here, monkeypatch, words, fault):
    monkeypatch.setenv("PATH", str(here))
    (here / "plain.py").write_text(CONFIG.partition("def sweep")[0])
    with pytest.raises(ValueError, match=fault):
        launch(list(words))
    assert sorted(os.listdir(here)) == ["e.py", "plain.py"]


def test_launch_takes_no_flag_that_is_for_what_it_launches(here):
    """It would keep it for itself."""
    from ssm_jax.commands import sweep, train

    names = {flag.name for flag in sweep.FLAGS} | set(train.read(RUN, None).values)
    assert not names & {flag.name for flag in FLAGS}
