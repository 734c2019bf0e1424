"""The running stack: starts the services together, keeps them running, ends them in order."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pennyweight.answers import PolicyRefusal
from pennyweight.channel import metadata_for, open_channel
from pennyweight.router.v1 import router_pb2, router_pb2_grpc
from pennyweight.scaler.v1 import scaler_pb2, scaler_pb2_grpc
from pennyweight.wire import refusal_of
from services.common.files import FolderLock
from services.local.children import Child, end_replicas, is_held, lock_state, recorded_replicas
from services.local.plan import STATES, Plan, Service, StackError, check_ports
from services.local.restarts import BAD_SETTINGS, pause_before_restart

START_SECONDS = 120.0
STOP_SECONDS = {"router": 15.0, "scaler": 45.0, "cache": 15.0}
"""How long each may take to end; the scaler waits for its replicas."""

LEFT_SECONDS = 30.0
"""For what a stack that was killed left: its services drain."""

POLL_SECONDS = 0.1
CALL_SECONDS = 2.0


@dataclass(frozen=True)
class Step:
    """Something the start waits for: what, how it is, whether that will do."""

    name: str
    state: str
    done: bool


class Stop:
    """What the user wants: `asked` after the first Ctrl-C or SIGTERM, `forced` after the second."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.forced = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        (self.forced if self.asked.is_set() else self.asked).set()


