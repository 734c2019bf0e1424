"""How guides behave while they run: what steps take that follow them, and what follows from that.

Brings together what steps may take (`unguided`, `choosing`), who makes them slow (`watch`), what
each guide takes (`account`) and the alarm over a step that does not end. State per engine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from engines.cpu.messages import Standings
from engines.cpu.process.account import Account
from engines.cpu.process.choosing import Choice, Choosing
from engines.cpu.process.sources import Sources
from engines.cpu.process.unguided import Answering, Reading
from engines.cpu.process.watch import Blame, Following, Watch
from engines.cpu.suspicion import Suspect

_FIRST_READING = 2
_MOST_READING = 10
"""So many slow steps reading prompts is taken for, until it is known, and at most."""

_FILLED = 1 / 2
"""Of what all guides may keep in memory may those of a source, before no new ones are tried."""


class Alarm(Protocol):
    """Ends the process over a step that takes far too long: nothing else ends one."""

    def set(self, keys: Collection[int], usual_ns: int, *, alone: bool) -> None:
        """A step begins that may well take `usual_ns`.

        `keys` are those of the requests whose guides are to blame if it takes too long, `alone` if
        it follows no other guide.
        """

    def clear(self) -> None:
        """It has ended."""


@dataclass(frozen=True)
class Step:
    """What a step has to do.

    Attributes:
        following: the answers of which it makes a token that a guide allows.
        tokens: how many tokens of prompts it reads, about.
        context: how many tokens its answers look back on.
        choices: how all answers that run choose their tokens, also those that make none yet.
    """

    following: Sequence[Following]
    tokens: int
    context: int
    choices: Sequence[Choice]


class Ended(NamedTuple):
    """When a step ended, and how long it took."""

    at_ns: int
    step_ns: int


class Conduct:
    """Watches steps.

    Times come from `clock` and `worked`, the process's processor time, both in nanoseconds: a step
    that had to wait for the processor was not slow.
    """

    def __init__(
        self,
        alarm: Alarm,
        *,
        read_at_once: int,
        slow_step_ns: int,
        guides_ns: int,
        guides_bytes: int,
        choosing_ns: Mapping[Choice, int],
        clock: Callable[[], int],
        worked: Callable[[], int],
    ) -> None:
        """See `Engine` for what guides may take."""
        self._guides_bytes = guides_bytes
        self._alarm = alarm
        self._slow_step_ns = slow_step_ns
        self._watch = Watch(slow_step_ns)
        self._sources = Sources()
        self._account = Account(guides_ns, self._sources)
        self._reading = Reading(
            read_at_once, _FIRST_READING * slow_step_ns, _MOST_READING * slow_step_ns
        )
        self._answering = Answering()
        self._choosing = Choosing(choosing_ns)
        self._suspicions = self._watch.suspicion, self._account.suspicion
        self._clock = clock
        self._worked = worked
        self._began = self._worked_before = 0

    def doubted(self, source: str, guide: Callable[[], bytes]) -> bool:
        """Whether a guide is kept out for that source, as it seems to have made steps slow.

        Its hash is asked for only where anything is held against any.
        """
        if not any(self._suspicions):
            return False
        one, now = Suspect(source, guide()), self._clock() / 1e9
        return any(suspicion.doubted(one, now) for suspicion in self._suspicions)

    def no_new(self, source: str) -> bool:
        """Whether that source's guides took so much that no new ones are tried for a while."""
        return self._account.no_new(source, self._clock() / 1e9)

    def no_dear(self, source: str, guide: bytes) -> bool:
        """Whether they took so much that this one, which takes much, may not run."""
        return self._account.no_dear(source, guide, self._clock() / 1e9)

    def no_unknown(self, source: str, guide: bytes) -> bool:
        """Whether they took so much that this one, which is not known for cheap, may not run."""
        return self._account.no_unknown(source, guide, self._clock() / 1e9)

    def kept(self, source: str, kept_bytes: int) -> None:
        """A guide that was tried for that source keeps so much from now on."""
        self._sources.add(source, self._clock() / 1e9, kept=kept_bytes)

    def fills(self, source: str) -> bool:
        """Whether that source's guides filled so much that no new ones are tried for a while."""
        kept = self._sources.of(source, self._clock() / 1e9).kept_bytes
        return kept > _FILLED * self._guides_bytes

    def standings(self) -> Standings | None:
        """How all sources stand, if it is to be told: something new is held against any."""
        return self._sources.told(self._clock() / 1e9)

    def inherit(self, standings: Standings) -> None:
        """Hold against sources what another engine process did."""
        self._sources.inherit(standings)

    def token_ns(self, guide: bytes) -> int:
        """What a token turned out to take of a guide that takes more than it may; 0: no more."""
        return self._account.token_ns(guide)

    def begin(self, step: Step) -> None:
        """The step begins now."""
        if step.following:
            suspects = self._watch.suspects(step.following)
            keys = [one.key for one in step.following if one.guide in suspects]
            alone = all(one.guide == step.following[0].guide for one in step.following)
            answering = self._answering.usual(len(step.choices), step.context)
            usual = self._slow_step_ns + answering + self._beside(step, step.choices)
            self._alarm.set(keys, usual, alone=alone)
        self._began, self._worked_before = self._clock(), self._worked()

    def end(self, step: Step) -> Ended:
        """It has ended, with or without success."""
        if step.following:
            self._alarm.clear()
        now = self._clock()
        return Ended(now, min(now - self._began, self._worked() - self._worked_before))

    def took(
        self, step: Step, ended: Ended, choices: Sequence[Choice], *, compiling: bool
    ) -> list[Blame]:
        """What follows from a step that made tokens, each chosen as one of `choices` says.

        `compiling`: a guide was compiled beside it, which takes processor time as well.
        """
        now, step_ns = ended.at_ns / 1e9, ended.step_ns
        self._learn(step, step_ns, choices)
        if not step.following:
            return self._watch.rest(now)
        beyond = step_ns - self._beside(step, choices)
        usual = self._answering.usual(len(choices), step.context)
        blames = self._watch.took(beyond - usual, step.following, now)
        if not compiling:
            beyond -= self._answering.allowed(len(choices), step.context)
            blames += self._account.took(beyond, step.following, now)
        return blames

    def _beside(self, step: Step, choices: Sequence[Choice]) -> int:
        """What a step may take for reading prompts and for choosing its tokens."""
        return self._reading.allowed(step.tokens) + self._choosing.allowed(choices)

    def _learn(self, step: Step, step_ns: int, choices: Sequence[Choice]) -> None:
        """Learn from a step what they take that follow no guide."""
        if step.tokens:
            if not step.following:
                self._reading.learn(step_ns, step.tokens)
        elif choices:
            # Of what guides or dear choices took, only that it was not less is known.
            plain = not step.following and all(choice is Choice.BEST for choice in choices)
            learn = self._answering.learn if plain else self._answering.bound
            learn(step_ns, len(choices), step.context)
