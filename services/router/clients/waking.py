"""Calls the scaler for a replica of a tier that has none."""

import grpc

from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.scaler.v1 import scaler_pb2_grpc
from services.common.calls import is_cancelled
from services.common.channel import AWAY, Peer
from services.router.ports import Coming, ComingAnswer

CONNECT_SECONDS = 1.5
CALL_SECONDS = 2.0


class ScalerWaking:
    """See `services.router.ports.Waking`. Each call has a connection of its own: there are few."""

    def __init__(self, peer: Peer) -> None:
        """Nothing is connected yet."""
        self._peer = peer

    async def wake(self, tier: str) -> Coming:
        """Asks the scaler; one that is away, or older than this call, says nothing."""
        try:
            async with self._peer.connected(CONNECT_SECONDS) as scaler:
                stub = scaler_pb2_grpc.ScalerServiceStub(scaler.channel)
                answer = await stub.Wake(
                    pb.WakeRequest(tier=tier), metadata=scaler.metadata, timeout=CALL_SECONDS
                )
        except AWAY as error:
            if not isinstance(error, grpc.aio.AioRpcError) and is_cancelled():
                raise
            return Coming(ComingAnswer.UNKNOWN)
        if not answer.coming:
            return Coming(ComingAnswer.NONE)
        return Coming(ComingAnswer.COMING, answer.expected_in.ToNanoseconds() / 1e9)
