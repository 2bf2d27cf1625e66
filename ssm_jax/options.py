"""Options as text: reading a value, naming the nearest option, showing all of them with their comments."""

from __future__ import annotations

import ast
import inspect
import io
import math
import textwrap
import tokenize
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from difflib import SequenceMatcher
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ssm_jax import config as config_lib

BOOLS = {"true": True, "yes": True, "on": True, "1": True}
BOOLS |= {"false": False, "no": False, "off": False, "0": False}


def convert(text: str, kind: type) -> Any:
    """The value that `text` writes down.

    Args:
      text: what stands behind the equals sign.
      kind: bool (true/false, yes/no, on/off, 1/0), int (also 1e3 and 4.0), float (finite), str (as it is),
        Path, or tuple (1,2,3 with or without brackets).

    Raises:
      ValueError: what is expected, without a full stop.
    """
    if kind is bool:
        if text.lower() not in BOOLS:
            raise ValueError("it must be true or false (yes/no, on/off, 1/0)")
        return BOOLS[text.lower()]
    if kind is int:
        try:
            number = Decimal(text)  # exact, so that 1e17 is the number it says
        except InvalidOperation:
            number = Decimal("nan")
        # The bound comes first: writing 1e999999999 out in digits would take all memory.
        if not (number.is_finite() and abs(number) < 2**63 and number == int(number)):
            raise ValueError("it must be a whole number of at most 63 bits")
        return int(number)
    if kind is float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError("it must be a finite number")
        return value
    if kind is tuple:
        try:
            items = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            raise ValueError("it must be values with commas between them, e.g. 1,2,3") from None
        return tuple(items) if isinstance(items, (tuple, list)) else (items,)
    if kind is Path:
        if not text:
            raise ValueError("the path is empty")
        return Path(text).expanduser()
    return text


def guess(asked: str, names: Iterable[str], dashes: str = "", tail: str = "") -> str:
    """The end of a message about an unknown name: `; did you mean --config.model.alpha=3?`

    Likeness is that of the whole path or, with a small discount, that of its last word alone (--alpha,
    --config.lr). Names that tie are all given, four at most.

    Args:
      asked: the unknown name, without dashes.
      names: the right ones.
      dashes: put before each name shown.
      tail: put behind each name shown.
    """
    head, dot, rest = asked.partition(".")
    # Nearly every name begins with "config.": letters shared there say nothing.
    configured = bool(dot) and _likeness(head, "config") > 0.7
    asked = rest if configured else asked
    scored = []
    for name in names:
        bare = name.removeprefix("config.")
        last = 0.9 * _likeness(asked.rpartition(".")[2], bare.rpartition(".")[2])
        whole = _likeness(asked, bare)
        if not configured or bare != name:
            scored.append((-max(whole, last), -whole, name))
    scored.sort()
    if not scored or -scored[0][0] < 0.6:
        return "; --help lists all."
    near = [dashes + name + tail for score, _, name in scored if score == scored[0][0]][:4]
    return f"; did you mean {' or '.join(near)}?"


def near_files(asked: str) -> str:
    """The end of a message about a missing config file: the nearest ones under configs/ here."""
    found = [str(p) for p in Path("configs").rglob("*.py") if not p.name.startswith("_")]
    if not found:
        return "; nor is there a folder configs/ with any, so run from the root of the repository"
    found.sort(key=lambda p: (-max(_likeness(asked, p), _likeness(asked, Path(p).name)), p))
    return f"; nearest: {', '.join(found[:3])}"


def _likeness(a: str, b: str) -> float:
    return SequenceMatcher(None, a, b, autojunk=False).ratio()


def print_config(cfg: ConfigDict) -> None:
    """Print every option, sorted, one per line; those that differ from default() say its value behind a #."""
    defaults = config_lib.flatten(config_lib.default())
    for key, value in config_lib.flatten(cfg).items():
        mark = "" if value == defaults[key] else f"  # default: {defaults[key]!r}"
        print(f"{key} = {value!r}{mark}")


def print_help(about: str, flags: Sequence[tuple[str, str]], *, with_config: bool) -> None:
    """Print what a script does, its flags and, on request, every option with its default and comment.

    Args:
      about: the script's docstring.
      flags: (--name=KIND, help) of each flag.
      with_config: whether the script takes a config.
    """
    print(about.strip(), "\n\nFlags:")
    width = max(len(head) for head, _ in flags) + 2
    for head, text in flags:
        print(f"  {head:{width}}{text}")
    if not with_config:
        return
    print("\nOptions of the experiment, with their defaults:")
    docs, shown = option_docs(), set()
    for key, value in config_lib.flatten(config_lib.default()).items():
        parts = key.split(".")
        for depth in range(1, len(parts)):
            group = ".".join(parts[:depth])
            if group not in shown and docs.get(group):
                print(f"  [{group}] {docs[group]}")
            shown.add(group)
        text = next((doc for pattern, doc in docs.items() if fnmatchcase(key, pattern)), "")
        print(f"  {f'--config.{key}={value}':46}{text}".rstrip())


def option_docs() -> dict[str, str]:
    """The comment that stands with each assignment in config.default(), by key; `*` matches any name.

    Read from the source, so that an option is described in one place. A comment behind the assignment counts
    before one on the line above.
    """
    source = textwrap.dedent(inspect.getsource(config_lib.default))
    behind: dict[int, str] = {}
    above: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            alone = token.line.lstrip().startswith("#")
            where, line = (above, token.start[0] + 1) if alone else (behind, token.start[0])
            where[line] = token.string.lstrip("# ")
    assigned = [
        (node.lineno, node.targets[0], node.value)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign)
    ]
    # cfg.optim.groups[name] = group: what is assigned to group.lr is optim.groups.*.lr.
    prefix = {"cfg": ""}
    for _, target, value in assigned:
        if isinstance(target, ast.Subscript) and isinstance(value, ast.Name):
            prefix[value.id] = ast.unparse(target.value).removeprefix("cfg.") + ".*."
    docs = {}
    for line, target, _ in assigned:
        if isinstance(target, ast.Attribute):
            root, _, path = ast.unparse(target).partition(".")
            docs[prefix[root] + path] = behind.get(line) or above.get(line, "")
    return docs
