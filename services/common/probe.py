"""Asks a server of ours whether it serves: ``python -m services.common.probe host:port [ca.pem]``.

For health checks of containers. Ends with 0 if it serves, with 1 and a sentence if not. A server
that asks callers for a certificate is shown that of ``--tls-certificate`` and ``--tls-key``.
"""

import argparse
from pathlib import Path
from typing import Any, NoReturn

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SECONDS = 3.0
OPTIONS = (("grpc.enable_http_proxy", 0),)  # not from elsewhere: this is to start quickly


def trouble(address: str, credentials: grpc.ChannelCredentials | None = None) -> str:
    """What keeps the server at the address from serving; empty, nothing."""
    channel = (
        grpc.insecure_channel(address, options=OPTIONS)
        if credentials is None
        else grpc.secure_channel(address, credentials, options=OPTIONS)
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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # Docker keeps 2, with which argparse ends, for itself.
        raise SystemExit(f"{self.format_usage()}{message}")


def main() -> None:
    """Runs the command line."""
    options = _Parser(prog="python -m services.common.probe", description=__doc__)
    options.add_argument("address", help="host:port of the server")
    options.add_argument("tls_ca", nargs="?", help="PEM bundle that signed its certificate")
    options.add_argument("--tls-certificate", help="PEM chain to show; needs --tls-key")
    options.add_argument("--tls-key", help="PEM key of that chain")
    told = options.parse_args()
    if (told.tls_certificate is None) != (told.tls_key is None):
        raise SystemExit("--tls-certificate and --tls-key go together")
    files = [told.tls_ca, told.tls_key, told.tls_certificate]
    try:
        read = [None if path is None else Path(path).read_bytes() for path in files]
    except OSError as error:
        raise SystemExit(str(error)) from None
    credentials = grpc.ssl_channel_credentials(*read) if any(files) else None
    found = trouble(told.address, credentials)
    if found:
        raise SystemExit(found)


if __name__ == "__main__":
    main()
