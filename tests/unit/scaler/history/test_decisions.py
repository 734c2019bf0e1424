"""Decisions are kept where something changed, told to watchers, and found again as they were."""

import asyncio
import dataclasses
import json
import math
import threading

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import Overloaded
from services.scaler.history import decisions
from services.scaler.history.decisions import (
    MOST_OF_ONE,
    Decided,
    DecisionLog,
    Found,
    Wanted,
    decided_of,
    line_of,
    reason_of,
)
from services.scaler.history.journal import Journal, Limits, read
from services.scaler.policy.sizing.views import Bound, Constraint, Decision
from services.scaler.wire.decisions import decision_message
from tests.unit.scaler.history.test_journal import Count, full


def decision(size, bound=Bound.DEMAND, *, before=1, value=0.5, detail=""):
    return Decision(
        size=size,
        before=before,
        constraints=(
            Constraint(Bound.MIN, 1),
            Constraint(bound, size, detail, value, 1.0),
        ),
        usd_per_hour=2.5 * size,
        usd_per_hour_before=2.5 * before,
        demand=size - 0.25,
        why=f"{size} since {bound}",
        why_not_fewer="less would not do",
        why_not_more="more is not needed",
    )


def log_in(folder, **options):
    journal = Journal(folder, Limits(file_bytes=1 << 20, files=8), Count())
    return DecisionLog(journal, **options)


async def test_only_a_change_of_size_or_reason_is_kept(tmp_path):
    log = log_in(tmp_path)
    for at, one in enumerate(
        [
            decision(2),
            decision(2, value=0.6),  # another figure
            decision(3),
            decision(3, Bound.QUEUE),
            decision(3, Bound.QUEUE, detail="kv"),
            decision(3, Bound.QUEUE, detail="kv", value=0.1),
        ]
    ):
        log.take("p", one, float(at))
    found = await log.find(Wanted())
    assert [one.at for one in found.decisions] == [4.0, 3.0, 2.0, 0.0]
    assert log.current() == [Decided("p", 5.0, decision(3, Bound.QUEUE, detail="kv", value=0.1))]


async def test_of_so_many_pools_at_most_something_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(decisions, "MAX_POOLS", 1)
    log = log_in(tmp_path)
    log.take("p", decision(2), 0.0)
    log.take("q", decision(2), 1.0)
    log.take("p", decision(3), 2.0)
    assert [(one.pool, one.decision.size) for one in log.current()] == [("p", 3)]
    assert [one.pool for one in (await log.find(Wanted())).decisions] == ["p", "p"]


async def test_decisions_come_back_whole_with_their_version_after_a_restart(tmp_path):
    log = log_in(tmp_path, version=lambda: 4)
    log.take("p", decision(2), 10.0)
    await log.find(Wanted())
    (found,) = (await log_in(tmp_path).find(Wanted(pool="p"))).decisions
    assert found == Decided("p", 10.0, decision(2), 4)


async def test_decisions_are_found_by_pool_time_and_number(tmp_path):
    log = log_in(tmp_path)
    for at in range(10):
        log.take("a", decision(at), float(at))
        log.take("b", decision(at), float(at))
    found = await log.find(Wanted(pool="a", since=3.0, until=7.0, most=3))
    assert [(one.pool, one.at) for one in found.decisions] == [("a", 7.0), ("a", 6.0), ("a", 5.0)]
    assert found.more
    assert not (await log.find(Wanted(pool="a", since=3.0, until=7.0))).more
    # what held at a time: the last one until then
    (held,) = (await log.find(Wanted(pool="b", until=4.5, most=1))).decisions
    assert held.at == 4.0


async def test_a_full_disk_hides_no_decision_that_waits(tmp_path, monkeypatch):
    log = log_in(tmp_path)
    log.take("p", decision(1), 1.0)
    await log.find(Wanted())
    full(monkeypatch)
    log.take("p", decision(2), 2.0)
    found = await log.find(Wanted())
    assert [one.decision.size for one in found.decisions] == [2, 1]


async def test_damage_and_gaps_are_told(tmp_path):
    log = log_in(tmp_path)
    log.take("p", decision(1), 1.0)
    await log.find(Wanted())
    (path,) = tmp_path.iterdir()
    with path.open("ab") as file:
        file.write(b'{"missing": 7, "since": 2.0, "at": 3.0}\n{"at": 4.0, "pool": "p"}\nnone\n')
    found = await log.find(Wanted())
    assert ([one.at for one in found.decisions], found.missing, found.damaged) == ([1.0], 7, 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 10**12},
        {"size": -1},
        {"before": 1e300},
        {"at": 1e300},
        {"at": -1e300},
        {"version": 10**30},
        {"demand": "some"},
        {"constraints": [["demand", 10**12, "", 1.0, 1.0]]},
        {"constraints": [["demand", 1, "", "x", None]]},
        {"constraints": [["demand", 1, "", 1.0, [1]]]},
        {"constraints": [["demand"]]},
        {"missing": 1e300},
    ],
)
async def test_a_line_that_no_message_holds_is_damaged_and_hides_no_other(tmp_path, wrong):
    log = log_in(tmp_path)
    log.take("p", decision(1), 1.0)
    await log.find(Wanted())
    (path,) = tmp_path.iterdir()
    line = orjson.loads(path.read_bytes())
    with path.open("a") as file:
        file.write(json.dumps(line | {"at": 2.0} | wrong) + "\n" + "[" * 100_000 + "\n")
    found = await log.find(Wanted())
    assert ([one.at for one in found.decisions], found.missing, found.damaged) == ([1.0], 0, 2)
    for one in found.decisions:
        decision_message(one, operator=True)


