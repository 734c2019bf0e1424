"""How soon the guardrail halts a lever that costs too much, and how rarely one that does not.

Simulated over the real detector (`services.router.policy.guardrail`): losses of -1, 0 and 1,
100,000 judged samples between false halts, 5 % of the requests judged. Mostly 1 point is allowed,
and the judge finds the lever's answer better in 2 % of the samples, at calibration as later.
Nothing is tuned here: the bets are fixed in the detector.
"""

import math
from dataclasses import dataclass, replace
from random import Random

import numpy as np
from numpy.typing import NDArray

from bench import report
from services.router.policy.guardrail import BETS, WORSE_BETS, Guard, GuardState, update

BETTER = 0.02
GUARD = Guard(tolerance=0.01, run_length=100_000, spare=BETTER)
MEAN_ALONE = replace(GUARD, spare=None)
PROXY = Guard(tolerance=0.01, level=0.016, run_length=100_000, lowest_loss=0.0, spare=0.0)
"""A judge that compares answers, and saw 1.6 points lost at calibration though all was well."""

PROMISED = Guard(tolerance=0.02, run_length=100_000, spare=BETTER)
SAMPLED = 0.05
QUIET = 20_000
MAX_SAMPLES = 50_000
"""Samples after the change beyond which a run counts as not halted."""


@dataclass(frozen=True)
class Size:
    """How many runs; the last is of the watch on a lever that stays good."""

    runs: int
    late_runs: int
    good_runs: int


FULL = Size(runs=1000, late_runs=200, good_runs=400)
QUICK = Size(runs=10, late_runs=1, good_runs=0)


@dataclass(frozen=True)
class Answers:
    """What share of the answers is worse, and what share better."""

    worse: float
    better: float = BETTER

    def drawn(self, chance: float) -> float:
        """The loss of one that is drawn."""
        if chance < self.worse:
            return 1.0
        return -1.0 if chance < self.worse + self.better else 0.0


@dataclass(frozen=True)
class Case:
    """A change, and what watches it.

    Attributes:
        name: for the table.
        guard: what the lever is held to.
        before: the change.
        after: it.
        quiet: samples before it.
        figure: name of the median among the figures; empty for none.
    """

    name: str
    guard: Guard
    before: Answers
    after: Answers
    quiet: int = 0
    figure: str = ""


GOOD = Answers(BETTER)
CASES = (
    Case("5 points from the start", GUARD, GOOD, Answers(0.07), 0, "samples_to_halt"),
    Case(
        f"5 points after {QUIET:,} good samples",
        GUARD,
        GOOD,
        Answers(0.07),
        QUIET,
        "samples_to_halt_late",
    ),
    Case("5 points, the mean alone watched", MEAN_ALONE, GOOD, Answers(0.07)),
    Case("3 points from the start", GUARD, GOOD, Answers(0.05)),
    Case("10 points from the start", GUARD, GOOD, Answers(0.12)),
    Case("6 % more are worse, and 6 % more better", GUARD, GOOD, Answers(0.08, 0.08)),
    Case(
        "1.6 points at calibration, then 3.4 where 2 are promised",
        PROMISED,
        Answers(0.036),
        Answers(0.054),
        0,
        "samples_to_halt_broken_promise",
    ),
    Case(
        "a comparing judge's level of 1.6, then 5 points more",
        PROXY,
        Answers(0.016, 0.0),
        Answers(0.066, 0.0),
        0,
        "samples_to_halt_level",
    ),
)


def samples_to_halt(case: Case, seed: int) -> int | None:
    """Judged samples from the change to the halt; None for a run that halted before it, falsely."""
    random, state = Random(seed), GuardState()
    for number in range(case.quiet + MAX_SAMPLES):
        answers = case.after if number >= case.quiet else case.before
        state = update(case.guard, state, answers.drawn(random.random()))
        if state.halted:
            return number + 1 - case.quiet if number >= case.quiet else None
    return MAX_SAMPLES


