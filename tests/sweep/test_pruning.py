"""The rules that end runs early, beside Optuna's pruners on curves that cross."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from ssm_jax.sweep.pruning import FACTOR, STARTUP, Rule, rungs_of

STEPS = 27


def curves(seed, better):
    """Thirty noisy curves, some of them with a value that is not finite."""
    draws = np.random.default_rng(seed)
    ends = draws.uniform(0, 1, size=(30, 1)) * np.arange(1, STEPS + 1) / STEPS
    found = ends + draws.normal(0, 0.1, size=(30, STEPS))
    found[7, 11] = np.nan
    return (found if better == "max" else -found).tolist()


@pytest.mark.parametrize("better", ["max", "min"])
@pytest.mark.parametrize("kind", ["median", "asha"])
def test_a_rule_ends_the_runs_that_optuna_ends_and_at_the_same_step(kind, better):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruners = {
        "median": optuna.pruners.MedianPruner(n_startup_trials=STARTUP),
        "asha": optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=FACTOR),
    }
    direction = {"max": "maximize", "min": "minimize"}[better]
    study = optuna.create_study(direction=direction, pruner=pruners[kind])
    rungs = tuple(FACTOR**k for k in range(4))
    rule, done, ends = Rule(kind, better, rungs), [], []
    for values in curves(3, better):
        trial, curve = study.ask(), []
        for step, value in enumerate(values, start=1):
            trial.report(value, step)
            curve.append((step, value))
            others = [c for c, whole in done if whole or kind == "asha"]
            ours, theirs = rule.prunes(curve, others), trial.should_prune()
            assert bool(ours) == theirs, (len(done), step, ours)
            if theirs:
                break
        ends.append(step)
        done.append((curve, not theirs))
        state = optuna.trial.TrialState.PRUNED if theirs else None
        study.tell(trial, None if theirs else values[-1], state=state)
    assert 2 < ends.count(STEPS) < 25 and len(set(ends)) > 3


def test_the_rungs_of_a_run_end_before_its_first_evaluation():
    assert rungs_of(900, 100) == (100, 300)
    assert rungs_of(900, 301) == ()


def test_curves_of_other_steps_are_compared_where_they_are():
    others = [[(4, 0.1 * k), (8, 0.9)] for k in range(1, 6)]
    rule = Rule("median", "max")
    assert rule.prunes([(6, 0.2)], others) == "its best 0.2 is worse than the median 0.3"
    assert rule.prunes([(6, 0.4)], others) == ""
    assert rule.prunes([(2, 0.0)], others) == "", "nobody was there yet"
    assert Rule("none", "max").prunes([(6, 0.0)], others) == ""


def test_a_run_that_is_not_finite_ends_at_the_next_rung():
    rule = Rule("asha", "min", (3,))
    assert rule.prunes([(2, float("nan"))], []) == ""
    assert "nan" in rule.prunes([(2, float("nan")), (4, float("nan"))], [])
