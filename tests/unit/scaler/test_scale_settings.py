"""What of sizes the scaler refuses: each contradiction with line, key, rule and value."""

import pytest

from services.common.config import ConfigError, load_document
from services.scaler import check
from services.scaler.config import Scaling
from services.scaler.policy.sizing.settings import Measure

GOOD = """\
pools:
  a:
    tier: small
    model: m
    precision: int8
    repository: models
    slots: [{}, {}, {}]
    usd_per_hour: 2
    scale:
      min: 0
      max: 3
      zero: {idle_seconds: 60}
      signals:
        kv: {target: 0.8}
      queries:
        backlog: {query: sum(backlog), target: 5}
      rules:
        - {signal: running, above: 0.7, for_seconds: 300, change: 1}
        - {signal: backlog, below: 1, change: -1}
      behavior:
        scale_up:
          policies: [{type: Pods, value: 2, period_seconds: 60}]
      schedule:
        - {cron: "0 8 * * *", duration_seconds: 3600, min: 2}
      spot: {pool: b}
  b:
    tier: small
    model: m
    precision: int8
    repository: models
    capacity: spot
    slots: [{}]
    usd_per_hour: 0.5
  c:
    tier: large
    model: m
    precision: int8
    repository: models
    slots: [{gpus: [0, 1]}, {gpus: [2]}]
    size: 1
    usd_per_hour: 1
budgets:
  rack: {of: gpus, limit: 3, pools: {a: {priority: 2}, c: {each: 2}}}
money: {usd_per_hour: 4, usd_per_day: 90}
tick_seconds: 5
"""


def test_a_good_file(write):
    scaling = Scaling.load(write(GOOD))
    a, b, c = (scaling.pools[name] for name in "abc")
    assert (a.least, a.first, b.least, b.first, c.least, c.first) == (0, 0, 0, 0, 1, 1)
    assert a.scale is not None
    assert a.scale.signals[Measure.KV].target == 0.8
    assert c.slots[0].gpus == (0, 1)
    assert scaling.tick_seconds == 5
    assert scaling.budgets["rack"].pools["c"].each == 2