def good_run_lengths(guard: Guard, better: float, runs: int, seed: int) -> list[int]:
    """Judged samples until a false halt in the worst case: mean and share at just what is allowed.

    The same recursion as `update`, for many runs at once.
    """
    random = np.random.default_rng(seed)
    answers = Answers(guard.allowed + better, better)
    allowed_worse = guard.allowed_worse
    if allowed_worse is not None and not math.isclose(answers.worse, allowed_worse):
        raise ValueError(f"{answers.worse} worse answers are not just what is allowed")
    mean = np.zeros((len(BETS), runs))
    worse = np.zeros((len(WORSE_BETS), runs))
    lengths: list[int] = []
    number = 0
    while mean.shape[1]:
        number += 1
        drawn = random.random(mean.shape[1])
        bad = drawn < answers.worse
        losses = bad * 1.0 - (~bad & (drawn < answers.worse + better))
        mean = _followed(mean, BETS, guard.largest_bet * (losses - guard.allowed))
        evidence = mean.mean(axis=0)
        if allowed_worse is not None:
            worse = _followed(worse, WORSE_BETS, (bad - allowed_worse) / allowed_worse)
            evidence = (evidence + worse.mean(axis=0)) / 2.0
        halted = evidence >= guard.run_length
        if halted.any():
            lengths += [number] * int(halted.sum())
            mean, worse = mean[:, ~halted], worse[:, ~halted]
    return lengths


def _followed(
    before: NDArray[np.float64], bets: tuple[float, ...], steps: NDArray[np.float64]
) -> NDArray[np.float64]:
    after: NDArray[np.float64] = (before + 1.0) * (1.0 + np.array(bets)[:, None] * steps)
    return after


def run(*, quick: bool) -> None:
    """Simulates, and prints what was found."""
    size = QUICK if quick else FULL
    rows, medians = [], {}
    for case in CASES:
        runs = size.late_runs if case.quiet else size.runs if case.figure else size.runs // 2
        report.say(f"{runs} runs: {case.name}")
        found = [samples_to_halt(case, seed) for seed in range(runs)]
        known = sorted(one for one in found if one is not None)
        median = report.median(known)
        low, high = _interval(len(known))
        rows.append(
            (
                case.name,
                f"{median:,.0f}",
                f"{known[low]:,}-{known[high]:,}",
                f"{report.quantile(known, 0.95):,}",
                f"{median / SAMPLED:,.0f}",
                f"{sum(one == MAX_SAMPLES for one in known)} of {len(found)}",
                f"{len(found) - len(known)} of {len(found)}",
            )
        )
        if case.figure:
            medians[case.figure] = median
    report.table(
        "Judged samples until the halt, and requests answered meanwhile",
        ("loss", "median", "95 % interval", "95 % of runs", "requests", "not halted", "too early"),
        rows,
        note=(
            f"{100 * GUARD.tolerance:g} point allowed but where another promise is named, lever"
            f" better in {BETTER:.0%} of the samples, {SAMPLED:.0%} of the requests judged.\nToo"
            f" early: halted while all was well. Not halted: within {MAX_SAMPLES:,} samples."
        ),
    )
    if size.good_runs:
        _print_good(size.good_runs)
    for name, value in medians.items():
        report.figure(f"guardrail.{name}", value, "x")
    exposed = max(medians["samples_to_halt"], medians["samples_to_halt_late"])
    report.figure("guardrail.requests_exposed", exposed / SAMPLED, "x")


def _print_good(runs: int) -> None:
    rows = []
    for name, guard, better in (
        ("mean and share", GUARD, BETTER),
        ("the mean alone", MEAN_ALONE, BETTER),
        ("a comparing judge's level of 1.6", PROXY, 0.0),
    ):
        report.say(f"{runs} runs of a loss of exactly what is allowed: {name}")
        lengths = good_run_lengths(guard, better, runs, seed=1)
        mean = float(np.mean(lengths))
        error = float(np.std(lengths)) / math.sqrt(len(lengths))
        interval = f"{mean - 1.96 * error:,.0f}-{mean + 1.96 * error:,.0f}"
        rows.append((name, f"{mean:,.0f}", interval, f"{guard.run_length:,.0f}"))
    report.table(
        "Judged samples between false halts, loss and worse answers at just what is allowed",
        (f"{runs} runs each", "mean", "95 % interval", "promised"),
        rows,
    )


def _interval(count: int) -> tuple[int, int]:
    """Ranks that hold the median with 95 % probability."""
    half = 0.98 * math.sqrt(count)
    return max(0, math.floor(count / 2 - half)), min(count - 1, math.ceil(count / 2 + half))
