"""Asks a server of ours whether it serves: ``python -m services.common.probe host:port [ca.pem]``.

For health checks of containers. Ends with 0 if it serves, with 1 and a sentence if not.
"""

import sys
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SECONDS = 3.0
OPTIONS = (("grpc.enable_http_proxy", 0),)  # not from elsewhere: this is to start quickly


def trouble(address: str, authority: bytes | None = None) -> str:
    """What keeps the server at the address from serving; empty, nothing."""
    channel = (
        grpc.insecure_channel(address, options=OPTIONS)
        if authority is None
        else grpc.secure_channel(address, grpc.ssl_channel_credentials(authority), options=OPTIONS)
    )
    with channel:
        try:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        except grpc.RpcError as error:
            return f"{address}: {error.code().name}: {error.details()}"
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return ""
    name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return f"{address}: {name}"


def main() -> None:
    """Runs the command line."""
    arguments = sys.argv[1:]
    if not 1 <= len(arguments) <= 2:  # noqa: PLR2004
        raise SystemExit("usage: python -m services.common.probe host:port [ca.pem]")
    authority = Path(arguments[1]).read_bytes() if len(arguments) > 1 else None
    found = trouble(arguments[0], authority)
    if found:
        raise SystemExit(found)


if __name__ == "__main__":
    main()
