"""Experiment files: running one, and checking what its `get_config` and `sweep` return."""

import contextlib
import inspect
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ssm_jax import config as config_lib
from ssm_jax import outside
from ssm_jax.config.argv import guess
from ssm_jax.config.check import check, fault_of
from ssm_jax.config.space import Axis, axis_of
from ssm_jax.files import local_path

CONFIGS = Path(__file__).parents[1] / "configs"  # a folder of the wheel; a link in the repository


def load_config(spec: str, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """The locked and checked config of `FILE.py[:ARG]`, or of a shipped name, "lra/listops:s4d".

    `overrides` are values by dotted option, such as {"model.alpha": 3.0}. A ValueError has a line
    for each fault of the file, of an option's name or of its value.
    """
    cfg = read_config(spec)
    with beside(spec):
        faults, _ = _changed(cfg, overrides or {})
    if faults:
        raise ValueError("\n".join(faults))
    return cfg


@contextlib.contextmanager
def beside(spec: str) -> Iterator[None]:
    """Resolve FILE.py:NAME of layers and tasks against the folder of a config first."""
    with outside.beside(Path(split_spec(spec)[0])):
        yield


def read_config(spec: str) -> ConfigDict:
    """The locked config that `FILE.py[:ARG]` makes: get_config(ARG), get_config() without a colon.

    The file is executed once for each content of it and of what it imports from its folder; it
    leaves nothing in sys.modules and no compiled copy. Each fault is a line of a ValueError.
    """
    with _function(spec, "get_config") as (get_config, arg):
        cfg = get_config(arg) if arg else get_config()
        if not isinstance(cfg, ConfigDict):
            raise ValueError(f"get_config returns a {type(cfg).__name__}, not a ConfigDict.")
        chosen = {key: config_lib.flatten(cfg).get(key) for key in config_lib.CHOSEN}
        if wrong := [key for key, name in chosen.items() if not isinstance(name, str)]:
            raise ValueError(f"{wrong[0]}={chosen[wrong[0]]!r} of its config is no str.")
        config_lib.choose(cfg, cfg.task, cfg.model.layer)
    asked, known, found = f"--config={spec}", config_lib.rows(cfg), config_lib.flatten(cfg)
    extra, lacking = found.keys() - known, known.keys() - found
    faults = [f"{asked} sets {k}, which is no option{guess(k, known)}" for k in extra]
    faults += [f"{asked} removes the option {k}; set a value in its place." for k in lacking]
    for key in found.keys() - extra - {*config_lib.CHOSEN}:
        value, kind = found[key], type(known[key].default)
        if not isinstance(value, kind):  # None, which a ConfigDict takes for any value
            faults.append(f"{asked} sets {key}={value!r}, which is no {kind.__name__}.")
        elif kind is float and type(value) is not float:  # NumPy's, which takes no other float
            with cfg.ignore_type():
                cfg.update_from_flattened_dict({key: float(value)})
    if faults:
        raise ValueError("\n".join(sorted(faults)))
    if cfg.optim.lr:
        config_lib.scale_rates(cfg)
    return cfg.lock()


def load_sweep(
    spec: str, cfg: ConfigDict, given: Collection[str] = (), *, alone: bool = False
) -> list[dict[str, Any]]:
    """The cells of the sweep that `FILE.py[:ARG]` defines next to get_config, checked upon `cfg`.

    A cell is a dict of dotted options and their values, such as {"model.alpha": 3.0,
    "model.beta.init": 0.5}; all cells set the same options. `sweep(arg)` gets what get_config gets
    if it takes an argument, else it is called without; it returns a list or yields. `given` are the
    options of the experiment that the command line changed. A file without sweep() has one cell
    {}, the experiment as it is, if it may stand `alone`.

    A ValueError has a line for each fault: no function sweep, one that fails or returns something
    else, options that there are not, values that do not fit or cannot work, cells that are equal.
    """
    if alone and not _defines(spec, "sweep"):
        return [{}]
    with _function(spec, "sweep") as (sweep, arg):
        made = sweep(arg) if inspect.signature(sweep).parameters else sweep()
        if not isinstance(made, (list, tuple, Iterator)):
            raise ValueError(f"sweep returns a {type(made).__name__}, not a list of dicts.")
        made = list(made)
    asked = f"--config={spec}: sweep()"
    if not made:
        raise ValueError(f"{asked} returns no cells; give at least one dict of options.")
    faults: dict[str, int] = {}  # what is wrong, and the first cell in which it is
    cells: list[dict[str, Any]] = []
    for number, cell in enumerate(made, start=1):
        if isinstance(cell, Mapping) and cell:
            with beside(spec):
                found, typed = _changed(cfg.copy_and_resolve_references(), cell, given)
            if "seed" in cell:
                found.append("seed is no option to sweep; give --seeds=N.")
        else:
            found, typed = [f"it is {cell!r:.60}, not a dict of options."], {}
        if not found and cells and cells[0].keys() != typed.keys():
            listed = [", ".join(each) or "nothing" for each in (typed, cells[0])]
            found.append("sets {}, and cell 1 sets {}.".format(*listed))
        if not found and typed in cells:
            found.append(f"is cell {cells.index(typed) + 1} again: {typed}.")
        cells.append(typed)
        for fault in found:
            faults.setdefault(fault, number)
    if faults:
        raise ValueError("\n".join(f"{asked} cell {n}: {fault}" for fault, n in faults.items()))
    return cells


def load_search(
    spec: str, cfg: ConfigDict, flags: Mapping[str, str], given: Collection[str] = ()
) -> dict[str, Axis]:
    """The axes of a search by option: those of search() beside get_config, and of the flags.

    search() returns {option: range or values}, see `space.axis_of`; a flag replaces an axis of the
    file or adds one. `given` as in `load_sweep`. A ValueError has a line for each fault.
    """
    asked: dict[str, Any] = {}
    if _defines(spec, "search"):
        with _function(spec, "search") as (search, arg):
            made = search(arg) if inspect.signature(search).parameters else search()
            if not isinstance(made, Mapping):
                raise ValueError(f"search returns a {type(made).__name__}, not a dict.")
            asked = dict(made)
    asked |= flags
    if not asked:
        raise ValueError(
            f"--config={spec}: nothing to search; write search() beside get_config(), such as "
            "return {'model.alpha': '0.1..10:log'}, or give --search.model.alpha=0.1..10:log."
        )
    flat, faults, axes = config_lib.flatten(cfg), list[str](), dict[str, Axis]()
    for key, text in asked.items():
        if key not in flat:
            faults.append(f"search of {key}: no such option{guess(str(key), flat)}")
        elif key == "seed":
            faults.append("search of seed: it is no option to choose; give --seeds=N.")
        elif key in given:
            faults.append(f"--config.{key} is given and is searched; leave one of them out.")
        else:
            try:
                kind = str if isinstance(flat[key], str) else type(flat[key])  # it may be a path's
                axes[key] = axis_of(key, text, kind)
                row = config_lib.rows(cfg)[key]
                found = (fault_of(key, end, row) for end in axes[key].ends())
                faults += [f"search of {line}" for line in found if line]
                with beside(spec):
                    for end in axes[key].ends() if key in config_lib.CHOSEN else ():
                        config_lib.find(key, end)
            except ValueError as error:
                faults.append(str(error))
    if faults:
        raise ValueError("\n".join(faults))
    return axes


def faults_of(cfg: ConfigDict, cell: Mapping[str, Any], given: Collection[str] = ()) -> list[str]:
    """Why an experiment cannot be changed like this; [] if it can."""
    return _changed(cfg.copy_and_resolve_references(), cell, given)[0]


def _changed(
    cfg: ConfigDict, values: Mapping[str, Any], given: Collection[str] = ()
) -> tuple[list[str], dict[str, Any]]:
    """Change and check a config: what is wrong, and the values in the types of the options."""
    faults: list[str] = []
    typed: dict[str, Any] = {}
    try:
        named = {key: str(values[key]) for key in config_lib.CHOSEN if key in values}
        config_lib.override(cfg, named, given)
        flat = config_lib.flatten(cfg)
        for key, value in values.items():
            if key not in flat:
                faults.append(f"{key!r} is no option{guess(str(key), flat)}")
                continue
            kind = type(flat[key])
            value = flat[key] if key in named else value
            value = value.item() if hasattr(value, "item") else value  # NumPy's numbers
            value = float(value) if kind is float and type(value) is int else value
            if type(value) is not kind:
                what = f"a {type(value).__name__}, not a {kind.__name__}"
                faults.append(f"{key}={value!r} is {what}.")
            typed[key] = value
        if not faults:
            config_lib.override(cfg, typed, given)
            check(cfg)
    except ValueError as error:
        faults += str(error).splitlines()
    return faults, typed


def shipped() -> dict[str, Path]:
    """The files of the configs that come with the package, by name: lra/listops."""
    files = sorted(CONFIGS.rglob("*.py"))
    return {file.relative_to(CONFIGS).with_suffix("").as_posix(): file for file in files}


def _near(asked: str) -> str:
    """The end of a message about a missing file: the nearest under configs/, or shipped names."""
    found = [str(p) for p in Path("configs").rglob("*.py") if not p.name.startswith("_")]
    if not found:
        none = "; nor is there a folder configs/ with any, so run from the root of the repository"
        return f"{none}; or name one of {', '.join(shipped())}"
    return f"; nearest: {', '.join(get_close_matches(asked, found, n=3, cutoff=0))}"


def split_spec(spec: str) -> tuple[str, str]:
    """The file and the argument of `FILE[:ARG]`, where FILE and ARG may have colons too."""
    try:
        local_path(spec)
    except ValueError as error:
        raise ValueError(f"--config={spec} does not fit: {error}.") from None
    parts = os.path.expanduser(spec).split(":")
    for count in range(len(parts), 0, -1):  # the longest name of a file
        name = ":".join(parts[:count])
        if os.path.isfile(name):
            return name, ":".join(parts[count:])
    return str(shipped().get(parts[0], parts[0])), ":".join(parts[1:])


@contextlib.contextmanager
def _function(spec: str, name: str) -> Iterator[tuple[Callable[..., Any], str]]:
    """A function of `FILE.py[:ARG]`, and ARG; whatever the body raises is a fault of the file."""
    asked = f"--config={spec}"
    if not spec:
        raise ValueError(f"--config is missing; give --config=FILE.py{_near('denoise')}.")
    path, arg = split_spec(spec)
    if not Path(path).is_file():
        if path.endswith(".py"):
            raise ValueError(f"{asked}: there is no file {path}{_near(path)}.")
        near = ", ".join(get_close_matches(path, shipped(), cutoff=0)) or "none"
        raise ValueError(f"{asked}: no config that is shipped has this name; nearest: {near}.")
    with outside.running(Path(path), asked) as file:
        if not callable(getattr(file.module, name, None)):
            if name == "sweep":
                more = "write one, or run the experiment as it is with several --seeds=N"
                raise ValueError(f"the file defines no function sweep(); {more}.")
            raise ValueError(f"the file defines no function {name}(arg).")
        yield getattr(file.module, name), arg


def _defines(spec: str, name: str) -> bool:
    """Whether the file of a config has a function of this name."""
    with outside.running(Path(split_spec(spec)[0]), f"--config={spec}") as file:
        return callable(getattr(file.module, name, None))
