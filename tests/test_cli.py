"""The command line: what is right is taken, what is wrong is one line each and exit code 2."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ssm_jax import config
from ssm_jax.config import argv as options
from ssm_jax.config import cli
from ssm_jax.config.argv import Flag
from ssm_jax.config.load import load_config

FLAGS = (cli.WORKDIR, cli.WANDB, cli.DRY_RUN)
CONFIG = """
from dataclasses import dataclass
from ssm_jax import config

@dataclass(frozen=True)
class Sizes:
    depth: "int" = 3

def get_config(arg=""):
    arg = config.parse_arg(arg, size=("full", "small"))
    cfg = config.default()
    cfg.train.epochs = 40.0
    if arg["size"] == "small":
        cfg.model.depth = Sizes().depth
    return cfg
"""


@pytest.fixture(autouse=True)
def experiment(tmp_path, monkeypatch):
    """A repository with two config files is the current directory."""
    (tmp_path / "configs" / "lra").mkdir(parents=True)
    (tmp_path / "configs" / "lra" / "listops.py").write_text(CONFIG)
    (tmp_path / "configs" / "quickstart.py").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return "--config=configs/lra/listops.py"


def load(*argv):
    return cli.load(argv, flags=FLAGS, about="Train a model.")


def faults(capsys, *argv):
    """The lines on stderr of a command line that is refused."""
    with pytest.raises(SystemExit) as refused:
        load(*argv)
    assert refused.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert all(line.startswith("error: ") and line[-1] in ".?" for line in lines)
    return [line.removeprefix("error: ") for line in lines]


def fault(capsys, *argv):
    lines = faults(capsys, *argv)
    assert len(lines) == 1, lines
    return lines[0]


def test_overrides_may_stand_anywhere_and_in_any_form(experiment):
    cfg, values, overrides = load(
        "--config.model.alpha=3",
        "--workdir",
        "runs/a",
        "--config.data.n_train",
        "1e3",
        experiment + ":small",
        "--config.model.beta.init",
        "-1",
        "--noconfig.model.bidirectional",
        "--dry_run",
        "--config.model.prenorm",
        "off",
        "--config.model.d_model=4.0",
        "--config.notes=a = --b",
    )
    assert overrides == {
        "model.alpha": 3.0,
        "data.n_train": 1000,
        "model.beta.init": -1.0,
        "model.bidirectional": False,
        "model.prenorm": False,
        "model.d_model": 4,
        "notes": "a = --b",
    }
    flat = config.flatten(cfg)
    assert {key: flat[key] for key in overrides} == overrides
    assert [type(flat[k]) for k in overrides] == [float, int, float, bool, bool, int, str]
    assert cfg.model.depth == 3 and cfg.train.epochs == 40.0
    assert values.pop("config") == "configs/lra/listops.py:small"
    assert values == {"workdir": Path("runs/a"), "wandb": "disabled", "dry_run": True}
    assert cfg.is_locked


def test_the_last_of_a_repeated_option_counts(experiment):
    cfg, values, _ = load(
        experiment, "--config.seed=1", "--dry_run", "--config.seed=2", "--nodry_run"
    )
    assert cfg.seed == 2 and values["dry_run"] is False


@pytest.mark.parametrize(
    "text", ["true", "yes", "on", "1", "True", "false", "no", "off", "0", "NO"]
)
def test_a_bool_has_eight_words(text, experiment):
    expected = text.lower() in ("true", "yes", "on", "1")
    assert load(experiment, f"--config.model.prenorm={text}").cfg.model.prenorm is expected
    assert load(experiment, "--config.model.prenorm", text).cfg.model.prenorm is expected


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("--config.model.alhpa=2", "--config.model.alpha?"),
        ("--config.modle.alhpa=2", "--config.model.alpha?"),
        ("--config.modle.alpha=2", "--config.model.alpha?"),
        ("--config.optim.group.A.lr=2", "--config.optim.groups.A.lr?"),
        ("--config.model.beta_init=2", "--config.model.beta.init?"),
        ("--config.alpha=2", "--config.model.alpha?"),
        ("--confg.model.depth=2", "--config.model.depth?"),
        ("--confg=x.py", "--config?"),
        ("--alpha=2", "--config.model.alpha?"),
        ("--model.alpha=2", "--config.model.alpha?"),
        ("--noconfig.model.bidirectionl", "--config.model.bidirectional?"),
        ("--wrokdir=a", "--workdir?"),
        ("--dryrun", "--dry_run?"),
        ("--print-config", "--print_config?"),
    ],
)
def test_a_misspelt_name_gets_the_nearest_right_one(asked, meant, experiment, capsys):
    line = fault(capsys, experiment, asked)
    assert line.startswith(f"unknown option {asked.partition('=')[0]}; ")
    assert line.endswith(f"did you mean {meant}")


def test_a_name_of_several_options_lists_them(experiment, capsys):
    line = fault(capsys, experiment, "--config.lr=1")
    for group in ("A", "A_im", "B", "dt", "beta", "norm", "rest"):
        assert f"--config.optim.groups.{group}.lr" in line


def test_a_name_like_no_other_points_to_help(experiment, capsys):
    assert fault(capsys, experiment, "--zzzzz", "5") == "unknown option --zzzzz; --help lists all."


def test_a_group_is_no_option(experiment, capsys):
    line = fault(capsys, experiment, "--config.model.beta=0.5")
    assert "--config.model.beta.init, --config.model.beta.learn" in line


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("config.model.alpha=1", "did you mean --config.model.alpha=1?"),
        ("config.modle.alpha=1", "did you mean --config.model.alpha=1?"),
        ("-workdir=a", "did you mean --workdir=a?"),
        ("configs/quickstart.py", "did you mean --config=configs/quickstart.py?"),
        ("more", "see --help."),
    ],
)
def test_an_argument_without_dashes_is_refused(asked, hint, experiment, capsys):
    line = fault(capsys, experiment, asked)
    assert line.startswith(f"stray argument {asked!r}") and line.endswith(hint)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("--config.model.depth=2.5", "whole number"),
        ("--config.model.depth=two", "whole number"),
        ("--config.model.depth=", "whole number"),
        ("--config.seed=1e999999999", "whole number"),
        ("--config.seed=1e-999999999", "whole number"),
        ("--config.seed=1e99999999999999999999", "whole number"),
        ("--config.seed=nan", "whole number"),
        ("--config.model.alpha=abc", "finite number"),
        ("--config.model.alpha=nan", "finite number"),
        ("--config.model.alpha=inf", "finite number"),
        ("--config.model.prenorm=maybe", "true or false"),
        ("--wandb=offlin", "offline, online, disabled"),
        ("--workdir=", "empty"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(asked, expected, experiment, capsys):
    line = fault(capsys, experiment, asked)
    assert line.startswith(f"{asked} does not fit: ") and expected in line


@pytest.mark.parametrize("asked", ["--workdir", "--wandb", "--config.model.alpha"])
def test_a_value_left_out_is_refused(asked, experiment, capsys):
    assert fault(capsys, experiment, asked).startswith(f"{asked} has no value; write {asked}=")
    assert fault(capsys, asked, experiment).startswith(f"{asked} has no value; write {asked}=")


def test_integers_are_read_exactly(experiment):
    steps = 90071992547409931
    assert load(experiment, f"--config.train.eval_every={steps}").cfg.train.eval_every == steps
    assert load(experiment, "--config.train.eval_every=1e17").cfg.train.eval_every == 10**17


def test_tuples_are_read_with_and_without_brackets():
    for text in ("1,2.5", "(1,2.5)", "[1, 2.5]"):
        assert options.convert(text, tuple) == (1, 2.5)
    assert options.convert("3", tuple) == (3,)
    with pytest.raises(ValueError, match="commas"):
        options.convert("1;2", tuple)


def test_every_fault_has_its_own_line(capsys):
    lines = faults(
        capsys,
        "--config=configs/lra/listop.py",
        "--config.modle.alpha=2",
        "config.seed=1",
        "--wrokdir=a",
        "--config.model.depth=x",
    )
    assert len(lines) == 5


def test_values_are_checked_after_the_overrides(experiment, capsys):
    lines = faults(capsys, experiment, "--config.model.pool=man", "--config.model.depth=0")
    assert len(lines) == 2
    assert lines[0].startswith("model.pool='man'") and lines[1].startswith("model.depth=0")


@pytest.mark.parametrize(
    "option", ["schedule.shape=linear", "data.arrays.test=1.5"], ids=["unread", "out of range"]
)
def test_one_wrong_value_is_one_line(option, capsys):
    """A value that is refused neither changes other options nor breaks a second rule."""
    name = "arrays" if "arrays" in option else "lra/listops"
    assert fault(capsys, f"--config={name}", f"--config.{option}").startswith(option.split("=")[0])


def test_another_layer_says_which_options_of_the_config_it_gives_up(capsys):
    cfg = load("--config=copying", "--config.model.layer=lru", "--config.model.d_model=8").cfg
    assert (cfg.model.layer, cfg.model.d_model, cfg.model.real_transform) == ("lru", 8, "exp")
    said = capsys.readouterr().err
    assert said == "with model.layer=lru the config has model.real_transform='exp' for 'clip'.\n"
    assert load("--config=copying", "--config.model.layer=s4d").cfg.model.real_transform == "clip"
    assert capsys.readouterr().err == ""


def test_notes_say_what_the_command_changes(tmp_path):
    """They name numbers of the file, such as its steps."""
    file = tmp_path / "configs/reduced.py"
    file.write_text(
        CONFIG.replace(
            "cfg.train.epochs =", "cfg.notes = 'Reduced: 40 epochs.'\n    cfg.train.epochs ="
        )
    )
    spec = f"--config={file}"
    changes = ("--config.train.epochs=3", "--config.model.alpha=2", "--config.seed=1")
    same = ("--config.train.epochs=40", "--config.log.every=7")
    assert load(spec, *changes).cfg.notes == (
        "Reduced: 40 epochs. Changed by the command: model.alpha=2.0, train.epochs=3.0."
    )
    assert load(spec, *same).cfg.notes == "Reduced: 40 epochs."
    assert load(spec, *changes, "--config.notes=mine").cfg.notes == "mine"


def test_the_title_says_what_the_command_changes():
    """The denoiser of alpha = 10 was titled `raw`, which is alpha = 1."""
    spec, few = "--config=denoise:raw", ("--config.model.alpha=10", "--config.model.beta.init=1")
    cfg = load(spec, *few, "--config.seed=3", "--config.log.every=7").cfg
    assert config.title_of(cfg) == "denoise:raw:reduced, alpha = 10, beta = 1"
    assert config.title_of(load(spec, "--config.model.alpha=1").cfg) == "denoise:raw:reduced"
    assert config.digest(cfg) == config.digest(
        load(spec, *few, "--config.seed=3", "--config.changed=x").cfg
    )
    more = ("--config.train.steps=9", "--config.batch_size=2", "--config.optim.groups.rest.lr=0.5")
    assert config.title_of(load(spec, *few, *more).cfg) == (
        "denoise:raw:reduced, batch_size = 2, alpha = 10, beta = 1, and 2 more"
    )


def test_a_missing_config_file_lists_the_nearest(capsys):
    line = fault(capsys, "--config=configs/listops.py:small")
    assert "there is no file configs/listops.py" in line
    assert line.index("configs/lra/listops.py") < line.index("configs/quickstart.py")


def test_a_missing_config_lists_some(capsys):
    line = fault(capsys, "--workdir=a")
    assert line.startswith("--config is missing") and "configs/quickstart.py" in line


def test_outside_the_repository_the_message_says_so(tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert "run from the root of the repository" in fault(capsys, "--config=configs/lra/listops.py")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1", "defines no function get_config"),
        ("def get_config(arg=''): return {}", "returns a dict"),
        ("def get_config(arg=''):\n  y = 1\n  return 1 / 0", "line 3: ZeroDivisionError"),
        ("def get_config(arg=''):\n  return ]", "line 2: SyntaxError"),
        ("import no_such_module\n", "line 1: ModuleNotFoundError"),
        (
            CONFIG.replace("cfg.train.epochs = 40.0", "cfg.model.depth = 'deep'"),
            "line 12: TypeError",
        ),
        (
            CONFIG.replace("cfg.train.epochs", "cfg.train.epcohs"),
            "sets train.epcohs, which is no option; did you mean train.epochs?",
        ),
        (CONFIG.replace("cfg.train.epochs = 40.0", "del cfg.seed"), "removes the option seed"),
        (CONFIG.replace("cfg.train.epochs = 40.0", "del cfg.model"), "model.layer=None of its con"),
        (
            CONFIG.replace("cfg.train.epochs = 40.0", "cfg.optim.freeze = None"),
            "sets optim.freeze=None, which is no str.",
        ),
        (
            CONFIG.replace("cfg.train.epochs = 40.0", "cfg.model.bidirectional = None"),
            "sets model.bidirectional=None, which is no bool.",
        ),
    ],
)
def test_a_broken_config_file_is_one_line(text, expected, capsys):
    Path("configs/broken.py").write_text(text)
    line = fault(capsys, "--config=configs/broken.py")
    assert line.startswith("--config=configs/broken.py") and expected in line


def test_a_number_of_numpy_in_a_config_can_be_changed():
    """It took no other float: a traceback on the command line, a refusal in sweeps."""
    text = CONFIG.replace("= 40.0", "= 40.0\n    cfg.model.dt_min = np.exp(-5)")
    Path("configs/own.py").write_text("import numpy as np\n" + text)
    own = "--config=configs/own.py"
    assert type(load(own).cfg.model.dt_min) is float
    assert load(own, "--config.model.dt_min=0.01").cfg.model.dt_min == 0.01
    assert load_config("configs/own.py", {"model.dt_min": 0.02}).model.dt_min == 0.02


def test_files_set_the_source_unless_it_is_given(experiment):
    """The files were read, whatever --config.data.source=generated said."""
    argv = [experiment, "--from=a.gz"]
    found = [
        cli.load([*argv, *more], flags=(cli.FROM,), about="").cfg.data.source
        for more in ([], ["--config.data.source=generated"])
    ]
    assert found == ["official", "generated"]  # the latter reads no files, and says so


def test_an_unknown_config_argument_is_refused(experiment, capsys):
    assert fault(capsys, experiment + ":smal").endswith("choose from size: full, small.")


def test_loading_a_config_leaves_no_trace(experiment):
    load(experiment)
    before, files = set(sys.modules), sorted(Path().rglob("*"))
    for depth in (3, 4, 5):
        Path("configs/lra/listops.py").write_text(CONFIG.replace("= 3", f"= {depth}"))
        assert load(experiment + ":small").cfg.model.depth == depth
    assert set(sys.modules) == before and sorted(Path().rglob("*")) == files


def test_two_loads_share_nothing(experiment):
    first = load(experiment, "--config.model.beta.init=1").cfg
    assert load(experiment).cfg.model.beta.init == 0.0
    assert first.model.beta.init == 1.0


def test_print_config_marks_what_differs(experiment, capsys):
    with pytest.raises(SystemExit) as done:
        load(experiment, "--print_config", "--config.model.alpha=3")
    assert done.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" = ")[0] for line in lines] == sorted(config.flatten(config.default()))
    assert "model.alpha = 3.0  # default: 1.0" in lines
    assert "model.pool = 'mean'" in lines
    assert len([line for line in lines if "# default" in line]) == 3  # and what was changed


def test_print_config_of_a_wrong_config_is_refused(experiment, capsys):
    assert "model.depth=0" in fault(capsys, experiment, "--print_config", "--config.model.depth=0")


def test_help_shows_every_flag_and_option_with_its_comment(capsys):
    with pytest.raises(SystemExit) as done:
        load("--help", "--nonsense")
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("Train a model.\n")
    for flag in (*FLAGS, cli.PRINT_CONFIG, cli.HELP):
        assert f"--{flag.name}" in text and flag.help in text
    for key, value in config.flatten(config.default()).items():
        assert (
            text.count(f"  --config.{key}={value} ") + text.count(f"--config.{key}={value}\n") == 1
        )
    assert "factor on Im A at initialization, > 0 (OC-2: freqscale)" in text
    assert "[model.beta] exponent of the Sobolev filter" in text
    for key, option in config.rows().items():
        (line,) = [line for line in text.splitlines() if f"--config.{key}=" in line]
        assert line.endswith(f" {option.help}") and option.doc in line and option.source in line


def test_a_script_without_config_has_only_its_flags(capsys):
    flags = (cli.DATA_DIR, options.Flag("examples", "how many", 5, int))
    values = cli.load_flags(["--examples=1e2"], flags=flags, about="Prepare.")
    assert values == {"data_dir": Path("data"), "examples": 100}
    with pytest.raises(SystemExit) as refused:
        cli.load_flags(["--config=x.py", "--exmaples=3"], flags=flags, about="Prepare.")
    assert refused.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    with pytest.raises(SystemExit):
        cli.load_flags(["--help"], flags=flags, about="Prepare.")
    assert "--config" not in capsys.readouterr().out


RUNS = options.Flag("runs", "folders of runs", kind=Path, words=True)
REPORT = (RUNS, cli.DATA_DIR, options.Flag("published", "show published rows", True, bool))


def test_arguments_without_dashes_are_taken_in_order_among_the_flags():
    argv = ["b", "--published", "a", "--data_dir", "d", "~/x=1", "--nopublished"]
    values = cli.load_flags(argv, flags=REPORT, about="Report.")
    assert values == {
        "runs": [Path("b"), Path("a"), Path("~/x=1").expanduser()],
        "published": False,
        "data_dir": Path("d"),
    }


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "no runs given; give folders of runs."),
        (["a", "data_dir=d"], "stray argument 'data_dir=d'"),
        (["a", "-published"], "stray argument '-published'"),
        (["a", ""], "'' does not fit: the path is empty."),
        (["a", "--pubished"], "did you mean --published?"),
    ],
)
def test_arguments_without_dashes_do_not_hide_a_mistyped_flag(argv, expected, capsys):
    with pytest.raises(SystemExit) as refused:
        cli.load_flags(argv, flags=REPORT, about="Report.")
    assert refused.value.code == 2
    err = capsys.readouterr().err
    assert expected in err and len(err.splitlines()) == 1


def test_help_names_the_arguments_without_dashes(capsys):
    with pytest.raises(SystemExit) as done:
        cli.load_flags(["--help"], flags=REPORT, about="Report.")
    assert done.value.code == 0
    assert "RUNS ...   " in capsys.readouterr().out


SCRIPT = """
import errno, os, resource, sys, threading
from pathlib import Path
from ssm_jax import config, stop
from ssm_jax.config.ending import run_main
from ssm_jax.training.workdir import WorkdirLost
import numpy as np

