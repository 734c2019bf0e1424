"""The stub's one thread that sends: news from the engine become responses.

It alone touches the senders it was given (`stream.py` says why), and does everything in turns:
read what the engine says, send what is due, see which callers left, publish metrics.

A dead engine process ends all its requests at once with an error and is started again, as does one
that falls silent. One whose compiled guides fill its memory, which nothing empties, is replaced
without failing anything: another takes what comes, the old one ends what it runs. What is held
against sources goes from each process to the next.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Protocol

from engines.cpu.messages import (
    MAYBE,
    TOO_SLOW,
    Batch,
    Cancel,
    Census,
    LoadFailed,
    Ready,
    Standings,
    Step,
    Submit,
)
from engines.cpu.request import INVALID_PREFIX, Generation, InvalidRequestError, Limits
from engines.cpu.settings import Settings
from engines.cpu.stub.answer import Answer
from engines.cpu.stub.link import Link
from engines.cpu.stub.processes import TURN_SECONDS, EngineProcess, Processes, Suspects
from engines.cpu.stub.stream import Sender, Stream
from engines.cpu.transport import ClosedError

_IDLE_SECONDS = 3600.0
_OTHERS = "the engine is shutting down over the guide of another request"
_WELL_SHARE = 0.25  # of the silence that ends an engine: after it, it is not taken for well


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
        self._processes = Processes(launch, settings.max_guide_memory_mb << 20)
        self._suspects = Suspects()
        self._standings = Standings()
        self._log = log
        self._lock = threading.Lock()  # held while a stream comes or all go, and to write
        self._key = 0  # the latest request's
        self._streams: dict[int, Stream] = {}
        self._closing = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._publisher: Publisher | None = None
        self._published = (Census(), 0)
        self._turned_at = 0.0
        self._thread = threading.Thread(target=self._run, name="pennyweight-dispatcher")

    def start(self) -> Limits:
        """Start the engine process and wait until it is loaded. Raises `NotReadyError`."""
        coming = self._processes.start()
        link = coming.link
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
                    self._processes.take_over(coming, 0)
                    return message.limits

    def serve(self, publisher: Publisher) -> None:
        """Begin to dispatch."""
        self._publisher = publisher
        self._turned_at = time.monotonic()
        self._thread.start()

    def close(self) -> None:
        """Fail what still runs and end the engine process."""
        self._closing = True
        os.eventfd_write(self._wake, 1)
        if self._thread.is_alive():
            self._thread.join()
        else:
            self._quit()

    def well(self) -> bool:
        """Whether engine and thread have been heard of lately."""
        within = self._settings.max_silence_ms / 1e3 * _WELL_SHARE
        late = time.monotonic() - self._turned_at
        return self._processes.well(within) and late < max(within, 2 * TURN_SECONDS)

    def submit(
        self, request_id: str, generation: Generation, sender: Sender, arrival_ns: int
    ) -> None:
        """Run a request; from here on `sender` belongs to the dispatcher.

        Raises `NotReadyError` or `InvalidRequestError`, and then it does not.
        """
        if guide := generation.guide:
            now = time.monotonic()
            if self._suspects.guilty(guide):
                raise InvalidRequestError(TOO_SLOW.removeprefix(INVALID_PREFIX))
            if self._suspects.doubted(guide, generation.source, now):
                raise NotReadyError(f"engines ended lately and {MAYBE}: please try elsewhere")
            if not self._suspects.trusts(generation.source, now):
                generation = replace(generation, known_only=True)
        answer = Answer(generation, arrival_ns)
        with self._lock:
            engine = self._processes.current
            if engine is None or not engine.ready:
                raise NotReadyError("the engine is not at ready state: it is being restarted")
            self._key += 1
            key = self._key
            first = not self._streams
            try:
                engine.link.transport.send(Submit(key, generation))
            except ClosedError:
                raise NotReadyError("the engine is not at ready state: it just ended") from None
            # Only now: until here the caller may have to answer, on its own thread.
            self._streams[key] = Stream(request_id, sender, answer)
        if first:
            os.eventfd_write(self._wake, 1)  # the thread may be asleep for long

    def stop(self, request_id: str) -> bool:
        """End the requests of that id with what they have; whether there are any.

        Each still gets its last response in the form of any other, with log-probs and figures
        where it asked for them: a whole answer's holds every token made so far, a stream's those
        not sent yet. Nothing in it says that the answer was cut.

        TensorRT-LLM 1.2 is poorer here: its last response has the same form and figures, but the
        executor drops the tokens first, so `output_ids` holds none (or the prompt, where that is
        echoed) and the token counts miss them; only the length of `output_log_probs` still says
        how far it came. It ends a request that waits once that gets a place, and knows only the
        latest of several requests with one id.
        """
        keys = [k for k, one in list(self._streams.items()) if one.request_id == request_id]
        for key in keys:
            self._cancel(key)
        return bool(keys)

    def _cancel(self, key: int) -> None:
        with self._lock:
            engine = self._processes.of(key)
            if engine and engine.ready:
                with contextlib.suppress(ClosedError):  # the thread learns of it by itself
                    engine.link.transport.send(Cancel(key))

    def _run(self) -> None:
        schedule = _Schedule(self._settings)
        while not self._closing:
            try:
                self._turn(schedule)
            except Exception as error:  # noqa: BLE001 - a dead thread would hang every request
                self._log(f"engine dispatcher: {error!r}")
                for engine in self._processes.all():
                    self._lose(engine, f"internal error: {error!r}")
        self._fail("the model is being unloaded", lambda _: True)
        self._quit()

    def _quit(self) -> None:
        for engine in self._processes.all():
            engine.link.quit()

    def _turn(self, schedule: _Schedule) -> None:
        now = time.monotonic()
        pause = now - self._turned_at
        self._turned_at = now
        start_at = self._processes.next_start(now)
        if start_at is not None and start_at <= now:
            if self._processes.current:
                self._log("compiled guides fill the engine's memory: it is replaced")
            self._processes.start()
            start_at = None
        self._wait(schedule, now, start_at)
        for engine in self._processes.all():
            try:
                self._hear(engine, pause)
            except ClosedError:  # met by whoever comes first: what is read, or still unsent
                blamed = self._blamed(engine)
                reason = "the engine process ended"
                if blamed is not None:
                    reason += " by its alarm: a step that followed guides took too long"
                self._lose(engine, reason, blamed)
        now = time.monotonic()
        self._send_due(schedule, now)
        if self._streams and now >= schedule.next_check:
            schedule.next_check = now + schedule.check_period
            self._cancel_abandoned()
        if now >= schedule.next_publish or not self._streams:
            self._publish(schedule, now)
        if self._processes.leaving and (done := self._processes.done(list(self._streams))):
            done.link.reap()

    def _wait(self, schedule: _Schedule, now: float, start_at: float | None) -> None:
        """Sleep until there may be something to do."""
        transports = [engine.link.transport for engine in self._processes.all()]
        reads: list[Any] = [self._wake, *transports]
        writes = [transport for transport in transports if transport.unsent]
        until = now + TURN_SECONDS if start_at is None else min(start_at, now + TURN_SECONDS)
        if self._streams:
            until = min(until, schedule.next_check, schedule.next_publish, schedule.next_due)
        readable, writable, _ = select.select(reads, writes, [], max(0.0, until - now))
        if self._wake in readable:
            os.eventfd_read(self._wake)
        for transport in writable:
            with self._lock, contextlib.suppress(ClosedError):  # reading it says so too
                transport.flush()

    def _hear(self, engine: EngineProcess, pause: float) -> None:
        """Take what an engine says. Raises `ClosedError`."""
        messages = engine.link.transport.receive()
        for message in messages:
            engine.silence = 0.0
            if isinstance(message, Batch):
                engine.census = message.census
                with self._lock:  # a request is known only once `submit` is through with it
                    for progress in message.progress:
                        stream = self._streams.get(progress.key)
                        if stream:
                            stream.answer.add(progress)
                            self._judge(stream.answer)
            elif isinstance(message, Ready):
                self._take_over(engine)
            elif isinstance(message, Standings):
                if engine is self._processes.current:
                    self._standings = message
            elif isinstance(message, LoadFailed):
                self._log(f"the engine cannot load: {message.reason}")
        if not messages and engine.quiet(pause) * 1e3 > self._settings.max_silence_ms:
            reason = f"the engine said nothing for {engine.silence:.0f} s"
            among = self._suspect(engine, engine.link.last_step())
            self._lose(engine, reason, among or None)

    def _take_over(self, engine: EngineProcess) -> None:
        """Have an engine that is loaded take requests, after what is held against whom."""
        with self._lock, contextlib.suppress(ClosedError):  # reading it says so too
            self._processes.take_over(engine, self._key + 1)
            if self._standings.sources:
                engine.link.transport.send(self._standings)
        self._log("the engine is ready again")

    def _judge(self, answer: Answer) -> None:
        """Remember what an answer's end tells of its guide, longer than engine processes live."""
        guide = answer.generation.guide
        if answer.end is None or guide is None:
            return
        if answer.end.error is None and answer.output_tokens:
            self._suspects.clear(guide)
        elif answer.end.error == TOO_SLOW:
            if not self._suspects.guilty(guide):  # other answers of it may end with this one
                self._suspects.note_source(answer.generation.source, time.monotonic())
            self._suspects.convict(guide)

    def _blamed(self, engine: EngineProcess) -> Collection[int] | None:
        """Hold the end of an engine process against the guides over which it ended, if any.

        Return the requests that they are of, if it was ended for them.
        """
        step = engine.link.last_step()
        among = self._suspect(engine, step)
        if not among or not engine.link.overdue():
            return None
        one = next(iter(among.values()))
        if step.alone and one.guide:
            self._suspects.convict(one.guide)
            self._suspects.note_source(one.source, time.monotonic())
        return among

    def _suspect(self, engine: EngineProcess, step: Step) -> Mapping[int, Generation]:
        """Hold what befell an engine against the guides that its last step followed; return these.

        What waited then is no suspect. It may have been there, though, where the step followed
        others too: then none is to blame that was not there without it.
        """
        with self._lock:
            guided = {
                key: stream.answer.generation
                for key, stream in self._streams.items()
                if stream.answer.generation.guide and self._processes.of(key) is engine
            }
        among = {key: guided[key] for key in step.keys if key in guided}
        there = among if step.alone else guided
        self._suspects.ended(
            among.values(), (one.source for one in there.values()), time.monotonic()
        )
        return among

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
        current = (self._processes.census(), len(self._streams))
        if self._publisher and current != self._published:
            self._published = current
            self._publisher.publish(*current)

    def _lose(
        self, engine: EngineProcess, reason: str, blamed: Collection[int] | None = None
    ) -> None:
        """Fail all that an engine runs, make sure that it is gone, and have another started.

        It was not for what the others run where some are `blamed`.
        """
        with self._lock:
            theirs = frozenset(k for k in self._streams if self._processes.of(k) is engine)
            self._processes.lose(engine, time.monotonic())
        if blamed is not None:
            self._fail(_OTHERS, theirs.difference(blamed).__contains__)
        self._fail(reason, theirs.__contains__)
        self._log(f"{reason} ({engine.link.reap()})")

    def _fail(self, reason: str, which: Callable[[int], bool]) -> None:
        with self._lock:
            streams = {key: stream for key, stream in self._streams.items() if which(key)}
            for key in streams:
                del self._streams[key]
        for key, stream in streams.items():
            self._count(stream.answer)
            text = f"Executor failed process requestId {key} due to the following error: {reason}"
            guide = stream.answer.generation.guide
            if guide and self._suspects.guilty(guide):
                text = TOO_SLOW
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
