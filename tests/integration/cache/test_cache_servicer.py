"""Single calls over real gRPC: what comes back, who may call, what is refused."""

import asyncio

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from pennyweight.cache.v1 import cache_pb2 as pb
from services.common.credentials import Identity, Keyring, Role
from services.common.durations import duration_of
from tests.integration.cache.harness import METADATA, cache_over, memory_store, metadata, until
from tests.integration.cache.messages import (
    LARGE,
    SMALL,
    abandon,
    answer,
    canonical,
    lookup,
    store,
)
from tools.metrics import services


async def test_first_misses_with_a_lease_then_hits(cache):
    miss = (await cache.lookup(lookup())).miss
    assert miss.lease
    assert miss.lease_ttl.seconds == 30
    assert await cache.store(store(miss.lease))
    hit = (await cache.lookup(lookup())).hit
    assert not hit.shared
    assert [piece.text for piece in hit.answer.pieces] == ["A ", "unit ", "of ", "mass. "]
    assert hit.answer.finish_reason == "stop"
    assert hit.answer.prompt_tokens == 9
    assert hit.answer.output_tokens == 4
    assert hit.answer.writer == SMALL
    assert hit.answer.stored_at.seconds > 1_700_000_000


async def test_a_plain_look_takes_no_lease(cache):
    miss = (await cache.lookup(lookup(lease=False))).miss
    assert not miss.lease
    assert not miss.HasField("lease_ttl")
    assert (await cache.lookup(lookup())).miss.lease


async def test_identical_requests_wait_for_one_answer(cache):
    lease = (await cache.lookup(lookup())).miss.lease
    waiting = [asyncio.create_task(cache.lookup(lookup(wait=10))) for _ in range(5)]
    await until(lambda: cache.waiters == 5)
    assert await cache.abandon(abandon(lease, unless_awaited=True))
    assert await cache.store(store(lease))
    for found in await asyncio.gather(*waiting):
        assert found.hit.shared
    stats = await cache.stats()
    assert (stats.lookups, stats.hits, stats.shared) == (6, 0, 5)
    assert (stats.leases, stats.stores, stats.store_errors) == (1, 1, 0)


async def test_a_wait_that_is_over_is_a_miss_without_a_lease(cache):
    await cache.lookup(lookup())
    miss = (await cache.lookup(lookup(wait=0.05))).miss
    assert not miss.lease


async def test_who_hangs_up_is_passed_over(cache):
    lease = (await cache.lookup(lookup())).miss.lease
    call = cache.stub.Lookup(lookup(wait=10), metadata=METADATA)
    await until(lambda: cache.waiters == 1)
    call.cancel()
    await until(lambda: cache.waiters == 0)
    assert not await cache.abandon(abandon(lease))
    assert (await cache.lookup(lookup())).miss.lease


async def test_tenants_and_routes_see_nothing_of_each_other(cache):
    assert await cache.store(store())
    assert (await cache.lookup(lookup())).HasField("hit")
    assert (await cache.lookup(lookup(), tenant="rival")).HasField("miss")
    assert (await cache.lookup(lookup(route="sales"))).HasField("miss")


async def test_a_lease_is_worth_nothing_to_another_tenant_or_route(cache):
    lease = (await cache.lookup(lookup())).miss.lease
    assert not await cache.store(store(lease), tenant="rival")
    assert not await cache.store(store(lease, route="sales"))
    await cache.abandon(abandon(lease), tenant="rival")
    assert (await cache.lookup(lookup(), tenant="rival")).HasField("miss")
    assert await cache.store(store(lease))


async def test_only_accepted_writers_serve(cache):
    await cache.store(store())
    assert (await cache.lookup(lookup(accepted_writers=[LARGE]))).HasField("miss")
    newer = pb.Writer(tier="small", model="tiny-llm", precision="int4", policy_version="2")
    assert (await cache.lookup(lookup(accepted_writers=[LARGE, newer]))).HasField("hit")


async def test_a_refresh_replaces_what_is_stored(cache):
    await cache.store(store())
    assert await cache.store(store(answer=answer("Something else.")))
    pieces = (await cache.lookup(lookup())).hit.answer.pieces
    assert "".join(piece.text for piece in pieces) == "Something else. "


