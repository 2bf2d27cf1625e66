"""The tables of a run that a person reads."""

import re

from rich.console import Console

from ssm_jax.training.optim import Group, GroupRow
from ssm_jax.training.plan import parameter_table


def test_the_parameter_table_has_a_line_per_group_and_their_sum():
    rows = [
        GroupRow(Group("A", "x", 1e-3, 0.0, "cosine"), ("a", "b"), 1280),
        GroupRow(Group("rest", "", 4e-3, 0.05, "constant"), ("c",), 401_930),
    ]
    screen = Console(width=100)
    with screen.capture() as capture:
        screen.print(parameter_table(rows))
    lines = [re.findall(r"[^\s│┃]+", line) for line in capture.get().splitlines()]
    assert ["A", "2", "1,280", "0.001", "0", "cosine"] in lines
    assert ["rest", "1", "401,930", "0.004", "0.05", "constant"] in lines
    assert ["all", "3", "403,210"] in lines
