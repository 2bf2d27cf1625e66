"""What `ssm-jax launch` writes for Kubernetes and SkyPilot, as documents and by their schemas."""

from __future__ import annotations

import importlib
import importlib.util
import shlex
import sys
import types
from pathlib import Path

import pytest
import yaml
from launched import POD, RUN, SWEEP

from ssm_jax.commands.launch import launch


def documents(file):
    return list(yaml.safe_load_all(Path(file).read_text()))


def written(engine):
    """The files of an engine, of one run on two hosts and of a sweep, as documents."""
    gpus = "2" if engine == "k8s" else "H200:2"
    more = ("--cpus=4", "--mem=8Gi" if engine == "k8s" else "--mem=8", f"--gpus={gpus}")
    assert launch([engine, *RUN, *POD, *more, "--nodes=2"]) == 0
    assert launch([engine, *SWEEP, *POD, "--config.name=$(x) 'y'"]) == 0
    return [documents(f"runs/{name}.{engine}.yaml") for name in ("a", "My Sweep")]


def test_a_job_of_kubernetes_fails_ends_or_goes_on_by_the_exit_code(here, capsys):
    (service, run), (sweep,) = written("k8s")
    rules = {}
    for kind, job in (("run", run), ("sweep", sweep)):
        spec = job["spec"]
        assert spec["completionMode"] == "Indexed"
        rules[kind] = {
            code: rule["action"]
            for rule in spec["podFailurePolicy"]["rules"]
            for code in rule.get("onExitCodes", {}).get("values", ["drained"])
        }
        assert spec["template"]["spec"]["restartPolicy"] == "Never", "rules need it"
    assert rules["run"] == {"drained": "Ignore", 75: "Ignore", 1: "FailJob", 2: "FailJob"}
    assert rules["sweep"] == {"drained": "Ignore", 75: "Ignore", 1: "FailIndex", 2: "FailJob"}
    (pod,) = run["spec"]["template"]["spec"]["containers"]
    assert run["spec"]["completions"] == run["spec"]["parallelism"] == 2
    assert pod["command"] == ["ssm-jax", "train", *RUN]
    assert pod["resources"]["limits"] == {"nvidia.com/gpu": "2", "cpu": "4", "memory": "8Gi"}
    env = {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in pod["env"]}
    assert (
        env["JAX_COORDINATOR_ADDRESS"] == "ssm-a-0.ssm-a:61440" and env["JAX_NUM_PROCESSES"] == "2"
    )
    assert env["JAX_PROCESS_ID"]["fieldRef"]["fieldPath"].endswith("job-completion-index']")
    assert service["metadata"]["name"] == run["spec"]["template"]["spec"]["subdomain"] == "ssm-a"
    assert service["spec"]["clusterIP"] == "None"
    (pod,) = sweep["spec"]["template"]["spec"]["containers"]
    name = "--config.name=$$(x) 'y'"  # which Kubernetes reads as $(x)
    assert pod["command"] == ["ssm-jax", "sweep", *SWEEP[1:], name, "--run=$(JOB_COMPLETION_INDEX)"]
    assert sweep["spec"]["completions"] == 3 and sweep["metadata"]["name"] == "ssm-my-sweep"
    assert "kubectl apply -f 'runs/My Sweep.k8s.yaml'" in capsys.readouterr().out


def expanded(text, known):
    """A word of a command as Kubernetes reads it (expansion/expand.go), character by character."""
    found, i = "", 0
    while i < len(text):
        end = text.find(")", i)
        if text[i : i + 2] == "$$":
            found, i = found + "$", i + 2
        elif text[i : i + 2] == "$(" and end > 0:
            found, i = found + known[text[i + 2 : end]], end + 1
        else:
            found, i = found + text[i], i + 1
    return found


def test_kubernetes_reads_every_word_as_it_was_given(here):
    odd = "--config.name=$ $$ $$$(x) $(JOB_COMPLETION_INDEX) $(y \U0001f642 'a' \"b\" \\ c$"
    assert launch(["k8s", *SWEEP, *POD, odd]) == 0
    (job,) = documents("runs/My Sweep.k8s.yaml")
    (pod,) = job["spec"]["template"]["spec"]["containers"]
    words = [expanded(word, {"JOB_COMPLETION_INDEX": "7"}) for word in pod["command"]]
    assert words == ["ssm-jax", "sweep", *SWEEP[1:], odd, "--run=7"]


