"""Decisions, scaling files and overrides over real gRPC, with the real command against it."""

import ast
import asyncio
import hashlib
import json
import os
import sys
import time

import grpc
import pytest
import yaml
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from pennyweight.scaler.v1 import scaler_pb2 as pb
from services.common.errors import DeadlineExceeded, InternalError, NotNow, Overloaded
from services.scaler.changes.trials import MOST_WAITING, Trials
from tests.integration.client.running import pennyweight, rows_of
from tests.integration.scaler.harness import KEY, until_async
from tests.integration.scaler.test_scaler_servicer import CALLER, OPERATOR, key_file

SCALE = {"min": 1, "max": 2}
HOUR = Duration(seconds=3600)


def reason_of(error: grpc.aio.AioRpcError) -> str:
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    return next((info.reason for one in status.details if one.Unpack(info)), "")


@pytest.fixture
async def place(home):
    return home(size=0, slots=[{}, {}])


def text_of(home, **changed) -> str:
    return "# by hand\n" + yaml.safe_dump({"pools": {"p": home.pool | changed}})


def where(scaler) -> tuple[str, str]:
    return "--address", scaler.address


async def versions_of(scaler) -> list[pb.PolicyVersion]:
    found = await scaler.stub.ListPolicyVersions(
        pb.ListPolicyVersionsRequest(), metadata=KEY, timeout=5
    )
    return list(found.versions)


async def test_a_file_is_applied_and_taken_back_by_the_command(place, tmp_path):
    scaler = await place.start()
    before, file = place.scaling.read_text(), tmp_path / "new.yaml"
    file.write_text(text_of(place, drain_seconds=7))

    asked = ("--author", "ada", "--note", "drain [bold]sooner")
    applied = await pennyweight("scaler", "apply", str(file), *asked, *where(scaler))
    assert applied.code == 0, applied.err
    assert "p was not tried: its size is 0" in applied.out
    assert "Version 2 is in force." in applied.out
    assert place.scaling.read_text() == file.read_text()

    back = await pennyweight("scaler", "rollback", "--author", "bob", *where(scaler))
    assert back.code == 0, back.err
    assert "Version 3 is in force, the file of version 1." in back.out
    assert place.scaling.read_text() == before

    listed = await pennyweight("scaler", "history", *where(scaler), COLUMNS="160")
    newest, middle, first = rows_of(listed.out)
    assert newest[:1] + newest[2:5] == ["3, in force", "rollback to 1", "bob", "back to version 1"]
    assert middle[:1] + middle[2:5] == ["2", "apply", "ada", "drain [bold]sooner"]
    assert first[:1] + first[2:5] == ["1", "start", "not known", "-"]
    shown = await scaler.stub.ListPolicyVersions(
        pb.ListPolicyVersionsRequest(number=2), metadata=KEY, timeout=5
    )
    assert shown.versions[0].content == file.read_text()

    # A hand is noticed as a version without an author, and a restart forgets nothing.
    place.scaling.write_text(text_of(place, drain_seconds=9))

    async def noticed() -> bool:
        return (await versions_of(scaler))[0].number == 4

    await until_async(noticed)
    await scaler.stop()
    found = await versions_of(await place.start())
    assert [(one.number, one.source, one.author) for one in found] == [
        (4, pb.POLICY_SOURCE_FILE, ""),
        (3, pb.POLICY_SOURCE_ROLLBACK, "bob"),
        (2, pb.POLICY_SOURCE_APPLY, "ada"),
        (1, pb.POLICY_SOURCE_START, ""),
    ]


async def test_a_broken_edit_is_written_over_by_the_option_that_the_refusal_names(place, tmp_path):
    scaler = await place.start()
    place.scaling.write_text("pools: [")
    file = tmp_path / "new.yaml"
    file.write_text(text_of(place, drain_seconds=7))
    asked = ("scaler", "apply", str(file), "--note", "n", *where(scaler))
    refused = await pennyweight(*asked)
    assert refused.code == 1
    assert "holds a change of somebody else that is not in force" in refused.err
    assert "`--anyway REASON` writes over an edit by hand" in refused.err
    assert place.scaling.read_text() == "pools: ["
    applied = await pennyweight(*asked, "--anyway", "it is broken")
    assert applied.code == 0, applied.err
    assert place.scaling.read_text() == file.read_text()


