"""Which answers are too slow for a guide to run, and when the process that tries is replaced."""

import contextlib
import os
import signal
import subprocess
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import pytest

from engines.cpu.process.trial import Limits, Trial, TrialError, slow_answer, worn
from engines.cpu.request import InvalidRequestError

MIB = 1 << 20
GOOD, COSTLY, OLD, LAST, SILENT, DIES = "good", "costly", "old", "last", "silent", "dies"
READY = True


@pytest.mark.parametrize(
    ("took", "why"),
    [
        ([], ""),
        ([0.001] * 128, ""),
        ([0.18, *[0.001] * 127], ""),
        ([0.21], "a token of its answer takes 210 ms of processor time"),
        ([0.04] * 97, "its tokens take 40 ms of processor time each, of at most 10"),
        ([0.0099] * 128, ""),
        ([0.0101] * 128, "its tokens take 10 ms of processor time each, of at most 10"),
        # Broken off as soon as it is far behind.
        ([0.04] * 9, "its tokens take 40 ms of processor time each, of at most 10"),
        ([0.04] * 8, ""),
        # However long it was cheap before.
        ([0.0] * 132 + [0.19] * 6, ""),
        (
            [0.0] * 132 + [0.19] * 7,
            "its tokens take 10 ms of processor time each, of at most 10",
        ),
    ],
)
def test_the_slowest_token_and_the_mean_of_all_are_bounded(took: list[float], why: str) -> None:
    assert slow_answer(took, 1.0) == why


def test_growth_counts_though_no_token_is_slow() -> None:
    """Broken off at the time that 128 tokens may take, before the last ones were made."""
    grows = [0.001 * number for number in range(52)]
    assert sum(grows) > 0.01 * 128
    assert slow_answer(grows, 1.0)
    assert not slow_answer(grows, 2.0), "a larger vocabulary has more time"


@pytest.mark.parametrize("seconds", [0.0101, 0.02, 0.05, 0.1, 0.2])
def test_an_answer_that_is_refused_takes_little_more_than_a_second(seconds: float) -> None:
    took: list[float] = []
    while not slow_answer(took, 1.0):
        took.append(seconds)
    assert sum(took) < 1.3


@pytest.mark.parametrize(
    ("tried", "refused", "addresses", "used", "ends"),
    [
        (1, "", 0, 0, False),
        (31, "", 100 * MIB, 60 * MIB, False),
        (1, "too costly", 0, 0, True),
        (32, "", 0, 0, True),
        (1, "", 129 * MIB, 0, True),
        (1, "", 0, 65 * MIB, True),
    ],
)
def test_a_process_ends_before_what_others_left_counts_against_the_next(
    *, tried: int, refused: str, addresses: int, used: int, ends: bool
) -> None:
    assert worn(tried, refused, addresses, used) is ends


class Process:
    """Answers in a thread what the text of a guide says."""

    def __init__(self, descriptor: int, dies: int = -signal.SIGABRT) -> None:
        self.dies = dies
        self.lasts = False
        self._pipe = Connection(os.dup(descriptor))
        self._status: int | None = None
        self._killed = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        status = 0
        with self._pipe as pipe, contextlib.suppress(EOFError, OSError):
            pipe.recv()
            pipe.send(READY)
            text = ""
            while text not in (LAST, SILENT):
                _, text = pipe.recv()
                if text == SILENT:
                    self._killed.wait(5)
                elif text == DIES and not self.lasts:
                    status = self.dies
                    break
                else:
                    refused = "too costly" if text == COSTLY else ""
                    pipe.send((1, 0.001, refused, text in (COSTLY, OLD)))
        self._status = status

    def poll(self) -> int | None:
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise subprocess.TimeoutExpired("process", timeout or 0)
        return self._status or 0

    def kill(self) -> None:
        self._killed.set()


@pytest.fixture
def started() -> list[Process]:
    return []


@pytest.fixture
def trial(started: list[Process]) -> Trial:
    def start(descriptor: int) -> subprocess.Popen[bytes]:
        started.append(Process(descriptor))
        return cast("subprocess.Popen[bytes]", started[-1])

    return Trial(Path(), 2048, Limits(seconds=0.01, bytes=MIB), start=start)


