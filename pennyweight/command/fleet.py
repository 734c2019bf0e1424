"""``pools``: what the scaler keeps running."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from pennyweight.attempts import errors_of
from pennyweight.channel import metadata_for, open_channel
from pennyweight.command.ending import run
from pennyweight.command.options import (
    Json,
    Target,
    TimeoutSeconds,
    TlsCa,
    TlsCertificate,
    TlsKey,
)
from pennyweight.command.refused import RefusedSettings, refusal_lines
from pennyweight.command.show import add_columns, console, line, plain, print_json, print_table, say
from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.scaler.v1 import scaler_pb2_grpc
from pennyweight.wire import name_of, refusal_of, seconds_of

ScalerAddress = Annotated[
    str,
    typer.Option(help="host:port of the scaler.", envvar="PENNYWEIGHT_FLEET_ADDRESS"),
]
STYLES = {"ready": "green", "starting": "yellow", "draining": "magenta", "gone": "dim"}


@dataclass(frozen=True)
class Replica:
    """One server of a pool, where the scaler says where it is."""

    id: str
    state: str
    address: str


@dataclass(frozen=True)
class Pool:
    """One pool as it is shown.

    Attributes:
        typical_start_seconds: None before a replica has started.
        refused: settings of the file that did not work, so that others are in force.
        why: the pool has this size; empty: its size is fixed.
    """

    name: str
    tier: str
    model: str
    precision: str
    capacity: str
    desired_replicas: int
    slots: int
    running: int
    waiting: int
    typical_start_seconds: float | None
    trouble: str
    replicas: tuple[Replica, ...]
    refused: RefusedSettings | None = None
    why: str = ""


def pools(
    *,
    as_json: Json = False,
    timeout: TimeoutSeconds = 10.0,
    address: ScalerAddress = "127.0.0.1:50053",
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
) -> None:
    """List the pools of replicas: wanted, present, and what keeps them from their size."""
    target = Target(address, tls_ca, tls_certificate, tls_key)

    async def work() -> None:
        metadata = metadata_for(address)
        channel = open_channel(
            address, tls_ca=tls_ca, tls_certificate=tls_certificate, tls_key=tls_key
        )
        async with channel:
            stub = scaler_pb2_grpc.ScalerServiceStub(channel)
            call = stub.ListPools(pb.ListPoolsRequest(), timeout=timeout, metadata=metadata)
            async with errors_of(call):
                found = await call
        listed = [_pool(pool) for pool in found.pools]
        refusal = refusal_of(found.refusal) if found.HasField("refusal") else None
        if as_json:
            for pool in listed:
                print_json("pool", pool)
            if refusal is not None:
                print_json("refusal", refusal)
            return
        screen = console()
        lines = [
            text
            for pool in listed
            if pool.refused is not None
            for text in pool.refused.lines(pool.name)
        ]
        if refusal is not None:
            lines = [*refusal_lines(refusal, what="the pools"), *lines]
        if lines:
            say(screen, "\n".join(lines), "red")
        print_table(screen, _table(listed))

    run(work(), target, service="scaler")


def _pool(message: pb.Pool) -> Pool:
    capacity = name_of(pb.CapacityKind.DESCRIPTOR, "CAPACITY_KIND", message.capacity)
    known = message.HasField("typical_start")
    return Pool(
        name=message.name,
        tier=message.tier,
        model=message.model,
        precision=message.precision,
        capacity=capacity,
        desired_replicas=message.desired_replicas,
        slots=message.slots,
        running=message.running,
        waiting=message.waiting,
        typical_start_seconds=seconds_of(message.typical_start) if known else None,
        trouble=message.trouble,
        replicas=tuple(
            Replica(
                replica.id,
                name_of(pb.ReplicaState.DESCRIPTOR, "REPLICA_STATE", replica.state),
                replica.address,
            )
            for replica in message.replicas
        ),
        refused=RefusedSettings.of(message.settings_refusal)
        if message.HasField("settings_refusal")
        else None,
        why=message.why,
    )


def _table(found: Iterable[Pool]) -> Table:
    table = Table()
    add_columns(table, ("pool", "tier", "model", "capacity"), numbers=("wanted", "slots"))
    add_columns(table, ("load", "start", "replicas"))
    for pool in found:
        start = pool.typical_start_seconds
        table.add_row(
            line(pool.name),
            line(pool.tier),
            line(f"{pool.model} {pool.precision}"),
            pool.capacity.replace("_", "-"),
            str(pool.desired_replicas),
            str(pool.slots),
            f"{pool.running} running, {pool.waiting} waiting",
            "-" if start is None else f"{start:.1f} s",
            _replicas(pool),
        )
    return table


def _replicas(pool: Pool) -> Text:
    """A line for each replica, one for why there are as many, and one for what is in the way."""
    lines = [
        Text.assemble(
            (f"{line(one.id)} {one.state}", STYLES.get(one.state, "")),
            f" {line(one.address)}" if one.address else "",
        )
        for one in pool.replicas
    ]
    if pool.why:
        lines.append(Text(plain(pool.why), style="dim"))
    if pool.trouble:
        lines.append(Text(plain(pool.trouble), style="red"))
    if not pool.replicas:
        lines.insert(0, Text("none"))
    return Text("\n").join(lines)
