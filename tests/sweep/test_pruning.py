"""The rules that end runs early, beside Optuna's pruners on curves that cross."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from ssm_jax.sweep.pruning import FACTOR, STARTUP, Rule, idle, rungs_of

STEPS = 27
RUNGS = tuple(FACTOR**k for k in range(4))


def curves(seed, better):
    """Thirty noisy curves, some of them with a value that is not finite."""
    draws = np.random.default_rng(seed)
    ends = draws.uniform(0, 1, size=(30, 1)) * np.arange(1, STEPS + 1) / STEPS
    found = ends + draws.normal(0, 0.1, size=(30, STEPS))
    found[7, 11] = np.nan
    return (found if better == "max" else -found).tolist()


def pruner_of(kind):
    if kind == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=STARTUP)
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=FACTOR)


@pytest.mark.parametrize("better", ["max", "min"])
@pytest.mark.parametrize("kind", ["median", "asha"])
def test_a_rule_ends_the_runs_that_optuna_ends_and_at_the_same_step(kind, better):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    direction = {"max": "maximize", "min": "minimize"}[better]
    study = optuna.create_study(direction=direction, pruner=pruner_of(kind))
    rule, done, ends = Rule(kind, better, RUNGS), [], []
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


@pytest.mark.parametrize("better", ["max", "min"])
@pytest.mark.parametrize("kind", ["median", "asha"])
def test_of_members_side_by_side_those_end_that_optuna_would_end_last(kind, better):
    """Each is the last that Optuna is asked about, when it knows all others.

    Its median knows complete trials alone, and their value at the very step: a member that has
    ended is to it a trial that stays where it was.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    direction = {"max": "maximize", "min": "minimize"}[better]
    rule = Rule(kind, better, RUNGS)
    values, live = dict(enumerate(curves(3, better)[:12])), list(range(12))
    found: dict[int, list] = {name: [] for name in values}
    for step in range(1, STEPS + 1):
        for name in live:
            found[name].append((step, values[name][step - 1]))
        ours = set(rule.chosen(found, live))
        theirs = set()
        for name in live if kind == "median" or step in RUNGS else ():
            study = optuna.create_study(direction=direction, pruner=pruner_of(kind))
            for curve in (curve for other, curve in found.items() if other != name):
                trial = study.ask()
                for at, value in curve:
                    trial.report(value, at)
                    if kind == "asha":
                        trial.should_prune()  # keeps its value at a rung
                if kind == "median":
                    trial.report(curve[-1][1], max(step, curve[-1][0] + 1))
                    study.tell(trial, 0.0)
            trial = study.ask()
            for at, value in found[name]:
                trial.report(value, at)
                end = trial.should_prune()
            theirs |= {name} if end else set()
        assert ours == theirs, step
        live = [name for name in live if name not in ours]
    assert {len(curve) for curve in found.values()} >= {1, STEPS} and 0 < len(live) < 7


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


def test_the_median_is_of_five_others_that_have_a_value_there():
    rule, good = Rule("median", "max"), [(10, 0.9)]
    assert rule.prunes([(10, 0.5)], [good, [], [], [], []]) == "", "one curve, of five"
    late = [(11, 0.9)]
    assert rule.prunes([(10, 0.5)], [good] * 4 + [late]) == ""
    assert rule.prunes([(11, 0.5)], [good] * 4 + [late])
    members = {"m": [(10, 0.5)], **{f"diverged {k}": [] for k in range(4)}, "good": good}
    assert rule.chosen(members, ["m", "good"]) == {}


def test_two_values_that_differ_are_shown_to_differ():
    for better, best, middle in (("max", "2.30761", "2.30762"), ("min", "2.30762", "2.30761")):
        why = Rule(better=better, kind="median").prunes(
            [(50, float(best))], [[(50, float(middle))]] * 5
        )
        assert why == f"its best {best} is worse than the median {middle}"


def test_a_rule_that_can_end_nothing_says_why():
    assert "none is a rung" in idle("asha", 9, 4, 2) and "eval_every=1 " in idle("asha", 9, 4, 2)
    assert "needs 6 runs, and has 5" in idle("median", 5, 9, 1)
    assert "the first evaluation is the last" in idle("median", 6, 9, 9)
    for kind, runs, total, every in (("asha", 2, 9, 3), ("median", 6, 9, 1), ("none", 1, 1, 1)):
        assert idle(kind, runs, total, every) == ""


def test_a_run_that_is_not_finite_ends_at_the_next_rung():
    rule = Rule("asha", "min", (3,))
    assert rule.prunes([(2, float("nan"))], []) == ""
    assert "nan" in rule.prunes([(2, float("nan")), (4, float("nan"))], [])