def refused(trial: Trial, text: str) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        trial(("regex", text))
    return str(caught.value)


def test_good_guides_share_a_process(trial: Trial, started: list[Process]) -> None:
    for _ in range(3):
        assert trial(("regex", GOOD)).bytes == 1
    assert len(started) == 1
    trial.close()
    assert started[0].poll() == 0


@pytest.mark.parametrize("text", [COSTLY, DIES])
def test_a_fresh_process_is_ahead_after_a_refusal(
    trial: Trial, started: list[Process], text: str
) -> None:
    for count in range(1, 5):
        assert "too costly" in refused(trial, text)
        assert len(started) == count + 1, "it starts before the next guide comes"
        assert trial(("regex", GOOD)).bytes == 1
    assert all(process.poll() is not None for process in started[:-1])
    trial.close()


def test_a_fresh_process_is_ahead_after_one_that_is_worn(
    trial: Trial, started: list[Process]
) -> None:
    assert trial(("regex", OLD)).bytes == 1
    assert len(started) == 2
    trial.close()


def test_silence_is_no_verdict_and_ends_the_process(trial: Trial, started: list[Process]) -> None:
    with pytest.raises(TrialError, match=r"no verdict within 0\.2 s"):
        trial(("regex", SILENT))
    assert started[0].poll() is not None
    assert trial(("regex", GOOD)).bytes == 1
    trial.close()


def test_a_process_that_ended_by_itself_says_nothing_of_the_next_guide(
    trial: Trial, started: list[Process]
) -> None:
    assert trial(("regex", LAST)).bytes == 1
    started[0].wait(5)
    assert trial(("regex", GOOD)).bytes == 1
    assert len(started) == 2
    trial.close()


def ending(started: list[Process], *ends: int | None) -> Trial:
    """A trial whose processes end so, one after another; None: what would be ends well."""

    def start(descriptor: int) -> subprocess.Popen[bytes]:
        end = ends[len(started)] if len(started) < len(ends) else None
        started.append(Process(descriptor, end) if end is not None else Process(descriptor))
        started[-1].lasts = end is None
        return cast("subprocess.Popen[bytes]", started[-1])

    return Trial(Path(), 2048, Limits(seconds=0.01, bytes=MIB), start=start)


FOREIGN = [-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP, 0, 1]


@pytest.mark.parametrize("status", FOREIGN)
def test_a_process_that_others_end_is_no_verdict(started: list[Process], status: int) -> None:
    trial = ending(started, status)
    assert trial(("regex", DIES)).bytes == 1
    assert len(started) == 2
    trial.close()


@pytest.mark.parametrize("status", FOREIGN)
def test_one_that_ends_twice_with_the_same_guide_is(started: list[Process], status: int) -> None:
    trial = ending(started, status, status)
    assert "too costly" in refused(trial, DIES)
    assert trial(("regex", GOOD)).bytes == 1
    assert len(started) == 3
    trial.close()


def test_of_these_two_none_has_tried_others(started: list[Process]) -> None:
    trial = ending(started, -signal.SIGKILL, -signal.SIGKILL)
    assert trial(("regex", GOOD)).bytes == 1
    assert trial(("regex", DIES)).bytes == 1
    assert len(started) == 3
    trial.close()


@pytest.mark.parametrize("signalled", [signal.SIGPROF, signal.SIGABRT, signal.SIGSEGV])
def test_one_that_the_guide_ends_itself_is_at_once(
    started: list[Process], signalled: signal.Signals
) -> None:
    trial = ending(started, -signalled)
    assert "too costly" in refused(trial, DIES)
    assert len(started) == 2
    trial.close()


def test_what_cannot_be_started_is_told(started: list[Process]) -> None:
    def start(_: int) -> subprocess.Popen[bytes]:
        raise OSError("no memory")

    with pytest.raises(TrialError, match="no memory"):
        Trial(Path(), 2048, Limits(0.01, MIB), start=start)(("regex", GOOD))
    assert not started
