"""Floating-point operations of instructions of HLO.

A multiplication and an addition of a product are two. An FFT of n complex numbers is 5 n log2 n, of
real ones half of that. Any other operation of arithmetic on a real number is one, also an
exponential; of complex numbers a sum is two, a product six.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

from ssm_jax.accelerators.hlo import Array, Instruction

ARITHMETIC = frozenset({
    "add", "subtract", "multiply", "divide", "maximum", "minimum", "power", "remainder", "negate",
    "abs", "sign", "exponential", "exponential-minus-one", "log", "log-plus-one", "sqrt", "rsqrt",
    "cbrt", "sine", "cosine", "tan", "tanh", "logistic", "erf", "atan2",
})  # fmt: skip


def of_product(product: Instruction, operands: Mapping[str, Instruction]) -> int:
    """Those of a dot, a convolution, or a call of a library's matrix product."""
    if product.opcode == "convolution":
        return _of_convolution(product, operands)
    (left, *_), (result, *_) = operands[product.operands[0]].arrays, product.arrays
    contracted = product.numbers("lhs_contracting_dims")
    if product.opcode == "custom-call":
        config = re.search(r'"lhs_contracting_dimensions":(\[[^\]]*\])', product.attributes)
        contracted = tuple(map(int, json.loads(config[1]))) if config else ()
    terms = math.prod(left.dims[axis] for axis in contracted)
    return result.size * terms * (8 if left.dtype.startswith("c") else 2)


def _of_convolution(product: Instruction, operands: Mapping[str, Instruction]) -> int:
    """Its products of numbers that are there: neither padding nor the holes of a dilation."""
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


def of_fft(fft: Instruction, operand: Array) -> float:
    """Those of an FFT, by its length and how often it is made."""
    n = math.prod(fft.numbers("fft_length"))
    real = fft.word("fft_type") in ("RFFT", "IRFFT")
    times = (operand if fft.word("fft_type") != "IRFFT" else fft.arrays[0]).size // n
    return times * n * math.log2(n) * (2.5 if real else 5)


def of_elements(one: Instruction, operands: Mapping[str, Instruction]) -> int:
    """Those of arithmetic on each element, or of a sum over elements; 0 for all else."""
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
