"""The load of each minute goes on record, and a minute that nobody knows does not."""

import pytest

from services.common.buckets import BUCKETS, bucket_of
from services.common.load_totals import LoadTotals
from services.scaler.history.journal import Journal, Limits, read
from services.scaler.history.recorder import Recorder, recorded
from services.scaler.load.loads import Loads, Report, Run, TierLoad
from services.scaler.policy.recorded import RecordedMinute
from tests.unit.scaler.history.test_journal import Count


class Scene:
    def __init__(self, folder):
        self.now = 0.0
        self.loads = Loads()
        self.folder = folder
        self.journal = Journal(folder, Limits(1 << 20, 8), Count())
        self.recorder = Recorder(
            self.loads,
            self.journal,
            lambda tier: 2.0,
            clock=lambda: self.now,
            wall=lambda: 6_000_000.0 + self.now,
        )

    def report(self, router, arrivals, seconds=1.0):
        counts = [0] * BUCKETS
        counts[bucket_of(seconds)] = arrivals
        totals = LoadTotals(arrivals, 10 * arrivals, 5 * arrivals, arrivals, tuple(counts))
        report = Report({"small": TierLoad(0, 0)}, {}, Run(1, {"small": totals}))
        assert self.loads.take(router, report, self.now)

    async def lines(self):
        await self.journal.flush()
        return recorded(self.folder, 0)


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path)


async def test_a_minute_adds_up_over_routers(scene):
    scene.report("a", 100)
    scene.report("b", 7)
    scene.recorder.begin()
    scene.now = 60.0
    scene.report("a", 130)
    scene.report("b", 8)
    scene.recorder.record()
    (minute,) = await scene.lines()
    assert minute == RecordedMinute("small", 100_000, 60.0, 31, 310, 31, 155, 31, 0)


async def test_late_answers_are_those_beyond_the_objective(scene):
    scene.report("a", 0)
    scene.recorder.begin()
    scene.now = 60.0
    scene.report("a", 9, seconds=50.0)
    scene.recorder.record()
    (minute,) = await scene.lines()
    assert (minute.first_texts, minute.late) == (9, 9)


async def test_a_minute_without_routers_has_no_line_and_one_of_silence_has_zeros(scene):
    scene.recorder.begin()
    scene.now = 60.0
    scene.recorder.record()  # nobody was heard
    assert await scene.lines() == []
    scene.report("a", 5)
    scene.recorder.begin()
    scene.now = 120.0
    scene.report("a", 5)
    scene.recorder.record()  # a router says that nothing came
    (minute,) = await scene.lines()
    assert (minute.minute, minute.arrivals) == (100_001, 0)


async def test_a_router_that_falls_silent_leaves_no_line(scene):
    scene.report("a", 5)
    scene.recorder.begin()
    scene.now = 60.0
    scene.recorder.record()
    assert await scene.lines() == []


async def test_a_part_of_a_minute_says_how_long_it_was(scene):
    scene.now = 33.5
    scene.report("a", 5)
    scene.recorder.begin()
    scene.now = 60.0
    scene.report("a", 6)
    scene.recorder.record()
    (minute,) = await scene.lines()
    assert (minute.seconds, minute.arrivals) == (26.5, 1)


async def test_what_cannot_be_read_is_left_out(scene):
    scene.journal.folder.mkdir(exist_ok=True)
    good = (
        b'{"tier":"small","minute":%d,"seconds":60,"arrivals":1,"prompt_tokens":2,'
        b'"finished":1,"output_tokens":3,"first_texts":1,"late":0}\n'
    )
    (scene.folder / "000000000001.jsonl").write_bytes(
        good % 5
        + good % 6
        + b'{"tier":"small","minute":7}\n'
        + (good % 8).replace(b'"arrivals":1', b'"arrivals":-1')
        + (good % 9).replace(b'"seconds":60', b'"seconds":1e9')
        + b"torn"
    )
    assert [one.minute for one in recorded(scene.folder, 6)] == [6]
    assert [one.minute for one in recorded(scene.folder, 0)] == [5, 6]
    assert len(list(read(scene.folder))) == 6


async def test_of_a_scaler_that_stood_still_no_more_than_a_minute_is_told(scene):
    scene.report("a", 5)
    scene.recorder.begin()
    scene.now = 400.0
    scene.report("a", 6)
    scene.recorder.record()
    (minute,) = await scene.lines()
    assert minute.seconds == 60.0


async def test_a_moment_says_nothing(scene):
    scene.report("a", 5)
    scene.recorder.begin()
    scene.now = 4.9
    scene.recorder.record()
    assert await scene.lines() == []


async def test_of_two_lines_about_one_minute_the_later_holds(scene):
    for seconds, arrivals in ((0.0, 7), (30.0, 9)):
        scene.now = seconds
        scene.report("a", arrivals)
        scene.recorder.begin()
        scene.now = 40.0
        scene.recorder.record()
    (minute,) = await scene.lines()
    assert (minute.minute, minute.seconds) == (100_000, 10.0)