def main(argv):
    match argv[0]:
        case "code": return 75
        case "none": return None
        case "ours": raise ValueError("depth 0 is too small;\\nuse 1.")
        case "package": config.parse_arg("x", size=("full",))
        case "numpy": np.ones(2) + np.ones(3)
        case "int": int("x")
        case "file": Path("no/such/file").read_text()
        case "folder": np.load(".")
        case "long": open("x" * 300)
        case "round": os.symlink("round", "round"); np.load("round")
        case "link": os.symlink("nowhere", "link"); Path("link").mkdir(exist_ok=True)
        case "files":
            resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
            kept = [open("script.py") for _ in range(30)]
        case "stale": raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), "/mnt/x")
        case "storage":
            stop.Process.begun = True
            raise OSError(errno.EIO, os.strerror(errno.EIO), "/mnt/x")
        case "check": stop.Process.begun = True; raise FileNotFoundError("no data.")
        case "lost": raise WorkdirLost("it was deleted.")
        case "stuck":
            stop.Process.stuck = True
            threading.Thread(target=threading.Event().wait).start()
            print("done")
            return 3
        case "rich":
            from rich.console import Console
            for _ in range(100_000): Console().print("a line")
        case "print": print("± 日本 \\udcff")
        case "warn": print("± " * 9999, file=sys.stderr)
        case "nan": raise FloatingPointError("loss is nan at step 3.")
        case "busy": raise RuntimeError("in use.")
        case "key": return {}["absent"]
        case "memory": raise MemoryError("Unable to allocate 1 TiB for an array")
        case "device":
            import jax
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory: 9 bytes.")
        case "allocate":
            import jax
            jax.numpy.zeros(2**43).block_until_ready()
        case "stop": raise KeyboardInterrupt
        case "jax": assert "jax" not in sys.modules
        case "pipe": print("x" * 1_000_000)

