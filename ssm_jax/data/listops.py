"""ListOps of the Long Range Arena: its vocabulary and the value of an expression.

An expression such as `[MAX 4 [SM 7 8 ] 0 ]` is a tree of the operators MIN, MAX, MED (median,
rounded down) and SM (sum modulo 10) over digits; its value is a digit. Source: Nangia and Bowman,
arXiv:1804.06028, in the lengths of Tay et al., arXiv:2011.04006.

Token ids: 0 pad, 1 unknown, 2 end of sequence, 3 the closing bracket, 4..13 the digits 0..9,
14..17 [MAX [MED [MIN [SM. That is the rule of S4's vocabulary, by falling frequency and then by
name, where tokens that are equally frequent by construction count as equal: brackets are the most
frequent, then each digit, then each operator. The order is fixed, not counted, so that generated
and official data share it.
"""

from __future__ import annotations

CLOSE = 3
DIGIT = 4  # the id of digit 0
MAX, MED, MIN, SM = 14, 15, 16, 17
VOCAB_SIZE = 18
N_CLASSES = 10
TOKENS = ("]", *"0123456789", "[MAX", "[MED", "[MIN", "[SM")  # ids 3..17
_IDS = {token.encode(): CLOSE + i for i, token in enumerate(TOKENS)}


def evaluate(tokens: bytes) -> int:
    """The value of an expression, 0..9, by a stack machine that shares nothing with the generator.

    Args:
      tokens: ids, without padding and without the end of sequence.

    Raises:
      ValueError: if the tokens are not one whole expression.
    """
    values: list[int] = []
    calls: list[tuple[int, int]] = []  # (operator, number of values before its operands)
    for token in tokens:
        if DIGIT <= token < MAX:
            values.append(token - DIGIT)
        elif MAX <= token <= SM:
            calls.append((token, len(values)))
        elif token == CLOSE and calls and len(values) > calls[-1][1]:
            operator, start = calls.pop()
            args = sorted(values[start:])
            del values[start:]
            if operator == MAX:
                values.append(args[-1])
            elif operator == MIN:
                values.append(args[0])
            elif operator == SM:
                values.append(sum(args) % 10)
            else:
                middle = len(args) // 2
                odd = len(args) % 2
                values.append(args[middle] if odd else (args[middle - 1] + args[middle]) // 2)
        else:
            raise ValueError(f"token {token} cannot stand where it stands in a ListOps expression.")
    if calls or len(values) != 1:
        raise ValueError(
            f"not one whole ListOps expression: {len(calls)} brackets open, {len(values)} values."
        )
    return values[0]


def encode(source: bytes) -> bytes:
    """Ids of an expression as the official files write it, `( ( ( [MAX 3 ) 1 ) ] )`.

    The round brackets only pair an operator with its operands and are dropped.

    Raises:
      ValueError: if a token is not one of TOKENS.
    """
    try:
        return bytes([_IDS[token] for token in source.translate(None, b"()").split()])
    except KeyError as error:
        raise ValueError(
            f"unknown token {error.args[0]!r}; ListOps has {' '.join(TOKENS)}."
        ) from None


def decode(tokens: bytes) -> str:
    """The expression as text without round brackets, `[MAX 3 1 ]`."""
    return " ".join(TOKENS[token - CLOSE] for token in tokens)
