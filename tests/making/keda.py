"""What KEDA does with an external scaler, by its own rules, on a clock that a test moves.

Written from its documentation: each polling interval it asks whether the trigger is active and for
its metric; from zero it goes to at least one when active, to zero once nothing was active for the
cooldown; between these an HPA computes the size from the metric, and after so many failures in a
row the fallback's number stands for it, where GetMetricSpec succeeds. A push of true acts at once.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import grpc

from externalscaler import externalscaler_pb2 as pb
from externalscaler import externalscaler_pb2_grpc


@dataclass
class Keda:
    """One ScaledObject.

    Attributes:
        replicas: of its workload.
        failures: of its metric in a row.
    """

    channel: grpc.aio.Channel
    ref: pb.ScaledObjectRef
    replicas: int = 0
    min_replicas: int = 0
    max_replicas: int = 10
    cooldown_seconds: float = 300.0
    failure_threshold: int = 3
    fallback_replicas: int = 4
    failures: int = 0
    now: float = 0.0
    last_active: float = float("-inf")
    stub: Any = field(init=False)

    def __post_init__(self) -> None:
        make: Any = externalscaler_pb2_grpc.ExternalScalerStub
        self.stub = make(self.channel)

    async def poll(self, seconds: float = 30.0) -> int:
        """One polling interval; the replicas after it."""
        self.now += seconds
        try:
            (spec,) = (await self.stub.GetMetricSpec(self.ref, timeout=3.0)).metricSpecs
        except grpc.aio.AioRpcError:
            return self.replicas  # nothing is read, counted or fallen back to
        target = spec.targetSizeFloat if spec.targetSizeFloat > 0 else float(spec.targetSize)
        try:
            asked = pb.GetMetricsRequest(scaledObjectRef=self.ref, metricName=spec.metricName)
            answer = await self.stub.GetMetrics(asked, timeout=3.0)
            active = (await self.stub.IsActive(self.ref, timeout=3.0)).result
        except grpc.aio.AioRpcError:
            self.failures += 1
            if self.failures >= self.failure_threshold and self.replicas:
                self.replicas = self._bounded(self.fallback_replicas)
            return self.replicas
        self.failures = 0
        (metric,) = answer.metricValues
        value = metric.metricValueFloat if metric.metricValueFloat > 0 else metric.metricValue
        self._act(active=active)
        if self.replicas:
            self.replicas = self._bounded(max(1, math.ceil(value / target)))
        return self.replicas

    def pushed(self, *, active: bool) -> int:
        """What came on the stream; false is ignored."""
        if active:
            self._act(active=True)
        return self.replicas

    def _act(self, *, active: bool) -> None:
        if active:
            self.last_active = self.now
            self.replicas = max(self.replicas, 1)
        elif self.min_replicas == 0 and self.now - self.last_active >= self.cooldown_seconds:
            self.replicas = 0

    def _bounded(self, replicas: int) -> int:
        return min(max(replicas, self.min_replicas, 1), self.max_replicas)
