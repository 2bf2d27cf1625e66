"""Options as text: reading them, naming the nearest, showing all with their comments."""

import ast
import contextlib
import inspect
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal, NoReturn

from ml_collections import ConfigDict

from ssm_jax import config as config_lib
from ssm_jax.files import local_path
from ssm_jax.options.rows import SECTIONS, Option

BOOLS = {"true": True, "yes": True, "on": True, "1": True}
BOOLS |= {"false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class Flag:
    """One `--name=value` of a script, or an option of an experiment, `--config.model.alpha=3`."""

    name: str
    help: str
    default: Any = None
    kind: type = str  # of the value, see `convert`
    choices: tuple[str, ...] = ()  # the only texts allowed, if any
    least: int | None = None  # the smallest number allowed, if any
    writes: Literal["", "file", "folder"] = ""  # what is written there, see `check_writable`
    endings: tuple[str, ...] = ()  # what the file that it writes may end in, if not all
    words: bool = False  # it is the list of the arguments without dashes


def parse(argv: Sequence[str], flags: Sequence[Flag]) -> tuple[dict[str, Any], list[str]]:
    """The converted values of all known options in argv, and one line per fault."""
    known = {flag.name: flag for flag in flags if not flag.words}
    words = next((flag for flag in flags if flag.words), None)
    options = any(name.startswith("config.") for name in known)
    given: dict[str, Any] = {}
    faults: list[str] = []
    queue = deque(argv)
    while queue:
        token = queue.popleft()
        name, equals, text = token.lstrip("-").partition("=")
        # `format=md` is an option without its dashes, even where a path may stand.
        if words is not None and not token.startswith("-") and not (equals and name in known):
            try:
                given.setdefault(words.name, []).append(convert(token, words.kind))
            except ValueError as error:
                faults.append(f"{token!r} does not fit: {error}.")
            continue
        if not token.startswith("--"):
            hint = guess(name, known, "--", equals + text) if equals else "; see --help."
            if not equals and ".py" in name and "config" in known:
                hint = f"; did you mean --config={token}?"
            faults.append(f"stray argument {token!r}: options begin with two dashes{hint}")
            continue
        positive = name.removeprefix("no")
        if name not in known and not equals and positive in known and known[positive].kind is bool:
            given[positive] = False
            continue
        if name not in known:
            inside = [k for k in known if k.startswith(f"{name}.")]
            listed = ", ".join(f"--{k}" for k in inside[:6]) + (", ..." if inside[6:] else "")
            group = f"--{name} is a group of options: {listed}; set one of them."
            unknown = f"unknown option --{name}{guess(name, known, '--')}"
            if name.startswith("config.") and "config" in known and not options:
                unknown = f"--{name} is of an experiment, and none is named; give --config too."
            faults.append(group if inside else unknown)
            if not equals and queue and not queue[0].startswith("-") and "=" not in queue[0]:
                queue.popleft()  # its value, which is no fault of its own
            continue
        kind, choices = known[name].kind, known[name].choices
        following = queue[0] if queue else "--"
        if not equals and kind is bool:
            text = queue.popleft() if following.lower() in BOOLS else "true"
        elif not equals and following.startswith("--"):
            example = "|".join(choices) or kind.__name__.upper()
            faults.append(f"--{name} has no value; write --{name}={example}.")
            continue
        elif not equals:
            text = queue.popleft()
        try:
            given[name] = convert(text, kind)
            if choices and text not in choices:
                raise ValueError(f"it is not one of {', '.join(choices)}")
        except ValueError as error:
            faults.append(f"--{name}={text} does not fit: {error}.")
    return given, faults


def split(argv: Sequence[str], flags: Sequence[Flag]) -> tuple[list[str], list[str]]:
    """The words of argv that give these flags, with their values, and the others."""
    known = {flag.name: flag for flag in flags}
    mine: list[str] = []
    others: list[str] = []
    words = deque(argv)
    while words:
        word = words.popleft()
        name, equals, _ = word.lstrip("-").partition("=")
        flag = known.get(name) or known.get(name.removeprefix("no"))
        if (
            not word.startswith("--")
            or flag is None
            or (flag.name != name and flag.kind is not bool)
        ):
            others.append(word)
            continue
        mine.append(word)
        following = words[0] if words and not equals and flag.name == name else "--"
        if following.lower() in BOOLS or (flag.kind is not bool and not following.startswith("--")):
            mine.append(words.popleft())
    return mine, others


EXPECTED = {
    bool: "true or false (yes/no, on/off, 1/0)",
    int: "a whole number of at most 63 bits",  # also 1e3 and 4.0
    float: "a finite number",
    tuple: "values with commas between them, e.g. 1,2,3",  # with or without brackets
}


def convert(text: str, kind: type) -> Any:
    """The value that `text` writes down: one of EXPECTED, a Path, or the text as it is.

    A ValueError says what is expected, without a full stop.
    """
    with contextlib.suppress(KeyError, ValueError, ArithmeticError, SyntaxError):
        if kind is bool:
            return BOOLS[text.lower()]
        if kind is int:
            number = Decimal(text)  # exact, so that 1e17 is the number it says
            # The bound comes first: writing 1e999999999 out in digits would take all memory.
            if -(2**63) < number < 2**63 and number == int(number):
                return int(number)
        if kind is float and math.isfinite(value := float(text)):
            return value
        if kind is tuple:
            items = ast.literal_eval(text)
            return tuple(items) if isinstance(items, (tuple, list)) else (items,)
    if kind in EXPECTED:
        raise ValueError(f"it must be {EXPECTED[kind]}")
    if kind is Path and not text:
        raise ValueError("the path is empty")
    return local_path(text) if kind is Path else text


def guess(asked: str, names: Iterable[str], dashes: str = "", tail: str = "") -> str:
    """The end of a message about an unknown name: `; did you mean --config.model.alpha=3?`

    Likeness is that of the whole path or, with a small discount, that of its last word alone
    (--alpha, --config.lr). Names that tie are all given, eight at most, between dashes and tail.
    """
    head, dot, rest = asked.partition(".")
    # Nearly every name begins with "config.": letters shared there say nothing.
    configured = bool(dot) and likeness(head, "config") > 0.7
    asked = rest if configured else asked
    scored = []
    for name in names:
        bare = name.removeprefix("config.")
        last = 0.9 * likeness(asked.rpartition(".")[2], bare.rpartition(".")[2])
        whole = likeness(asked, bare)
        if not configured or bare != name:
            scored.append((-max(whole, last), -whole, name))
    scored.sort()
    if not scored or -scored[0][0] < 0.6:
        return "; --help lists all."
    near = [dashes + name + tail for score, _, name in scored if score == scored[0][0]][:8]
    return f"; did you mean {' or '.join(near)}?"


def likeness(a: str, b: str) -> float:
    return SequenceMatcher(None, a, b, autojunk=False).ratio()


def show_config(cfg: ConfigDict) -> NoReturn:
    """Print every option, sorted, and after a # the default where it differs; end the process."""
    rows = config_lib.rows(cfg)
    for key, value in config_lib.flatten(cfg).items():
        default = rows[key].default
        mark = "" if value == default else f"  # default: {default!r}"
        print(f"{key} = {value!r}{mark}")
    raise SystemExit(0)


EXIT_CODES = """\
Exit codes: 0 finished, 1 a run diverged or a checkpoint is damaged, 2 wrong input, 74 the storage
failed or is full (what was saved is kept), 75 stopped on request (the same command resumes)."""


def show_help(
    about: str | None, flags: Sequence[Flag], rows: Mapping[str, Option] | None = None
) -> NoReturn:
    """Print what a script does, its flags and the options of an experiment; end the process."""
    print(f"{inspect.cleandoc(about or '')}\n\n{EXIT_CODES}")
    for flag in flags:
        if flag.words:
            print(f"\nArguments:\n  {flag.name.upper() + ' ...':36}{flag.help}")
    print("\nFlags:")
    for flag in flags:
        values = "|".join(flag.choices) or flag.kind.__name__.upper()
        head = f"--{flag.name}" if flag.kind is bool else f"--{flag.name}={values}"
        shown = "" if flag.default in (None, False) else f" (default: {flag.default})"
        if not flag.words:
            print(f"  {head:36}{flag.help}{shown}")
    if rows is not None:
        print("\nOptions of the experiment, with their defaults:")
    unseen = dict(SECTIONS)
    for key, option in (rows or {}).items():
        section = key.rpartition(".")[0]
        if section in unseen:
            print(f"  [{section}] {unseen.pop(section)}")
        print(f"  {f'--config.{key}={option.default}':47} {option.help}")
    raise SystemExit(0)