async def test_a_clock_that_was_wrong_for_a_while_hides_nothing(tmp_path):
    log = log_in(tmp_path)
    for at in (*range(1000, 1300), 7, 8, 1300):
        log.take("p", decision(at), float(at))
    found = await log.find(Wanted(since=1298.0))
    assert [one.at for one in found.decisions] == [1300.0, 1299.0, 1298.0]
    assert not found.more


async def test_searches_take_turns_beside_all_else_and_few_wait(tmp_path, monkeypatch):
    kept = log_in(tmp_path)
    begun, go_on, at_once = [], threading.Event(), []

    def held(wanted, unwritten):
        at_once.append(len(begun))
        begun.append(wanted)
        go_on.wait(20)
        begun.remove(wanted)
        return Found()

    monkeypatch.setattr(kept, "_find", held)
    searches = [asyncio.create_task(kept.find(Wanted())) for _ in range(MOST_OF_ONE)]
    while not begun:
        await asyncio.sleep(0.001)
    with pytest.raises(Overloaded):
        await kept.find(Wanted())
    # Whoever needs a thread for something else gets one.
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 5) == "free"
    searches.pop().cancel()  # who gives up makes room
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(*searches, return_exceptions=True)
    assert set(at_once) == {0}
    assert len(at_once) == MOST_OF_ONE - 1
    assert await kept.find(Wanted()) == Found()


async def test_watchers_hear_what_holds_and_then_each_change(tmp_path):
    log = log_in(tmp_path)
    log.take("a", decision(1), 1.0)
    log.take("b", decision(1), 1.0)
    with log.watch("a") as watcher:
        log.take("a", decision(1, value=9.0), 2.0)  # nothing new
        log.take("a", decision(2), 3.0)
        heard = [await watcher.next(1.0) for _ in range(2)]
        assert await watcher.next(0.001) is None
    assert [(one.pool, one.at) for one in heard] == [("a", 1.0), ("a", 3.0)]


async def test_a_pool_that_is_no_longer_configured_holds_nothing(tmp_path):
    log = log_in(tmp_path)
    log.take("a", decision(1), 1.0)
    log.take("b", decision(1), 1.0)
    log.keep_only({"b": None})
    assert [one.pool for one in log.current()] == ["b"]
    log.take("a", decision(1), 2.0)  # it is back: that is news
    assert len((await log.find(Wanted(pool="a"))).decisions) == 2


figures = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))
texts = st.text(st.characters(codec="utf-8"), max_size=40)
constraints = st.builds(
    Constraint, st.sampled_from(Bound), st.integers(0, 1024), texts, figures, figures
)


@given(st.lists(constraints, max_size=5), texts, st.floats(0, 4e9))
def test_any_decision_survives_its_line(bound, text, at):
    one = dataclasses.replace(decision(3), constraints=tuple(bound), why=text)
    line = orjson.loads(orjson.dumps(line_of(Decided("p", at, one, 3))))
    assert decided_of(line) == Decided("p", at, one, 3)


def test_figures_that_are_no_numbers_are_unknown_and_harm_nothing():
    one = dataclasses.replace(decision(1), demand=math.nan, usd_per_hour=math.inf)
    found = decided_of(orjson.loads(orjson.dumps(line_of(Decided("p", 1.0, one)))))
    assert (found.decision.demand, found.decision.usd_per_hour) == (None, 0.0)


def test_a_kind_of_a_later_version_is_left_out():
    line = line_of(Decided("p", 1.0, decision(1)))
    line["constraints"].append(["moon_phase", 2, "", None, None])
    assert decided_of(line).decision == decision(1)


def test_a_decision_without_constraints_has_its_size_as_reason():
    assert reason_of(Decision(size=3, before=3)) == (3, None, "")


def test_reading_is_of_files_alone(tmp_path):
    assert list(read(tmp_path / "none")) == []


async def test_a_search_that_takes_too_long_gives_what_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr(decisions, "SEARCH_SECONDS", -1.0)
    log = log_in(tmp_path)
    for at in range(3):
        log.take("p", decision(at), float(at))
    found = await log.find(Wanted())
    assert ([one.at for one in found.decisions], found.more) == ([2.0], True)


@pytest.mark.parametrize("wrong", [{"at": None}, {"at": "soon"}, {"constraints": [["min", 1]]}])
async def test_a_line_that_says_something_else_is_damaged(tmp_path, wrong):
    log = log_in(tmp_path)
    log.take("p", decision(2), 1.0)
    log._journal.add({**line_of(Decided("p", 2.0, decision(3))), **wrong})
    found = await log.find(Wanted())
    assert ([one.at for one in found.decisions], found.damaged) == ([1.0], 1)


async def test_one_callers_searches_delay_anothers_by_one_at_most(tmp_path, monkeypatch):
    kept = log_in(tmp_path)
    order, go_on = [], threading.Event()

    def held(wanted, unwritten):
        go_on.wait(20)
        order.append(wanted.pool)
        return Found()

    monkeypatch.setattr(kept, "_find", held)
    loud = [asyncio.create_task(kept.find(Wanted("loud"), "a")) for _ in range(MOST_OF_ONE)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="of this caller"):
        await kept.find(Wanted("loud"), "a")
    quiet = asyncio.create_task(kept.find(Wanted("quiet"), "b"))
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(*loud, quiet)
    assert order.index("quiet") <= 1
    assert kept._searches == {}
