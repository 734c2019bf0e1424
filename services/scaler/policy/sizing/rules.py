"""Fixed steps while a signal is beyond a value for a time: "above 70 % for 5 minutes: one more".

Pure. A rule's time begins when its signal goes beyond the value, and anew after each step. A value
that is missing breaks it. While replicas are starting no rule adds more: they count already, and
the signal does not show them yet. What an upward rule added stays asked for as long as its signal
stays beyond the value; what a downward rule takes, it takes once. Signals and demand that ask for
more than a downward rule leaves hold, as the largest of all wishes does.
"""

from dataclasses import dataclass, replace

from services.scaler.policy.sizing.settings import Rule, Scale
from services.scaler.policy.sizing.signals import known_value
from services.scaler.policy.sizing.views import View


@dataclass(frozen=True, slots=True)
class RuleState:
    """Of one rule.

    Attributes:
        since: when its signal went beyond the value, or when it last took a step; None: it is not.
        level: the size it asked for and still asks for.
    """

    since: float | None = None
    level: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A size that a rule asks for.

    Attributes:
        rule: which.
        size: replicas.
        value: of its signal.
        late: it would have acted, but waits for replicas that are starting.
    """

    rule: Rule
    size: int
    value: float
    late: bool = False


def stepped(
    scale: Scale, before: tuple[RuleState, ...], view: View, current: int
) -> tuple[list[Step], tuple[RuleState, ...]]:
    """What the rules ask for now.

    Args:
        scale: the pool's.
        before: state of the rules; of another number of rules, it is forgotten.
        view: the pool.
        current: replicas that are wanted now.
    """
    if not scale.rules:
        return [], ()
    if len(before) != len(scale.rules):
        before = (RuleState(),) * len(scale.rules)
    steps = []
    after = []
    for rule, was in zip(scale.rules, before, strict=True):
        value = known_value(view, scale, rule.signal)
        if value is None or not _beyond(rule, value):
            after.append(RuleState())
            continue
        state = was if was.since is not None else RuleState(since=view.now)
        due = view.now - (state.since or 0.0) >= rule.for_seconds
        if due and rule.change > 0 and view.starting:
            steps.append(Step(rule, max(current, state.level or 0), value, late=True))
        elif due and rule.change > 0:
            state = RuleState(view.now, current + rule.change)
        elif due:
            state = replace(state, since=view.now)
            steps.append(Step(rule, max(current + rule.change, 0), value))
        if state.level is not None and not (due and view.starting):
            steps.append(Step(rule, state.level, value))
        after.append(state)
    return steps, tuple(after)


def _beyond(rule: Rule, value: float) -> bool:
    if rule.above is not None:
        return value > rule.above
    return rule.below is not None and value < rule.below