def test_a_job_of_sky_recovers_from_75_alone(here, capsys):
    (run,), (sweep,) = written("sky")
    for task in (run, sweep):
        recovery = task["resources"]["job_recovery"]
        assert recovery == {"max_restarts_on_errors": 0, "recover_on_exit_codes": [75]}
        assert task["volumes"] == {"/work": "disk"} and "file_mounts" not in task
    assert run["num_nodes"] == 2 and run["resources"]["accelerators"] == "H200:2"
    last = run["run"].splitlines()[-1]
    assert shlex.split(last) == ["exec", "ssm-jax", "train", *RUN]
    name = "--config.name=$(x) 'y'"
    words = ["exec", "ssm-jax", "sweep", *SWEEP[1:], name, "--run=$SKYPILOT_JOB_RANK"]
    assert shlex.split(sweep["run"].splitlines()[-1]) == words
    out = capsys.readouterr().out
    assert "sky jobs launch --num-jobs 3 'runs/My Sweep.sky.yaml'" in out
    assert "ssm-jax sweep --config=e.py '--folder=runs/My Sweep'" in out and "--report_only" in out
    assert launch(["sky", *RUN, "--volume=s3://runs"]) == 0
    (task,) = documents("runs/a.sky.yaml")
    mount = {"source": "s3://runs", "mode": "MOUNT_CACHED"}
    assert task["file_mounts"] == {"/work": mount} and "volumes" not in task


def test_the_files_of_kubernetes_fit_its_schema(here):
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for documents in written("k8s"):
        for document in documents:
            for version in ("1.33", validate.latest_version()):
                validate.validate(document, version, strict=True)
    document["spec"]["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"] = ["75"]
    with pytest.raises(validate.ValidationError):
        validate.validate(document, "1.33", strict=True)


def sky_schema(monkeypatch):
    """The schema of a task, out of the files of SkyPilot, whose dependencies may be missing."""
    found = importlib.util.find_spec("sky")
    if found is None or found.origin is None:
        pytest.skip("pip install --no-deps skypilot jsonschema")
    folder = Path(found.origin).parent

    class Anything(types.ModuleType):
        """A module that is not needed for what is asked of the schema here."""

        def __getattr__(self, name):
            return Anything(name)

        def __iter__(self):
            return iter(())

        def __call__(self):
            return []

    names = ("sky", "sky.skylet", "sky.utils")
    stubs = {name: Anything(name) for name in names}
    constants = stubs["sky.skylet"].constants = Anything("constants")
    for pattern in ("TIME_PATTERN", "MEMORY_SIZE_PATTERN", "SUB_PATH_PATTERN"):
        setattr(constants, pattern, ".*")
    constants.ALL_CLOUDS = ("kubernetes", "aws")
    constants.MIN_PRIORITY, constants.MAX_PRIORITY = -1000, 1000
    monkeypatch.setattr(sys, "modules", sys.modules | stubs)
    spec = importlib.util.spec_from_file_location("sky_schemas", folder / "utils/schemas.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module._task_config_schema = dict  # of the servers' configuration
    module._allow_additional_properties = bool  # none that the file does not know
    return module.get_task_schema(), module.get_resources_schema()


def test_the_files_of_sky_fit_its_schema(here, monkeypatch):
    jsonschema = pytest.importorskip("jsonschema", reason="pip install jsonschema")
    task_schema, resources_schema = sky_schema(monkeypatch)
    launch(["sky", *RUN, "--volume=s3://runs"])
    for (task,) in [*written("sky"), documents("runs/a.sky.yaml")]:
        jsonschema.validate(task, task_schema)
        jsonschema.validate(task["resources"], resources_schema)
    task["resources"]["job_recovery"]["recover_on_exit_codes"] = [300]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(task["resources"], resources_schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**task, "nodes": 2}, task_schema)


def test_every_template_is_short_and_in_the_wheel():
    folder = Path(importlib.import_module("ssm_jax.launch").__file__).parent
    files = [file for file in folder.iterdir() if file.suffix in (".sbatch", ".yaml")]
    assert len(files) == 4 and max(len(f.read_text().splitlines()) for f in files) <= 40
    listed = (folder.parents[1] / "pyproject.toml").read_text()
    assert '"launch/*.sbatch"' in listed and '"launch/*.yaml"' in listed
