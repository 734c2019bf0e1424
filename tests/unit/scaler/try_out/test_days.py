"""Scaling files on recorded load, with the very simulator: what is told, and what cannot be."""

import html
import json
import math
from dataclasses import asdict, replace

import numpy as np
import orjson
import pytest

from services.scaler.history.decisions import Decided, line_of
from services.scaler.history.recorder import recorded
from services.scaler.policy.plans import Verdict
from services.scaler.policy.sizing.capacity import Fit, fitted
from services.scaler.policy.sizing.size import decide_all
from services.scaler.policy.sizing.views import Bound, Constraint, Decision
from services.scaler.simulator import together
from services.scaler.simulator.course import Course, Ticks
from services.scaler.simulator.together import Fared
from services.scaler.simulator.trial import trial
from services.scaler.try_out import days, outcomes, pools
from services.scaler.try_out.differences import MOST, differences
from services.scaler.try_out.pools import Unanswerable
from services.scaler.try_out.record import Sizes

FIRST = 29_000_000
MINUTES = 192
MEASURED = {
    "capacity": {"a": 0.01, "b": 0.0008, "c": 1e-7, "p": 1e-5},
    "correction": 1.0,
    "start_seconds": 60.0,
}
POOL = (
    "  %s: {tier: %s, model: m, precision: int8, repository: ., usd_per_hour: 2.0, "
    "slots: [{}, {}, {}, {}], %s}\n"
)


def text(rest="scale: {min: 1, max: 4}", *, name="p", tier="small", more=""):
    return f"pools:\n{POOL % (name, tier, rest)}{more}"


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """A wave of some hours, as it is recorded."""
    folder = tmp_path_factory.mktemp("load")
    with (folder / "000000000001.jsonl").open("w") as file:
        for minute in range(MINUTES):
            came = int(300 * (1.3 + 0.8 * math.sin(minute / MINUTES * 2 * math.pi)))
            line = {
                "tier": "small",
                "minute": FIRST + minute,
                "seconds": 60,
                "arrivals": came,
                "prompt_tokens": 500 * came,
                "finished": came,
                "output_tokens": 200 * came,
                "first_texts": came,
                "late": 0,
            }
            if minute % 48 != 7:  # a few minutes are not on record
                file.write(json.dumps(line) + "\n")
    return folder


NOW = (FIRST + MINUTES) * 60.0


def planned(
    load, live, given, *, since=0.0, until=NOW, replicas=None, progress=lambda _: None, **more
):
    return days.planned(
        live=live,
        given=given,
        source="scaling.yaml",
        load=load,
        since=since,
        until=until,
        replicas={"p": MEASURED} if replicas is None else replicas,
        progress=progress,
        **more,
    )


def test_the_same_policy_does_the_same(load):
    told = []
    plan = planned(load, text(), "# only a comment\n" + text(), progress=told.append)
    assert (plan.verdict, plan.because) == (Verdict.SAME, "both decide the same")
    assert plan.pools["p"].live == plan.pools["p"].planned
    assert (plan.since, plan.until) == (FIRST * 60.0, (FIRST + MINUTES) * 60.0)
    assert plan.recorded_share == pytest.approx(1 - 4 / MINUTES)
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_minutes_of_a_clock_that_was_wrong_change_nothing(load, tmp_path):
    lines = (load / "000000000001.jsonl").read_text().splitlines()
    wrong = [json.dumps(json.loads(lines[0]) | {"minute": minute}) for minute in (10**8, 10**30, 0)]
    (tmp_path / "000000000001.jsonl").write_text("\n".join([*lines, *wrong]) + "\n")
    wanted = planned(load, text(), text("size: 2"), since=60.0)
    assert planned(tmp_path, text(), text("size: 2"), since=60.0) == wanted