run_main(main)
"""


@pytest.mark.parametrize(
    ("case", "code", "lines"),
    [
        ("code", 75, 0),
        ("none", 0, 0),
        ("jax", 0, 0),
        ("ours", 2, 2),
        ("package", 2, 1),
        ("file", 2, 1),
        ("folder", 2, 1),
        ("long", 2, 1),
        ("round", 2, 1),
        ("link", 2, 1),
        ("files", 2, 1),
        ("stale", 2, 1),
        ("storage", 74, 1),
        ("check", 2, 1),
        ("lost", 74, 1),
        ("stuck", 3, 0),
        ("nan", 1, 1),
        ("busy", 1, 1),
        ("stop", 130, 1),
        ("numpy", 1, None),
        ("int", 1, None),
        ("key", 1, None),
        ("memory", 1, 2),
        ("device", 1, 2),
        ("allocate", 1, 2),
    ],
)
def test_only_a_bug_has_a_traceback(case, code, lines, tmp_path):
    """`lines` is the number of lines on stderr, None for a traceback."""
    Path("script.py").write_text(SCRIPT)
    root = Path(config.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "script.py", case],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(root)},
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    assert ("Traceback" in done.stderr) == (lines is None)
    if lines is not None:
        assert len(done.stderr.splitlines()) == lines
    if case in ("memory", "device", "allocate"):
        first, second = done.stderr.splitlines()
        assert first.startswith("error: out of memory: ")
        named = ("accumulate", "remat", "bfloat16", "batch_size")
        assert all(word in second for word in named)


@pytest.mark.parametrize("case", ["pipe", "rich"])
def test_a_reader_that_goes_away_is_no_bug(case):
    Path("script.py").write_text(SCRIPT)
    env = {"PYTHONPATH": str(Path(config.__file__).parents[2])}
    command = [sys.executable, "script.py", case]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=env, **pipes) as script:
        script.stdout.read(10)
        script.stdout.close()
        assert script.stderr.read() == b"" and script.wait(60) == 141


PLATFORM = """
import jax
from ssm_jax.config.ending import run_main
run_main(lambda argv: print(jax.default_backend()))
"""


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_a_platform_that_is_not_there_is_one_line_and_code_2(platform):
    done = subprocess.run(
        [sys.executable, "-c", PLATFORM],
        env=os.environ | {"JAX_PLATFORMS": platform},
        capture_output=True,
        text=True,
    )
    if done.stdout == "gpu\n":
        pytest.skip("this machine has a GPU")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: JAX_PLATFORMS={platform}: JAX cannot start on it (")
    assert "Traceback" not in done.stderr and line.endswith("unset it, or set it to cpu.")


@pytest.mark.parametrize(
    ("case", "redirected", "code", "said"),
    [
        ("print", ">/dev/full", 2, "error: standard output: No space left on device; make room"),
        ("print", ">&-", 2, "error: standard output: Bad file descriptor; it is closed"),
        ("none", ">&-", 0, ""),
        ("none", "<&- >&- 2>&-", 0, ""),
        ("warn", "2>/dev/full", 0, ""),
        ("warn", "2>&-", 0, ""),
        ("ours", "2>&-", 2, ""),
    ],
)
def test_closed_and_full_streams(case, redirected, code, said):
    """An error of stdout is one line; stderr is for people, and stops nothing."""
    Path("script.py").write_text(SCRIPT)
    command = ["bash", "-c", f"{sys.executable} script.py {case} {redirected}"]
    env = {"PYTHONPATH": str(Path(config.__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == code and done.stderr.startswith(said), done.stderr
    assert len(done.stderr.splitlines()) == bool(said)


@pytest.mark.parametrize(
    "variable", ["PYTHONIOENCODING=ascii", "LC_ALL=C", "LC_ALL=C PYTHONUTF8=0"]
)
def test_every_text_fits_every_terminal(variable):
    Path("script.py").write_text(SCRIPT)
    env = {"PYTHONPATH": str(Path(config.__file__).parents[2]), "PYTHONCOERCECLOCALE": "0"}
    env |= dict(word.split("=") for word in variable.split())
    done = subprocess.run([sys.executable, "script.py", "print"], capture_output=True, env=env)
    assert done.returncode == 0 and done.stderr == b""
    assert done.stdout in ("± 日本 \\udcff\n".encode(), b"\\xb1 \\u65e5\\u672c \\udcff\n")


@pytest.mark.parametrize(
    "name", ["a:b.py", "[x].py", "x y.py", "a:small.py", "back\\slash.py", "ü.py", "*.py", "-x.py"]
)
def test_a_config_file_may_have_any_name(name, capsys):
    Path(name).write_text(CONFIG)
    assert load(f"--config={name}:small").cfg.model.depth == 3
    assert load(f"--config={name}").cfg.train.epochs == 40.0
    Path("folder:1").mkdir()
    Path("folder:1", name).write_text(CONFIG)
    assert load(f"--config={Path('folder:1', name).absolute()}:small").cfg.model.depth == 3
    assert "none:such.py" in fault(capsys, "--config=none:such.py")


def test_addresses_are_refused_in_every_path(experiment, capsys, monkeypatch):
    for argv in ([experiment, "--workdir=gs://b/run"], ["--config=s3://b/c.py:small"]):
        assert "mount it" in fault(capsys, *argv)
    runs = Flag("runs", "folders", kind=Path, words=True)
    flags = (runs, Flag("out", "a file", kind=Path, writes="file"), cli.DATA_DIR)
    monkeypatch.setenv("SSM_JAX_DATA_DIR", "gs://data")
    for argv in (["--out=gs://b/x"], ["gs://b/x"], ["a"]):
        with pytest.raises(SystemExit, match="2"):
            cli.load_flags(argv, flags=flags, about="")
        assert capsys.readouterr().err.count("gs://") == 2
    assert cli.load_flags(["a", "--data_dir=d"], flags=flags, about="")["out"] is None


def test_outputs_are_tried_before_any_work(capsys):
    flags = (Flag("out", "a file", kind=Path, writes="file"),)
    long = "x" * 300
    for text, said in (
        ("configs", "--out=configs is a folder; give a file."),
        (long, f"--out: {long}: File name too long; choose a shorter one."),
    ):
        with pytest.raises(SystemExit, match="2"):
            cli.load_flags([f"--out={text}"], flags=flags, about="")
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"error: {said}"


@pytest.mark.parametrize(
    ("endings", "listed"),
    [
        (cli.FIGURE.endings, ".png, .pdf or .svg"),
        ((".npz", ".csv"), ".npz or .csv"),
        ((".json",), ".json"),
    ],
)
def test_a_file_of_no_known_format_is_refused_before_any_work(tmp_path, capsys, endings, listed):
    flag = replace(cli.FIGURE, endings=endings)
    with pytest.raises(SystemExit, match="2"):
        cli.load_flags([f"--figure={tmp_path}/a.xyz"], flags=(flag,), about="")
    (line,) = capsys.readouterr().err.splitlines()
    said = f"does not fit: it must end in {listed}."
    assert line == f"error: --figure={tmp_path}/a.xyz {said}"
    assert not (tmp_path / "a.xyz").exists()


def test_a_line_break_in_a_name_breaks_no_line(capsys, monkeypatch):
    for word in ("--workdir=a\nb", "a\nb"):
        monkeypatch.setattr(sys, "argv", ["script.py", word])
        with pytest.raises(SystemExit, match="2"):
            cli.fail("/c/a\nb holds no run.\nanother fault.")
        shown = "error: /c/a\\nb holds no run.\nerror: another fault.\n"
        assert capsys.readouterr().err == shown
