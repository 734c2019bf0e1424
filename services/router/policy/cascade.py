"""The way of one request up its route's ladder: whose turn it is, and whether an answer stands.

Where one tier is fixed it answers, or the next safer one while its lever is halted. Elsewhere the
calibration in force decides (`calibration`): a lower tier is skipped or gets its turn, its answer
stands or the next tier gets its turn, and the top tier always answers. Without a calibration every
request goes to the top tier.

What does not depend on the request is a `FirstLook`, made once for all requests of a route's
version while the same levers are halted. A `Cascade` is the state of one request.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

from services.router.policy.calibration import Judgement
from services.router.policy.certainty import Certainty
from services.router.policy.decision import Candidate, Reason, Verdict
from services.router.policy.difficulty import SparseFeatures
from services.router.policy.levers import lever_of_tier
from services.router.policy.routes import Route, Tier


@dataclass(frozen=True, slots=True)
class Step:
    """A tier whose turn it is.

    Attributes:
        tier: it.
        rung: its number on the ladder, from 0.
        checked: its answer must pass a check, or the next tier answers; nothing of it may be sent
            before.
        needs_certainty: the check looks at log-probabilities.
    """

    tier: Tier
    rung: int
    checked: bool
    needs_certainty: bool


@dataclass(frozen=True, slots=True)
class FirstLook:
    """A route's ladder before anything is known of a request.

    Attributes:
        route: whose ladder.
        judgement: what decides; without a calibration it sends every request to the top tier.
        calibration_version: of the calibration that decides; empty where none does.
        steps: each tier's turn, should it get one; cheapest first.
        verdicts: of each tier; `NOT_REACHED` where it may be tried.
        skips: predicted gain that each tier is skipped above; None where it never is.
        accepts: certainty at which each tier's answer stands; None where any will do.
        predicts: whether a gain is predicted for any tier.
        writers: tiers that may answer some request of the route, and so may have written a stored
            answer that serves.
    """

    route: Route
    judgement: Judgement
    calibration_version: str
    steps: tuple[Step, ...]
    verdicts: tuple[Verdict, ...]
    skips: tuple[float | None, ...]
    accepts: tuple[float | None, ...]
    predicts: bool
    writers: tuple[Tier, ...]


def first_look(route: Route, halted: Collection[str]) -> FirstLook:
    """Looks at a route's ladder while these of its levers are halted."""
    calibration = route.quality.calibration if route.quality is not None else None
    judgement = calibration.judgement if calibration is not None else _safe(len(route.ladder))
    top = len(route.ladder) - 1
    checks = route.fixed_tier is None  # else thresholds say nothing
    skips, accepts = _limits(judgement) if checks else ((None,) * (top + 1),) * 2
    verdicts = tuple(_first_verdict(route, judgement, rung, halted) for rung in range(top + 1))
    return FirstLook(
        route=route,
        judgement=judgement,
        calibration_version=calibration.version if calibration is not None else "",
        steps=tuple(
            Step(
                tier,
                rung,
                checked=checks and rung < top,
                needs_certainty=accepts[rung] is not None,
            )
            for rung, tier in enumerate(route.ladder)
        ),
        verdicts=verdicts,
        skips=skips,
        accepts=accepts,
        predicts=checks and any(models.before is not None for models in judgement.models),
        writers=tuple(
            tier
            for tier, verdict in zip(route.ladder, verdicts, strict=True)
            if verdict is Verdict.NOT_REACHED
        ),
    )


def _limits(judgement: Judgement) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
    """Of each tier, the top one too: `FirstLook.skips` and `FirstLook.accepts`."""
    rungs = judgement.thresholds.rungs
    skips = [rung.skip_above_gain if abs(rung.skip_above_gain) < 1.0 else None for rung in rungs]
    return (*skips, None), (*(rung.accept_at_certainty for rung in rungs), None)


