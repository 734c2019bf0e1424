"""Pages over real HTTP: within a deadline, a bound of bytes and nobody else's ways."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from services.scaler.load.pages import Pages, Unanswered


async def slow(_request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def long(_request: web.Request) -> web.Response:
    return web.Response(body=b"x" * 2000)


async def elsewhere(_request: web.Request) -> web.Response:
    raise web.HTTPFound("/fine")


async def fine(request: web.Request) -> web.Response:
    return web.Response(text=f"{request.query_string} {request.headers.get('Metadata-Flavor')}")


async def broken(_request: web.Request) -> web.Response:
    return web.Response(status=503, text="no")


async def token(request: web.Request) -> web.Response:
    return web.Response(text=f"token for {request.headers['For']}")


async def cut(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


@pytest.fixture
async def server() -> AsyncIterator[str]:
    app = web.Application()
    for handler in (slow, long, elsewhere, fine, broken, cut):
        app.router.add_get(f"/{handler.__name__}", handler)
    app.router.add_put("/token", token)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_a_page_comes_with_its_status(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with Pages() as pages:
        status, body = await pages.get(f"{server}/fine", {"query": "a b"}, {"Metadata-Flavor": "x"})
        assert (status, body) == (200, b"query=a b x")
        assert await pages.get(f"{server}/broken", accept=(200, 503)) == (503, b"no")


async def test_what_is_put_is_answered(server):
    async with Pages() as pages:
        assert await pages.put(f"{server}/token", {"For": "60"}) == b"token for 60"
        with pytest.raises(Unanswered, match="it answers with status 405"):
            await pages.put(f"{server}/fine", {})


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("slow", "it does not answer within 0.2 s"),
        ("long", "its answer is longer than 1,000 bytes"),
        ("elsewhere", "it answers with status 302"),
        ("broken", "it answers with status 503"),
        ("cut", "it cannot be reached"),
        ("absent", "it answers with status 404"),
    ],
)
async def test_what_is_no_page_is_told(server, path: str, said: str):
    async with Pages(seconds=0.2, max_bytes=1000) as pages:
        with pytest.raises(Unanswered, match=said):
            await pages.get(f"{server}/{path}")


async def test_nobody_there_is_told_and_so_is_an_address_that_is_none():
    async with Pages(seconds=1.0) as pages:
        for url in ("http://127.0.0.1:1/", "http://[", "http://a b/"):
            with pytest.raises(Unanswered, match="it cannot be reached"):
                await pages.get(url)


async def test_who_waits_for_a_turn_is_not_late(server):
    async with Pages(seconds=0.3) as pages:
        crowd = [pages.get(f"{server}/slow") for _ in range(8)]
        waiting = asyncio.gather(*crowd, pages.get(f"{server}/fine"), return_exceptions=True)
        *_, last = await waiting
    assert last == (200, b" None")
