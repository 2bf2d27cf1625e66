"""The text of an optimized HLO module, as computations of instructions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

BYTES = {
    "pred": 1, "s4": 1, "u4": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "s32": 4, "u32": 4,
    "s64": 8, "u64": 8, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "c64": 8, "c128": 16,
}  # fmt: skip

_ARRAY = re.compile(r"(\w+)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*-> .*\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)$")
# Which run functions of others: their callers tell more
_PASSED_OVER = ("ssm_jax/kernels/rules.py:", "ssm_jax/kernels/devices.py:")
_TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")


@dataclass(frozen=True)
class Array:
    """One array of a type: f32[32,2048]{1,0:S(1)}."""

    dtype: str
    dims: tuple[int, ...]
    space: int = 0  # of memory; 0 is the device's main memory

    @property
    def size(self) -> int:
        """Its elements."""
        return math.prod(self.dims)

    @property
    def nbytes(self) -> int:
        """Its bytes, wherever it is."""
        return self.size * BYTES[self.dtype]


@dataclass(frozen=True)
class Instruction:
    """name = arrays opcode(operands), attributes."""

    name: str
    arrays: tuple[Array, ...]  # of its result, a tuple's in order
    opcode: str
    operands: tuple[str, ...]  # names, for a parameter or constant what stands there
    attributes: str
    root: bool = False

    def calls(self, *keys: str) -> Iterator[str]:
        """Computations that it names under some attributes, such as `calls` or `body`."""
        for key in keys:
            for one, many in re.findall(
                rf"\b{key}=(?:%?([\w.\-]+)|\{{([^}}]*)\}})", self.attributes
            ):
                yield from re.findall(r"[\w.\-]+", one or many)

    def numbers(self, key: str) -> tuple[int, ...]:
        """The numbers of an attribute such as lhs_contracting_dims={1,2}; () if it has none."""
        found = re.search(rf"\b{key}=\{{([\d,]*)\}}", self.attributes)
        return tuple(int(n) for n in found[1].split(",") if n) if found else ()

    def word(self, key: str) -> str:
        """The word of an attribute such as fft_type=RFFT or op_name="...", or ""."""
        found = re.search(rf'\b{key}=(?:"([^"]*)"|([\w.\-]+))', self.attributes)
        return (found[1] or found[2] or "") if found else ""


@dataclass
class Module:
    """All computations by name, the one that runs, and the lines of Python behind stack frames."""

    computations: dict[str, list[Instruction]] = field(default_factory=dict)
    entry: str = ""
    sources: dict[int, str] = field(default_factory=dict)  # file:line by stack_frame_id

    def source(self, instruction: Instruction) -> str:
        """file:line of the Python that asked for an instruction, or ""."""
        frame = re.search(r"\bstack_frame_id=(\d+)", instruction.attributes)
        return self.sources.get(int(frame[1]), "") if frame else ""


def arrays_of(text: str) -> tuple[Array, ...]:
    """The arrays in the text of a type; tokens and what else has no bytes are none."""
    found = []
    for dtype, dims, layout in _ARRAY.findall(text):
        if dtype in BYTES or dtype.startswith("f8"):
            named = re.search(r"S\((\d+)\)", layout)
            space = int(named[1]) if named else 0
            shape = tuple(int(d.lstrip("<=")) for d in dims.split(",") if d)
            found.append(Array(dtype if dtype in BYTES else "s8", shape, space))
    return tuple(found)


def _closing(text: str) -> int:
    """The place of the parenthesis that closes the one at the beginning of a text."""
    depth, quoted = 0, False
    for place, letter in enumerate(text):
        quoted ^= letter == '"'
        if not quoted:
            depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return place
    raise ValueError(f"the HLO text has an instruction without an end: {text[:60]!r}.")


def instruction(line: str) -> Instruction | None:
    """The instruction of a line, or None if there is none."""
    if (found := _INSTRUCTION.match(line)) is None:
        return None
    root, name, rest = found.groups()
    if rest.startswith("("):
        end = _closing(rest) + 1
        kind, rest = rest[:end], rest[end:].lstrip()
    else:
        kind, _, rest = rest.partition(" ")
    opcode, parenthesis, _ = rest.partition("(")
    if not parenthesis:
        return None
    rest = rest[len(opcode) :]
    end = _closing(rest)
    inside, attributes = re.sub(r"/\*.*?\*/", "", rest[1:end]), rest[end + 1 :]
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    if not operands and inside:  # without % where XLA leaves it out
        parts = re.sub(r"\{[^}]*\}", "", inside).split(",")
        words = tuple(word for part in parts for word in part.split()[-1:])
        operands = (inside,) if opcode in ("parameter", "constant") else words
    return Instruction(name, arrays_of(kind), opcode, operands, attributes, bool(root))


def parse(text: str) -> Module:
    """The module of a text, as `jax.stages.Compiled.as_text` gives it. ValueError: it is none."""
    module, body, table = Module(), None, ""
    tables: dict[str, dict[int, str]] = {name: {} for name in _TABLES}
    for line in text.splitlines():
        if body is not None:
            if line.startswith("}"):
                body = None
            elif found := instruction(line):
                body.append(found)
        elif line in tables:
            table = line
        elif start := _COMPUTATION.match(line):
            body = module.computations[start[2]] = []
            module.entry = start[2] if start[1] else module.entry
        elif table and (row := re.match(r"(\d+) (.*)$", line)):
            tables[table][int(row[1])] = row[2].strip('"')
    if not module.entry:
        raise ValueError("the text is no HLO module: it has no ENTRY computation.")
    module.sources = dict(_lines(tables))
    return module


def _lines(tables: dict[str, dict[int, str]]) -> Iterator[tuple[int, str]]:
    """file:line by the number of a stack frame."""

    def number(text: str, key: str) -> int:
        found = re.search(rf"\b{key}=(\d+)", text)
        return int(found[1]) if found else 0

    found, callers = dict[int, str](), dict[int, int]()
    for frame, text in tables["StackFrames"].items():
        location = tables["FileLocations"].get(number(text, "file_location_id"), "")
        # XLA writes the number of the caller plus one, as 0 is none
        callers[frame] = number(text, "parent_frame_id") - 1
        if name := tables["FileNames"].get(number(location, "file_name_id")):
            name = re.sub(r".*/site-packages/|.*/(?=ssm_jax/)|^/.*/", "", name)
            found[frame] = f"{name}:{number(location, 'line')}"
    for frame in found:
        caller = frame
        while found[caller].startswith(_PASSED_OVER) and callers[caller] in found:
            caller = callers[caller]
        yield frame, found[caller]
