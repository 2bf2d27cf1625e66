"""Random ListOps trees by the procedure of LRA, written as tokens from left to right.

Source: Nangia and Bowman, arXiv:1804.06028, in the lengths of Tay et al., arXiv:2011.04006.
"""

import numpy as np

VERSION = 1  # raise it whenever the same words would give other trees
CLOSE = 3
DIGIT = 4  # the id of digit 0
MAX, MED, MIN, SM = 14, 15, 16, 17


class Draws:
    """The random numbers of trees, drawn in blocks from the raw 64-bit words of `bits`.

    Each node above the last level is the id of a digit (probability 3/4) or of an operator, of
    which `arity` is the number of operands; `operators` is where they are in `nodes`; `leaves` are
    the digits of the last level. Rounding 32 bits to 4 * 98 outcomes biases them by 1e-7 at most.
    """

    def __init__(self, bits: np.random.BitGenerator, shorter_than: int, max_args: int) -> None:
        self.reach = shorter_than + 1  # no tree takes more numbers than that
        self.size = max(1 << 16, 32 * self.reach)
        self._arities = np.uint64(max_args - 1)
        self._bits = bits
        self.refill()

    def refill(self) -> None:
        def scaled(words: np.ndarray, n: int | np.uint64) -> np.ndarray:  # to 0..n - 1
            return (words * np.uint64(n)) >> np.uint64(32)

        words = self._bits.random_raw(self.size)
        low, high = words & np.uint64(0xFFFFFFFF), words >> np.uint64(32)
        is_operator = high < np.uint64(1 << 30)  # probability 1/4
        kind, arity = np.divmod(scaled(low, 4 * self._arities), self._arities)
        nodes = np.where(is_operator, np.uint64(MAX) + kind, DIGIT + scaled(low, 10))
        self.nodes = nodes.astype(np.uint8).tobytes()
        self.arity = (arity + np.uint64(2)).astype(np.uint8).tobytes()
        self.operators = [*np.flatnonzero(is_operator).tolist(), self.size]
        leaves = DIGIT + scaled(self._bits.random_raw(self.size) >> np.uint64(32), 10)
        self.leaves = leaves.astype(np.uint8).tobytes()
        self.node = self.operator = self.leaf = 0  # the next unread of nodes, operators, leaves


def _apply(operator: int, args: bytearray) -> int:
    """The id of an operator's value, from the ids of its operands; ids keep the digits' order."""
    if operator == MAX:
        return max(args)
    if operator == MIN:
        return min(args)
    if operator == SM:
        return DIGIT + (sum(args) - DIGIT * len(args)) % 10
    ordered = sorted(args)
    return (ordered[(len(args) - 1) // 2] + ordered[len(args) // 2]) // 2


def grow(draws: Draws, shorter_than: int, max_depth: int) -> tuple[bytes, int] | None:
    """One random tree, written from left to right: (tokens, value), or None once it is too long.

    A node above the last level, at depth 10, is a digit with probability 3/4; else an operator with
    2..max_args operands, all uniform. Kept are the trees of 501 to 1,999 tokens, one in 12.
    """
    if max(draws.node, draws.leaf) + draws.reach > draws.size:
        draws.refill()
    nodes, arity, operators = draws.nodes, draws.arity, draws.operators
    i, p = draws.node, draws.operator
    if operators[p] != i:  # the root is a digit
        draws.node += 1
        return nodes[i : i + 1], nodes[i] - DIGIT
    tokens = bytearray()
    above: list[tuple[int, bytearray, int]] = []  # the open operators around this one
    operator, args, missing = nodes[i], bytearray(), arity[i]
    length = 2 + missing  # of the finished tree if all that is still missing were digits
    tokens.append(operator)
    i, p, depth = i + 1, p + 1, 2  # `depth` of the operands being drawn
    result = None
    while length < shorter_than and not result:
        # A run of digits is one step: 0.36 ms for each kept expression, 1.9 ms node by node.
        if depth == max_depth:
            digits = draws.leaves[draws.leaf : draws.leaf + missing]
            draws.leaf += missing
        else:
            digits = nodes[i : min(i + missing, operators[p])]
            i += len(digits)
        tokens += digits
        args += digits
        missing -= len(digits)
        if missing:
            above.append((operator, args, missing - 1))
            operator, args, missing = nodes[i], bytearray(), arity[i]
            length += 1 + missing
            tokens.append(operator)
            i, p, depth = i + 1, p + 1, depth + 1
            continue
        while not missing:
            tokens.append(CLOSE)
            value = _apply(operator, args)
            if not above:
                result = bytes(tokens), value - DIGIT
                break
            operator, args, missing = above.pop()
            args.append(value)
            depth -= 1
    draws.node, draws.operator = i, p
    return result
