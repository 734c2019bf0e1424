"""The scaler's calls over gRPC: who may call what, what is refused, how streams live and end."""

import hashlib
import socket

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from pennyweight.scaler.v1 import scaler_pb2 as pb
from services.scaler import servicer
from services.scaler.wire import pools
from tests.integration.scaler.harness import KEY, until_async

CALLER = (("authorization", "Bearer caller"),)
OPERATOR = (("authorization", "Bearer operator"),)
SERVICE = (("authorization", "Bearer service"),)


@pytest.fixture
async def scaler(home):
    return await home(size=0, slots=[{}, {}]).start()


@pytest.fixture
async def guarded(home, tmp_path):
    return await home(size=0).start(keys_file=key_file(tmp_path))


def key_file(folder):
    keys = folder / "keys.yaml"
    lines = ["keys:"]
    for name in ("caller", "operator", "service"):
        digest = hashlib.sha256(name.encode()).hexdigest()
        lines.append(f"  - {{sha256: {digest}, tenant: acme, role: {name}}}")
    keys.write_text("\n".join(lines))
    return keys


async def test_any_key_may_list_pools(guarded):
    response = await guarded.stub.ListPools(pb.ListPoolsRequest(), metadata=CALLER, timeout=5)
    (pool,) = response.pools
    assert (pool.name, pool.tier, pool.model, pool.precision) == ("p", "small", "waiter", "int8")
    assert (pool.desired_replicas, pool.slots, pool.trouble) == (0, 1, "")
    assert pool.capacity == pb.CAPACITY_KIND_ON_DEMAND
    assert not pool.HasField("typical_start")


@pytest.mark.parametrize(
    ("key", "told"), [(CALLER, False), (OPERATOR, True), (SERVICE, True)], ids=str
)
async def test_where_replicas_are_and_what_ails_them_is_for_operators(home, tmp_path, key, told):
    async def pool(scaler) -> pb.Pool:
        response = await scaler.stub.ListPools(pb.ListPoolsRequest(), metadata=key, timeout=5)
        return response.pools[0]

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        slots = [{}, {"grpc_port": taken.getsockname()[1]}]
        scaler = await home(size=2, slots=slots).start(keys_file=key_file(tmp_path))

        async def seen() -> pb.Pool | None:
            found = await pool(scaler)
            return found if found.replicas and found.trouble else None

        found = await until_async(seen)
    (replica,) = found.replicas
    assert replica.id
    assert bool(replica.address) is told
    assert (found.trouble != pools.HIDDEN_TROUBLE) is told


@pytest.mark.parametrize(
    ("key", "code"),
    [(CALLER, grpc.StatusCode.PERMISSION_DENIED), ((), grpc.StatusCode.UNAUTHENTICATED)],
)
async def test_only_services_watch_and_report(guarded, key, code):
    watch = guarded.stub.WatchReplicas(pb.WatchReplicasRequest(), metadata=key, timeout=5)
    report = guarded.stub.ReportLoad(metadata=key, timeout=5)  # writes nothing: it is refused
    for call in (watch.read(), report):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is code
    watch = guarded.stub.WatchReplicas(pb.WatchReplicasRequest(), metadata=SERVICE, timeout=5)
    assert (await watch.read()).full
    watch.cancel()


async def test_a_quiet_stream_shows_that_it_lives(scaler, monkeypatch):
    assert servicer.HEARTBEAT_SECONDS < 5
    monkeypatch.setattr(servicer, "HEARTBEAT_SECONDS", 0.05)
    async with scaler.watch() as watch:
        first, second, third = [await watch.next() for _ in range(3)]
    assert first.full
    assert [(one.full, len(one.replicas)) for one in (second, third)] == [(False, 0)] * 2
    assert first.revision == second.revision == third.revision > 0


async def test_load_is_summed_over_routers(scaler):
    calls = []
    for name, waiting in (("r1", 3), ("r2", 4)):
        call = scaler.stub.ReportLoad(metadata=KEY, timeout=10)
        tier = pb.TierLoad(tier="small", waiting=waiting, running=1)
        await call.write(pb.ReportLoadRequest(router=name, tiers=[tier]))
        await call.write(pb.ReportLoadRequest(router=name, tiers=[tier]))
        await call.done_writing()
        calls.append(call)
    assert [(await call).accepted for call in calls] == [2, 2]
    pool = await scaler.pool()
    assert (pool.waiting, pool.running) == (7, 2)


async def test_a_router_that_says_goodbye_is_forgotten(scaler):
    call = scaler.stub.ReportLoad(metadata=KEY, timeout=10)
    tier = pb.TierLoad(tier="small", waiting=3)
    await call.write(pb.ReportLoadRequest(router="r1", tiers=[tier]))
    await until_async(scaler.pool)
    await call.write(pb.ReportLoadRequest(router="r1", tiers=[tier], leaving=True))
    await call.done_writing()
    assert (await call).accepted == 2
    assert (await scaler.pool()).waiting == 0


async def test_counters_are_added_up_over_routers_and_over_their_restarts(scaler):
    async def write(call, name: str, started_at: int, arrivals: int) -> None:
        counts = pb.DurationCounts(counts=[0, arrivals])
        tier = pb.TierLoad(tier="small", arrivals=arrivals, first_text_counts=counts)
        report = pb.ReportLoadRequest(router=name, tiers=[tier])
        report.started_at.FromSeconds(started_at)
        await call.write(report)

    calls = {name: scaler.stub.ReportLoad(metadata=KEY, timeout=10) for name in ("r1", "r2")}
    assert not (await scaler.pool()).HasField("demand")
    for name, started_at, arrivals in (
        ("r1", 1, 1000),
        ("r2", 1, 500),
        ("r1", 1, 1003),
        ("r2", 2, 4),  # it started anew
    ):
        await write(calls[name], name, started_at, arrivals)

    async def demand() -> pb.Demand | None:
        pool = await scaler.pool()
        return pool.demand if pool.HasField("demand") else None

    found = await until_async(demand)
    arrivals = found.arrivals_per_second * (found.span.ToNanoseconds() / 1e9)
    assert arrivals == pytest.approx(7)
    assert [one.quantile for one in found.first_text] == [0.5, 0.95]
    assert found.first_text[1].value.ToMicroseconds() <= 119
    assert list(found.between_tokens) == []


async def test_a_bad_report_names_its_fields(scaler):
    call = scaler.stub.ReportLoad(metadata=KEY, timeout=10)
    await call.write(pb.ReportLoadRequest(router="r1"))
    tier = pb.TierLoad(tier="small", waiting=-1)
    await call.write(pb.ReportLoadRequest(router="r2", tiers=[tier]))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    status = rpc_status.from_call(refused.value)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    details = error_details_pb2.BadRequest()
    assert any(one.Unpack(details) for one in status.details)
    assert [one.field for one in details.field_violations] == ["router", "tiers[0].waiting"]


async def test_a_stopping_scaler_answers_those_who_report(scaler):
    call = scaler.stub.ReportLoad(metadata=KEY, timeout=10)
    tier = pb.TierLoad(tier="small", waiting=3)
    await call.write(pb.ReportLoadRequest(router="r1", tiers=[tier]))

    async def taken() -> bool:
        return (await scaler.pool()).waiting == 3

    await until_async(taken)
    scaler.ask_to_stop()
    assert (await call).accepted == 1
    await scaler.stop()