async def test_a_lease_ends_once(cache):
    lease = (await cache.lookup(lookup())).miss.lease
    assert await cache.store(store(lease))
    assert not await cache.store(store(lease))
    assert not await cache.store(store("never was one"))
    await cache.abandon(abandon("never was one"))


@pytest.mark.parametrize(
    ("method", "request_", "fields"),
    [
        ("lookup", lookup(route=""), ["route"]),
        ("lookup", pb.LookupRequest(), ["route", "accepted_writers", "request"]),
        ("lookup", lookup(wait=60.1), ["max_wait"]),
        ("lookup", lookup(wait=-1), ["max_wait"]),
        ("store", store(route="", ttl=0.9), ["route", "ttl"]),
        ("store", store(ttl=91 * 86400), ["ttl"]),
        (
            "store",
            pb.StoreRequest(route="r", ttl=duration_of(60)),
            ["answer.finish_reason", "answer.writer.tier", "request"],
        ),
        ("store", store(answer=answer(finish_reason="cancelled")), ["answer.finish_reason"]),
        ("abandon", pb.AbandonRequest(), ["route", "lease"]),
    ],
)
async def test_all_that_is_wrong_is_named(method, request_, fields):
    async with cache_over(memory_store()) as cache:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(cache, method)(request_)
        assert cache.metric("refused_total") == 1
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    (packed,) = [
        detail
        for detail in rpc_status.from_call(caught.value).details
        if detail.Is(error_details_pb2.BadRequest.DESCRIPTOR)
    ]
    details = error_details_pb2.BadRequest()
    packed.Unpack(details)
    assert [violation.field for violation in details.field_violations] == fields


async def test_callers_that_are_no_services_are_refused(monkeypatch):
    keyring = Keyring({key: Identity("acme", Role.CALLER) for key in Keyring.load(None).by_digest})
    async with cache_over(memory_store(), keyring=keyring) as cache:
        for call in (cache.lookup(lookup()), cache.store(store()), cache.stats()):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await cache.stub.Exchange(metadata=metadata("acme")).read()
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_answers_that_are_too_large_are_not_stored_and_free_the_lease():
    async with cache_over(memory_store(), max_entry_bytes=100) as cache:
        lease = (await cache.lookup(lookup())).miss.lease
        assert not await cache.store(store(lease, answer=answer("many words " * 100)))
        assert (await cache.lookup(lookup())).miss.lease
        assert cache.metric("stores_total", result="too_large") == 1


async def test_metrics_and_counters_agree(cache):
    await cache.store(store())
    await cache.lookup(lookup())
    await cache.lookup(lookup("other"))
    stats = await cache.stats()
    assert cache.metric("lookups_total", result="hit") == stats.hits == 1
    assert cache.metric("lookups_total", result="leased") == stats.leases == 1
    assert cache.metric("stores_total", result="stored") == stats.stores == 1
    assert cache.metric("operation_seconds_count", operation="lookup") == 2
    assert cache.metric("store_up") == 1
    assert cache.metric("entries") == (stats.entries if stats.HasField("entries") else None)
    assert stats.HasField("entries") == (stats.store == "memory")


async def test_the_table_of_metrics_has_every_metric_that_is_served(cache):
    families = {family.name: family.type for family in cache.registry.collect()}
    listed = {row.name.removesuffix("_total"): row.kind for row in services()["cache"]}
    assert families.items() <= listed.items()
    in_memory = (await cache.stats()).store == "memory"
    unknown = set() if in_memory else {"pennyweight_cache_entries", "pennyweight_cache_bytes"}
    assert listed.keys() - families.keys() == unknown


async def test_every_sampling_field_makes_another_request(cache):
    await cache.store(store())
    for change in ({"temperature": 0.5}, {"seed": 0}, {"top_k": 1}, {"stop": ["."]}):
        asked = lookup()
        asked.request.CopyFrom(canonical(**change))
        assert (await cache.lookup(asked)).HasField("miss")
