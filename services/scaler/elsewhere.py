"""Puts together what only some scalers have: places other than slots, and KEDA's port."""

import asyncio
import os
import socket
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog

from externalscaler.externalscaler_pb2_grpc import add_ExternalScalerServicer_to_server
from services.common.credentials import Keyring
from services.common.keyless import Keyless
from services.common.process import Frame
from services.common.server import Server
from services.scaler.config import ScalerSettings, Scaling
from services.scaler.keda import MOST_CALLS, ExternalScaler
from services.scaler.metrics import Metrics
from services.scaler.ports import Target
from services.scaler.targets.external import ExternalTarget
from services.scaler.targets.several import Make, Where

log = structlog.get_logger()


def open_keda(settings: ScalerSettings, keda: ExternalScaler, frame: Frame) -> Server | None:
    """The server that KEDA calls, with its address taken; None: there is to be none.

    KEDA brings no key, so whoever reaches the address may ask.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    if not settings.keda_listen:
        return None
    own = replace(settings, listen=settings.keda_listen)
    server = Server(own, Keyring(), frame.tracing)
    frame.closing.push_async_callback(server.close)
    add: Any = add_ExternalScalerServicer_to_server
    add(keda, Keyless(server.grpc, MOST_CALLS))
    server.bind()
    return server


async def serve_keda(server: Server, stop: asyncio.Event) -> None:
    """Serves KEDA until `stop` is set.

    Raises:
        ServerEnded: the server ended by itself.
    """
    log.info("serving KEDA", port=await server.start())
    await server.serve_until_stopped(stop)


def places(settings: ScalerSettings, metrics: Metrics, slots: Make) -> Mapping[Where, Make]:
    """How the target of each place is made."""

    def external(own: Scaling) -> Target:
        return ExternalTarget(own.pools)

    def kubernetes(own: Scaling) -> Target:
        # The extra that brings the cluster's library is needed where such pools are.
        from services.scaler.targets.kubernetes.client import KubernetesClient  # noqa: PLC0415
        from services.scaler.targets.kubernetes.target import (  # noqa: PLC0415
            Elected,
            KubernetesTarget,
        )

        namespace, _, name = settings.lease.partition("/")
        identity = settings.identity or f"{socket.gethostname()}-{os.getpid()}"
        return KubernetesTarget(
            own.pools,
            lambda: KubernetesClient.open(settings.kubeconfig),
            metrics,
            elected=Elected(namespace, name, identity) if settings.lease else None,
        )

    return {Where.SLOTS: slots, Where.EXTERNAL: external, Where.KUBERNETES: kubernetes}