async def test_an_edit_is_undone_where_the_file_in_force_says_so(place, tmp_path):
    strict = yaml.safe_dump({"edits": "undone", "pools": {"p": place.pool}})
    place.scaling.write_text(strict)
    scaler = await place.start()
    place.scaling.write_text(text_of(place, drain_seconds=9))

    async def undone() -> bool:
        return (await versions_of(scaler))[0].source == pb.POLICY_SOURCE_UNDONE

    await until_async(undone)
    await until_async(lambda: asyncio.to_thread(lambda: place.scaling.read_text() == strict))
    for asked in ((), ("--most", "1"), ("--show", "1")):
        listed = await pennyweight("scaler", "history", *asked, "--json", *where(scaler))
        shown = [json.loads(line) for line in listed.out.splitlines()]
        told = {one["number"]: one["in_force"] for one in shown}
        assert (
            told
            == {(): {2: False, 1: True}, ("--most", "1"): {2: False}, ("--show", "1"): {1: True}}[
                asked
            ]
        )
    file = tmp_path / "next.yaml"
    file.write_text(text_of(place, drain_seconds=7))
    applied = await pennyweight("scaler", "apply", str(file), "--note", "x", *where(scaler))
    assert applied.code == 0, applied.err
    assert "Version 3 is in force." in applied.out


def scale(utilization: float) -> dict:
    """A policy with a model of its own, so that it can be tried at once."""
    capacity = {"a": 0.01, "b": 0.0008}
    work = {"capacity": capacity, "utilization": utilization}
    return {"min": 0, "max": 4, "zero": {}, "work": work}


