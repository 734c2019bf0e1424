"""A scaler that answers as a test says, behind real gRPC."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from pennyweight.scaler.v1 import scaler_pb2_grpc


@asynccontextmanager
async def serving(
    servicer: scaler_pb2_grpc.ScalerServiceServicer, port: int = 0, *options: Any
) -> AsyncIterator[int]:
    server = grpc.aio.server(options=options)
    scaler_pb2_grpc.add_ScalerServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)
