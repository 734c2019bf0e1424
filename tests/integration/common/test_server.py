"""Start, health, reflection, TLS and drain of the server, over real gRPC."""

import asyncio
import os
import shutil
import socket
import subprocess
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from pennyweight.router.v1 import router_pb2
from services.common import intake
from services.common import server as server_module
from services.common.channel import Peer
from services.common.config import ConfigError
from services.common.credentials import Keyring
from services.common.server import Server, ServerEnded
from services.common.server_settings import ServerSettings
from services.common.telemetry import Tracing
from tests.integration.common.serving import CACHE, KEY, ROUTER, SCALER, Running, serving

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_health_is_told_without_a_key() -> None:
    async with serving() as running:
        health = health_pb2_grpc.HealthStub(running.channel)
        for name in ("", ROUTER, SCALER, CACHE):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="nothing"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_the_services_without_a_key() -> None:
    async with serving() as running:
        stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        async for answer in stub.ServerReflectionInfo(iter([ask])):
            names = {one.name for one in answer.list_services_response.service}
    assert {ROUTER, SCALER, CACHE, "grpc.health.v1.Health"} <= names


async def test_a_running_call_finishes_and_new_ones_are_refused_while_draining() -> None:
    async with serving(drain_seconds=10) as running:
        goes_on = asyncio.Event()
        running.shop.do = goes_on.wait
        call = asyncio.create_task(running.complete("old"))
        await running.shop.entered.wait()
        watch = health_pb2_grpc.HealthStub(running.channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        running.stop.set()
        assert (await watch.read()).status == NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.complete("new")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not running.stopped.done()
        goes_on.set()
        assert await call == "old"
        await asyncio.wait_for(running.stopped, 5)


async def test_a_call_that_outlasts_the_drain_is_cancelled() -> None:
    async with serving(drain_seconds=0.1) as running:
        running.shop.do = asyncio.Event().wait
        call = running.router.Generate(router_pb2.GenerateRequest(route="r"), metadata=KEY)
        await call.read()
        await running.shop.entered.wait()
        running.stop.set()
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()
        await asyncio.wait_for(running.shop.left.wait(), 5)


async def test_health_watchers_hear_of_the_drain_and_do_not_hold_it_up() -> None:
    async with serving(drain_seconds=30) as running:
        health = health_pb2_grpc.HealthStub(running.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=ROUTER))
        assert (await watch.read()).status == SERVING
        running.stop.set()
        assert (await watch.read()).status == NOT_SERVING
        await asyncio.wait_for(running.stopped, 5)


async def test_watchers_of_a_service_that_is_not_there_do_not_hold_up_the_drain() -> None:
    async with serving(drain_seconds=30) as running:
        health = health_pb2_grpc.HealthStub(running.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="nothing"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        running.stop.set()
        await asyncio.wait_for(running.stopped, 5)


async def test_a_taken_port_stops_the_start() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"listen address {listen}"):
            async with serving(listen=listen):
                pass


async def test_a_server_that_ends_by_itself_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    async def serve() -> None:
        async with serving() as running:
            watch = health_pb2_grpc.HealthStub(running.channel).Watch(
                health_pb2.HealthCheckRequest()
            )
            assert (await watch.read()).status == SERVING  # a call that goes on for ever
            monkeypatch.setattr(intake, "_handle", fail)
            with pytest.raises(grpc.aio.AioRpcError):
                await running.complete(timeout=1)
            await asyncio.wait_for(asyncio.shield(running.stopped), 10)

    with pytest.raises(ServerEnded, match="ZeroDivisionError"):
        await serve()


async def test_calls_that_come_while_it_stops_cost_those_that_run_nothing() -> None:
    entered, may_end = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        entered.set()
        await may_end.wait()

    async def come_again(running: Running) -> None:
        """One who has no key, and asks anew however it ends."""
        while not running.stopped.done():
            with suppress(grpc.aio.AioRpcError):
                await running.complete(metadata=(), timeout=2)

    async with serving(drain_seconds=5.0) as running:
        running.shop.do = wait
        runs = asyncio.create_task(running.complete())
        await entered.wait()
        crowd = [asyncio.create_task(come_again(running)) for _ in range(60)]
        await asyncio.sleep(0.1)
        running.stop.set()
        asyncio.get_running_loop().call_later(0.5, may_end.set)
        assert await runs == "r"
        await running.stopped
        await asyncio.gather(*crowd)


async def test_calls_that_come_together_wait_for_no_turn_of_the_loop_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken, turn, handle = Counter[int](), 0, intake._handle

    def count(*call: Any) -> Any:
        taken[turn] += 1
        return handle(*call)

    async def turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(intake, "_handle", count)
    async with serving() as running:
        await running.complete()
        counting = asyncio.create_task(turns())
        answers = await asyncio.gather(*(running.complete(str(number)) for number in range(200)))
        counting.cancel()
    assert answers == [str(number) for number in range(200)]
    assert max(taken.values()) > 1


