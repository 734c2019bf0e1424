"""The running stack: starts the services together, keeps them running, ends them in order."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

from services.common.files import FolderLock
from services.local.asking import Asking, Step
from services.local.children import Child, end_replicas, is_held, lock_state, recorded_replicas
from services.local.plan import STATES, Plan, Service, StackError, check_ports
from services.local.restarts import BAD_SETTINGS, pause_before_restart

START_SECONDS = 120.0
STOP_SECONDS = {"router": 15.0, "scaler": 45.0, "cache": 15.0}
"""How long each may take to end; the scaler waits for its replicas."""

LEFT_SECONDS = 30.0
"""For what a stack that was killed left: its services drain."""

POLL_SECONDS = 0.1


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

    `services` asks them how they are.

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
        self.services = Asking(plan)
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
            steps = await self.services.steps()
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

    async def silent(self) -> list[str]:
        """Services that run and do not answer, a sentence each: hung, or not up again yet."""
        names = [name for name, child in self._children.items() if child.code is None]
        found = await asyncio.gather(*(self.services.health(name) for name in names))
        return [
            f"the {name} does not answer"
            for name, health in zip(names, found, strict=True)
            if health is None
        ]

    async def _end(self) -> None:
        await self.services.close()
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
