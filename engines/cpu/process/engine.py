"""The engine's turn: admit, step the pipeline once for all, see what each request got.

Knows nothing of OpenVINO, which is `pipeline.py`'s, nor of processes and sockets, which are
`main.py`'s. Time comes from the `clock` it is given, nanoseconds that never go back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from engines.cpu.messages import MAYBE, TOO_SLOW, Census, End, Progress, Standings
from engines.cpu.process.admission import Admission, QueueFullError, blocks_needed, failure
from engines.cpu.process.choosing import Choice, choice_of
from engines.cpu.process.conduct import Alarm, Conduct, Step
from engines.cpu.process.prefix import PrefixEstimate
from engines.cpu.process.unproven import Guides, Unproven
from engines.cpu.process.watch import Blame, Following
from engines.cpu.request import Generation, InvalidRequestError, guide_hash
from engines.cpu.stops import StopMatcher

_MAX_FAILED_STEPS = 3


class BrokenError(Exception):
    """Steps keep failing with nothing left to run: only a new process helps."""


class Handle(Protocol):
    """One request inside the pipeline."""

    def read(self) -> tuple[list[int], list[float]]:
        """Tokens since the last call and their log-probs (empty unless asked for)."""

    def running(self) -> bool:
        """Whether more tokens can come."""

    def failed(self) -> bool:
        """Whether the pipeline gave the request up for want of KV-cache."""

    def cancel(self) -> None:
        """End it; its blocks are free after the next step."""


class Pipeline(Protocol):
    """What generates: a batch of requests, one token each per step."""

    def add(self, key: int, generation: Generation) -> Handle:
        """Put a request into the batch. Raises if the pipeline does not take it.

        `InvalidRequestError` if that is the request's own fault.
        """

    def step(self) -> None:
        """Advance every request. Raises, and keeps raising, until all are cancelled."""


@dataclass
class _Run:
    """A request in the batch."""

    generation: Generation
    handle: Handle
    stop_ids: Collection[int]
    matcher: StopMatcher | None
    total_blocks: int
    reused_blocks: int
    first_scheduled_ns: int
    choice: Choice
    guide: bytes | None = None  # its hash
    unread: int = 0  # tokens of the prompt, about
    first_token_ns: int = 0
    last_token_ns: int = 0
    generated: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)  # safe to send, not sent yet
    log_probs: list[float] = field(default_factory=list)  # of those and of held tokens

    def end(self, error: str | None = None) -> End:
        return End(
            error,
            self.reused_blocks,
            self.total_blocks,
            self.first_scheduled_ns,
            self.first_token_ns,
            self.last_token_ns,
        )


class Engine:
    """One pipeline, its line of waiting requests and its accounting."""

    def __init__(
        self,
        pipeline: Pipeline,
        admission: Admission,
        prefixes: PrefixEstimate,
        block_size: int,
        *,
        guides: Guides,
        alarm: Alarm,
        read_at_once: int,
        slow_step_ns: int,
        guides_ns: int,
        guides_bytes: int,
        choosing_ns: Mapping[Choice, int],
        clock: Callable[[], int],
        worked: Callable[[], int],
    ) -> None:
        """What guides may take.

        `slow_step_ns`: how long steps that follow guides may take on average, beside what reading
        prompts takes, at most `read_at_once` tokens in a step; `guides_ns`: how much all guides of
        a step may take together, when they were tried and ever after; `guides_bytes`: how much all
        may keep before the process is replaced; `choosing_ns`: what choosing a token takes at most,
        beyond taking the likeliest, by how it is chosen; `worked`: the process's processor time in
        nanoseconds, as a step that had to wait for the processor was not slow.
        """
        self._pipeline = pipeline
        self._guides = guides
        self._conduct = Conduct(
            alarm,
            read_at_once=read_at_once,
            slow_step_ns=slow_step_ns,
            guides_ns=guides_ns,
            guides_bytes=guides_bytes,
            choosing_ns=choosing_ns,
            clock=clock,
            worked=worked,
        )
        self._unproven = Unproven(
            guides, self._conduct, guides_ns, line_up=self._line_up, refuse=self._refuse
        )
        self._read_at_once = read_at_once
        self._admission = admission
        self._prefixes = prefixes
        self._block_size = block_size
        self._clock = clock
        self._waiting: dict[int, Generation] = {}
        self._running: dict[int, _Run] = {}
        self._leaving: list[int] = []  # ended from outside: blocks are free after a step
        self._news: list[Progress] = []
        self._iterations = 0
        self._reused = 0
        self._failed_steps = 0

    @property
    def busy(self) -> bool:
        """Whether `turn` has anything to do."""
        return bool(self._running or self._waiting or self._leaving or self._news)

    def census(self) -> Census:
        """The accounting as of now."""
        context = [run for run in self._running.values() if not run.first_token_ns]
        return Census(
            iterations=self._iterations,
            running=len(self._running),
            in_context=len(context),
            context_tokens=sum(len(run.generation.prompt) for run in context),
            waiting=self._admission.waiting + len(self._unproven),
            used_blocks=self._admission.used_blocks,
            reused_blocks=self._reused,
            guide_bytes=self._guides.kept_bytes,
        )

    def submit(self, key: int, generation: Generation) -> None:
        """Line a request up, and start it if it fits. A refusal is news of the next turn.

        One whose guide is new waits outside of the line until that is tried.
        """
        guide = generation.guide
        if guide is None:
            self._line_up(key, generation)
        elif self._conduct.doubted(generation.source, lambda: guide_hash(guide)):
            self._refuse(key, failure(key, _MAYBE_SLOW))
        else:
            self._unproven.add(key, generation)

    def prove(self) -> None:
        """Line up, or end, the requests whose guides have a verdict by now."""
        self._unproven.prove()

    def standings(self) -> Standings | None:
        """What is held against sources, if it is to be told."""
        return self._conduct.standings()

    def inherit(self, standings: Standings) -> None:
        """Hold against sources what another engine process did."""
        self._conduct.inherit(standings)

    def _line_up(self, key: int, generation: Generation) -> bool:
        """Whether it runs or stands in line from now on."""
        blocks = blocks_needed(len(generation.prompt), generation.max_new_tokens, self._block_size)
        try:
            self._admission.offer(key, blocks)
        except QueueFullError as error:
            self._refuse(key, str(error))
            return False
        except ValueError as error:
            self._refuse(key, failure(key, error))
            return False
        self._waiting[key] = generation
        self._admit()
        return key in self._running or key in self._waiting

    def cancel(self, key: int) -> None:
        """End a request with what it has. Nothing happens if it has ended already."""
        if self._admission.withdraw(key):
            del self._waiting[key]
            self._report_end(key, End())
        elif key in self._unproven:
            self._unproven.forget(key)
            self._report_end(key, End())
        elif key in self._running:
            run = self._running[key]
            if run.matcher:
                run.tokens += run.matcher.flush()
            self._end(key, run, cut=True)
            # Room is made by the step that follows, not now: a request added on top of
            # cancelled ones in a full cache makes the pipeline give all of them up.

    def turn(self) -> list[Progress]:
        """Advance every request by a step; return the news since the last turn."""
        self._admit()
        if self._running or self._leaving:
            self._step()
        self._unproven.keep_dear(self._running, self._waiting)
        news, self._news = self._news, []
        return news

    def _admit(self) -> None:
        for key in self._admission.admit():
            generation = self._waiting.pop(key)
            reused = self._prefixes.reused_blocks(generation.prompt)
            try:
                handle = self._pipeline.add(key, generation)
            except InvalidRequestError as error:
                self._admission.release(key)
                self._report_end(key, End(str(error)))
                continue
            except Exception as error:  # noqa: BLE001 - the pipeline raises what it likes
                self._admission.release(key)
                self._report_end(key, End(failure(key, error)))
                continue
            words = generation.stop_words
            singles = {word[0] for word in words if len(word) == 1}
            longer = [word for word in words if len(word) > 1]
            if generation.end_id is not None:
                singles.add(generation.end_id)
            self._reused += reused
            self._running[key] = _Run(
                generation=generation,
                handle=handle,
                stop_ids=singles,
                matcher=StopMatcher(longer) if longer else None,
                total_blocks=blocks_needed(len(generation.prompt), 0, self._block_size),
                reused_blocks=reused,
                first_scheduled_ns=self._clock(),
                choice=choice_of(generation),
                guide=guide_hash(generation.guide) if generation.guide else None,
                unread=max(1, len(generation.prompt) - reused * self._block_size),
            )

    def _step(self) -> None:
        leaving, self._leaving = self._leaving, []
        tokens = self._tokens_read()
        choices = [run.choice for run in self._running.values()]
        step = Step(self._following(), tokens, self._context(), choices)
        compiling = self._guides.compiling
        self._conduct.begin(step)
        try:
            self._pipeline.step()
        except Exception as error:  # noqa: BLE001 - the pipeline raises what it likes
            self._leaving = leaving
            self._fail_all(error)
            return
        finally:
            ended = self._conduct.end(step)
        self._failed_steps = 0
        self._iterations += 1
        for key in leaving:
            self._admission.release(key)
        running = list(self._running.items())
        made = [run.choice for key, run in running if self._read(key, run, ended.at_ns)]
        compiling = compiling or self._guides.compiling
        blames = self._conduct.took(step, ended, made, compiling=compiling)
        for one in step.following:
            if cost := self._conduct.token_ns(one.guide):
                self._unproven.turned_out(one.key, cost)
        for blame in blames:
            self._end_guide(blame)

    def _context(self) -> int:
        """How many tokens the answers of the next step look back on."""
        return sum(
            len(run.generation.prompt) + len(run.generated)
            for run in self._running.values()
            if not run.unread
        )

    def _tokens_read(self) -> int:
        """How many tokens of prompts the next step reads, about: they are noted as read."""
        left = self._read_at_once
        for run in self._running.values():
            if run.unread:
                read = min(run.unread, left)
                run.unread -= read
                left -= read
        return self._read_at_once - left

    def _following(self) -> list[Following]:
        """The answers of which the next step makes a token that a guide allows."""
        return [
            Following(key, run.guide, len(run.generated), run.generation.source)
            for key, run in self._running.items()
            if run.guide and not run.unread
        ]

    def _end_guide(self, blame: Blame) -> None:
        """End the answers of a guide that makes steps slow, and keep it out if that is certain."""
        if blame.certain:
            self._guides.refuse(blame.guide, TOO_SLOW)
            for key, generation in list(self._waiting.items()):
                if generation.guide and guide_hash(generation.guide) == blame.guide:
                    self._admission.withdraw(key)
                    del self._waiting[key]
                    self._report_end(key, End(TOO_SLOW))
        for key, run in list(self._running.items()):
            if run.guide == blame.guide:
                del self._running[key]
                run.handle.cancel()
                self._leaving.append(key)
                error = TOO_SLOW if blame.certain else failure(key, _MAYBE_SLOW)
                self._news.append(self._progress(key, run, run.end(error)))

    def _read(self, key: int, run: _Run, now: int) -> bool:
        """Take what a step made for a request; whether that is anything."""
        fresh, log_probs = run.handle.read()
        running = run.handle.running()
        made = bool(fresh)
        if made:
            if not run.first_token_ns:
                run.first_token_ns = now
                run.unread = 0
                self._prefixes.remember(run.generation.prompt)
            run.last_token_ns = now
            run.generated += fresh
            if not running and fresh[-1] in run.stop_ids:
                del fresh[-1], log_probs[-1:]
            run.log_probs += log_probs
            stopped = False
            if run.matcher:
                fresh, stopped = run.matcher.feed(fresh)
            run.tokens += fresh
            if stopped:
                # Log-probs of the stop sequence itself are still there: they go with it.
                del run.log_probs[len(run.tokens) :]
                self._end(key, run, cut=True)
                return made
        if not running:
            self._end(key, run, cut=False)
        elif run.generation.streaming and run.tokens:
            self._news.append(self._progress(key, run))
        return made

    def _end(self, key: int, run: _Run, *, cut: bool) -> None:
        """End a request; `cut` if the pipeline does not know of it yet."""
        del self._running[key]
        error = None
        if cut:
            run.handle.cancel()
            self._leaving.append(key)
        else:
            self._admission.release(key)
            if run.handle.failed():
                error = failure(key, "the KV-cache ran full")
            elif run.matcher:
                run.tokens += run.matcher.flush()
        # The last token's keys and values are never computed.
        whole = [*run.generation.prompt, *run.generated[:-1]]
        run.total_blocks = blocks_needed(len(whole), 0, self._block_size)
        if run.generated:
            self._prefixes.remember(whole)
        self._news.append(self._progress(key, run, run.end(error)))

    def _progress(self, key: int, run: _Run, end: End | None = None) -> Progress:
        tokens, run.tokens = run.tokens, []
        log_probs, run.log_probs = run.log_probs[: len(tokens)], run.log_probs[len(tokens) :]
        return Progress(key, tokens, log_probs, end)

    def _fail_all(self, error: Exception) -> None:
        """Cancel everything: the pipeline raises in every step until that is done."""
        self._failed_steps += 1
        if self._failed_steps > _MAX_FAILED_STEPS:
            raise BrokenError(str(error)) from error
        for key, run in self._running.items():
            run.handle.cancel()
            self._leaving.append(key)
            self._news.append(self._progress(key, run, run.end(failure(key, error))))
        self._running.clear()

    def _refuse(self, key: int, why: str) -> None:
        self._report_end(key, End(why))

    def _report_end(self, key: int, end: End) -> None:
        self._news.append(Progress(key, [], [], end))


_MAYBE_SLOW = f"steps are slow and {MAYBE}: please try elsewhere"