def test_load_that_cannot_be_tried_is_a_refusal(load, tmp_path):
    lines = (load / "000000000001.jsonl").read_text().splitlines()
    lines.append(json.dumps(json.loads(lines[0]) | {"minute": FIRST + 10**6}))
    (tmp_path / "000000000001.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(Unanswerable, match="p: its recorded load is of no use"):
        planned(tmp_path, text(), text("size: 2"), until=(FIRST + 10**7) * 60.0)


def test_a_policy_by_what_is_not_on_record_is_not_tried(load):
    by_cache = text("scale: {max: 4, work: null, signals: {kv: {target: 0.8}}}")
    for live, given in ((text(), by_cache), (by_cache, text())):
        plan = planned(load, live, given)
        assert plan.verdict is Verdict.UNKNOWN
        assert plan.pools["p"].untried == "it follows what is not on record: kv"
    assert planned(load, by_cache, by_cache).verdict is Verdict.SAME


def test_more_than_is_needed_costs_more_and_is_worse(load):
    plan = planned(load, text(), text("size: 4"))
    pool = plan.pools["p"]
    assert plan.verdict is Verdict.WORSE
    assert "replica-hours instead of" in plan.because
    assert pool.planned.replica_hours > 1.2 * pool.live.replica_hours
    assert pool.planned.usd == pytest.approx(2.0 * pool.planned.replica_hours)
    assert (pool.planned.changes_per_hour, pool.planned.max_size) == (0.0, 4)
    assert plan.reason_needed


def test_less_than_is_needed_comes_late_and_is_worse(load):
    plan = planned(load, text(), text("size: 1"))
    assert plan.verdict is Verdict.WORSE
    assert "in time instead of" in plan.because
    assert plan.pools["p"].planned.attainment < plan.pools["p"].live.attainment


def test_what_mends_that_is_better(load):
    assert planned(load, text("size: 1"), text()).verdict is Verdict.BETTER


@pytest.mark.parametrize(
    ("given", "since", "replicas", "why"),
    [
        (text("size: 2"), (FIRST + MINUTES - 20) * 60.0, None, "only 20 minutes of its load"),
        (text("size: 2"), 9e9, None, "only 0 minutes of its load"),
        (text("size: 2"), 0.0, {}, "what its replicas can do is not known yet"),
        (text("size: 0"), 0.0, None, "its size is 0"),
        (text("size: 2", tier="large"), 0.0, None, "it changes from tier small to large"),
    ],
)
def test_what_cannot_be_tried_says_why_and_proves_nothing(load, given, since, replicas, why):
    plan = planned(load, text(), given, since=since, replicas=replicas)
    assert plan.verdict is Verdict.UNKNOWN
    assert why in plan.because
    assert why in plan.pools["p"].untried


def test_a_pool_that_cannot_be_tried_and_is_not_changed_is_no_reason_to_doubt(load):
    plan = planned(load, text(), text(), replicas={})
    assert plan.verdict is Verdict.SAME
    assert plan.pools["p"].untried


def test_a_pool_of_one_file_alone_is_compared_with_nothing(load):
    plan = planned(load, text(name="q", tier="other"), text())
    assert plan.verdict is Verdict.UNKNOWN
    assert plan.pools["p"].live is None
    assert plan.pools["p"].planned is not None
    assert "only one of the files has it" in plan.because


def test_a_model_that_the_policy_names_serves_where_nothing_was_measured(load):
    scale = "scale: {min: 1, max: 4, work: {capacity: {a: 0.01, b: 0.0008, c: 1e-7, p: 1e-5}}}"
    scale = scale.replace("1e-7", "0.0000001").replace("1e-5", "0.00001")
    plan = planned(load, text(scale), text(scale), replicas={})
    assert plan.pools["p"].planned is not None


def test_the_worst_pool_speaks_for_all():
    worse, unknown = (Verdict.WORSE, "dear"), (Verdict.UNKNOWN, "dark")
    better, same = (Verdict.BETTER, "good"), (Verdict.SAME, "")
    found = outcomes.concluded({"a": better, "b": unknown, "c": worse, "d": same})
    assert found == (Verdict.WORSE, "c: dear")
    assert outcomes.concluded({"a": better, "b": unknown}) == (Verdict.UNKNOWN, "b: dark")
    assert outcomes.concluded({"a": same, "b": better}) == (Verdict.BETTER, "b: good")
    assert outcomes.concluded({"a": same}) == (Verdict.SAME, "both decide the same")


def test_a_file_that_is_none_is_refused(load):
    with pytest.raises(Unanswerable, match=r"scaling.yaml: .*pools"):
        planned(load, text(), "pool: {}")


def test_one_pool_by_itself_fares_as_simulate_says(load):
    scaling = pools.read(text(), "scaling.yaml")
    minutes = recorded(load, 0)
    replica = pools.replica_of(scaling.pools["p"], pools.Measured.of(MEASURED))
    trace = pools.trace_of(minutes, replica, first=FIRST, count=MINUTES)
    alone = trial(scaling.pools["p"].scale, trace, tick=10.0, wall=FIRST * 60.0)
    together = planned(load, text(), text()).pools["p"].live
    assert replace(together, bounds=()) == pools.shown(alone)


LARGE = POOL % ("l", "large", "scale: {min: 1, max: 4}")
BUDGET = (
    "budgets: {gpus: {of: gpus, limit: 3, pools: {p: {priority: %d, each: 1}, l: {each: 1}}}}\n"
)
TWO = {"p": MEASURED, "l": MEASURED}


@pytest.fixture(scope="module")
def two(load, tmp_path_factory):
    """The same load for two tiers."""
    folder = tmp_path_factory.mktemp("two")
    text = (load / "000000000001.jsonl").read_text()
    (folder / "000000000001.jsonl").write_text(text + text.replace('"small"', '"large"'))
    return folder


def share_of(course, bound, detail=""):
    return sum(one.share for one in course.bounds if (one.bound, one.detail) == (bound, detail))


def test_a_shared_budget_binds_in_the_trial_as_it_would_have(two):
    plan = planned(two, text(more=LARGE), text(more=LARGE + BUDGET % 9), replicas=TWO)
    small, large = plan.pools["p"], plan.pools["l"]
    assert share_of(small.live, "budget", "gpus") == share_of(large.live, "budget", "gpus") == 0
    assert share_of(large.planned, "budget", "gpus") > 0.2
    assert large.planned.attainment < large.live.attainment
    # Who comes first is served as before, and together they never have more than there is.
    assert small.planned.attainment > large.planned.attainment
    assert plan.live.max_size > plan.planned.max_size == 3
    assert plan.planned.replica_hours == pytest.approx(
        small.planned.replica_hours + large.planned.replica_hours
    )
    assert plan.verdict is Verdict.WORSE
    assert plan.because.startswith("l: ")


def test_a_change_of_one_pool_is_felt_by_who_shares_with_it(two):
    live = text(more=LARGE + BUDGET % 9)
    greedy = text("scale: {min: 2, max: 4}", more=LARGE + BUDGET % 9)
    plan = planned(two, live, greedy, replicas=TWO)
    assert plan.pools["l"].planned.replica_hours < plan.pools["l"].live.replica_hours
    without = planned(two, text(more=LARGE), text("size: 4", more=LARGE), replicas=TWO)
    assert without.pools["l"].planned == without.pools["l"].live


def test_money_binds_all(two):
    money = "money: {usd_per_hour: 6}\n"
    plan = planned(two, text(more=LARGE), text(more=LARGE + money), replicas=TWO)
    assert share_of(plan.pools["p"].planned, "money", "hour") > 0.1
    assert plan.planned.usd <= 6.0 * MINUTES / 60 * 1.05
    assert plan.planned.max_size == 3


def test_what_drains_is_under_the_ceiling_on_recorded_load_too(two, monkeypatch):
    seen = []

    def watched(policies, budgets, money, memory, views, **more):
        if money.usd_per_hour is not None:
            seen.append(views.values())
        return decide_all(policies, budgets, money, memory, views, **more)

    monkeypatch.setattr(together, "decide_all", watched)
    money = "tick_seconds: 1\nmoney: {usd_per_hour: 6}\n"
    planned(two, text(more=LARGE), text(more=LARGE + money), replicas=TWO)
    assert any(one.leaving for views in seen for one in views)
    runs = [sum(one.ready + one.starting + one.leaving for one in views) for views in seen]
    within = next(at for at, run in enumerate(runs) if run <= 3)  # it begins with more
    assert max(runs[within:]) == 3  # at 2 USD each


def test_a_pool_that_cannot_be_tried_keeps_what_it_takes_of_what_is_shared(two):
    more = POOL % ("l", "large", "size: 2") + BUDGET % 9
    plan = planned(two, text(), text(more=more), replicas={"p": MEASURED})
    assert "not known yet" in plan.pools["l"].untried
    assert plan.pools["p"].planned.max_size == 1


SPOT = "scale: {min: 1, max: 4, spot: {pool: s, share: 1.0, over_provision: 0}}"
CHEAP = (
    "  s: {tier: small, model: m, precision: int8, repository: ., capacity: spot, "
    "usd_per_hour: 0.5, slots: [{}, {}, {}, {}]}\n"
)


def test_spot_capacity_serves_its_share_and_costs_its_price(load):
    plan = planned(load, text(), text(SPOT, more=CHEAP))
    demand, spot = plan.pools["p"], plan.pools["s"]
    assert spot.live is None
    assert spot.planned.replica_hours > 2 * demand.planned.replica_hours
    assert spot.planned.usd == pytest.approx(0.5 * spot.planned.replica_hours)
    assert share_of(spot.planned, "spot") > 0.5
    # As much serves, for less: the tier is judged, not each pool of it.
    assert spot.planned.attainment == demand.planned.attainment
    assert plan.planned.usd < 0.6 * plan.live.usd
    assert plan.verdict is Verdict.BETTER
    assert plan.because.startswith("p and s: ")
    assert "replica-hours at the price of p instead of" in plan.because


def test_pools_of_one_tier_share_its_load_by_their_places(load):
    second = POOL % ("q", "small", "scale: {min: 1, max: 4}")
    replicas = {"p": MEASURED, "q": {**MEASURED, "correction": 2.0}}
    plan = planned(load, text(), text(more=second), replicas=replicas)
    first, second = plan.pools["p"].planned, plan.pools["q"].planned
    assert first.attainment == second.attainment > 0.98
    assert min(first.replica_hours, second.replica_hours) > 1.0
    assert first.replica_hours < plan.pools["p"].live.replica_hours


def test_servers_of_somebody_else_make_a_tier_that_is_not_tried(load):
    external = "  e: {tier: small, model: m, precision: int8, external: {dns: 'a.b:8001'}}\n"
    plan = planned(load, text(), text(more=external))
    assert "how many servers of e there were" in plan.pools["p"].untried


def test_more_at_once_than_there_is_memory_for_is_refused(two, monkeypatch):
    monkeypatch.setattr(days, "MOST_STEPS", 2 * MINUTES * 60 - 1)
    money = "money: {usd_per_hour: 6}\n"
    with pytest.raises(Unanswerable, match="try fewer days"):
        planned(two, text(more=LARGE + money), text(more=LARGE), replicas=TWO)
    planned(two, text(more=LARGE), text(more=LARGE), replicas=TWO)  # one after the other


def test_times_in_which_sizes_differ_have_both_reasons(load):
    pool = planned(load, text(), text("scale: {min: 2, max: 4}")).pools["p"]
    assert 0 < len(pool.differences) <= pool.differences_found
    assert {one.planned_size for one in pool.differences} == {2}
    assert any(
        one.live_why.startswith("1 replica: requests ask for")
        and one.planned_why == "2 replicas: the least is 2."
        for one in pool.differences
    )
    for one in pool.differences:
        assert one.live_size != one.planned_size
        assert one.live_why.startswith(f"{one.live_size} replica")
        assert FIRST * 60 <= one.since < one.until <= (FIRST + MINUTES) * 60
    starts = [one.since for one in pool.differences]
    assert starts == sorted(starts)


def test_of_many_times_those_of_most_replica_hours_are_told():
    at = np.arange(1, 101) * 10.0
    live = fared(at, np.ones(100))
    given = fared(at, np.where(np.arange(100) % 2, 1, 1 + np.arange(100) // 2 % 30))
    told, found = differences(live, given, 0.0)
    assert len(told) == MOST
    assert found == 48  # 50 of which two are of one replica, as by the file in force
    least = min(abs(one.planned_size - one.live_size) for one in told)
    assert least > 10
    assert (told[0].live_why, told[0].planned_why) == ("", "")
    assert differences(live, live, 0.0) == ((), 0)


def fared(at, wanted):
    course = replace(COURSE, ticks=Ticks(at, wanted, *[np.ones(len(at))] * 8))
    return Fared(course, {})


COURSE = Course(1000.0, 1.0, 1.0, 1.0, 0.0, 0, 0, 0, 0.0, 0.0, 0.0, 1, 0.0, 0.0, None, None)


def test_a_page_shows_both_files(load):
    plan = planned(load, text(), text("size: 2"), page=True)
    assert plan.page.startswith("<!doctype html>")
    assert plan.page.count("<svg") == 1
    assert f"{plan.verdict}: {plan.because}" in html.unescape(plan.page)
    assert planned(load, text(), text("size: 2"), replicas={}, page=True).page == ""
    assert planned(load, text(), text("size: 2")).page == ""


def test_replicas_are_what_who_asks_says_then_the_file_in_force_then_what_was_measured(load):
    scale = "scale: {min: 1, max: 4, work: {capacity: {a: 0.02, b: 0.0008}}}"
    found = planned(load, text(), text(scale)).pools["p"].replica
    assert (found.capacity.a, found.start_seconds, found.source) == (0.01, 60.0, "measured")
    named = planned(load, text(scale), text()).pools["p"]
    assert (named.replica.capacity.a, named.replica.source) == (
        (0.02, "work.capacity of the file in force")
    )
    unseen = {"p": {**MEASURED, "start_seconds": None}}
    found = planned(load, text(), text(), replicas=unseen).pools["p"].replica
    assert (found.start_seconds, found.source) == (60.0, "measured; the start is assumed")
    asked = {"p": {"capacity": {"a": 0.03}, "start_seconds": 9.0, "start_spread": 0.5}}
    slow = {"p": {**MEASURED, "correction": 0.5}}
    found = planned(load, text(scale), text(), asked=asked, replicas=slow).pools["p"]
    assert (found.replica.capacity.a, found.replica.start_seconds) == (0.03, 9.0)
    assert (found.replica.start_spread, found.replica.source) == (0.5, "asked for")
    again = planned(load, text(scale), text(), asked=asked, replicas={}).pools["p"]
    assert again == found
    with pytest.raises(Unanswerable, match="there is no pool 'q'"):
        planned(load, text(), text(), asked={"q": {}})


def test_a_plan_of_measured_replicas_begins_with_what_was_learned_of_them(tmp_path):
    """Few answers, and short ones: policies that begin with nothing are long in learning it."""
    with (tmp_path / "000000000001.jsonl").open("w") as file:
        for minute in range(60):
            line = {
                "tier": "small", "minute": FIRST + minute, "seconds": 60, "arrivals": 4,
                "prompt_tokens": 40, "finished": 4, "output_tokens": 40, "first_texts": 4,
                "late": 0,
            }  # fmt: skip
            file.write(json.dumps(line) + "\n")
    fit = fitted(Fit(), 2.0, 10.0, 10.0, step=0.01, seconds=60.0)
    told = {"capacity": asdict(fit.capacity), "correction": 1.0, "start_seconds": 7.0}
    more = "scale: {min: 0, max: 4, zero: {idle_seconds: 600}}"
    reasons = {}
    for name, replica in (("begins", told), ("knows", {**told, "fit": asdict(fit)})):
        plan = planned(
            tmp_path, text(more), text("scale: {min: 2, max: 4}"), replicas={"p": replica},
            until=(FIRST + 60) * 60.0,
        )  # fmt: skip
        found = plan.pools["p"]
        assert found.replica.source == "measured"
        reasons[name] = " ".join(one.live_why for one in found.differences)
    assert "not known: what a replica can do" in reasons["begins"]
    assert reasons["knows"]
    assert "what a replica can do" not in reasons["knows"]


def test_starts_that_differ_waste_more_than_those_that_do_not(load):
    spread = {"p": {**MEASURED, "start_seconds": 180.0, "start_spread": 1.0}}
    same = {"p": {**MEASURED, "start_seconds": 180.0}}
    found = [planned(load, text(), text(), replicas=one).pools["p"] for one in (spread, same)]
    assert found[0].replica.start_spread == 1.0
    assert found[0].live != found[1].live


@pytest.mark.parametrize(
    ("given", "replicas", "needed"),
    [
        (text("size: 2"), {}, True),
        (text("scale: {max: 4, signals: {kv: {target: 0.8}}}"), None, True),
        (text("size: 4"), None, True),
        (text(), None, False),
        (text(more=POOL % ("q", "new", "size: 1")), None, False),
    ],
)
def test_where_enough_is_on_record_a_reason_is_needed_for_what_nobody_can_say(
    load, given, replicas, needed
):
    assert planned(load, text(), given, replicas=replicas).reason_needed is needed
    since = (FIRST + MINUTES - 20) * 60.0
    assert not planned(load, text(), given, replicas=replicas, since=since).reason_needed


def journal(folder, *lines):
    """Decisions on record: time since the first minute, size, and what bound it."""
    folder.mkdir()
    file = folder / "000000000001.jsonl"
    with file.open("w") as out:
        for seconds, size, bound in lines:
            decision = Decision(size, 1, (Constraint(Bound(bound), size),))
            line = line_of(Decided("p", FIRST * 60.0 + seconds, decision, 1))
            out.write(orjson.dumps(line).decode() + "\n")
    return folder


SLIGHT = text("scale: {min: 1, max: 4, work: {queue_seconds: 11.9}}")


def test_a_trial_that_is_not_like_the_record_is_not_trusted(load, tmp_path):
    agrees = journal(tmp_path / "agrees", (-60, 1, "demand"), (600, 2, "demand"))
    apart = journal(tmp_path / "apart", (-60, 8, "demand"))
    pinned = journal(tmp_path / "pinned", (-60, 8, "override"))
    assert planned(load, text(), SLIGHT, decisions=agrees).verdict is Verdict.SAME
    plan = planned(load, text(), SLIGHT, decisions=apart)
    assert plan.verdict is Verdict.UNKNOWN
    assert plan.reason_needed
    assert "tried, the file in force has p at 2." in plan.because
    assert plan.because.endswith("replicas on average, and on record are 8.0")
    # Who says the same as before is not doubted, nor is what an operator did, or another file.
    assert planned(load, text(), text(), decisions=apart).verdict is Verdict.SAME
    assert planned(load, text(), SLIGHT, decisions=pinned).verdict is Verdict.SAME
    later = (FIRST + MINUTES - 20) * 60.0
    found = planned(load, text(), SLIGHT, decisions=apart, in_force_since=later)
    assert found.verdict is Verdict.SAME


def test_a_trial_in_which_answers_were_not_as_late_is_not_trusted(load, tmp_path):
    late = tmp_path / "late"
    late.mkdir()
    for path in load.iterdir():
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            line["late"] = line["arrivals"] // 5
        (late / path.name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    empty = journal(tmp_path / "none")
    plan = planned(late, text(), SLIGHT, decisions=empty)
    assert plan.verdict is Verdict.UNKNOWN
    assert "has 99.1% of the answers in time, and on record are 80" in plan.because
    assert planned(load, text(), SLIGHT, decisions=empty).verdict is Verdict.SAME


def test_mean_sizes_are_weighed_by_time():
    sizes = Sizes([0.0, 10.0, 30.0], [1, 2, 5])
    assert sizes.mean(5.0, 35.0) == pytest.approx((5 * 1 + 20 * 2 + 5 * 5) / 30)
    assert sizes.mean(-1.0, 5.0) is None
    assert Sizes([], []).mean(0.0, 1.0) is None
