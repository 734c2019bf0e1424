"""How policy files that are not in force read on a screen."""

from collections.abc import Iterable, Sequence

from pennyweight.answers import PolicyProblem, PolicyRefusal
from pennyweight.command.show import moment, plain
from pennyweight.scaler.v1 import scaler_pb2
from pennyweight.wire import time_of


def refusal_lines(refusal: PolicyRefusal, *, what: str) -> list[str]:
    """What is refused since when, then a line for each problem; `what` stays in force."""
    file = plain(refusal.file) or "A change of the policy files"
    lines = [f"{file} is refused since {moment(refusal.since)}; {what} of before stay in force."]
    if not refusal.problems:
        lines.append("  Operators are told what is wrong with it.")
    return lines + problem_lines(refusal.problems)


def problem_lines(problems: Sequence[PolicyProblem]) -> list[str]:
    """A line for each problem."""
    return [f"  {plain(str(problem))}" for problem in problems]


def settings_lines(pools: Iterable[scaler_pb2.Pool]) -> list[str]:
    """Which pools go by their last good settings, why, and what the file says otherwise."""
    lines = []
    for pool in pools:
        if not pool.HasField("settings_refusal"):
            continue
        refusal = pool.settings_refusal
        since = moment(time_of(refusal.since))
        lines.append(
            f"The new settings of {plain(pool.name)} are refused since {since}: "
            f"{plain(refusal.reason)}."
        )
        lines += [
            plain(f"  {change.key}: {change.value or 'absent'}, in force {change.in_force or '-'}")
            for change in refusal.changes
        ]
    return lines
