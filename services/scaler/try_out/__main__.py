"""``python -m services.scaler.try_out``: tries scaling files on load, in a process of its own.

Reads one line of JSON, the question; writes lines of JSON: ``progress`` now and then, then
``answer``, or ``refused`` where the question cannot be answered, or ``wrong`` where the file would
be refused. The scaler runs it (`Trials`); it is the only thing of the scaler that computes with the
simulator.
"""

import dataclasses
import json
import os
import resource
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from services.common.config import ConfigError
from services.scaler.policy.plans import Scene
from services.scaler.try_out import checks

NICENESS = 10
MAX_MEMORY_BYTES = 2 << 30
MAX_PROCESSOR_SECONDS = 180
"""Where the scaler that would end it was killed itself."""
NEEDED = ("numpy",)
NEEDED_BY_PAGES = ("matplotlib",)
PROGRESS_STEP = 0.01


class Refused(Exception):
    """The question cannot be answered.

    Attributes:
        reason: stable UPPER_SNAKE word for programs.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def main() -> None:
    """Answers the question on standard input."""
    os.nice(NICENESS)
    _bound(resource.RLIMIT_AS, MAX_MEMORY_BYTES)
    _bound(resource.RLIMIT_CPU, MAX_PROCESSOR_SECONDS)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # each thread takes address space
    question = json.loads(sys.stdin.readline())
    try:
        answer = {}
        if question["check"] is not None:
            notes, unserved = checks.check(question["given"], **question["check"])
            answer = {"notes": [dataclasses.asdict(note) for note in notes], "unserved": unserved}
        if question["kind"] != "check":
            answer = dataclasses.asdict(_answered(question, _Told()))
    except ConfigError as error:
        _say({"wrong": [dataclasses.asdict(problem) for problem in error.details]})
    except Refused as error:
        _say({"refused": str(error), "reason": error.reason})
    else:
        _say({"answer": answer})


def _bound(what: int, most: int) -> None:
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(hard, most), hard))


def _answered(question: Mapping[str, Any], progress: Callable[[float], None]) -> Any:
    paged = question["page"] if question["kind"] == "plan" else question["scene"]["page"]
    for what, needed in (("trials", NEEDED), ("pages", NEEDED_BY_PAGES if paged else ())):
        if missing := [name for name in needed if find_spec(name) is None]:
            message = f"{what} need {' and '.join(missing)}: install the extra `simulate`"
            raise Refused(message, "TRIAL_UNAVAILABLE")
    # Not before: the extra may be missing.
    from services.scaler.try_out import days, traces  # noqa: PLC0415
    from services.scaler.try_out.pools import Unanswerable  # noqa: PLC0415

    try:
        if question["kind"] == "plan":
            return days.planned(
                live=question["live"],
                given=question["given"],
                source=question["path"],
                load=Path(question["load"]),
                since=question["now"] - question["seconds"],
                until=question["now"],
                replicas=question["replicas"],
                asked=question["asked"],
                decisions=Path(question["decisions"]),
                in_force_since=question["in_force_since"],
                page=question["page"],
                progress=progress,
            )
        return traces.simulated(
            given=question["given"],
            source=question["path"],
            scene=Scene(**question["scene"]),
            load=Path(question["load"]),
            replicas=question["replicas"],
            progress=progress,
        )
    except Unanswerable as error:
        raise Refused(str(error), "TRIAL_REFUSED") from error


class _Told:
    """Says how far it is, not too often."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, share: float) -> None:
        if share >= self._last + PROGRESS_STEP:
            self._last = share
            _say({"progress": share})


def _say(said: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
