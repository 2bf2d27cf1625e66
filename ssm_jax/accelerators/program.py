"""What a compiled program does each time it is called: kernels, bytes, operations, collectives.

Loops count as often as they turn. A kernel reads its operands and writes its result in the device's
main memory; of an operand that it only slices or gathers from, what it takes; of a result that it
updates in place, the update. Caches are not modelled, so that the bytes are a plan, not a measure.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from ssm_jax.accelerators import hlo
from ssm_jax.accelerators.hlo import Array, Instruction

# What takes no time of its own
FREE = frozenset({
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id",
    "replica-id", "opt-barrier", "domain", "add-dependency",
})  # fmt: skip
COLLECTIVES = (
    "all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter",
    "ragged-all-to-all", "collective-broadcast",
)  # fmt: skip
_SLICES = ("dynamic-slice", "slice", "gather")


@dataclass(frozen=True)
class Kernel:
    """What a device is told to do at once, and how often a call of the program does it."""

    name: str
    opcode: str
    times: int
    read: int  # bytes, each time
    written: int
    arrays: tuple[Array, ...]  # of its result
    operation: str  # of JAX: jit(train_step)/jvp()/while/body/dot_general
    source: str  # file:line

    @property
    def moved(self) -> int:
        """Bytes over all times."""
        return self.times * (self.read + self.written)


@dataclass(frozen=True)
class Product:
    """A product of matrices, whichever kernel makes it."""

    dtype: str
    precision: str  # default, high, highest, or the name of an algorithm
    times: int
    flops: int  # each time
    source: str


@dataclass(frozen=True)
class Collective:
    """A message between devices; a start and its end are one."""

    opcode: str
    times: int
    arrays: tuple[Array, ...]  # of its operands

    @property
    def nbytes(self) -> int:
        """Bytes that a device gives, each time."""
        return sum(array.nbytes for array in self.arrays)


@dataclass
class Program:
    """All that is known of a program by its text."""

    kernels: list[Kernel] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    collectives: list[Collective] = field(default_factory=list)
    ffts: int = 0  # kernels of a library, by times
    loops: list[int] = field(default_factory=list)  # how often each turns
    unknown_loops: int = 0  # of which nobody knows that: they count as one turn
    flops: Counter[str] = field(default_factory=Counter)  # of products, ffts and elements

    @property
    def moved(self) -> int:
        """Bytes that all kernels read and write."""
        return sum(kernel.moved for kernel in self.kernels)

    @property
    def launches(self) -> int:
        """Kernels, by times."""
        return sum(kernel.times for kernel in self.kernels)

    def add(self, other: Program) -> None:
        """Take over what another one does."""
        for name in ("kernels", "products", "collectives", "loops"):
            getattr(self, name).extend(getattr(other, name))
        self.ffts += other.ffts
        self.unknown_loops += other.unknown_loops
        self.flops.update(other.flops)


def read(text: str, *, on_chip: tuple[int, ...] = ()) -> Program:
    """The program of an optimized HLO text; `on_chip` are memory spaces that cost no bytes."""
    return _Reader(hlo.parse(text), on_chip).computation(None, 1)


class _Reader:
    def __init__(self, module: hlo.Module, on_chip: tuple[int, ...]):
        self._module, self._on_chip = module, on_chip

    def computation(self, name: str | None, times: int) -> Program:
        """What a computation does, the entry for None, so many times."""
        body, program = self._module.computations.get(name or self._module.entry, []), Program()
        named = {one.name: one for one in body}
        for one in body:
            self._instruction(one, named, times, program)
        return program

    def _instruction(
        self, one: Instruction, named: dict[str, Instruction], times: int, program: Program
    ) -> None:
        if one.opcode == "while":
            turns = self._turns(one)
            program.loops.append(turns or 1)
            program.unknown_loops += turns is None
            for body in one.calls("body"):
                program.add(self.computation(body, times * (1 if turns is None else turns)))
            return
        if one.opcode == "conditional":  # the branch that costs most
            names = one.calls("true_computation", "false_computation", "branch_computations")
            branches = [self.computation(name, times) for name in names]
            program.add(max(branches, key=lambda branch: branch.moved, default=Program()))
            return
        if one.opcode in ("call", "async-start") and (inner := [*one.calls("to_apply", "calls")]):
            program.add(self.computation(inner[0], times))
            return
        if one.opcode.endswith("-done") or one.opcode == "async-update" or one.opcode in FREE:
            return
        if "AllocateBuffer" in one.attributes:
            return
        opcode = one.opcode.removesuffix("-start")
        if opcode in COLLECTIVES:
            given = tuple(a for name in one.operands if name in named for a in named[name].arrays)
            program.collectives.append(Collective(opcode, times, given))
        self._count(one, named, times, program)
        read, written = self._traffic(one, named)
        called = re.search(r'custom_call_target="([^"]+)"', one.attributes)
        program.kernels.append(
            Kernel(
                one.name, called[1] if called else opcode, times, read, written, one.arrays,
                one.word("op_name"), self._module.source(one),
            )
        )  # fmt: skip

    def _turns(self, loop: Instruction) -> int | None:
        """How often a loop turns, by its note or, on TPUs, the one number its condition names."""
        if note := re.search(r'known_trip_count"?[:=]\s*\{"?n"?:"?(\d+)', loop.attributes):
            return int(note[1])
        todo, found = [*loop.calls("condition")], set[int]()
        while todo:
            for one in self._module.computations.get(todo.pop(), []):
                todo.extend(one.calls("calls", "to_apply"))
                if one.opcode == "constant" and one.arrays[:1] == (Array("s32", ()),):
                    found.add(int(one.operands[0]))
        return max(found) if len(found - {0}) == 1 else None

    def _count(
        self, one: Instruction, named: dict[str, Instruction], times: int, program: Program
    ) -> None:
        """Add the operations of an instruction and of what it calls."""
        library = one.opcode == "custom-call" and "gemm" in one.attributes
        if one.opcode in ("dot", "convolution") or library:
            count, left = hlo.flops_of_product(one, named), named[one.operands[0]].arrays[0]
            source = self._module.source(one)
            product = Product(left.dtype, _precision(one), times, count, source)
            program.products.append(product)
            program.flops["products"] += times * count
        elif one.opcode == "fft":
            program.ffts += times
            count = round(hlo.flops_of_fft(one, named[one.operands[0]].arrays[0]))
            program.flops["ffts"] += times * count
        elif one.opcode in ("fusion", "fusion-start"):
            for callee in one.calls("calls"):
                body = self._module.computations.get(callee, [])
                inside = {each.name: each for each in body}
                for each in body:
                    self._count(each, inside, times, program)
        else:
            program.flops["elements"] += times * hlo.flops_of_elements(one, named)

    def _bytes(self, arrays: tuple[Array, ...]) -> int:
        """Bytes of arrays in main memory."""
        return sum(array.nbytes for array in arrays if array.space not in self._on_chip)

    def _traffic(self, one: Instruction, named: dict[str, Instruction]) -> tuple[int, int]:
        """Bytes that a kernel reads and writes."""
        operands = [named[name] for name in one.operands if name in named]
        if one.opcode in ("fusion", "fusion-start"):
            body = [each for c in one.calls("calls") for each in self._module.computations[c]]
            return self._traffic_of_fusion(one, operands, body)
        given = sum(self._bytes(operand.arrays) for operand in operands)
        opcode, result = one.opcode, one.arrays
        if opcode.endswith("-start"):  # a start returns more than its result
            opcode = opcode.removesuffix("-start")
            if opcode == "copy":  # (to, from, ..)
                result = result[:1]
            elif opcode != "all-reduce":  # (from, to, ..)
                result = result[len(one.operands) :][: len(one.operands)]
        written = self._bytes(result)
        if opcode in ("dynamic-slice", "slice"):  # of what is given, no more than is taken
            return min(given, sum(array.nbytes for array in result)), written
        if opcode == "dynamic-update-slice":
            update = operands[1].arrays
            return self._bytes(update), min(written, sum(array.nbytes for array in update))
        return given, written

    def _traffic_of_fusion(
        self, one: Instruction, operands: list[Instruction], body: list[Instruction]
    ) -> tuple[int, int]:
        users = _users(body)
        named = {each.name: each for each in body}
        numbered = {int(p.operands[0]): p for p in body if p.opcode == "parameter"}
        root = next((each for each in body if each.root), None)
        results = one.arrays if one.opcode == "fusion" or root is None else root.arrays
        outputs = [named[n] for n in root.operands] if root and root.opcode == "tuple" else []
        outputs = outputs or ([root] if root else [])
        for place, output in enumerate(outputs):
            while output.opcode == "bitcast" and output.operands[0] in named:
                output = outputs[place] = named[output.operands[0]]
        read, in_place = 0, set[str]()
        for number, operand in enumerate(operands):
            whole = self._bytes(operand.arrays)
            uses = [*users(numbered[number].name)] if number in numbered else []
            sliced = [each for each, place in uses if each.opcode in _SLICES and not place]
            updated = [  # in the operand's own memory, as nothing else sees the result
                each
                for each, place in uses
                if each.opcode == "dynamic-update-slice" and not place and each in outputs
            ]
            if uses and len(sliced) + len(updated) == len(uses):
                taken = sum(array.nbytes for each in sliced for array in each.arrays)
                in_place |= {each.name for each in updated}
                whole = min(taken, whole)
            read += whole
        if root is None:
            return read, self._bytes(results)
        written = 0
        for array, output in zip(results, outputs, strict=False):
            part = self._bytes((array,))
            if output.name in in_place and part:
                part = min(part, sum(a.nbytes for a in named[output.operands[1]].arrays))
            written += part
        return read, written


def _users(body: list[Instruction]):
    """name -> the instructions that use it and the place among their operands, past bitcasts."""
    direct = defaultdict[str, list[tuple[Instruction, int]]](list)
    for each in body:
        for place, operand in enumerate(each.operands):
            direct[operand].append((each, place))

    def users(name: str) -> Iterator[tuple[Instruction, int]]:
        for each, place in direct[name]:
            if each.opcode == "bitcast":
                yield from users(each.name)
            else:
                yield each, place

    return users


def _precision(product: Instruction) -> str:
    """What a product says of its precision; "default" if nothing."""
    if algorithm := re.search(r'\balgorithm"?[=:]"?(dot_\w+|ALG_DOT_\w+)', product.attributes):
        return algorithm[1].lower().removeprefix("alg_")
    stated = re.search(r'operand_precision"?[=:](?:\{|\["?)(\w+)', product.attributes)
    return stated[1].lower() if stated else "default"
