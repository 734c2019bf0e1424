"""How soon the guardrail halts a lever that costs too much, and how rarely one that does not.

Simulated over the real detector (`services.router.policy.guardrail`): losses of -1, 0 and 1, the
judge finding the lever's answer better in 2 % of the samples, 1 point allowed, 100,000 judged
samples between false halts, 5 % of the requests judged. Nothing is tuned here: the bets are fixed
in the detector.
"""

import math
from dataclasses import dataclass
from random import Random

import numpy as np

from bench import report
from services.router.policy.guardrail import BETS, Guard, GuardState, update

GUARD = Guard(tolerance=0.01, level=0.0, run_length=100_000)
BETTER = 0.02
SAMPLED = 0.05
QUIET = 20_000
MAX_SAMPLES = 20_000
"""Samples after the change beyond which a run counts as not halted."""


@dataclass(frozen=True)
class Size:
    """How many runs; the last is of the watch on a lever that stays good."""

    runs: int
    late_runs: int
    good_runs: int


FULL = Size(runs=1000, late_runs=200, good_runs=400)
QUICK = Size(runs=10, late_runs=1, good_runs=0)


def samples_to_halt(loss: float, quiet: int, seed: int) -> int | None:
    """Judged samples from the change to the halt; None for a run that halted before it, falsely.

    Before the change the mean loss is 0, from then on `loss`.
    """
    random, state = Random(seed), GuardState()
    for number in range(quiet + MAX_SAMPLES):
        worse = BETTER + (loss if number >= quiet else 0.0)
        drawn = random.random()
        state = update(
            GUARD, state, 1.0 if drawn < worse else -1.0 if drawn < worse + BETTER else 0
        )
        if state.halted:
            return number + 1 - quiet if number >= quiet else None
    return MAX_SAMPLES


def good_run_lengths(runs: int, seed: int) -> list[int]:
    """Judged samples until a false halt, the mean loss being just what is allowed: the worst case.

    The same recursion as `update`, for many runs at once.
    """
    random = np.random.default_rng(seed)
    bets = np.array(BETS)[:, None] * GUARD.largest_bet
    detectors = np.zeros((len(BETS), runs))
    lengths: list[int] = []
    number = 0
    while detectors.shape[1]:
        number += 1
        drawn = random.random(detectors.shape[1])
        worse = BETTER + GUARD.allowed
        losses = (drawn < worse) * 1.0 - ((drawn >= worse) & (drawn < worse + BETTER))
        detectors = (detectors + 1.0) * (1.0 + bets * (losses - GUARD.allowed))
        halted = detectors.mean(axis=0) >= GUARD.run_length
        if halted.any():
            lengths += [number] * int(halted.sum())
            detectors = detectors[:, ~halted]
    return lengths


def run(*, quick: bool) -> None:
    """Simulates, and prints what was found."""
    size = QUICK if quick else FULL
    rows, medians = [], {}
    for name, loss, quiet, runs in (
        ("samples_to_halt", 0.05, 0, size.runs),
        ("samples_to_halt_late", 0.05, QUIET, size.late_runs),
        ("", 0.03, 0, size.runs // 2),
        ("", 0.10, 0, size.runs // 2),
    ):
        begins = f"after {quiet:,} good samples" if quiet else "from the start"
        report.say(f"{runs} runs of a {100 * loss:g}-point loss {begins}")
        found = [samples_to_halt(loss, quiet, seed) for seed in range(runs)]
        known = sorted(one for one in found if one is not None)
        early = len(found) - len(known)
        median = report.median(known)
        low, high = _interval(len(known))
        rows.append(
            (
                f"{100 * loss:g} points {begins}",
                f"{median:,.0f}",
                f"{known[low]:,}-{known[high]:,}",
                f"{report.quantile(known, 0.95):,}",
                f"{median / SAMPLED:,.0f}",
                f"{early} of {len(found)}",
            )
        )
        if name:
            medians[name] = median
    report.table(
        "Judged samples until the halt, and requests answered meanwhile",
        ("loss", "median", "95 % interval", "95 % of runs", "requests", "too early"),
        rows,
        note=(
            f"{100 * GUARD.tolerance:g} point allowed, lever better in {BETTER:.0%} of the samples,"
            f" {SAMPLED:.0%} of the requests judged. Too early: halted\nwhile all was well."
        ),
    )
    if size.good_runs:
        report.say(f"{size.good_runs} runs of a loss of exactly what is allowed")
        lengths = good_run_lengths(size.good_runs, seed=1)
        mean = float(np.mean(lengths))
        error = float(np.std(lengths)) / math.sqrt(len(lengths))
        report.table(
            "Judged samples between false halts, the loss being just what is allowed",
            ("", "mean", "95 % interval", "promised"),
            [
                (
                    f"{len(lengths)} runs",
                    f"{mean:,.0f}",
                    f"{mean - 1.96 * error:,.0f}-{mean + 1.96 * error:,.0f}",
                    f"{GUARD.run_length:,.0f}",
                )
            ],
        )
    for name, value in medians.items():
        report.figure(f"guardrail.{name}", value, "x")
    report.figure("guardrail.requests_exposed", max(medians.values()) / SAMPLED, "x")


def _interval(count: int) -> tuple[int, int]:
    """Ranks that hold the median with 95 % probability."""
    half = 0.98 * math.sqrt(count)
    return max(0, math.floor(count / 2 - half)), min(count - 1, math.ceil(count / 2 + half))