def _first_verdict(
    route: Route, judgement: Judgement, rung: int, halted: Collection[str]
) -> Verdict:
    """`NOT_REACHED` if the tier may be tried."""
    if rung == len(route.ladder) - 1:
        return Verdict.NOT_REACHED
    if route.fixed_tier is not None:
        if rung < route.ladder.index(route.fixed_tier):
            return Verdict.UNUSED
    elif judgement.thresholds.rungs[rung].skip_above_gain == -1.0:
        return Verdict.UNUSED
    return Verdict.HALTED if lever_of_tier(route, rung) in halted else Verdict.NOT_REACHED


class Cascade:
    """State of one request. Ask for a `step`, then say what became of it, until one stands."""

    __slots__ = (
        "_certainties",
        "_gains",
        "_rung",
        "_verdicts",
        "_weighed",
        "features",
        "look",
    )

    def __init__(self, look: FirstLook, features: SparseFeatures = ()) -> None:
        """Starts at the bottom.

        Args:
            look: at the route's ladder.
            features: of the request; needed where `uses_features` says so.
        """
        self.look = look
        self.features = features
        self._rung = 0
        self._verdicts = list(look.verdicts)
        self._gains: list[float | None] = [None] * len(look.steps)
        self._certainties: list[float | None] = [None] * len(look.steps)
        self._weighed: tuple[Candidate, ...] | None = None
        if look.predicts:
            self._predict(look.judgement)

    def _predict(self, judgement: Judgement) -> None:
        """Notes each lower tier's predicted gain, and skips those that it speaks against."""
        for rung, limits in enumerate(judgement.thresholds.rungs):
            gain = self._gains[rung] = judgement.gain(rung, self.features)
            if self._verdicts[rung] is Verdict.NOT_REACHED and not limits.enters(gain):
                self._verdicts[rung] = Verdict.SKIPPED

    @property
    def route(self) -> Route:
        """Whose ladder it is."""
        return self.look.route

    @property
    def calibration_version(self) -> str:
        """Version of the calibration that decides; empty where none does."""
        return self.look.calibration_version

    def step(self) -> Step:
        """The tier whose turn it is: the lowest that may still be tried, at last the top one."""
        top = len(self._verdicts) - 1
        while self._rung < top and self._verdicts[self._rung] is not Verdict.NOT_REACHED:
            self._rung += 1
            self._weighed = None
        return self.look.steps[self._rung]

    def behind(self) -> list[Tier]:
        """Tiers that may still get their turn after the one whose turn it is."""
        top, steps = len(self._verdicts) - 1, self.look.steps
        return [
            steps[rung].tier
            for rung in range(self._rung + 1, top + 1)
            if rung == top or self._verdicts[rung] is Verdict.NOT_REACHED
        ]

    def pass_over(self, verdict: Verdict) -> None:
        """The tier whose turn it is cannot be tried."""
        self._verdicts[self._rung] = verdict
        self._weighed = None

    def stands(self, certainty: Certainty | None, *, valid: bool) -> bool:
        """Whether the answer of the tier whose turn it is stands; notes what it found."""
        at, judgement, self._weighed = self._rung, self.look.judgement, None
        number = self._certainties[at] = judgement.certainty(at, self.features, certainty)
        if judgement.thresholds.rungs[at].accepts(number, valid=valid):
            return True
        self._verdicts[at] = Verdict.UNSURE if valid else Verdict.INVALID
        return False

    def candidates(self) -> tuple[Candidate, ...]:
        """Every tier as it was weighed, the one whose turn it is as the chosen one."""
        if self._weighed is None:
            look = self.look
            self._weighed = tuple(
                [
                    Candidate(
                        look.steps[rung].tier.name,
                        Verdict.CHOSEN if rung == self._rung else verdict,
                        self._gains[rung],
                        look.skips[rung],
                        self._certainties[rung],
                        look.accepts[rung],
                    )
                    for rung, verdict in enumerate(self._verdicts)
                ]
            )
        return self._weighed

    def reason(self) -> Reason:
        """Why the tier whose turn it is answers."""
        passed = self._verdicts[: self._rung]
        if self.look.route.quality is None:
            return Reason.HALTED if Verdict.HALTED in passed else Reason.FIXED_TIER
        if Verdict.UNSURE in passed or Verdict.INVALID in passed:
            return Reason.ESCALATED
        if self._rung < len(self._verdicts) - 1:
            return Reason.CALIBRATED
        for verdict, reason in REASONS.items():
            if verdict in passed:
                return reason
        return Reason.UNCALIBRATED

    def explanation(self) -> str:
        """Why the tier whose turn it is answers, in one sentence."""
        route, tier = self.look.route.name, self.look.steps[self._rung].tier.name
        reason = self.reason()
        if reason is Reason.FIXED_TIER:
            return f"The policy of {route} sends every request to {tier}."
        if reason is Reason.CALIBRATED:
            return f"{tier} {_sure(self.candidates()[self._rung])}."
        if reason is Reason.UNCALIBRATED:
            certified = bool(self.look.calibration_version)
            why = "cheaper tiers could not be certified" if certified else "it is not calibrated"
            return f"Requests of {route} go to {tier}, as {why}."
        clauses = [_passed(passed) for passed in self.candidates()[: self._rung]]
        return f"{tier} answers: {', '.join(clause for clause in clauses if clause)}."


