"""Watches whether each route's traffic still looks as it did at its calibration."""

import asyncio

import structlog

from services.router.metrics import Metrics
from services.router.policy.climb import Climb
from services.router.policy.decision import Reason
from services.router.policy.drift import Window
from services.router.policy.routes import Calibrated, Route

log = structlog.get_logger()

LOOK_SECONDS = 10.0
MOST_REQUESTS = 5_000
"""A window that has seen so many begins anew, so that old traffic does not hide a change."""


class DriftWatch:
    """One window a route; state of the process, bounded by the routes of the policy."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._windows: dict[str, tuple[Calibrated, Window]] = {}
        self._alerts: set[tuple[str, str]] = set()

    def note(self, route: Route, way: Climb) -> None:
        """Counts a request that a tier of a calibrated route answered."""
        calibration = route.quality.calibration if route.quality is not None else None
        if calibration is None or way.reason() is Reason.HALTED:  # not what was calibrated
            return
        known = self._windows.get(route.name)
        if known is None or known[0] is not calibration:
            known = self._windows[route.name] = (calibration, Window(calibration.bands))
        window = known[1]
        candidates = way.candidates()
        for rung, candidate in enumerate(candidates[:-1]):
            window.note(f"gain.{rung}", candidate.predicted_gain)
            window.note(f"certainty.{rung}", candidate.certainty)
        window.note_answer(escalated=way.turn().rung == len(candidates) - 1)

    async def run(self) -> None:
        """Tells what was found, every few seconds. Runs for ever; the caller owns it."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Tells what was found since a window began."""
        for route, (calibration, window) in list(self._windows.items()):
            for found in window.drift():
                self._metrics.drift.labels(route, found.name).set(found.value)
                self._metrics.drift_limit.labels(route, found.name).set(found.high)
                self._metrics.drift_alert.labels(route, found.name).set(found.alert)
                self._log(route, found.name, alert=found.alert)
            if window.requests >= MOST_REQUESTS:
                self._windows[route] = (calibration, Window(calibration.bands))

    def _log(self, route: str, name: str, *, alert: bool) -> None:
        """One line for each change."""
        if alert == ((route, name) in self._alerts):
            return
        (self._alerts.add if alert else self._alerts.discard)((route, name))
        log.warning("traffic drifts from its calibration", route=route, watch=name, alert=alert)
