"""What all routers know of one lever, and how that changes.

Two things halt a lever: a person, until released or expired, and the guardrail, whose halt belongs
to the calibration it watched. A fresh calibration has a watch of its own, while a router that still
runs the one before keeps to its halt. Fresh is one with evidence from after the halt: the same old
pairs calibrated again, or an older calibration put back, say nothing of what has gone wrong. With
no calibration in force, any halt of the guardrail counts: taking a calibration away is no fresh
one. A person's release ends both kinds and starts every watch anew.

Times are seconds since 1970, as the routers' clocks say; what comes later in a record is never
earlier on its clock, whatever those clocks say.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from services.router.policy.guardrail import Guard, GuardState, explain, update

GUARDRAIL = "guardrail"
CALIBRATION = "calibration"
RESERVED_AUTHORS = (GUARDRAIL, CALIBRATION)
"""What stands for an author who is no person."""

MAX_WATCHES = 4
"""Calibrations whose watch is remembered, the newest: those of routers that are being replaced."""

TICK_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Setting:
    """What a person said last.

    Attributes:
        halted: halted, or released.
        author: who.
        reason: why.
        since: when.
        expires: when a halt ends by itself; None for never.
    """

    halted: bool
    author: str
    reason: str
    since: float
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class Watch:
    """The guardrail's watch on a lever under one calibration.

    Attributes:
        calibration: its version; empty where none is in force.
        began: when.
        state: where it stands.
        halted: when it halted the lever; None if it has not.
        reason: why it did.
        blamed: of the watch on all levers of a route together (`total`): the one that it halts.
        levers: of that watch too: which changes of the levers it knows of.
    """

    calibration: str
    began: float
    state: GuardState = field(default_factory=GuardState)
    halted: float | None = None
    reason: str = ""
    blamed: str = ""
    levers: float = 0.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How a lever stands.

    Attributes:
        halted: it must not be used.
        author: who brought that about: a person, `GUARDRAIL` or `CALIBRATION`; empty for nobody.
        reason: why.
        since: when; None where nobody did.
        expires: when a halt ends by itself; None for never.
    """

    halted: bool
    author: str = ""
    reason: str = ""
    since: float | None = None
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class LeverRecord:
    """What is known of one lever; shared by all routers. Neutral case: nothing said, it is on.

    Attributes:
        setting: what a person said last; None for nothing.
        released: when a person released it last; watches begun before are void. 0 for never.
        watches: one a calibration, oldest first.
        damaged: it could not be read, so the lever counts as halted.
    """

    setting: Setting | None = None
    released: float = 0.0
    watches: tuple[Watch, ...] = ()
    damaged: bool = False

    def standing(self, now: float, calibration: str, until: float = math.inf) -> Standing:
        """How the lever stands.

        Args:
            now: seconds since 1970.
            calibration: the one in force; empty for none.
            until: when its youngest evidence was gathered; -inf where nobody knows.
        """
        if self.damaged:
            return Standing(halted=True, reason="its record is damaged: halt or release it anew")
        said, watch = self.setting, self.watch(calibration)
        if said is not None and said.halted and (said.expires is None or now < said.expires):
            return _halted(said.author, said.reason, said.since, said.expires)
        if watch is not None and watch.halted is not None:
            return _halted(GUARDRAIL, watch.reason, watch.halted)
        if (kept := self._outlasting(calibration, until)) is not None:
            reason = f"{kept.reason} {calibration} has no evidence from after that."
            return _halted(GUARDRAIL, reason, kept.halted or 0.0)
        on = Standing(halted=False)
        if said is not None:
            ended = f"the halt ended by itself: {said.reason}" if said.halted else said.reason
            on = _on(said.author, ended, said.expires or said.since)
        before = max(
            (watch.halted for watch in self.watches if watch.halted is not None), default=None
        )
        if before is not None and watch is not None and watch.began > max(before, on.since or 0.0):
            reason = f"the guardrail's halt ended with its calibration; {calibration} is in force"
            on = _on(CALIBRATION, reason, watch.began)
        return on

    def watch(self, calibration: str) -> Watch | None:
        """The watch under this calibration; without one, one that has halted the lever, if any."""
        halted = [watch for watch in self.watches if watch.halted is not None]
        if not calibration and halted:
            return halted[-1]
        return next((watch for watch in self.watches if watch.calibration == calibration), None)

    def _outlasting(self, calibration: str, until: float) -> Watch | None:
        """The guardrail's halt under another calibration that this one has not ended, if any."""
        own = self.watch(calibration)
        kept = [
            watch
            for watch in self.watches
            if watch.halted is not None
            and watch.halted >= until
            and watch.calibration != calibration
            and (own is None or own.began < watch.began)
        ]
        return kept[-1] if kept else None

    def halt(
        self, author: str, reason: str, now: float, seconds: float | None = None
    ) -> "LeverRecord":
        """A person halts the lever, for so long or until it is released. Watches stay."""
        expires = None if seconds is None else now + seconds
        said = Setting(
            halted=True, author=author, reason=reason, since=self._after(now), expires=expires
        )
        return replace(self, setting=said, damaged=False)

    def release(self, author: str, reason: str, now: float) -> "LeverRecord":
        """A person releases the lever; every watch begins anew."""
        since = self._after(now)
        said = Setting(halted=False, author=author, reason=reason, since=since)
        return LeverRecord(setting=said, released=since)

    @property
    def changed(self) -> float:
        """When it was halted or released last, by whomever; 0 for never."""
        halts = [watch.halted for watch in self.watches if watch.halted is not None]
        return max([self.released, *halts, *([self.setting.since] if self.setting else [])])

    def restarted(self, now: float) -> "LeverRecord":
        """Every watch begins anew."""
        return replace(self, released=self._after(now), watches=())

    def halted_for_all(
        self, calibration: str, reason: str, now: float, until: float = math.inf
    ) -> "LeverRecord":
        """The guardrail halts the lever for what it loses together with others.

        A lever that stands halted already stays as it is.
        """
        if self.standing(now, calibration, until).halted:
            return self
        watch = self.watch(calibration) or Watch(calibration, self._after(now))
        watch = replace(
            watch,
            state=replace(watch.state, halted=True),
            halted=self._after(now),
            reason=reason,
        )
        return self.watched(watch)

    def judged(
        self,
        guard: Guard,
        calibration: str,
        loss: float,
        weight: float,
        now: float,
        *,
        until: float = math.inf,
    ) -> "LeverRecord":
        """The guardrail takes a sample, and may halt the lever. A halted one is not watched.

        Raises:
            ValueError: loss or weight out of range.
        """
        if self.standing(now, calibration, until).halted:
            return self
        watch = self.watch(calibration) or Watch(calibration, self._after(now))
        state = update(guard, watch.state, loss, weight)
        watch = replace(watch, state=state)
        if state.halted:
            watch = replace(watch, halted=self._after(now), reason=explain(guard, state))
        return self.watched(watch)

    def recalibrated(self, calibration: str, now: float, until: float = math.inf) -> "LeverRecord":
        """Notes that a fresh calibration has ended a halt of the guardrail, if it has."""
        halted = any(watch.halted is not None for watch in self.watches)
        if not calibration or not halted or self.damaged or self.watch(calibration) is not None:
            return self
        if self._outlasting(calibration, until) is not None:
            return self
        watch = Watch(calibration, self._after(now))
        return self.watched(watch)

    def watched(self, watch: Watch) -> "LeverRecord":
        """With this watch in the place of the one under its calibration."""
        others = (one for one in self.watches if one.calibration != watch.calibration)
        return replace(self, watches=_newest((*others, watch)))

    def joined(self, theirs: "LeverRecord") -> "LeverRecord":
        """What follows from two records of one lever; theirs, where that came after this one.

        Where they went apart, as when a store forgot what it had: the later word of a person, and
        for each calibration the watch that halted or knows more, unless a person released it since.
        """
        if self.damaged or theirs.damaged:
            whole = theirs if self.damaged else self
            return DAMAGED if whole == LeverRecord() else whole  # who knows nothing mends nothing
        settings = [setting for setting in (theirs.setting, self.setting) if setting is not None]
        released = max(self.released, theirs.released)
        watches: dict[str, Watch] = {}
        for watch in (*self.watches, *theirs.watches):
            known = watches.get(watch.calibration)
            if watch.began > released and (known is None or _rank(watch) >= _rank(known)):
                watches[watch.calibration] = watch
        return LeverRecord(
            setting=max(settings, key=lambda setting: setting.since, default=None),
            released=released,
            watches=_newest(watches.values()),
        )

    def _after(self, now: float) -> float:
        """Now, or just after the last thing that happened, if clocks say that was later."""
        times = [self.released, *([self.setting.since] if self.setting else [])]
        for watch in self.watches:
            times += [watch.began, watch.halted or 0.0]
        return max(now, max(times) + TICK_SECONDS)


DAMAGED = LeverRecord(damaged=True)


def _halted(author: str, reason: str, since: float, expires: float | None = None) -> Standing:
    return Standing(halted=True, author=author, reason=reason, since=since, expires=expires)


def _on(author: str, reason: str, since: float) -> Standing:
    return Standing(halted=False, author=author, reason=reason, since=since)


def _rank(watch: Watch) -> tuple[bool, int]:
    return watch.halted is not None, watch.state.samples


def _newest(watches: Iterable[Watch]) -> tuple[Watch, ...]:
    return tuple(sorted(watches, key=lambda watch: (watch.began, watch.calibration))[-MAX_WATCHES:])
