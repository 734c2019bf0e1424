"""A scaling file on a trace."""

import json
from pathlib import Path

import pytest

from services.scaler.policy.plans import RULES, Scene
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


def run(trace, *, given=None, replicas=None, load=Path("nowhere"), **scene):
    return simulated(
        given=given or text(),
        source="scaling.yaml",
        scene=Scene(trace, **scene),
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


ROWS = "engine,model,gpu,precision,gemm,tensor_parallel,input_tokens,output_tokens,batch,"
ROWS += "ttft_ms,tpot_ms\n"
for tp, speed in ((1, 1.0), (4, 4.0)):
    for prompt in (500, 2000):
        for batch in (1, 4, 16, 64, 128):
            tpot = (8.0 + 0.1 * batch + 2e-5 * batch * (prompt + 100)) / speed
            ROWS += f"trt,m,h100,,,{tp},{prompt},200,{batch},100,{tpot}\n"


def test_a_pool_that_never_ran_is_simulated_by_measured_rows():
    slow, fast = (
        run(
            MOONCAKE,
            times=5.0,
            rows=ROWS,
            replicas={},
            rows_of={"gpu": "h100", "tensor_parallel": tp},
        )
        for tp in "14"
    )
    assert slow.replica.capacity.a == pytest.approx(0.008, rel=0.01)
    assert fast.replica.capacity.a == pytest.approx(0.002, rel=0.01)
    assert fast.course.replica_hours < slow.course.replica_hours
    assert slow.replica.source.startswith("10 rows of gpu=h100, tensor_parallel=1, off by 0.0%")
    started = run(MOONCAKE, rows=ROWS, replica={"start_seconds": 240.0})
    assert (started.replica.start_seconds, started.replica.source[:11]) == (240.0, "20 rows of ")


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"rows": ROWS, "rows_of": {"gpu": "h200"}}, "rows: 0 measured rows are too few"),
        ({"rows": "a,b\n1,2\n"}, "rows: line 2"),
    ],
)
def test_rows_that_say_nothing_are_refused(more, why):
    with pytest.raises(Unanswerable, match=why):
        run(MOONCAKE, **more)


RATES = "t_start_s,req_per_s\n" + "\n".join(f"{60 * at},{2 + at % 9}" for at in range(30))


@pytest.mark.parametrize("rule", RULES)
def test_rules_of_others_run_beside_it_between_the_same_bounds(rule):
    given = text("scale: {min: 2, max: 3}")
    found = run(RATES, given=given, beside=(rule,))
    (one,) = found.beside
    assert one.name == rule
    assert one.knobs
    assert 2 <= one.course.max_size <= 3
    assert found.course == run(RATES, given=given).course
    hours = found.seconds * 0.95 / 3600
    assert 2 * hours * 0.98 < one.course.replica_hours <= 3 * hours * 1.02


def test_rates_that_jump_are_another_load_with_its_name():
    smooth, jumps = run(RATES), run(RATES, generator="steps")
    assert smooth.requests != jumps.requests
    assert jumps.arrivals.startswith("steps: rates jump at the ends of windows")
    assert smooth.arrivals.endswith("1,155 and 211 tokens, as nothing is on record")
    assert run(MOONCAKE, generator="steps").arrivals == "requests as the trace has them"


def test_a_page_names_what_is_untuned():
    found = run(RATES, page=True, beside=("dynamo",))
    assert "the file</td>" in found.page
    assert "Pool p alone, without budgets and ceilings of money, " in found.page
    assert "formula (untuned)</td>" in found.page
    assert run(RATES).page == ""