async def test_a_file_that_did_worse_on_the_recorded_load_is_refused(home, tmp_path):
    place = home(size=0, slots=[{}] * 4, scale=scale(1.0))
    load = place.state / "history" / "load"
    load.mkdir(parents=True)
    now = int(time.time() // 60)
    figures = {"arrivals": 500, "prompt_tokens": 250_000, "finished": 500}
    figures |= {"output_tokens": 100_000, "first_texts": 500, "late": 0, "seconds": 60}
    (load / "000000000001.jsonl").write_text(
        "".join(
            json.dumps({"tier": "small", "minute": now - 60 + at, **figures}) + "\n"
            for at in range(60)
        )
    )
    scaler = await place.start()
    file = tmp_path / "new.yaml"
    file.write_text(text_of(place, scale=scale(0.3)))
    where_worse = (str(file), *where(scaler))
    page = tmp_path / "plan.html"
    ended = await pennyweight("scaler", "plan", "--html", str(page), *where_worse, COLUMNS="80")
    assert ended.code == 1, ended.err
    assert "worse: p: " in ended.out
    assert "replica-hours instead of" in ended.out
    told = " ".join(ended.out.split())
    assert "2 replicas: requests ask for" in told
    assert "4 replicas: " in told
    model = "a=0.01,b=0.0008,c=0,p=0,start=60,spread=0"
    source = "work.capacity of the file in force; the start is assumed"
    assert f"p: replicas are taken to be {model} ({source})" in told
    assert page.read_text().count("<svg") == 1
    ended = await pennyweight(
        "scaler", "plan", "--json", "--capacity", f"p:{model},a=0.002", *where_worse
    )
    (plan,) = [json.loads(line) for line in ended.out.splitlines()]
    assert plan["pools"][0]["replica"]["a"] == 0.002
    request = pb.ApplyPolicyRequest(content=file.read_text(), author="ada", note="n")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await scaler.stub.ApplyPolicy(request, metadata=KEY, timeout=60)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(refused.value) == "POLICY_WORSE"
    request.anyway_reason = "a test"
    applied = await scaler.stub.ApplyPolicy(request, metadata=KEY, timeout=60)
    assert (applied.in_force, applied.version.anyway_reason) == (True, "a test")
    assert applied.plan.verdict == pb.PLAN_VERDICT_WORSE
    (pool,) = applied.plan.pools
    assert pool.planned.replica_hours > pool.live.replica_hours


async def test_a_file_is_simulated_on_a_trace_beside_rules_of_others(home, tmp_path):
    place = home(size=0, slots=[{}] * 4, scale=scale(1.0))
    scaler = await place.start()
    file, page = tmp_path / "new.yaml", tmp_path / "page.html"
    file.write_text(text_of(place, scale=scale(0.3)))
    trace = tmp_path / "trace.jsonl"
    request_line = {"input_length": 500, "output_length": 200}
    trace.write_text(
        "".join(json.dumps({"timestamp": 200 * at, **request_line}) + "\n" for at in range(3_000))
    )
    ended = await pennyweight(
        "scaler", "simulate", str(file), "--trace", str(trace), *where(scaler)
    )
    assert ended.code == 0, ended.err
    assert "3,000 requests in 10 minutes" in ended.out
    assert rows_of(ended.out)[0][0] == "p"
    rates = tmp_path / "rates.csv"
    rates.write_text("t_start_s,req_per_s\n" + "".join(f"{60 * at},{at}\n" for at in range(30)))
    measured = "engine,model,gpu,precision,gemm,tensor_parallel,input_tokens,output_tokens,batch,"
    measured += "ttft_ms,tpot_ms\n"
    rows = tmp_path / "rows.csv"
    rows.write_text(
        measured + "".join(f"trt,m,h100,,,1,500,200,{at},9,{8 + at / 10}\n" for at in range(1, 20))
    )
    ended = await pennyweight(
        "scaler", "simulate", str(file), "--trace", str(rates), "--generator", "steps",
        "--rows", str(rows), "--replica", "gpu=h100,tensor_parallel=1", "--capacity", "start=9",
        "--beside", "hpa_rate,dynamo", "--html", str(page), *where(scaler),
    )  # fmt: skip
    assert ended.code == 0, ended.err
    told = " ".join(ended.out.split())
    assert "(19 rows of gpu=h100, tensor_parallel=1, off by" in told
    assert "start=9,spread=0" in told
    assert "HPA, requests a second, untuned: down_percent 1," in told
    assert "steps: rates jump at the ends of windows" in told
    assert "formula (untuned)</td>" in page.read_text()


async def test_what_is_wrong_is_told_by_line_key_rule_and_value(place, tmp_path):
    scaler = await place.start()
    file = tmp_path / "wrong.yaml"
    file.write_text(text_of(place, size=3))
    trace = tmp_path / "trace.csv"
    trace.write_text("t_start_s,req_per_s\n0,1\n60,1\n")
    for command in (("apply", "--note", "n"), ("plan",), ("simulate", "--trace", str(trace))):
        name, *options = command
        ended = await pennyweight("scaler", name, str(file), *options, *where(scaler))
        assert ended.code == 1
        assert ended.err.startswith(f"{file} would be refused:\n  line ")
        assert "pools.p.size: must not exceed the number of slots, 2, got 3" in ended.err
        assert "content" not in ended.err
    file.write_text(" ")
    ended = await pennyweight("scaler", "plan", str(file), *where(scaler))
    assert (ended.code, ended.err) == (2, f"{file} is empty.\n")
    file.write_text(text_of(place, size=3))
    found = await scaler.stub.ValidatePolicy(
        pb.ValidatePolicyRequest(content=file.read_text()), metadata=KEY, timeout=5
    )
    (problem,) = found.problems
    assert (problem.key, problem.value) == ("pools.p.size", "3")
    assert problem.line > 1
    checked = await pennyweight("scaler", "check", "--no-models", str(file))
    assert checked.code == 1
    assert "pools.p.size: must not exceed the number of slots, 2, got 3" in checked.out


async def test_decisions_are_streamed_listed_and_explained(home):
    place = home(size=None, slots=[{}, {}], scale=SCALE)
    place.scaling.write_text(yaml.safe_dump({"tick_seconds": 1, "pools": {"p": place.pool}}))
    scaler = await place.start()

    async def first() -> pb.Decision | None:
        found = await scaler.stub.ListDecisions(
            pb.ListDecisionsRequest(pool="p"), metadata=KEY, timeout=5
        )
        return found.decisions[0] if found.decisions else None

    decision = await until_async(first)
    assert (decision.pool, decision.size, decision.policy_version) == ("p", 1, 1)
    assert decision.why
    why = await pennyweight("scaler", "why", "p", *where(scaler), COLUMNS="80")
    assert why.code == 0, why.err
    assert why.out.startswith("p: 1 · decided ")
    assert decision.why in " ".join(why.out.split())

    pinned = await pennyweight(
        *("scaler", "pin", "p", "2", "--for", "1h", "--reason", "a [red]test", "--author", "ada"),
        *where(scaler),
    )
    assert pinned.code == 0, pinned.err
    call = scaler.stub.WatchDecisions(pb.WatchDecisionsRequest(pool="p"), metadata=KEY, timeout=20)
    async for message in call:
        if message.decision.size == 2:
            break
    call.cancel()
    assert message.decision.constraints[-1].bound in (pb.BOUND_OVERRIDE, pb.BOUND_MAX)
    earlier = await pennyweight(
        *("scaler", "why", "p", "--at", decision.decided_at.ToJsonString(), "--json"),
        *where(scaler),
    )
    assert earlier.code == 0, earlier.err
    assert json.loads(earlier.out)["size"] == 1
    resumed = await pennyweight("scaler", "resume", "p", *where(scaler))
    assert resumed.out == "p is decided again; pin at 2 is over.\n"
    unknown = await pennyweight("scaler", "why", "q", *where(scaler))
    assert unknown.code == 1
    assert "There is no pool named q." in unknown.err


async def test_an_override_outlives_a_restart(place):
    scaler = await place.start()
    request = pb.SetOverrideRequest(
        pool="p",
        kind=pb.OVERRIDE_KIND_PAUSE,
        expires_after=HOUR,
        author="ada",
        reason="a test",
    )
    await scaler.stub.SetOverride(request, metadata=KEY, timeout=5)
    await scaler.stop()
    again = await place.start()
    found = await again.stub.ListOverrides(pb.ListOverridesRequest(), metadata=KEY, timeout=5)
    (one,) = found.overrides
    assert (one.kind, one.author, one.unsaved) == (pb.OVERRIDE_KIND_PAUSE, "ada", False)
    assert one.expires.seconds - one.since.seconds == 3600


async def test_reading_is_for_any_key_and_changing_for_operators(home, tmp_path):
    scaler = await home(size=0).start(keys_file=key_file(tmp_path))
    stub = scaler.stub
    pin = {"pool": "p", "expires_after": HOUR, "author": "ada", "reason": "r"}
    changes = (
        (stub.ValidatePolicy, pb.ValidatePolicyRequest(content="pools: {}")),
        (stub.ApplyPolicy, pb.ApplyPolicyRequest(content="x", author="a", note="n")),
        (stub.RollbackPolicy, pb.RollbackPolicyRequest(author="a")),
        (stub.SetOverride, pb.SetOverrideRequest(kind=pb.OVERRIDE_KIND_PAUSE, **pin)),
        (stub.ClearOverride, pb.ClearOverrideRequest(pool="p", author="a")),
        (stub.ListPolicyVersions, pb.ListPolicyVersionsRequest(number=1)),
        (stub.ListDecisions, pb.ListDecisionsRequest(pool="p")),
        (stub.ListDecisions, pb.ListDecisionsRequest(max_results=-1)),
    )
    for method, request in changes:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await method(request, metadata=CALLER, timeout=5)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    for method, request in (
        (stub.PlanPolicy, pb.PlanPolicyRequest(content="x")),
        (stub.Simulate, pb.SimulateRequest(trace=b"x")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await method(request, metadata=CALLER, timeout=5).read()
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    await stub.SetOverride(changes[3][1], metadata=OPERATOR, timeout=5)
    for key, told in ((CALLER, ""), (OPERATOR, "ada")):
        found = await stub.ListOverrides(pb.ListOverridesRequest(), metadata=key, timeout=5)
        assert [one.author for one in found.overrides] == [told]
        versions = await stub.ListPolicyVersions(
            pb.ListPolicyVersionsRequest(), metadata=key, timeout=5
        )
        assert [one.number for one in versions.versions] == [1]
        await stub.ListDecisions(pb.ListDecisionsRequest(current=True), metadata=key, timeout=5)


async def test_who_set_an_override_is_for_operators(home, tmp_path):
    scaler = await home(size=0).start(keys_file=key_file(tmp_path))
    stub = scaler.stub
    pause = pb.SetOverrideRequest(
        pool="p",
        kind=pb.OVERRIDE_KIND_PAUSE,
        expires_after=HOUR,
        author="ada",
        reason="r",
    )
    await stub.SetOverride(pause, metadata=OPERATOR, timeout=5)

    async def told(key) -> list[str]:
        pools = await stub.ListPools(pb.ListPoolsRequest(), metadata=key, timeout=5)
        current = pb.ListDecisionsRequest(current=True)
        decisions = await stub.ListDecisions(current, metadata=key, timeout=5)
        watching = stub.WatchDecisions(pb.WatchDecisionsRequest(), metadata=key, timeout=5)
        first = await anext(aiter(watching))
        watching.cancel()
        return [str(one) for one in (pools, decisions, first)]

    async def decided() -> bool:
        return all("pause" in one for one in await told(OPERATOR))

    await until_async(decided)
    assert all("pause by ada" in one for one in await told(OPERATOR))
    hidden = await told(CALLER)
    assert all("pause" in one and "ada" not in one for one in hidden)


@pytest.mark.parametrize(
    ("method", "request_", "fields"),
    [
        ("ListDecisions", pb.ListDecisionsRequest(max_results=1001), {"max_results"}),
        (
            "ListDecisions",
            pb.ListDecisionsRequest(
                since=Timestamp(seconds=2**63 - 1), until=Timestamp(seconds=-(2**63))
            ),
            {"since", "until"},
        ),
        (
            "ListDecisions",
            pb.ListDecisionsRequest(since=Timestamp(seconds=1, nanos=-(2**31))),
            {"since"},
        ),
        (
            "ListDecisions",
            pb.ListDecisionsRequest(since=Timestamp(seconds=2), until=Timestamp(seconds=1)),
            {"since"},
        ),
        (
            "SetOverride",
            pb.SetOverrideRequest(kind=pb.OVERRIDE_KIND_PIN, reason="a\nb"),
            {"pool", "size", "expires_after", "author", "reason"},
        ),
        (
            "SetOverride",
            pb.SetOverrideRequest(
                pool="p",
                kind=pb.OVERRIDE_KIND_PAUSE,
                size=1,
                expires_after=Duration(seconds=31 * 86_400),
                author="a" * 65,
                reason="r",
            ),
            {"size", "expires_after", "author"},
        ),
        (
            "ApplyPolicy",
            pb.ApplyPolicyRequest(based_on="abc", span=Duration(seconds=1)),
            {"content", "author", "note", "based_on", "span"},
        ),
        (
            "ApplyPolicy",
            pb.ApplyPolicyRequest(content="x", author="ada\u202egnimoc", note="x\u2028y"),
            {"author", "note"},
        ),
        (
            "SetOverride",
            pb.SetOverrideRequest(
                pool="p",
                kind=pb.OVERRIDE_KIND_PAUSE,
                expires_after=HOUR,
                author="a\u200bb",
                reason="\u2066x",
            ),
            {"author", "reason"},
        ),
        ("RollbackPolicy", pb.RollbackPolicyRequest(number=-1), {"author", "number"}),
    ],
)
async def test_bad_requests_name_each_field(place, method, request_, fields):
    scaler = await place.start()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await getattr(scaler.stub, method)(request_, metadata=KEY, timeout=5)
    status = rpc_status.from_call(refused.value)
    bad = error_details_pb2.BadRequest()
    assert any(one.Unpack(bad) for one in status.details)
    assert {one.field for one in bad.field_violations} == fields


async def test_what_is_not_there_has_a_reason(place):
    stub = (await place.start()).stub
    pin = {"expires_after": HOUR, "author": "a", "reason": "r"}
    for method, request, code, reason in (
        (
            stub.SetOverride,
            pb.SetOverrideRequest(pool="q", kind=pb.OVERRIDE_KIND_PAUSE, **pin),
            grpc.StatusCode.NOT_FOUND,
            "POOL_UNKNOWN",
        ),
        (
            stub.RollbackPolicy,
            pb.RollbackPolicyRequest(author="a"),
            grpc.StatusCode.NOT_FOUND,
            "VERSION_UNKNOWN",
        ),
        (
            stub.RollbackPolicy,
            pb.RollbackPolicyRequest(author="a", number=1),
            grpc.StatusCode.FAILED_PRECONDITION,
            "POLICY_IN_FORCE",
        ),
        (
            stub.ApplyPolicy,
            pb.ApplyPolicyRequest(
                content=place.scaling.read_text(), author="a", note="n", based_on="0" * 64
            ),
            grpc.StatusCode.ABORTED,
            "POLICY_CHANGED",
        ),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await method(request, metadata=KEY, timeout=5)
        assert (refused.value.code(), reason_of(refused.value)) == (code, reason)


async def test_a_scaler_killed_in_the_middle_of_an_apply_leaves_file_and_version_whole(place):
    scaler = await place.start_process()
    before, given = place.scaling.read_text(), text_of(place, drain_seconds=7)
    request = pb.ApplyPolicyRequest(content=given, author="ada", note="n")
    call = scaler.stub.ApplyPolicy(request, metadata=KEY, timeout=60)
    waiting = asyncio.ensure_future(call.code())
    announced = place.state / "history" / "versions" / "applying.json"

    async def begun() -> bool:
        return announced.exists()

    await until_async(begun, 60)  # it is tried first, which takes a process
    await scaler.kill()
    await waiting
    now = place.scaling.read_text()
    assert now in (before, given)
    again = await place.start()
    latest = (await versions_of(again))[0]
    assert latest.hash == hashlib.sha256(now.encode()).hexdigest()
    assert (latest.number, latest.author) == ((2, "ada") if now == given else (1, ""))


def scripted(*lines: str) -> Trials:
    """A trial that runs these lines of Python."""
    return Trials(command=(sys.executable, "-c", "\n".join(lines)), deadline_seconds=20.0)


async def test_a_trial_says_how_far_it_is_and_answers():
    heard: list[float] = []
    trials = scripted(
        "import json",
        "asked = json.loads(input())",
        "print(json.dumps({'progress': 0.5}))",
        "print(json.dumps({'answer': {'twice': 2 * asked['n']}}))",
    )
    assert await trials.run({"n": 21}, heard.append) == {"twice": 42}
    assert heard == [0.5]


@pytest.mark.parametrize(
    ("lines", "error", "reason"),
    [
        (["import sys", "sys.exit('no memory')"], InternalError, "TRIAL_FAILED"),
        (['print(\'{"refused": "no", "reason": "X"}\')'], NotNow, "X"),
    ],
)
async def test_a_trial_that_fails_has_a_name_and_leaves_room(lines, error, reason):
    trials = scripted(*lines)
    for _ in range(2):
        with pytest.raises(error) as failed:
            await trials.run({})
        assert failed.value.reason == reason


@pytest.mark.parametrize(("kills", "starts"), [(1, 2), (2, 2)])
async def test_a_trial_that_somebody_else_kills_is_tried_once_more(tmp_path, kills, starts):
    said = tmp_path / "said"
    trials = scripted(
        "import os, signal",
        f"with open({str(said)!r}, 'a') as said: print('starts', file=said)",
        f"if open({str(said)!r}).read().count('starts') <= {kills}:",
        "    os.kill(os.getpid(), signal.SIGKILL)",
        "print('{\"answer\": {}}')",
    )
    if kills < starts:
        assert await trials.run({}) == {}
    else:
        with pytest.raises(InternalError):
            await trials.run({})
    assert said.read_text().count("starts") == starts


async def test_one_question_runs_at_a_time_and_ends_with_who_waits_for_it(tmp_path):
    pid = tmp_path / "pid"
    trials = scripted(
        "import json, os, time",
        "if json.loads(input()).get('quick'):",
        "    print(json.dumps({'answer': {}}))",
        "else:",
        f"    open({str(pid)!r} + '.new', 'w').write(str(os.getpid()))",
        f"    os.rename({str(pid)!r} + '.new', {str(pid)!r})",
        "    time.sleep(60)",
    )
    order: list[str] = []

    async def quick(tenant: str) -> None:
        await trials.run({"quick": True}, caller=tenant)
        order.append(tenant)

    first = asyncio.create_task(trials.run({}, caller="acme"))

    async def started() -> bool:
        return pid.exists()

    await until_async(started)
    waiting = [asyncio.create_task(quick(tenant)) for tenant in ("acme", "globex", "hangs-up")]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as busy:  # one of each tenant waits
        await quick("acme")
    assert busy.value.reason == "TRIAL_RUNNING"
    waiting += [asyncio.create_task(quick(f"t{at}")) for at in range(MOST_WAITING - len(waiting))]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await quick("one-too-many")
    for task in (waiting[2], *waiting[3:]):
        task.cancel()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    await asyncio.gather(*waiting, return_exceptions=True)
    assert order == ["acme", "globex"]
    trials._deadline_seconds = 0.2
    with pytest.raises(DeadlineExceeded) as late:
        await trials.run({})
    assert late.value.reason == "TRIAL_TOO_LONG"


async def test_a_file_is_read_in_a_process_of_its_own_that_is_niced_and_bounded(tmp_path):
    """Not on threads that the whole scaler shares: a dear file takes nobody else's time."""
    said = tmp_path / "said"
    trials = scripted(
        "import os, resource, sys",
        "sys.argv = ['try_out']",
        "from services.scaler.try_out import __main__ as try_out, checks",
        "def check(given, **_):",
        "    bounded = resource.RLIMIT_AS, resource.RLIMIT_CPU",
        "    limits = [resource.getrlimit(one)[0] for one in bounded]",
        f"    open({str(said)!r}, 'w').write(repr([os.getpid(), os.nice(0), *limits]))",
        "    return (), ''",
        "checks.check = check",
        "try_out.main()",
    )
    assert await trials.run({"kind": "check", "check": {}, "given": "a: 1"}) == {
        "notes": [],
        "unserved": "",
    }
    pid, nice, memory, seconds = ast.literal_eval(said.read_text())
    assert pid != os.getpid()
    assert nice == min(os.nice(0) + 10, 19)
    assert (memory, seconds) == (2 << 30, 180)


async def test_an_override_says_what_it_replaces_cannot_bring_and_would_stop(home):
    place = home(size=None, slots=[{}, {}], scale=SCALE)
    scaler = await place.start()
    said = ("--for", "1h", "--reason", "r", "--author")
    paused = await pennyweight(
        "scaler", "pause", "p", "--no-scale-down", *said, "ada", *where(scaler)
    )
    assert (paused.code, paused.err) == (0, "")
    assert paused.out.startswith("p: no scale down until ")
    pinned = await pennyweight("scaler", "pin", "p", "9", *said, "bob", *where(scaler))
    assert pinned.code == 0
    can_come, replaced = pinned.err.splitlines()
    assert can_come == "At most 2 can come (max)."
    assert replaced.startswith("It takes the place of no scale down by ada, which held until ")
    stopping = ("scaler", "pin", "p", "0", *said, "bob", *where(scaler))
    refused = await pennyweight(*stopping)
    assert (refused.code, refused.out) == (1, "")
    assert refused.err == (
        "p is the only pool of tier small: at 0 all requests of small would fail\n"
        "`--yes` pins it all the same.\n"
    )
    stopped = await pennyweight(*stopping, "--yes", "--json")
    assert (stopped.code, stopped.err) == (0, "")
    before = json.loads(stopped.out)["replaced"]
    assert (before["author"], before["size"]) == ("bob", 9)
    assert before["expires"].endswith("+00:00")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("pin", "p", "2", "--reason", "r", "--for", "0s"), "--for 0s is not above 0"),
        (("pause", "p", "--reason", "r", "--for", "400d"), "--for 400d is not above 0 and at most"),
        (("pin", "p", "-1", "--reason", "r", "--for", "1h"), "Invalid value for 'N'"),
        (("why", "p", "--at", "2200-01-01T00:00:00Z"), "--at 2200-01-01T00:00:00Z is in the fut"),
        (("why", "p", "--at", "yesterday"), "--at yesterday is no time."),
        (("plan", __file__, "--days", "0"), "Invalid value for '--days'"),
        (("simulate", __file__, "--trace", __file__, "--times", "-1"), "value for '--times'"),
    ],
)
async def test_an_option_that_cannot_be_is_named(command, said):
    ended = await pennyweight("scaler", *command, "--address", "127.0.0.1:1", COLUMNS="120")
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err


async def test_a_time_before_the_record_is_said_to_be_one(home):
    place = home(size=None, slots=[{}, {}], scale=SCALE)
    scaler = await place.start()
    ended = await pennyweight("scaler", "why", "p", "--at", "10d", *where(scaler))
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("The record has no decision about p up to ")
