"""How policy files that are not in force read on a screen."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

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


def note_lines(notes: Sequence[PolicyProblem]) -> list[str]:
    """A line for each thing that is said of a file that would be taken."""
    return [f"  note: {plain(str(note))}" for note in notes]


@dataclass(frozen=True)
class SettingChange:
    """A key of a pool that is not in force: what the file says, and what holds; empty is absent."""

    key: str
    value: str
    in_force: str


@dataclass(frozen=True)
class RefusedSettings:
    """Settings of a pool that did not work; `changes` are told to operators alone."""

    since: dt.datetime | None
    reason: str
    changes: tuple[SettingChange, ...]

    @classmethod
    def of(cls, message: scaler_pb2.SettingsRefusal) -> "RefusedSettings":
        """As the scaler tells it."""
        changes = (SettingChange(one.key, one.value, one.in_force) for one in message.changes)
        return cls(time_of(message.since), message.reason, tuple(changes))

    def lines(self, pool: str) -> list[str]:
        """That a pool goes by its last good settings, why, and what the file says otherwise."""
        since = moment(self.since)
        return [
            plain(f"The new settings of {pool} are refused since {since}: {self.reason}."),
            *(
                plain(f"  {one.key}: {one.value or 'absent'}, in force {one.in_force or '-'}")
                for one in self.changes
            ),
        ]
