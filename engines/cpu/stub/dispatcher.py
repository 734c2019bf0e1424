"""The stub's one thread that sends: news from the engine become responses.

It alone touches the senders it was given (`stream.py` says why), and does everything in turns:
read what the engine says, send what is due, see which callers left, publish metrics.

A dead engine process ends all its requests at once with an error and is started again.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from engines.cpu.messages import Batch, Cancel, Census, LoadFailed, Ready, Submit
from engines.cpu.request import Generation, Limits
from engines.cpu.settings import Settings
from engines.cpu.stub.answer import Answer
from engines.cpu.stub.link import Link
from engines.cpu.stub.stream import Sender, Stream
from engines.cpu.transport import ClosedError

_FIRST_RESTART_SECONDS = 0.0
_MAX_RESTART_SECONDS = 10.0
_IDLE_SECONDS = 3600.0


class NotReadyError(Exception):
    """There is no engine to run the request right now."""


class Publisher(Protocol):
    """Where metrics go."""

    def publish(self, census: Census, active: int) -> None:
        """Take the latest accounting."""

    def observe(self, input_tokens: int, output_tokens: int) -> None:
        """Take the lengths of a request that ended."""


class Dispatcher:
    """Runs requests on an engine process. `start` returns the model's limits once it is loaded.

    `launch` starts an engine process, `log` says something to the server's log.
    """

    def __init__(
        self, settings: Settings, launch: Callable[[], Link], log: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._launch = launch
        self._log = log
        self._lock = threading.Lock()  # held while a stream comes or all go, and to write
        self._keys = itertools.count(1)
        self._streams: dict[int, Stream] = {}
        self._link: Link | None = None
        self._ready = False
        self._closing = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._publisher: Publisher | None = None
        self._census = Census()
        self._published = (Census(), 0)
        self._restart_at = 0.0
        self._restart_pause = _FIRST_RESTART_SECONDS
        self._thread = threading.Thread(target=self._run, name="pennyweight-dispatcher")

    def start(self) -> Limits:
        """Start the engine process and wait until it is loaded. Raises `NotReadyError`."""
        self._link = link = self._launch()
        while True:
            select.select([link.transport], [], [])
            try:
                messages = link.transport.receive()
            except ClosedError:
                raise NotReadyError(f"the engine process ended ({link.reap()})") from None
            for message in messages:
                if isinstance(message, LoadFailed):
                    link.reap()
                    raise NotReadyError(message.reason)
                if isinstance(message, Ready):
                    self._ready = True
                    return message.limits

    def serve(self, publisher: Publisher) -> None:
        """Begin to dispatch."""
        self._publisher = publisher
        self._thread.start()

    def close(self) -> None:
        """Fail what still runs and end the engine process."""
        self._closing = True
        os.eventfd_write(self._wake, 1)
        if self._thread.is_alive():
            self._thread.join()
        elif self._link:
            self._link.quit()

    def submit(
        self, request_id: str, generation: Generation, sender: Sender, arrival_ns: int
    ) -> None:
        """Run a request; from here on `sender` belongs to the dispatcher.

        Raises `NotReadyError`, and then it does not.
        """
        answer = Answer(generation, arrival_ns)
        with self._lock:
            if not self._ready or self._link is None:
                raise NotReadyError("the engine is not at ready state: it is being restarted")
            key = next(self._keys)
            first = not self._streams
            try:
                self._link.transport.send(Submit(key, generation))
            except ClosedError:
                raise NotReadyError("the engine is not at ready state: it just ended") from None
            # Only now: until here the caller may have to answer, on its own thread.
            self._streams[key] = Stream(request_id, sender, answer)
        if first:
            os.eventfd_write(self._wake, 1)  # the thread may be asleep for long

    def stop(self, request_id: str) -> None:
        """End the requests of that id with what they have; nothing happens if there are none.

        Each still gets its last response in the form of any other, with log-probs and figures
        where it asked for them: a whole answer's holds every token made so far, a stream's those
        not sent yet. Nothing in it says that the answer was cut.

        TensorRT-LLM 1.2 is poorer here: its last response has the same form and figures, but the
        executor drops the tokens first, so `output_ids` holds none (or the prompt, where that is
        echoed) and the token counts miss them; only the length of `output_log_probs` still says
        how far it came. It ends a request that waits once that gets a place, and knows only the
        latest of several requests with one id.
        """
        for key, stream in list(self._streams.items()):
            if stream.request_id == request_id:
                self._cancel(key)

    def _cancel(self, key: int) -> None:
        with self._lock:
            if self._link and self._ready:
                try:
                    self._link.transport.send(Cancel(key))
                except ClosedError:
                    return  # the thread learns of it by itself

    def _run(self) -> None:
        schedule = _Schedule(self._settings)
        while not self._closing:
            try:
                self._turn(schedule)
            except Exception as error:  # noqa: BLE001 - a dead thread would hang every request
                self._log(f"engine dispatcher: {error!r}")
                self._lose_engine(f"internal error: {error!r}")
        self._fail_all("the model is being unloaded")
        if self._link:
            self._link.quit()

    def _turn(self, schedule: _Schedule) -> None:
        now = time.monotonic()
        if self._link is None and now >= self._restart_at:
            self._link = self._launch()
        try:
            self._wait(schedule, now)
            if self._link:
                self._read(self._link)
        except ClosedError:  # met by whoever comes first: what is read, or what was still unsent
            self._lose_engine("the engine process ended")
        now = time.monotonic()
        self._send_due(schedule, now)
        if self._streams and now >= schedule.next_check:
            schedule.next_check = now + schedule.check_period
            self._cancel_abandoned()
        if now >= schedule.next_publish or not self._streams:
            self._publish(schedule, now)

    def _wait(self, schedule: _Schedule, now: float) -> None:
        """Sleep until there may be something to do."""
        reads: list[Any] = [self._wake]
        writes: list[Any] = []
        until = now + _IDLE_SECONDS
        if self._link:
            reads.append(self._link.transport)
            if self._link.transport.unsent:
                writes.append(self._link.transport)
        else:
            until = self._restart_at
        if self._streams:
            until = min(until, schedule.next_check, schedule.next_publish, schedule.next_due)
        readable, writable, _ = select.select(reads, writes, [], max(0.0, until - now))
        if self._wake in readable:
            os.eventfd_read(self._wake)
        if writable:
            with self._lock:
                writable[0].flush()

    def _read(self, link: Link) -> None:
        for message in link.transport.receive():
            if isinstance(message, Batch):
                self._census = message.census
                with self._lock:  # a request is known only once `submit` is through with it
                    for progress in message.progress:
                        stream = self._streams.get(progress.key)
                        if stream:
                            stream.answer.add(progress)
            elif isinstance(message, Ready):
                self._log("the engine is ready again")
                self._restart_pause = _FIRST_RESTART_SECONDS
                with self._lock:
                    self._ready = True
            elif isinstance(message, LoadFailed):
                self._log(f"the engine cannot load: {message.reason}")

    def _send_due(self, schedule: _Schedule, now: float) -> None:
        streams = list(self._streams.items())
        streaming = sum(stream.answer.generation.streaming for _, stream in streams)
        interval = streaming / self._settings.max_responses_per_second
        schedule.next_due = now + _IDLE_SECONDS
        for key, stream in streams:
            due_at = stream.due_at(interval)
            if due_at is None:
                continue
            if due_at > now:
                schedule.next_due = min(schedule.next_due, due_at)
                continue
            if stream.answer.end:
                del self._streams[key]
                # Before the last response: who has that finds the metrics true.
                self._count(stream.answer)
            try:
                stream.send(now)
            except Exception as error:  # noqa: BLE001 - one caller's trouble is not the others'
                self._log(f"a response could not be sent: {error!r}")
                self._cancel(key)
                with contextlib.suppress(Exception):
                    stream.fail("a response could not be sent")

    def _count(self, answer: Answer) -> None:
        """Add a request's tokens to the metrics, once, however it ended."""
        if self._publisher is None or answer.refused:
            return
        try:
            self._publisher.observe(len(answer.generation.prompt), answer.output_tokens)
        except Exception as error:  # noqa: BLE001 - the caller still needs the answer
            self._log(f"tokens could not be counted: {error!r}")

    def _cancel_abandoned(self) -> None:
        for key, stream in list(self._streams.items()):
            if stream.just_cancelled():
                self._cancel(key)

    def _publish(self, schedule: _Schedule, now: float) -> None:
        schedule.next_publish = now + schedule.publish_period
        current = (self._census, len(self._streams))
        if self._publisher and current != self._published:
            self._published = current
            self._publisher.publish(*current)

    def _lose_engine(self, reason: str) -> None:
        """Fail everything, make sure the process is gone, and have another started."""
        link = self._link
        with self._lock:
            self._ready = False
            self._link = None
        self._fail_all(reason)
        self._census = Census()
        if link:
            self._log(f"{reason} ({link.reap()}); starting another")
        self._restart_at = time.monotonic() + self._restart_pause
        self._restart_pause = min(_MAX_RESTART_SECONDS, max(0.5, 2 * self._restart_pause))

    def _fail_all(self, reason: str) -> None:
        with self._lock:
            self._ready = False
            streams, self._streams = self._streams, {}
        for key, stream in streams.items():
            self._count(stream.answer)
            text = f"Executor failed process requestId {key} due to the following error: {reason}"
            try:
                stream.fail(text)
            except Exception as error:  # noqa: BLE001 - the others still need theirs
                self._log(f"an error could not be sent: {error!r}")


class _Schedule:
    """When the dispatcher's recurring work is due next, monotonic seconds."""

    def __init__(self, settings: Settings) -> None:
        self.check_period = settings.cancellation_check_period_ms / 1e3
        self.publish_period = settings.stats_check_period_ms / 1e3
        self.next_check = 0.0
        self.next_publish = 0.0
        self.next_due = 0.0
