"""The text of an optimized HLO module, as computations of instructions, and their operations.

Floating-point operations: a multiplication and an addition of a product are two. An FFT of n
complex numbers is 5 n log2 n, of real ones half of that. Any other operation of arithmetic on a
real number is one, also an exponential; of complex numbers a sum is two, a product six.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
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


ARITHMETIC = frozenset({
    "add", "subtract", "multiply", "divide", "maximum", "minimum", "power", "remainder", "negate",
    "abs", "sign", "exponential", "exponential-minus-one", "log", "log-plus-one", "sqrt", "rsqrt",
    "cbrt", "sine", "cosine", "tan", "tanh", "logistic", "erf", "atan2",
})  # fmt: skip


def flops_of_product(product: Instruction, operands: Mapping[str, Instruction]) -> int:
    """The operations of a dot, a convolution, or a call of a library's matrix product."""
    if product.opcode == "convolution":
        return _flops_of_convolution(product, operands)
    (left, *_), (result, *_) = operands[product.operands[0]].arrays, product.arrays
    contracted = product.numbers("lhs_contracting_dims")
    if product.opcode == "custom-call":
        config = re.search(r'"lhs_contracting_dimensions":(\[[^\]]*\])', product.attributes)
        contracted = tuple(map(int, json.loads(config[1]))) if config else ()
    terms = math.prod(left.dims[axis] for axis in contracted)
    return result.size * terms * (8 if left.dtype.startswith("c") else 2)


def _flops_of_convolution(product: Instruction, operands: Mapping[str, Instruction]) -> int:
    """Products of numbers that are there: neither padding nor the holes of a dilation."""
    left, right = (operands[name].arrays[0] for name in product.operands[:2])
    result = product.arrays[0]
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", product.attributes)
    if labels is None:
        return 0
    inner, outer = labels[1], labels[3]
    spatial = sorted(letter for letter in labels[2] if letter.isdecimal())
    sizes = _window(product.attributes, "size", len(spatial), "1")
    strides = _window(product.attributes, "stride", len(spatial), "1")
    pads = _window(product.attributes, "pad", len(spatial), "0_0")
    left_holes = _window(product.attributes, "lhs_dilate", len(spatial), "1")
    right_holes = _window(product.attributes, "rhs_dilate", len(spatial), "1")
    pairs = 1
    for place, letter in enumerate(spatial):
        inputs, outputs = left.dims[inner.index(letter)], result.dims[outer.index(letter)]
        step, hole, low = int(strides[place]), int(left_holes[place]), pads[place].split("_")[0]
        pairs *= sum(
            (at := out * step + tap * int(right_holes[place]) - int(low)) % hole == 0
            and 0 <= at // hole < inputs
            for out in range(outputs)
            for tap in range(int(sizes[place]))
        )
    others = math.prod(result.dims[i] for i, c in enumerate(outer) if not c.isdecimal())
    groups = re.search(r"batch_group_count=(\d+)", product.attributes)
    terms = right.dims[labels[2].index("i")]
    return 2 * others * pairs * terms // (int(groups[1]) if groups else 1)


def _window(attributes: str, key: str, axes: int, default: str) -> list[str]:
    """The values of a key of window={size=3x3 pad=1_1x1_1}, one for each axis."""
    window = re.search(r"window=\{([^}]*)\}", attributes)
    found = re.search(rf"\b{key}=(\S+)", window[1]) if window else None
    return found[1].split("x") if found else [default] * axes


def flops_of_fft(fft: Instruction, operand: Array) -> float:
    """The operations of an FFT, by its length and how often it is made."""
    n = math.prod(fft.numbers("fft_length"))
    real = fft.word("fft_type") in ("RFFT", "IRFFT")
    times = (operand if fft.word("fft_type") != "IRFFT" else fft.arrays[0]).size // n
    return times * n * math.log2(n) * (2.5 if real else 5)


def flops_of_elements(one: Instruction, operands: Mapping[str, Instruction]) -> int:
    """The operations of arithmetic on each element, or of a sum over elements; 0 for all else."""
    if not one.arrays:
        return 0
    result = one.arrays[0]
    if result.dtype[0] not in "fbc":
        return 0
    if one.opcode in ("reduce", "reduce-window"):
        first = operands.get(one.operands[0])
        return first.arrays[0].size - result.size if first and first.arrays else 0
    if one.opcode not in ARITHMETIC:
        return 0
    if result.dtype.startswith("c"):
        return result.size * (6 if one.opcode in ("multiply", "divide") else 2)
    return result.size
