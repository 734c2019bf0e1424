"""``pools``: what the scaler keeps running."""

from collections.abc import Iterable
from typing import Annotated

import grpc
import typer
from rich.table import Table

from pennyweight.channel import metadata_for, open_channel
from pennyweight.command.ending import run
from pennyweight.command.options import TimeoutSeconds, TlsCa
from pennyweight.command.show import console
from pennyweight.errors import error_of_call
from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.scaler.v1 import scaler_pb2_grpc
from pennyweight.wire import name_of, seconds_of

ScalerAddress = Annotated[
    str,
    typer.Option(help="host:port of the scaler.", envvar="PENNYWEIGHT_FLEET_ADDRESS"),
]
STYLES = {"ready": "green", "starting": "yellow", "draining": "magenta", "gone": "dim"}


def pools(
    timeout: TimeoutSeconds = 10.0,
    address: ScalerAddress = "127.0.0.1:50053",
    tls_ca: TlsCa = None,
) -> None:
    """List the pools of replicas: wanted, present, and what keeps them from their size."""

    async def work() -> None:
        metadata = metadata_for(address)
        async with open_channel(address, tls_ca=tls_ca) as channel:
            stub = scaler_pb2_grpc.ScalerServiceStub(channel)
            try:
                found = await stub.ListPools(
                    pb.ListPoolsRequest(), timeout=timeout, metadata=metadata
                )
            except grpc.aio.AioRpcError as error:
                raise error_of_call(error) from error
        console().print(_table(found.pools))

    run(work(), address)


def _table(found: Iterable[pb.Pool]) -> Table:
    table = Table()
    for name in ("pool", "tier", "model", "capacity", "wanted", "slots", "load", "start"):
        right = name in ("wanted", "slots")
        table.add_column(name, justify="right" if right else "left")
    table.add_column("replicas", overflow="fold")
    for pool in found:
        capacity = name_of(pb.CapacityKind.DESCRIPTOR, "CAPACITY_KIND", pool.capacity)
        replicas = [
            f"[{STYLES.get(state, '')}]{replica.id} {state}[/] {replica.address}".rstrip()
            for replica in pool.replicas
            for state in [name_of(pb.ReplicaState.DESCRIPTOR, "REPLICA_STATE", replica.state)]
        ]
        if pool.trouble:
            replicas.append(f"[red]{pool.trouble}[/]")
        table.add_row(
            pool.name,
            pool.tier,
            f"{pool.model} {pool.precision}",
            capacity.replace("_", "-"),
            str(pool.desired_replicas),
            str(pool.slots),
            f"{pool.running} running, {pool.waiting} waiting",
            f"{seconds_of(pool.typical_start):.1f} s" if pool.HasField("typical_start") else "-",
            "\n".join(replicas) or "none",
        )
    return table