@cache
def _safe(tiers: int) -> Judgement:
    """What holds without a calibration; the same for every ladder of so many tiers."""
    return Judgement.safe(tiers)


REASONS = {
    Verdict.HALTED: Reason.HALTED,
    Verdict.SKIPPED: Reason.SKIPPED,
    Verdict.LIMITED: Reason.LIMITED,
    Verdict.UNAVAILABLE: Reason.UNAVAILABLE,
}
"""Why the top tier answers that no other ran before; the first that applies."""


CLAUSES = {
    Verdict.INVALID: "the answer of {} did not have the wanted form",
    Verdict.HALTED: "the lever of {} is halted",
    Verdict.LIMITED: "a limit of the route left no room for trying {} first",
    Verdict.UNAVAILABLE: "no replica of {} could answer",
}
"""What became of a tier that no number explains."""


def uses_features(route: Route) -> bool:
    """Whether the calibration in force predicts from a request's features."""
    calibration = route.quality.calibration if route.quality is not None else None
    return calibration is not None and calibration.judgement.predicts


def _sure(seen: Candidate) -> str:
    sure = ""
    if seen.accept_at_certainty is not None and seen.certainty is not None:
        sure = f"was sure of its answer ({_certainty(seen)})"
    if seen.skip_above_gain is None or seen.predicted_gain is None:
        return sure or "is certified to answer requests of this route"
    predicted = (
        f"was predicted to do (the top tier would gain {100 * seen.predicted_gain:.1f} points, up "
        f"to {100 * seen.skip_above_gain:.1f} are let through)"
    )
    return f"{predicted} and {sure}" if sure else predicted


def _certainty(seen: Candidate) -> str:
    """How sure a tier was, and how sure it has to be, where both are known."""
    return f"certainty {seen.certainty:.2f}, at least {seen.accept_at_certainty:.2f} is asked"


def _passed(seen: Candidate) -> str:
    """What became of a tier that does not answer; empty where that needs no word."""
    if seen.verdict is Verdict.SKIPPED and seen.predicted_gain is None:
        return f"{seen.tier} was skipped, as its gain is not known"
    if seen.verdict is Verdict.SKIPPED:
        return (
            f"{seen.tier} was skipped, as the top tier was predicted to gain "
            f"{100 * (seen.predicted_gain or 0.0):.1f} points and "
            f"{100 * (seen.skip_above_gain or 0.0):.1f} are let through"
        )
    if seen.verdict is Verdict.UNSURE and seen.certainty is None:
        return f"how sure {seen.tier} was of its answer is not known"
    if seen.verdict is Verdict.UNSURE:
        return f"{seen.tier} was not sure of its answer ({_certainty(seen)})"
    return CLAUSES.get(seen.verdict, "").format(seen.tier)
