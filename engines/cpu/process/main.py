"""The engine process: a loop around the pipeline, started by the Python backend's stub.

When Triton itself is killed, its stub may stay for ever and ignores SIGTERM. So this process
looks out for that: it kills the stub, removes the shared memory that both left, and exits.

Run as
`python -m engines.cpu.process.main <socket fd> <note fd> <stub pid> <server pid> [shared memory]`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

from engines.cpu.messages import (
    Batch,
    Cancel,
    Load,
    LoadFailed,
    Quit,
    Ready,
    Standings,
    Submit,
)
from engines.cpu.process.admission import Admission
from engines.cpu.process.alarm import StepAlarm
from engines.cpu.process.engine import Engine
from engines.cpu.process.guides import Guides
from engines.cpu.process.pipeline import LoadError, OpenVinoPipeline
from engines.cpu.process.prefix import PrefixEstimate
from engines.cpu.process.trial import TOKEN_SHARE, Trial
from engines.cpu.process.trial import Limits as TrialLimits
from engines.cpu.process.weights import WeightsError, resolve
from engines.cpu.transport import ClosedError, Transport

_BEAT_MS = 1000
"""An idle engine says so often that it still turns."""

_STEP_SHARE = 2.5
_STEP_SECONDS = 1.0
"""So many times what compiling a guide may take, and so long at least, may a step take that follows
one, beyond what it may on average; then it ends the process."""

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lives


class Parents:
    """The stub and the server above this process, and what to do when the server is gone."""

    def __init__(self, stub_pid: int, server_pid: int, shared_memory: list[str]) -> None:
        self._stub = os.pidfd_open(stub_pid)
        self.server = os.pidfd_open(server_pid)
        self._shared_memory = shared_memory

    def clean_up(self) -> None:
        """Kill the stub and unlink its shared memory."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._stub, signal.SIGKILL)
        for name in self._shared_memory:
            with contextlib.suppress(OSError):
                (_SHARED_MEMORY / name).unlink()


def main(arguments: list[str]) -> int:
    """Serve until asked to quit or until nobody is left to serve. Return the exit status."""
    # Ctrl-C in a terminal reaches the whole group; the stub decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    transport = Transport(socket.socket(fileno=int(arguments[0])))
    parents = Parents(int(arguments[2]), int(arguments[3]), arguments[4:])
    try:
        _serve(transport, parents, int(arguments[1]))
    except ClosedError:
        return 0  # the stub is gone
    except Exception:  # noqa: BLE001 - said, and left to the stub, which starts another
        traceback.print_exc()
        return 1
    return 0


def _serve(transport: Transport, parents: Parents, note: int) -> None:
    poller = select.poll()
    poller.register(parents.server, select.POLLIN)
    poller.register(transport.fileno(), select.POLLIN)
    engine: Engine | None = None
    guides: Guides | None = None
    while True:
        interest = select.POLLIN | (select.POLLOUT if transport.unsent else 0)
        poller.modify(transport.fileno(), interest)
        ready = dict(poller.poll(0 if engine and engine.busy else _BEAT_MS))
        if parents.server in ready:
            parents.clean_up()
            return
        if transport.fileno() in ready:
            transport.flush()
            for message in transport.receive():
                if isinstance(message, Load):
                    engine, guides = _load(message, transport, note)
                    poller.register(guides.changed, select.POLLIN)
                elif isinstance(message, Quit):
                    return
                elif engine:
                    _hand(message, engine)
        if engine and guides and guides.changed in ready:
            os.eventfd_read(guides.changed)
            engine.prove()
        if engine and (engine.busy or not (ready or transport.unsent)):
            _tell(transport, engine)


def _hand(message: object, engine: Engine) -> None:
    if isinstance(message, Submit):
        engine.submit(*message)
    elif isinstance(message, Cancel):
        engine.cancel(message.key)
    elif isinstance(message, Standings):
        engine.inherit(message)


def _tell(transport: Transport, engine: Engine) -> None:
    transport.send(Batch(engine.turn(), engine.census()))
    if standings := engine.standings():
        transport.send(standings)


def _load(message: Load, transport: Transport, note: int) -> tuple[Engine, Guides]:
    settings = message.settings
    try:
        weights = resolve(settings.model, message.folder)
        pipeline = OpenVinoPipeline(weights, settings)
    except (LoadError, WeightsError) as error:
        transport.send(LoadFailed(str(error)))
        raise
    limits = pipeline.limits
    step_seconds = max(_STEP_SECONDS, _STEP_SHARE * settings.max_guide_ms / 1e3)
    most = TrialLimits(settings.max_guide_ms / 1e3, (settings.max_guide_memory_mb << 20) // 8)
    trial = Trial(weights, limits.vocabulary, most, pipeline.no_guides)
    guides = Guides(trial, pipeline.compile)
    engine = Engine(
        pipeline,
        Admission(limits.total_blocks, settings.max_batch, settings.max_queue_size),
        PrefixEstimate(
            limits.total_blocks if settings.enable_kv_cache_reuse else 0, limits.block_size
        ),
        limits.block_size,
        guides=guides,
        alarm=StepAlarm(note, step_seconds, settings.num_threads),
        read_at_once=max(settings.max_batched_tokens, settings.max_batch),
        slow_step_ns=settings.max_guide_ms * 1_000_000 // 2,
        guides_ns=int(settings.max_guide_ms * 1_000_000 * TOKEN_SHARE),
        guides_bytes=settings.max_guide_memory_mb << 20,
        choosing_ns=pipeline.choosing_ns,
        clock=time.monotonic_ns,
        worked=time.process_time_ns,
    )
    transport.send(Ready(limits))
    return engine, guides


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stderr.flush()
    # The kernel frees what the pipeline holds faster than the pipeline does.
    os._exit(status)
