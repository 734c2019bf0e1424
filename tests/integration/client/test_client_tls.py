"""TLS in both directions, with certificates made for the test."""

import subprocess
from pathlib import Path

import pytest

import pennyweight as pw
from pennyweight.router.v1 import router_pb2 as pb
from tests.integration.client.scripted_router import ScriptedRouter, serve


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority `ca`, and `localhost` signed by it."""
    folder = tmp_path_factory.mktemp("pki")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    made = (
        ("-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority"),
        ("-keyout", "localhost.key", "-out", "localhost.pem", "-subj", "/CN=localhost", "-CA",
         "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=DNS:localhost"),
    )  # fmt: skip
    for arguments in made:
        subprocess.run(
            ["openssl", "req", "-x509", *key, *arguments],
            cwd=folder,
            check=True,
            capture_output=True,
        )
    return folder


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
