"""Watches whether each route's traffic still looks as it did at its calibration."""

import asyncio

import structlog

from services.router.metrics import Metrics
from services.router.policy.cascade import Cascade
from services.router.policy.decision import Reason
from services.router.policy.drift import Window
from services.router.policy.routes import Calibrated, Policies, Route

log = structlog.get_logger()

LOOK_SECONDS = 10.0
MAX_REQUESTS = 5_000
"""A window that has seen so many begins anew, so that old traffic does not hide a change."""


class DriftWatch:
    """One window a route; state of the process, bounded by the routes of the policy."""

    def __init__(self, metrics: Metrics) -> None:
        self._windows: dict[str, tuple[Calibrated, Window]] = {}
        self._alerts: set[tuple[str, str]] = set()
        self._now: Policies | None = None
        self._gauges = metrics.drift, metrics.drift_limit, metrics.drift_alert

    def note(self, route: Route, cascade: Cascade | None) -> None:
        """Counts a request that a tier of a calibrated route answered."""
        calibration = route.quality.calibration if route.quality is not None else None
        if (
            cascade is None or calibration is None or cascade.reason() is Reason.HALTED
        ):  # not what was calibrated
            return
        if self._now is not None and self._now.routes.get(route.name) is not route:
            return  # it came under policies that are in force no more
        known = self._windows.get(route.name)
        if known is None or known[0] is not calibration:
            known = self._windows[route.name] = (calibration, Window(calibration.bands))
        window = known[1]
        candidates = cascade.candidates()
        for rung, candidate in enumerate(candidates[:-1]):
            window.note(f"gain.{rung}", candidate.predicted_gain)
            window.note(f"certainty.{rung}", candidate.certainty)
        window.note_answer(escalated=cascade.step().rung == len(candidates) - 1)

    def adopt(self, policies: Policies) -> None:
        """Forgets routes that are not calibrated any more, and what still comes of older ones."""
        self._now = policies
        for name in list(self._windows):
            route = policies.routes.get(name)
            if route is None or route.quality is None or route.quality.calibration is None:
                _, window = self._windows.pop(name)
                for found in window.drift():
                    for gauge in self._gauges:
                        gauge.remove(name, found.name)
                    self._alerts.discard((name, found.name))

    async def run(self) -> None:
        """Tells what was found, every few seconds. Runs for ever; the caller owns it."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Tells what was found since a window began."""
        for route, (calibration, window) in list(self._windows.items()):
            for found in window.drift():
                for gauge, value in zip(
                    self._gauges, (found.value, found.high, found.alert), strict=True
                ):
                    gauge.labels(route, found.name).set(value)
                self._log(route, found.name, alert=found.alert)
            if window.requests >= MAX_REQUESTS:
                self._windows[route] = (calibration, Window(calibration.bands))

    def _log(self, route: str, name: str, *, alert: bool) -> None:
        """One line for each change."""
        if alert == ((route, name) in self._alerts):
            return
        (self._alerts.add if alert else self._alerts.discard)((route, name))
        log.warning("traffic drifts from its calibration", route=route, watch=name, alert=alert)
