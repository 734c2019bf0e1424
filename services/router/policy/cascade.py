"""The way of one request up its route's ladder: whose turn it is, and whether an answer stands.

Where one tier is fixed it answers, or the next safer one while its lever is halted. Elsewhere the
calibration in force decides (`calibration`): a lower tier is skipped or gets its turn, its answer
stands or the next tier gets its turn, and the top tier always answers. Without a calibration every
request goes to the top tier.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
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


class Cascade:
    """State of one request. Ask for a `turn`, then say what became of it, until one stands."""

    def __init__(self, route: Route, halted: Collection[str], told: SparseFeatures = ()) -> None:
        """Starts at the bottom.

        Args:
            route: whose ladder.
            halted: names of the route's levers that are halted.
            told: features of the request; needed where `uses_features` says so.
        """
        self.route = route
        self.told = told
        self._top = len(route.ladder) - 1
        quality = route.quality
        self._calibration = quality.calibration if quality is not None else None
        judgement = self._calibration.judgement if self._calibration is not None else None
        self._judgement = judgement or _safe(len(route.ladder))
        self._rung = 0
        self._seen = [self._first_look(rung, halted) for rung in range(len(route.ladder))]

    @property
    def calibration_version(self) -> str:
        """Version of the calibration that decides; empty where none does."""
        return self._calibration.version if self._calibration is not None else ""

    def turn(self) -> Step:
        """Whose turn it is: the lowest tier from here on that may be tried, at last the top one."""
        while self._seen[self._rung].verdict is not Verdict.NOT_REACHED and self._rung < self._top:
            self._rung += 1
        at = self._rung
        tier = self.route.ladder[at]
        if at == self._top or self.route.quality is None:
            return Step(tier, at, checked=False, needs_certainty=False)
        needs = self._judgement.thresholds.rungs[at].accept_at_certainty is not None
        return Step(tier, at, checked=True, needs_certainty=needs)

    def pass_over(self, verdict: Verdict) -> None:
        """The tier whose turn it is cannot be tried."""
        self._note(verdict=verdict)

    def stands(self, certainty: Certainty | None, *, valid: bool) -> bool:
        """Whether the answer of the tier whose turn it is stands; notes what it found."""
        at = self._rung
        number = self._judgement.certainty(at, self.told, certainty)
        stands = self._judgement.thresholds.rungs[at].accepts(number, valid=valid)
        verdict = Verdict.NOT_REACHED if stands else Verdict.UNSURE if valid else Verdict.INVALID
        self._note(certainty=number, verdict=verdict)
        return stands

    def paid(self, micro_usd: int) -> None:
        """Notes what the tier whose turn it was has cost."""
        self._note(micro_usd=self._seen[self._rung].micro_usd + micro_usd)

    def usable(self) -> tuple[Tier, ...]:
        """Tiers that may answer some request of the route."""
        no = {Verdict.HALTED, Verdict.UNUSED}
        return tuple(
            tier
            for tier, one in zip(self.route.ladder, self._seen, strict=True)
            if one.verdict not in no
        )

    def refused(self) -> list[str]:
        """Tiers that ran and whose answers did not stand."""
        no = {Verdict.UNSURE, Verdict.INVALID}
        return [candidate.tier for candidate in self._seen if candidate.verdict in no]

    def candidates(self) -> tuple[Candidate, ...]:
        """Every tier as it was weighed, the one whose turn it is as the chosen one."""
        chosen = replace(self._seen[self._rung], verdict=Verdict.CHOSEN)
        return (*self._seen[: self._rung], chosen, *self._seen[self._rung + 1 :])

    def reason(self) -> Reason:
        """Why the tier whose turn it is answers."""
        passed = {candidate.verdict for candidate in self._seen[: self._rung]}
        if self.route.quality is None:
            return Reason.HALTED if Verdict.HALTED in passed else Reason.FIXED_TIER
        if passed & {Verdict.UNSURE, Verdict.INVALID}:
            return Reason.ESCALATED
        if self._rung < self._top:
            return Reason.CALIBRATED
        for verdict, reason in REASONS.items():
            if verdict in passed:
                return reason
        return Reason.UNCALIBRATED

    def explanation(self) -> str:
        """Why the tier whose turn it is answers, in one sentence."""
        route, tier = self.route.name, self.route.ladder[self._rung].name
        reason = self.reason()
        if reason is Reason.FIXED_TIER:
            return f"The policy of {route} sends every request to {tier}."
        if reason is Reason.CALIBRATED:
            return f"{tier} {_sure(self._seen[self._rung])}."
        if reason is Reason.UNCALIBRATED:
            calibrated = self._calibration is not None
            why = "cheaper tiers could not be certified" if calibrated else "it is not calibrated"
            return f"Requests of {route} go to {tier}, as {why}."
        told = [_told(one) for one in self._seen[: self._rung]]
        return f"{tier} answers: {', '.join(one for one in told if one)}."

    def _first_look(self, rung: int, halted: Collection[str]) -> Candidate:
        """A tier before anything ran; its verdict is `NOT_REACHED` if it may be tried."""
        route, tier = self.route, self.route.ladder[rung]
        if rung == self._top:
            return Candidate(tier.name, Verdict.NOT_REACHED)
        is_halted = lever_of_tier(route, rung) in halted
        if route.fixed_tier is not None:
            below = rung < route.ladder.index(route.fixed_tier)
            verdict = Verdict.UNUSED if below else Verdict.HALTED
            open_ = not below and not is_halted
            return Candidate(tier.name, Verdict.NOT_REACHED if open_ else verdict)
        limits = self._judgement.thresholds.rungs[rung]
        gain = self._judgement.gain(rung, self.told)
        seen = Candidate(
            tier.name,
            Verdict.NOT_REACHED,
            predicted_gain=gain,
            skip_above_gain=limits.skip_above_gain if abs(limits.skip_above_gain) < 1.0 else None,
            accept_at_certainty=limits.accept_at_certainty,
        )
        if limits.skip_above_gain == -1.0:
            return replace(seen, verdict=Verdict.UNUSED)
        if is_halted:
            return replace(seen, verdict=Verdict.HALTED)
        return seen if limits.enters(gain) else replace(seen, verdict=Verdict.SKIPPED)

    def _note(self, **changes: object) -> None:
        self._seen[self._rung] = replace(self._seen[self._rung], **changes)  # type: ignore[arg-type]


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


def accepted_writers(route: Route, halted: Collection[str]) -> tuple[Tier, ...]:
    """Tiers whose stored answers may serve: those that could answer such a request now."""
    return Cascade(route, halted).usable()


def uses_features(route: Route) -> bool:
    """Whether the calibration in force predicts from a request's features."""
    calibration = route.quality.calibration if route.quality is not None else None
    return calibration is not None and calibration.judgement.predicts


def _sure(seen: Candidate) -> str:
    sure = ""
    if seen.accept_at_certainty is not None and seen.certainty is not None:
        sure = (
            f"was sure of its answer (certainty {seen.certainty:.2f}, at least "
            f"{seen.accept_at_certainty:.2f} is asked)"
        )
    if seen.skip_above_gain is None or seen.predicted_gain is None:
        return sure or "is certified to answer requests of this route"
    predicted = (
        f"was predicted to do (the top tier would gain {100 * seen.predicted_gain:.1f} points, up "
        f"to {100 * seen.skip_above_gain:.1f} are let through)"
    )
    return f"{predicted} and {sure}" if sure else predicted


def _told(seen: Candidate) -> str:
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
        return (
            f"{seen.tier} was not sure of its answer (certainty {seen.certainty:.2f}, at least "
            f"{seen.accept_at_certainty:.2f} is asked)"
        )
    return {
        Verdict.INVALID: f"the answer of {seen.tier} did not have the wanted form",
        Verdict.HALTED: f"the lever of {seen.tier} is halted",
        Verdict.LIMITED: f"a limit of the route left no room for trying {seen.tier} first",
        Verdict.UNAVAILABLE: f"no replica of {seen.tier} could answer",
    }.get(seen.verdict, "")
