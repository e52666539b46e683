import math

import pytest

from polygrain.objectives.base import DeadValue
from polygrain.train.alarm import Alarm, not_finite

DEAD = DeadValue(low=0.0, high=0.01, meaning="all alike", mend="lower the learning rate")


def watch(values: list[float], steps: int = 10_000) -> tuple[Alarm, list[int], int | None]:
    """An alarm that looked every 10 steps; the steps at which it warned, and the step at which it would stop."""
    alarm = Alarm({"instance/key_spread": DEAD}, steps)
    warned, stopped = [], None
    for i, value in enumerate(values):
        step = 10 * (i + 1)
        warned += [step] * len(alarm.look({"gauges/instance/key_spread": value, "loss": 1.0}, step))
        if stopped is None and alarm.verdict(last=False):
            stopped = step
    return alarm, warned, stopped


def test_a_reading_that_stays_dead_warns_at_a_third_and_stops_at_150_steps() -> None:
    _, warned, stopped = watch([0.5] * 3 + [0.001] * 20)
    assert warned == [90]  # dead since step 40
    assert stopped == 190


def test_a_reading_that_recovers_begins_anew() -> None:
    alarm, warned, stopped = watch([0.001] * 15 + [0.5] + [0.001] * 15)
    assert stopped is None and warned == [60, 220] and not alarm.healthy


def test_both_bounds_count_as_dead_and_what_lies_beyond_does_not() -> None:
    alarm = Alarm({"variance": DeadValue(low=24.6, high=math.inf, meaning="m", mend="m")}, 1000)
    for value, dead in ((24.6, True), (30.0, True), (24.59, False), (math.nan, False)):
        alarm.look({"variance": value}, 10)
        assert alarm.healthy is not dead


def test_a_short_run_has_less_patience() -> None:
    assert watch([0.001] * 4, steps=40)[2] == 30
    assert watch([0.001] * 12, steps=200)[2] == 60


def test_a_run_that_ends_with_dead_features_does_not_end_well() -> None:
    alarm = Alarm({"x": DEAD}, 12)
    for step in (3, 6, 9, 12):
        alarm.look({"x": 0.0}, step)
        assert alarm.verdict(last=False) is None
    assert alarm.verdict(last=True) is not None


def test_the_verdict_names_the_term_since_when_the_evidence_and_the_mend() -> None:
    alarm, _, _ = watch([0.5] + [0.002] * 20)
    assert alarm.verdict(last=False) is None  # a run that goes on regardless is told once
    verdict = alarm.verdict(last=True)
    assert verdict is not None and verdict.exit_code == 3
    for part in ("instance/key_spread is 0.002", "dead up to 0.01", "since step 20", "all alike", "learning rate"):
        assert part in str(verdict)


def test_a_loss_that_is_no_number_names_the_terms_and_the_learning_rate() -> None:
    told = str(not_finite(["group/cross_entropy", "loss"], 7, {"lr": 1e6}))
    assert "group/cross_entropy and loss not finite at step 7" in told and "1e+06" in told


@pytest.mark.parametrize("missing", [{}, {"gauges/other": 0.0}])
def test_a_reading_that_is_not_there_is_not_dead(missing: dict[str, float]) -> None:
    alarm = Alarm({"x": DEAD}, 100)
    alarm.look(missing, 10)
    assert alarm.healthy