class Certificates:
    """A throwaway authority, and a certificate of localhost that it signed, made by openssl."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._openssl(
            "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=authority "
            "-keyout ca.key -out ca.pem"
        )
        for name in ("server", "client"):
            self._openssl(
                f"req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key "
                f"-out {name}.csr -addext subjectAltName=DNS:localhost"
            )
            self._openssl(
                f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial "
                f"-days 1 -copy_extensions copy -out {name}.pem"
            )

    def __getitem__(self, name: str) -> Path:
        return self.folder / name

    def encrypt(self, key: str, encrypted: str) -> None:
        self._openssl(f"rsa -aes256 -passout pass:s3cret -in {key} -out {encrypted}")

    def _openssl(self, arguments: str) -> None:
        subprocess.run(
            ["openssl", *arguments.split()], cwd=self.folder, check=True, capture_output=True
        )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    assert shutil.which("openssl"), "the TLS tests need openssl on PATH"
    return Certificates(tmp_path_factory.mktemp("certificates"))


async def test_tls_callers_who_know_the_authority_are_served(certificates: Certificates) -> None:
    files = {"tls_certificate": certificates["server.pem"], "tls_key": certificates["server.key"]}
    async with serving(ca=certificates["ca.pem"].read_bytes(), **files) as running:
        assert await running.complete("r") == "r"
        peer = Peer(f"localhost:{running.port}", tls_ca=certificates["ca.pem"])
        async with peer.open() as channel:
            health = health_pb2_grpc.HealthStub(channel)
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == SERVING
        async with grpc.aio.insecure_channel(f"localhost:{running.port}") as plain:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await health_pb2_grpc.HealthStub(plain).Check(health_pb2.HealthCheckRequest())
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_with_a_client_authority_callers_show_a_certificate(
    certificates: Certificates,
) -> None:
    files = {
        "tls_certificate": certificates["server.pem"],
        "tls_key": certificates["server.key"],
        "tls_client_ca": certificates["ca.pem"],
    }
    authority = certificates["ca.pem"].read_bytes()
    async with serving(ca=authority, **files) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.complete("r")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        credentials = grpc.ssl_channel_credentials(
            authority,
            certificates["client.key"].read_bytes(),
            certificates["client.pem"].read_bytes(),
        )
        address = f"localhost:{running.port}"
        async with grpc.aio.secure_channel(address, credentials) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == SERVING


@pytest.mark.parametrize("content", [None, b"", b"not a certificate"])
async def test_wrong_tls_files_stop_the_start(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "wrong.pem"
    if content is not None:
        path.write_bytes(content)
    settings = ServerSettings(tls_certificate=path, tls_key=path)
    with pytest.raises(ConfigError, match=r"wrong\.pem: TLS cannot use it"):
        await Server(settings, Keyring.load(None), Tracing("shop")).start()


async def test_new_tls_files_are_taken_up_and_wrong_ones_are_not(
    certificates: Certificates, tmp_path: Path
) -> None:
    others = Certificates(tmp_path)
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"

    def put(source: Certificates) -> None:
        chain.write_bytes(source["server.pem"].read_bytes())
        key.write_bytes(source["server.key"].read_bytes())
        leave_alone()

    def leave_alone() -> None:
        """Makes them as old as files that nobody writes any more."""
        for path in (chain, key):
            os.utime(path, (1_000_000_000, 1_000_000_000))

    async def serves(port: int, authority: Certificates) -> bool:
        peer = Peer(f"localhost:{port}", tls_ca=authority["ca.pem"])
        async with peer.open() as channel:
            try:
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            except grpc.aio.AioRpcError:
                return False
            return True

    put(certificates)
    async with serving(tls_certificate=chain, tls_key=key) as running:
        assert await serves(running.port, certificates)
        put(others)
        assert await serves(running.port, others)
        assert not await serves(running.port, certificates)
        chain.write_text("half a certificate")
        leave_alone()
        assert await serves(running.port, others)
        put(certificates)
        chain.touch()  # as if it were still written
        assert await serves(running.port, others)
        leave_alone()
        assert await serves(running.port, certificates)


async def test_tls_files_that_nobody_can_read_hold_up_no_connection(
    certificates: Certificates, tmp_path: Path
) -> None:
    """A pipe never ends, and OpenSSL would ask the terminal for the password of a key."""
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    good = {chain: certificates["server.pem"], key: certificates["server.key"]}
    for path, source in good.items():
        path.write_bytes(source.read_bytes())
    certificates.encrypt("server.key", "encrypted.key")

    async def serves(port: int) -> bool:
        peer = Peer(f"localhost:{port}", tls_ca=certificates["ca.pem"])
        async with peer.open() as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
        return True

    async with serving(tls_certificate=chain, tls_key=key) as running:
        key.write_bytes(certificates["encrypted.key"].read_bytes())
        assert await serves(running.port)
        key.unlink()
        os.mkfifo(key)
        assert await serves(running.port)
        key.unlink()
        assert await serves(running.port)


async def test_a_connection_has_so_many_calls_open_and_another_is_not_held_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "MAX_STREAMS", 2)
    alone = (("grpc.use_local_subchannel_pool", 1),)
    async with serving() as running:
        address = f"127.0.0.1:{running.port}"
        async with (
            grpc.aio.insecure_channel(address, options=alone) as crowded,
            grpc.aio.insecure_channel(address, options=alone) as other,
        ):
            request = health_pb2.HealthCheckRequest()
            crowd = health_pb2_grpc.HealthStub(crowded)
            watches = [crowd.Watch(request) for _ in range(2)]
            for watch in watches:
                assert (await watch.read()).status == SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await crowd.Check(request, timeout=0.3)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert (await health_pb2_grpc.HealthStub(other).Check(request)).status == SERVING
            watches[0].cancel()
            assert (await crowd.Check(request, timeout=10)).status == SERVING
