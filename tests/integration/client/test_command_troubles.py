"""What the command says where no call goes through: the true reason, and what to do."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pennyweight.router.v1 import router_pb2 as pb
from pennyweight.scaler.v1 import scaler_pb2, scaler_pb2_grpc
from services.common.credentials import Keyring
from services.common.errors import NotFound
from services.common.server import Server
from services.common.server_settings import ServerSettings
from services.common.telemetry import Tracing
from tests.integration.client.running import Ended, pennyweight, rows_of
from tests.integration.client.scripted_router import ScriptedRouter, Stage, lever, serve

TROUBLE = "no memory [/x] at slot 1"


class Scaler(scaler_pb2_grpc.ScalerServiceServicer):
    async def ListPools(self, request: Any, context: Any) -> Any:  # noqa: N802
        pool = scaler_pb2.Pool(name="small-cpu", tier="small", trouble=TROUBLE, desired_replicas=1)
        pool.replicas.add(id="r[red]1", address="127.0.0.1:9", state="REPLICA_STATE_READY")
        refused = pool.settings_refusal
        refused.reason = "r-2 ended [/x]"
        refused.since.FromSeconds(1_800_000_000)
        refused.changes.add(key="model", value="smal", in_force="small")
        refused.changes.add(key="slots.2", in_force="9")
        return scaler_pb2.ListPoolsResponse(pools=[pool])


@pytest.fixture
async def scaler() -> AsyncIterator[str]:
    """The address of a scripted scaler."""
    settings = ServerSettings(listen="127.0.0.1:0", drain_seconds=0)
    server = Server(settings, Keyring.load(None), Tracing("scaler"))
    server.add(scaler_pb2_grpc.add_ScalerServiceServicer_to_server, Scaler())
    yield f"127.0.0.1:{await server.start()}"
    await server.grpc.stop(0)


@pytest.fixture
async def secured(pki: Path) -> AsyncIterator[tuple[str, str]]:
    """The ports of a router that speaks TLS, and of one that asks callers for a certificate."""
    router = ScriptedRouter(lambda _: [pb.ListRoutesResponse(policy_version="v1")])
    files = {"tls_certificate": pki / "localhost.pem", "tls_key": pki / "localhost.key"}
    open_to_all = serve(router, "127.0.0.1:0", **files)
    strict = serve(router, "127.0.0.1:0", **files, tls_client_ca=pki / "ca.pem")
    yield str(await open_to_all.start()), str(await strict.start())
    await open_to_all.grpc.stop(0)
    await strict.grpc.stop(0)


async def routes(pki: Path, address: str, files: Sequence[str] = ()) -> Ended:
    """The files are those of the folder, each after its option."""
    named = [one if one.startswith("--") else str(pki / one) for one in files]
    return await pennyweight("routes", "--address", address, *named)


def said(ended: Ended) -> str:
    """Our own lines: what gRPC logs begins with the day of the year."""
    lines = ended.err.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(("I1", "E1", "I0", "E0")))


async def test_tls_faults_are_told_apart(pki: Path, secured: tuple[str, str], stage: Stage) -> None:
    port, strict = secured
    ca, others = ("--tls-ca", "ca.pem"), ("--tls-ca", "other.pem")

    ended = await routes(pki, f"localhost:{port}", ca)
    assert (ended.code, ended.err) == (0, "")

    ended = await routes(pki, f"localhost:{port}")
    assert ended.code == 1
    assert said(ended) == (
        f"localhost:{port} speaks TLS, and was spoken to in plain text.\n"
        "Give --tls-ca: the PEM bundle that signed its certificate.\n"
    )

    ended = await routes(pki, stage.address, ca)
    assert ended.code == 1
    assert said(ended).startswith(f"{stage.address} speaks plain text, not TLS.\nLeave out --tls")

    ended = await routes(pki, f"localhost:{port}", others)
    assert ended.code == 1
    told = f"The certificate of localhost:{port} was not signed by {pki}/other.pem.\n"
    assert said(ended).startswith(told)

    ended = await routes(pki, f"127.0.0.1:{port}", ca)
    assert ended.code == 1
    assert said(ended) == (
        f"The certificate of 127.0.0.1:{port} is not for 127.0.0.1.\n"
        "It is for: localhost. Use such a name in --address.\n"
    )

    ended = await routes(pki, f"localhost:{strict}", ca)
    assert ended.code == 1
    told = f"localhost:{strict} asks callers for a certificate.\nGive --tls-certificate and"
    assert said(ended).startswith(told)

    mine = ("--tls-certificate", "other.pem", "--tls-key", "other.key")
    ended = await routes(pki, f"localhost:{strict}", (*ca, *mine))
    assert ended.code == 1
    told = f"localhost:{strict} does not accept the certificate in {pki}/other.pem.\n"
    assert said(ended).startswith(told)


async def test_a_certificate_is_shown_from_options_and_variables(
    pki: Path, secured: tuple[str, str]
) -> None:
    _, strict = secured
    mine = ("--tls-certificate", "caller.pem", "--tls-key", "caller.key")
    ended = await routes(pki, f"localhost:{strict}", ("--tls-ca", "ca.pem", *mine))
    assert ended.code == 0, ended.err
    ended = await pennyweight(
        "routes",
        PENNYWEIGHT_ADDRESS=f"localhost:{strict}",
        PENNYWEIGHT_TLS_CA=str(pki / "ca.pem"),
        PENNYWEIGHT_TLS_CERTIFICATE=str(pki / "caller.pem"),
        PENNYWEIGHT_TLS_KEY=str(pki / "caller.key"),
    )
    assert ended.code == 0, ended.err


async def test_a_tls_file_that_is_none_is_named(pki: Path) -> None:
    ended = await routes(pki, "localhost:1", ("--tls-ca", "ca.key"))
    assert ended.code == 2
    assert said(ended).startswith(f"TLS cannot use {pki}/ca.key: ")


async def test_another_services_port_is_said(stage: Stage, scaler: str) -> None:
    ended = await pennyweight("routes", "--address", scaler)
    assert ended.code == 1
    assert ended.err == (
        f"{scaler} is the scaler, not the router.\n"
        "Where nothing else was said, the router listens on port 50051: see --address.\n"
    )
    ended = await pennyweight("pools", "--address", stage.address)
    assert ended.code == 1
    assert ended.err.startswith(f"{stage.address} is the router, not the scaler.\n")


async def test_what_is_no_grpc_is_said() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as metrics:
        address = f"127.0.0.1:{metrics.sockets[0].getsockname()[1]}"
        ended = await pennyweight("routes", "--address", address)
    assert ended.code == 1
    assert "Start it with" not in ended.err
    assert said(ended).startswith(f"What listens at {address} speaks HTTP/1, not gRPC.\n")


async def test_a_host_without_a_port_or_name() -> None:
    ended = await pennyweight("routes", "--address", "localhost")
    assert ended.code == 2
    assert ended.err.startswith("the address 'localhost' names no port: write localhost:50051")

    ended = await pennyweight("routes", "--address", "none.invalid:1", PENNYWEIGHT_API_KEY="k")
    assert ended.code == 3
    assert said(ended).startswith("There is no host named none.invalid.\nIs --address right?\n")


async def test_a_key_that_cannot_be_sent_is_named(stage: Stage) -> None:
    ended = await pennyweight(
        "routes", PENNYWEIGHT_ADDRESS=stage.address, PENNYWEIGHT_API_KEY="ke\ny"
    )
    assert ended.code == 1
    assert ended.err.startswith("the API key in PENNYWEIGHT_API_KEY has a line end as character 3")


async def test_unknown_names_come_with_those_there_are(stage: Stage) -> None:
    def script(request: object) -> list[Any]:
        if isinstance(request, pb.ListRoutesRequest):
            return [pb.ListRoutesResponse(routes=[pb.Route(name="chat"), pb.Route(name="mail")])]
        if isinstance(request, pb.ListLeversRequest) and request.route == "chat":
            return [pb.ListLeversResponse(levers=[lever(name="tier:small"), lever(name="cache")])]
        if isinstance(request, pb.SetLeverRequest) and request.route == "chat":
            return [NotFound("no lever 'tier:smal'", reason="LEVER_UNKNOWN")]
        return [NotFound("no route named 'chta'", reason="ROUTE_UNKNOWN")]

    stage.router.script = script
    where, why = ("--address", stage.address), ("--reason", "x")
    for command in (
        ("ask", "Hello", "--route", "chta"),
        ("ask", "Hello", "--route", "chta", "--whole"),
        ("explain", "Hello", "--route", "chta"),
        ("outcome", "chta", "h-1", "--resolved"),
        ("lever", "list", "--route", "chta"),
        ("lever", "halt", "chta", "cache", *why),
        ("lever", "release", "chta", "cache", *why),
    ):
        ended = await pennyweight(*command, *where)
        assert ended.code == 1
        assert ended.err == (
            "no route named 'chta'\nDid you mean chat? Your key may use: chat, mail.\n"
        )
    ended = await pennyweight("lever", "halt", "chat", "tier:smal", *why, *where)
    assert ended.code == 1
    told = "no lever 'tier:smal'\nDid you mean tier:small? chat has: tier:small, cache.\n"
    assert ended.err == told


async def test_pools_show_text_as_it_stands(scaler: str) -> None:
    ended = await pennyweight("pools", "--address", scaler)
    assert ended.code == 0, ended.err
    first, second = rows_of(ended.out)
    assert (first[0], first[-1]) == ("small-cpu", "r[red]1 ready 127.0.0.1:9")
    assert second[-1] == TROUBLE
    assert ended.out.startswith(
        "The new settings of small-cpu are refused since 2027-01-15 08:00:00 UTC: r-2 ended [/x].\n"
        "  model: smal, in force small\n"
        "  slots.2: absent, in force 9\n"
    )
    ended = await pennyweight("pools", "--address", scaler, "--json")
    (pool,) = map(json.loads, ended.out.splitlines())
    assert (pool["kind"], pool["trouble"]) == ("pool", TROUBLE)
    assert pool["refused"]["reason"] == "r-2 ended [/x]"
    assert pool["refused"]["changes"][0] == {"key": "model", "value": "smal", "in_force": "small"}