class Stack:
    """A context manager: inside it the services run, after it nothing of them is left.

    Args:
        plan: what to start.
        stop: what the user wants; `forced` cuts the orderly end short.
        say: hears one sentence for each thing that is waited for at the end.
    """

    def __init__(
        self,
        plan: Plan,
        stop: Stop,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan = plan
        self.channels = {one.name: open_channel(one.address) for one in plan.services}
        self.metadata = metadata_for(plan["router"].address, plan.key())
        self._stop = stop
        self._say = say
        self._clock = clock
        self._children: dict[str, Child] = {}
        self._lock: FolderLock | None = None
        self._was_ready = False

    async def __aenter__(self) -> Self:
        """Starts the services.

        Raises:
            StackError: a port or the state folder is in use.
        """
        self._lock = lock_state(self.plan.state)
        try:
            await self._earlier_ends()
            self.plan.put_scaling()  # not before: a stack that runs takes up what it finds
            if left := recorded_replicas(self.plan.scaler_state):
                self._say(f"an earlier run left replicas, which are taken over: {', '.join(left)}")
            for service in self.plan.services:
                self._children[service.name] = await Child.start(service, self.plan.logs)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end()

    async def _earlier_ends(self) -> None:
        """Waits for services that end because the stack that started them was killed.

        Raises:
            StackError: a port is in use.
        """
        until, waited = self._clock() + LEFT_SECONDS, False
        while True:
            left = [name for name in STATES if is_held(self.plan.state_of(name), name)]
            last = self._clock() >= until or self._stop.asked.is_set()
            if not left or last:
                try:
                    check_ports(self.plan.services)
                except StackError:
                    if last or not waited:
                        raise
                else:
                    return
            if not waited:
                self._say(f"an earlier run's {' and '.join(left)} still ends, and is waited for")
            waited = True
            await asyncio.sleep(POLL_SECONDS)

    async def kept(self) -> StackError:
        """Keeps the services running: one that ends by itself is started anew, where it was.

        None is before all were ready once: then something is wrong with the start.

        Returns:
            what to say of one that cannot be kept.
        """
        tasks = [asyncio.create_task(self._keep(service)) for service in self.plan.services]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, service: Service) -> StackError:
        ends: list[float] = []
        code = 0
        while True:
            child, before = self._children[service.name], code
            code = await child.ended()
            if code != BAD_SETTINGS:
                ends.append(time.monotonic())
            how = f"with code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
            pause = pause_before_restart(ends, code) if self._was_ready else None
            if pause is None:
                often = f" {len(ends)} times, at last" if len(ends) > 1 else ""
                return StackError(
                    f"The {service.name} ended by itself{often}, {how}.",
                    f"The end of {child.log}:\n{child.last_lines()}",
                )
            if code != BAD_SETTINGS:
                self._say(f"the {service.name} ended by itself, {how}, and is started anew")
            elif before != BAD_SETTINGS:
                self._say(
                    f"the {service.name} cannot start with its settings, and is tried again until "
                    f"they are mended: {child.last_lines()}"
                )
            await asyncio.sleep(pause)
            start = asyncio.create_task(Child.start(service, self.plan.logs))
            try:
                self._children[service.name] = await asyncio.shield(start)
            except asyncio.CancelledError:
                self._children[service.name] = await start  # so that it is ended with the others
                raise

    async def starting(self) -> AsyncIterator[tuple[Step, ...]]:
        """Yields how far the start is until every service is healthy and every tier has a replica.

        Raises:
            StackError: it took too long; says what is missing.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            steps = await self._steps()
            yield steps
            missing = [step for step in steps if not step.done]
            if not missing:
                self._was_ready = True
                return
            if time.monotonic() > deadline:
                raise StackError(
                    f"The stack is not ready after {START_SECONDS:.0f} s.",
                    "\n".join(f"{step.name}: {step.state}" for step in missing)
                    + f"\nLogs are in {self.plan.logs} and {self.plan.scaler_state}.",
                )
            await asyncio.sleep(POLL_SECONDS)

    async def pools(self) -> list[scaler_pb2.Pool]:
        """The pools as the scaler lists them; none while it cannot be asked."""
        stub = scaler_pb2_grpc.ScalerServiceStub(self.channels["scaler"])
        request = scaler_pb2.ListPoolsRequest()
        try:
            found = await stub.ListPools(request, timeout=CALL_SECONDS, metadata=self.metadata)
        except grpc.aio.AioRpcError:
            return []
        return list(found.pools)

    async def refusals(self) -> list[PolicyRefusal]:
        """Policy files that router and scaler refuse; of one that cannot be asked nothing."""
        router = router_pb2_grpc.RouterServiceStub(self.channels["router"])
        scaler = scaler_pb2_grpc.ScalerServiceStub(self.channels["scaler"])
        options: dict[str, Any] = {"timeout": CALL_SECONDS, "metadata": self.metadata}
        answers = await asyncio.gather(
            router.ListRoutes(router_pb2.ListRoutesRequest(), **options),
            scaler.ListPools(scaler_pb2.ListPoolsRequest(), **options),
            return_exceptions=True,
        )
        return [
            refusal_of(answer.refusal)
            for answer in answers
            if not isinstance(answer, BaseException) and answer.HasField("refusal")
        ]

    async def troubles(self) -> list[str]:
        """What ails tiers, a sentence each; empty while the router cannot be asked."""
        tiers = {one.name: one.trouble for one in await self._listed() if one.trouble}
        return [f"tier {name}: {trouble}" for name, trouble in sorted(tiers.items())]

    async def _steps(self) -> tuple[Step, ...]:
        names = [service.name for service in self.plan.services]
        healthy, pools, tiers = await asyncio.gather(
            asyncio.gather(*(self._is_healthy(name) for name in names)),
            self.pools(),
            self._listed(),
        )
        steps = [
            Step(name, "ready" if is_healthy else "starting", is_healthy)
            for name, is_healthy in zip(names, healthy, strict=True)
        ]
        steps += [_pool_step(pool) for pool in pools]
        if not pools:
            steps.append(Step("replicas", "waiting for the scaler", done=False))
        without = sorted(
            {
                f"{tier.name} ({tier.trouble})" if tier.trouble else tier.name
                for tier in tiers
                if not tier.ready_replicas
            }
        )
        state = (
            f"no replica yet for {', '.join(without)}" if without else "every tier has a replica"
        )
        if not tiers:
            state = "waiting for the router"
        steps.append(Step("routes", state, bool(tiers) and not without))
        return tuple(steps)

    async def silent(self) -> list[str]:
        """Services that run and do not answer, a sentence each: hung, or not up again yet."""
        names = [name for name, child in self._children.items() if child.code is None]
        found = await asyncio.gather(*(self._health(name) for name in names))
        return [
            f"the {name} does not answer"
            for name, health in zip(names, found, strict=True)
            if health is None
        ]

    async def _is_healthy(self, name: str) -> bool:
        return await self._health(name) == health_pb2.HealthCheckResponse.SERVING

    async def _health(self, name: str) -> int | None:
        """What a service says of its health; None: it does not answer."""
        stub: Any = health_pb2_grpc.HealthStub(self.channels[name])
        request = health_pb2.HealthCheckRequest(service=self.plan[name].full_name)
        try:
            answer = await stub.Check(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError:
            return None
        return int(answer.status)

    async def _listed(self) -> list[router_pb2.Tier]:
        """Tiers as the router sees them, route by route; empty while it cannot be asked."""
        stub = router_pb2_grpc.RouterServiceStub(self.channels["router"])
        request = router_pb2.ListRoutesRequest()
        try:
            found = await stub.ListRoutes(request, timeout=CALL_SECONDS, metadata=self.metadata)
        except grpc.aio.AioRpcError:
            return []
        return [tier for route in found.routes for tier in route.ladder]

    async def _end(self) -> None:
        for channel in self.channels.values():
            await channel.close()
        for child in reversed(self._children.values()):
            if child.code is None:
                what = " and its replicas" if child.service.name == "scaler" else ""
                self._say(f"stopping the {child.service.name}{what}")
            child.send(signal.SIGTERM)
            if not await self._ended(child):
                self._say(f"the {child.service.name} does not end by itself and is killed")
                child.send(signal.SIGKILL)
                await child.ended()
        scaler = self._children.get("scaler")
        if scaler is not None and scaler.code != 0:
            for replica in await asyncio.to_thread(end_replicas, self.plan.scaler_state):
                self._say(f"killed replica {replica}, which the scaler left")
        if self._lock is not None:
            self._lock.close()

    async def _ended(self, child: Child) -> bool:
        """Whether it ends in time, and before the user forces it."""
        ended = asyncio.create_task(child.ended())
        forced = asyncio.create_task(self._stop.forced.wait())
        seconds = STOP_SECONDS[child.service.name]
        await asyncio.wait({ended, forced}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in (ended, forced):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        return child.code is not None


def _pool_step(pool: scaler_pb2.Pool) -> Step:
    ready = sum(one.state == scaler_pb2.REPLICA_STATE_READY for one in pool.replicas)
    state = f"{ready} of {pool.desired_replicas} ready"
    if pool.trouble:
        state += f" ({pool.trouble})"
    return Step(f"pool {pool.name}", state, ready >= pool.desired_replicas)