def test_without_zero_a_pool_has_one_at_least(write):
    pool = Scaling.load(write(GOOD.replace("      zero: {idle_seconds: 60}\n", ""))).pools["a"]
    assert (pool.least, pool.first) == (1, 1)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("min: 0", "min: 4", "line 10: pools.a.scale.min: must be at most max, 3, got 4"),
        (
            "max: 3",
            "max: 4",
            "line 11: pools.a.scale.max: must not exceed the number of slots, 3, got 4",
        ),
        ("min: 0", "min: 1", "line 10: pools.a.scale.min: must be 0 where zero is set, got 1"),
        (
            "usd_per_hour: 2\n",
            "usd_per_hour: 2\n    size: 3\n",
            None,
        ),
        (
            "usd_per_hour: 2\n",
            "usd_per_hour: 2\n    size: 4\n",
            "line 9: pools.a.size: must not exceed the number of slots, 3, got 4",
        ),
        ("    size: 1\n", "", "line 34: pools.c.size: is missing"),
        (
            "signal: backlog",
            "signal: backlock",
            (
                "line 19: pools.a.scale.rules.1.signal: must be a measure or a query of this pool "
                "(waiting, running, kv, queued_tokens, ttft_seconds, itl_seconds, "
                "tokens_per_second, backlog), got 'backlock'"
            ),
        ),
        (", above: 0.7", "", "line 18: pools.a.scale.rules.0: must have above or below"),
        ("target: 0.8", "target: 1.5", "signals.kv.target: must be at most 1, as kv goes from 0"),
        ("target: 0.8", "target: 70", "from 0 to 1; did you mean 0.7?, got 70"),
        (
            "above: 0.7",
            "above: 0.7, below: 1",
            "line 18: pools.a.scale.rules.0.below: must not stand beside above: a rule has one",
        ),
        (
            "change: 1",
            "change: -1",
            "line 18: pools.a.scale.rules.0.change: must be more than 0 with above",
        ),
        ("change: -1", "change: 0", "line 19: pools.a.scale.rules.1.change: must not be 0"),
        ("backlog: {", "kv: {", "line 16: pools.a.scale.queries.kv: must not have the name of a"),
        (
            "type: Pods",
            "type: Percent",
            "line 22: pools.a.scale.behavior.scale_up.policies: must have a rate of type Pods",
        ),
        (
            "        scale_up:\n",
            (
                "        scale_down: {select_policy: Disabled}\n"
                "        scale_up:\n          select_policy: Disabled\n"
            ),
            "pools.a.scale.behavior.scale_down.select_policy: must not be Disabled where scale_up",
        ),
        (
            "0 8 * * *",
            "0 8 30 2 *",
            "line 24: pools.a.scale.schedule.0.cron: must",
        ),
        ("0 8 * * *", "0 8 * *", "line 24: pools.a.scale.schedule.0.cron: must have five fields"),
        ("0 8 * * *", "0 25 * * *", "line 24: pools.a.scale.schedule.0.cron: must be a cron expr"),
        (
            "3600, min: 2",
            "3600, min: 2, time_zone: Europe/Bonn",
            (
                "line 24: pools.a.scale.schedule.0.time_zone: must be the name of a time zone, "
                "such as Europe/Berlin, got 'Europe/Bonn'"
            ),
        ),
        (
            "3600, min: 2",
            "3600",
            "line 24: pools.a.scale.schedule.0: must have min or max or both",
        ),
        (
            "3600, min: 2",
            "3600, min: 4",
            "line 24: pools.a.scale.schedule.0.min: must be at most 3 there, got 4",
        ),
        (
            "min: 2}\n",
            'min: 2}\n        - {cron: "0  8 * * *", duration_seconds: 60, min: 1}\n',
            (
                "line 25: pools.a.scale.schedule.1.cron: must begin at other times than schedule 0 "
                "does, got '0  8 * * *'"
            ),
        ),
        (
            "pool: b",
            "pool: d",
            "line 25: pools.a.scale.spot.pool: must be another pool (b, c), got 'd'",
        ),
        (
            "pool: b",
            "pool: a",
            "line 25: pools.a.scale.spot.pool: must be another pool (b, c), got 'a'",
        ),
        ("pool: b", "pool: c", "pools.a.scale.spot.pool: must be a pool of capacity spot, got 'c'"),
        ("pool: b", "pool: c", "must serve the same model of the same tier, small m int8, got 'c'"),
        (
            "- {signal: backlog, below: 1, change: -1}",
            "- {signal: running, below: 0.71, change: -1}",
            "line 19: pools.a.scale.rules.1.below: must leave out what rule 0 acts on",
        ),
        (
            "- {signal: backlog, below: 1, change: -1}",
            "- {signal: running, below: 0.7, change: -1}",
            None,
        ),
        (
            "- {signal: running, above: 0.7, for_seconds: 300, change: 1}",
            "- {signal: backlog, below: 9, change: 1}",
            "line 19: pools.a.scale.rules.1.below: must leave out what rule 0 acts on",
        ),
        (
            "    capacity: spot\n",
            "    capacity: spot\n    drain_seconds: 31\n",
            "line 32: pools.b.drain_seconds: must be at most notice_seconds, 30, on spot, got 31",
        ),
        (
            "    capacity: spot\n",
            "    capacity: spot\n    drain_seconds: 31\n    notice_seconds: 31\n",
            None,
        ),
        (
            "    usd_per_hour: 0.5\n",
            "    usd_per_hour: 0.5\n    scale: {max: 1}\n",
            "pools.a.scale.spot.pool: must be a pool without scale of its own",
        ),
        (
            "spot: {pool: b}",
            "spot: {pool: b, min_on_demand: 4}",
            "pools.a.scale.spot.min_on_demand: must be at most max, 3, got 4",
        ),
        (
            "    size: 1\n",
            "    scale: {max: 1, spot: {pool: b}}\n",
            "pools.c.scale.spot.pool: must be a pool of its own, pool a has it too, got 'b'",
        ),
        (
            "pools: {a: {priority: 2}, c: {each: 2}}",
            "pools: {}",
            "line 43: budgets.rack.pools: must have at least one pool",
        ),
        ("c: {each", "d: {each", "line 43: budgets.rack.pools.d: must be a pool (a, b, c), got d"),
        (
            "limit: 3",
            "limit: 1",
            "line 43: budgets.rack.limit: must be at least 2, which the least",
        ),
        (
            "usd_per_hour: 1\n",
            "usd_per_hour: 5\n",
            "money.usd_per_hour: must be at least 5, which the least sizes cost, got 4",
        ),
        ("gpus: [2]", "gpus: [1]", "line 39: pools.c.slots.1.gpus: must be GPUs of its own, got 1"),
        (
            "[2]",
            "[7]",
            "line 39: pools.c.slots.1.gpus: must be GPUs that this machine has, 0-2, got 7",
        ),
        ("tick_seconds: 5", "tick_seconds: 0", "tick_seconds: must be at least 1, got 0"),
        ("target: 5", "target: .inf", "pools.a.scale.queries.backlog.target"),
        ("target: 0.8", "aim: 0.8", "pools.a.scale.signals.kv.aim: no such key; there are target"),
        ("kv: {", "cpu: {", "line 14: pools.a.scale.signals.cpu"),
        ("type: Pods", "type: pods", "must be Pods or Percent, got 'pods'"),
    ],
)
def test_what_contradicts_itself_is_told(write, old: str, new: str, message: str | None):
    assert old in GOOD
    path = write(GOOD.replace(old, new, 1))
    if message is None:
        Scaling.load(path, gpus=range(3))
        return
    with pytest.raises(ConfigError) as told:
        Scaling.load(path, gpus=range(3))
    assert message in str(told.value)


