"""TLS in both directions, with certificates made for the test."""

from pathlib import Path

import pytest

import pennyweight as pw
from pennyweight.router.v1 import router_pb2 as pb
from tests.integration.client.scripted_router import ScriptedRouter, serve


async def test_tls_and_client_certificates(pki: Path) -> None:
    router = ScriptedRouter(lambda _: [pb.ListRoutesResponse(policy_version="v1")])
    certificate, key, authority = pki / "localhost.pem", pki / "localhost.key", pki / "ca.pem"
    server = serve(
        router,
        "127.0.0.1:0",
        tls_certificate=certificate,
        tls_key=key,
        tls_client_ca=authority,
    )
    target = f"localhost:{await server.start()}"
    try:
        async with pw.Client(
            target, tls_ca=authority, tls_certificate=certificate, tls_key=key
        ) as client:
            assert (await client.list_routes()).policy_version == "v1"
        async with pw.Client(target, tls_ca=authority, max_attempts=1) as nameless:
            with pytest.raises(pw.Unavailable):
                await nameless.list_routes()
        async with pw.Client(target, tls=True) as distrustful:
            with pytest.raises(pw.Unavailable):
                await distrustful.list_routes()
    finally:
        await server.grpc.stop(0)
