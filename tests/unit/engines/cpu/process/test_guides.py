"""Verdicts on guides come from a thread beside the serving loop, each once."""

import os
import select
import threading

import pytest

from engines.cpu.process.guides import Guides
from engines.cpu.request import Cost, InvalidRequestError, guide_hash

Guide = tuple[str, str]


class FakeTrial:
    """Holds each guide until it is let go; refuses and breaks what its text says."""

    def __init__(self) -> None:
        self.tried: list[str] = []
        self.compiled: list[str] = []
        self.go = threading.Semaphore(0)
        self.broken = False

    def __call__(self, guide: Guide) -> Cost:
        assert self.go.acquire(timeout=5)
        self.tried.append(guide[1])
        if guide[1] == "costly":
            raise InvalidRequestError("too costly")
        if self.broken:
            raise OSError("no process")
        return Cost(1 << 20, 0.002)

    def close(self) -> object:
        return None

    def compile(self, guide: Guide) -> None:
        self.compiled.append(guide[1])


def settled(guides: Guides) -> None:
    readable, _, _ = select.select([guides.changed], [], [], 5)
    assert readable, "no verdict came"
    os.eventfd_read(guides.changed)


def test_a_guide_is_tried_once_then_compiled_and_may_run() -> None:
    trial = FakeTrial()
    guides = Guides(trial, trial.compile)
    good = ("regex", "good")
    assert not guides.known(good)
    assert guides.verdict(good, "") is None
    assert guides.verdict(good, "") is None
    assert not guides.known(good)
    trial.go.release()
    settled(guides)
    assert guides.known(good)
    assert guides.verdict(good, "") == ""
    assert guides.token_ns(good) == 2_000_000
    assert guides.token_ns(("regex", "other")) == 0
    assert (trial.tried, trial.compiled) == (["good"], ["good"])
    assert guides.kept_bytes == 1 << 20


def test_what_guides_keep_is_told_once_by_who_asked_first() -> None:
    trial = FakeTrial()
    guides = Guides(trial, trial.compile)
    for text, source in (("one", "a"), ("two", "b"), ("three", "a"), ("costly", "b")):
        guides.verdict(("regex", text), source)
        guides.verdict(("regex", text), "late")
        trial.go.release()
        settled(guides)
    assert guides.filled() == {"a": 2 << 20, "b": 1 << 20}
    assert guides.filled() == {}


def test_what_compiles_beside_the_loop_is_known() -> None:
    seen = []
    trial = FakeTrial()

    def compile_guide(_: Guide) -> None:
        seen.append(guides.compiling)
        raise InvalidRequestError("no")

    guides = Guides(trial, compile_guide)
    guides.verdict(("regex", "good"), "")
    assert not guides.compiling
    trial.go.release()
    settled(guides)
    assert (seen, guides.compiling) == ([True], False)


def test_a_costly_guide_is_never_compiled_and_its_verdict_is_kept() -> None:
    trial = FakeTrial()
    guides = Guides(trial, trial.compile)
    assert guides.verdict(("regex", "costly"), "") is None
    trial.go.release()
    settled(guides)
    for _ in range(2):
        assert guides.verdict(("regex", "costly"), "") == "Invalid request: too costly"
    assert (trial.tried, trial.compiled) == (["costly"], [])
    assert guides.kept_bytes == 0
    # The same text as another kind is another guide.
    assert guides.verdict(("ebnf_grammar", "costly"), "") is None


def test_trouble_is_told_and_forgotten() -> None:
    trial = FakeTrial()
    trial.broken = True
    guides = Guides(trial, trial.compile)
    good = ("regex", "good")
    assert guides.verdict(good, "") is None
    trial.go.release()
    settled(guides)
    assert guides.verdict(good, "") == "guides cannot be tried now: no process"
    trial.broken = False
    assert guides.verdict(good, "") is None
    trial.go.release()
    settled(guides)
    assert guides.verdict(good, "") == ""


def test_what_nobody_waits_for_is_not_tried() -> None:
    trial = FakeTrial()
    guides = Guides(trial, trial.compile)
    for text in ("first", "left", "last"):
        assert guides.verdict(("regex", text), "") is None
    guides.drop(("regex", "left"))
    trial.go.release(2)
    settled(guides)
    while guides.verdict(("regex", "last"), "") is None:
        settled(guides)
    assert trial.tried == ["first", "last"]


def test_who_brings_many_does_not_keep_others_waiting() -> None:
    trial = FakeTrial()
    guides = Guides(trial, trial.compile)
    for number in range(5):
        guides.verdict(("regex", f"many {number}"), "many")
    guides.verdict(("regex", "one"), "other")
    trial.go.release(3)
    while guides.verdict(("regex", "one"), "other") is None:
        settled(guides)
    assert trial.tried.index("one") <= 2


def test_a_guide_that_proves_slow_is_refused_from_then_on() -> None:
    trial = FakeTrial()
    guides = Guides(trial, trial.compile)
    good = ("regex", "good")
    assert guides.verdict(good, "") is None
    trial.go.release()
    settled(guides)
    guides.refuse(guide_hash(good), "Invalid request: too slow")
    assert guides.verdict(good, "") == "Invalid request: too slow"
    assert trial.tried == ["good"]


def test_who_brings_many_pushes_out_no_verdicts_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.cpu.process.guides._REMEMBERED", 8)
    trial = FakeTrial()
    guides = Guides(trial, trial.compile)
    trial.go.release(1000)
    asked = [("one", "few"), *((f"many {number}", "many") for number in range(20)), ("one", "few")]
    for text, source in asked:
        while guides.verdict(("regex", text), source) is None:
            settled(guides)
    assert trial.tried.count("one") == 1
    assert not guides.known(("regex", "many 0"))