@pytest.mark.parametrize("price", ["    usd_per_hour: 2\n", "    usd_per_hour: 0.5\n"])
def test_money_needs_the_price_of_each_pool(write, price: str):
    pool = "a" if "2" in price else "b"
    with pytest.raises(
        ConfigError, match=rf"money\.usd_per_day: needs usd_per_hour at.*: {pool} wo"
    ):
        Scaling.load(write(GOOD.replace(price, "")))


def test_what_an_external_pool_costs_is_not_ours(write):
    theirs = "  d: {tier: small, model: m, precision: int8, external: {dns: 'a.b:1'}}\nbudgets:"
    assert Scaling.load(write(GOOD.replace("budgets:", theirs))).pools["d"].usd_per_hour == 0


def test_a_size_beside_scale_is_only_how_many_at_first_and_within_its_bounds(write):
    text = GOOD.replace("max: 3", "max: 2").replace(
        "usd_per_hour: 2\n", "usd_per_hour: 2\n    size: 3\n"
    )
    assert Scaling.load(write(text)).pools["a"].first == 2
    assert Scaling.load(write(text.replace("size: 3", "size: 1"))).pools["a"].first == 1


def test_a_scale_that_follows_nothing_is_refused(write):
    text = GOOD.partition("      signals")[0].replace("max: 3", "max: 3\n      work: null")
    with pytest.raises(ConfigError, match=r"line 9: pools\.a\.scale: must follow something"):
        Scaling.load(write(text))


def test_queries_need_somebody_who_answers_them(write):
    path = write(GOOD)
    assert Scaling.load(path, queries=True).pools
    with pytest.raises(
        ConfigError,
        match=r"line 16: pools\.a\.scale\.queries\.backlog: needs the setting PENNYWEIGHT",
    ):
        Scaling.load(path, queries=False)


def test_the_check_tells_of_it_too(write, capsys):
    path = write(GOOD.replace("min: 0", "min: 4"))
    assert check.main([str(path)]) == 1
    assert "must be at most max, 3" in capsys.readouterr().out


def test_a_document_can_be_checked_without_its_models(write):
    path = write(GOOD)
    assert Scaling.of(load_document(path, Scaling), path, models=False).pools["a"].first == 0
