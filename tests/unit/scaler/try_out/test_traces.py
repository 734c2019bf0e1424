"""A scaling file on a trace."""

import json
from pathlib import Path

import pytest

from services.scaler.try_out.pools import Unanswerable
from services.scaler.try_out.traces import simulated
from tests.unit.scaler.try_out.test_days import MEASURED, POOL, text

MOONCAKE = "\n".join(
    json.dumps({"timestamp": 100 * at, "input_length": 500, "output_length": 200})
    for at in range(6_000)
)
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(
    f"2023-11-16 18:{minute:02}:{second:02}.0000000,500,200"
    for minute in range(10)
    for second in range(60)
)


def run(trace, *, given=None, pool="", times=1.0, replicas=None, load=Path("nowhere")):
    return simulated(
        given=given or text(),
        source="scaling.yaml",
        pool=pool,
        trace=trace,
        times=times,
        load=load,
        replicas={"p": MEASURED} if replicas is None else replicas,
        progress=lambda _: None,
    )


@pytest.mark.parametrize(("trace", "requests"), [(MOONCAKE, 6_000), (AZURE, 600)])
def test_requests_of_any_known_format_are_served(trace, requests):
    found = run(trace)
    assert (found.pool, found.requests) == ("p", requests)
    assert found.seconds == pytest.approx(600, abs=2)
    assert 0.9 < found.course.attainment <= 1.0
    assert found.course.replica_hours > 0


def test_rates_are_served_too():
    rates = "t_start_s,req_per_s\n" + "\n".join(f"{60 * at},5" for at in range(20))
    assert run(rates).requests == pytest.approx(6_000, rel=0.1)


def test_rates_have_the_lengths_that_are_on_record(tmp_path):
    rates = "t_start_s,req_per_s\n" + "\n".join(f"{60 * at},20" for at in range(20))
    line = {"tier": "small", "minute": 29_000_000, "seconds": 60, "first_texts": 9, "late": 0}
    short = {"arrivals": 10, "prompt_tokens": 200, "finished": 10, "output_tokens": 100}
    other = {"arrivals": 10, "prompt_tokens": 90_000, "finished": 10, "output_tokens": 90_000}
    lines = [{**line, **short}, {**line, **other, "tier": "large"}]
    (tmp_path / "000000000001.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    usual, recorded = run(rates), run(rates, load=tmp_path)
    assert recorded.course.replica_hours < usual.course.replica_hours / 2


def test_more_requests_need_more_replicas():
    assert run(MOONCAKE, times=3.0).course.replica_hours > run(MOONCAKE).course.replica_hours


@pytest.mark.parametrize(
    ("trace", "more", "why"),
    [
        ("what is this", {}, "trace: line 1"),
        (MOONCAKE, {"pool": "q"}, "there is no pool named q; there are: p"),
        (MOONCAKE, {"replicas": {}}, "p: what its replicas can do is not known yet"),
        (
            MOONCAKE,
            {"given": text("scale: {max: 4, signals: {kv: {target: 0.8}}}")},
            "p: it follows what is not on record: kv",
        ),
        (MOONCAKE, {"given": text("size: 1")}, "with a scale there are: none"),
        (MOONCAKE, {"times": 0.0}, "trace: requests must be multiplied by more than 0"),
        (
            MOONCAKE,
            {"given": text(more=POOL % ("r", "large", "scale: {max: 2}"))},
            "with a scale there are: p, r",
        ),
    ],
)
def test_what_cannot_be_tried_says_why(trace, more, why):
    with pytest.raises(Unanswerable, match=why):
        run(trace, **more)
