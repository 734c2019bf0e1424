"""The engine's turn: admit, step the pipeline once for all, see what each request got.

Knows nothing of OpenVINO, which is `pipeline.py`'s, nor of processes and sockets, which are
`main.py`'s. Time comes from the `clock` it is given, nanoseconds that never go back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol

from engines.cpu.messages import MAYBE, TOO_SLOW, Census, End, Progress
from engines.cpu.process.account import Account
from engines.cpu.process.admission import Admission, QueueFullError, blocks_needed
from engines.cpu.process.prefix import PrefixEstimate
from engines.cpu.process.unguided import Answering, Reading
from engines.cpu.process.watch import Blame, Following, Watch
from engines.cpu.request import INVALID_PREFIX, Generation, Guide, InvalidRequestError, guide_hash
from engines.cpu.stops import StopMatcher

_MAX_FAILED_STEPS = 3
_MAX_UNPROVEN = 1024
_MAX_UNPROVEN_OF_ONE = 16
"""Requests that may wait for a verdict on their guide, of all sources and of one."""

_MAX_GUIDES_OF_ONE = 4
"""Guides that may wait for a verdict, of one source."""

_DEAR_SHARE = 1 / 10
"""Of what all guides of a step may take: those that take less are not counted."""

_FIRST_READING = 2
_MOST_READING = 10
"""So many slow steps reading prompts is taken for, until it is known, and at most."""


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


class Guides(Protocol):
    """Which guides may run."""

    @property
    def kept_bytes(self) -> int:
        """What compiled ones keep in memory, about."""

    @property
    def compiling(self) -> bool:
        """Whether one is compiled right now, beside the loop."""

    def verdict(self, guide: Guide, source: str) -> str | None:
        """Empty: it may run, at once; a text: why not; None: not yet known, ask again."""

    def token_ns(self, guide: Guide) -> int:
        """What a token of its answers took when it was tried."""

    def drop(self, guide: Guide) -> None:
        """Nobody waits for it any more."""

    def refuse(self, guide: bytes, why: str) -> None:
        """From now on that is the verdict on the guide of that hash."""


class Alarm(Protocol):
    """Ends the process over a step that takes far too long: nothing else ends one."""

    def set(self, keys: Collection[int], usual_ns: int, *, alone: bool) -> None:
        """A step begins that may well take `usual_ns`.

        `keys` are those of the requests whose guides are to blame if it takes too long, `alone` if
        it follows no other guide.
        """

    def clear(self) -> None:
        """It has ended."""


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
        clock: Callable[[], int],
        worked: Callable[[], int],
    ) -> None:
        """What guides may take.

        `slow_step_ns`: how long steps that follow guides may take on average, beside what reading
        prompts takes, at most `read_at_once` tokens in a step; `guides_ns`: how much all guides of
        a step may take together, when they were tried and ever after; `worked`: the process's
        processor time in nanoseconds, as a step that had to wait for the processor was not slow.
        """
        self._pipeline = pipeline
        self._guides = guides
        self._alarm = alarm
        self._slow_step_ns = slow_step_ns
        self._watch = Watch(slow_step_ns)
        self._read_at_once = read_at_once
        self._reading = Reading(
            read_at_once, _FIRST_READING * slow_step_ns, _MOST_READING * slow_step_ns
        )
        self._answering = Answering()
        self._account = Account(guides_ns)
        self._guides_ns = guides_ns
        self._dear: dict[int, int] = {}  # what a token takes of those that run or stand in line
        self._turns: dict[str, int] = {}  # when each source had its last dear one
        self._unproven: dict[int, Generation] = {}
        self._admission = admission
        self._prefixes = prefixes
        self._block_size = block_size
        self._clock = clock
        self._worked = worked
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
        if generation.guide is None:
            self._line_up(key, generation)
        elif self._doubted(generation):
            self._report_end(key, End(_failure(key, _MAYBE_SLOW)))
        else:
            self._unproven[key] = generation
            self._settle(key, generation)
            if key in self._unproven and (why := self._crowded(generation)):
                self._forget(key)
                self._report_end(key, End(why))

    def _doubted(self, generation: Generation) -> bool:
        """Whether it is kept out, as it seems to have made steps slow more than once."""
        if not generation.guide or not (self._watch.any_suspects or self._account.any_suspects):
            return False
        one, now = (generation.source, guide_hash(generation.guide)), self._clock() / 1e9
        return self._watch.doubted(*one, now) or self._account.doubted(*one, now)

    def _crowded(self, last: Generation) -> str:
        """Why the last request may not wait for the verdict on its guide; empty: it may."""
        known_only = last.known_only or self._account.no_new(last.source, self._clock() / 1e9)
        if known_only and last.guide and self._guides.verdict(last.guide, "") is None:
            return TRUST_LOST
        if len(self._unproven) > _MAX_UNPROVEN:
            return str(QueueFullError(_MAX_UNPROVEN))
        theirs = [one.guide for one in self._unproven.values() if one.source == last.source]
        if len(theirs) > _MAX_UNPROVEN_OF_ONE or len(set(theirs)) > _MAX_GUIDES_OF_ONE:
            return TOO_MANY
        return ""

    def _forget(self, key: int) -> None:
        """Take out a request that waits for a verdict, and its guide if nobody else does."""
        guide = self._unproven.pop(key).guide
        if guide and all(other.guide != guide for other in self._unproven.values()):
            self._guides.drop(guide)

    def prove(self) -> None:
        """Line up, or end, the requests whose guides have a verdict by now."""
        for key, generation in sorted(
            self._unproven.items(), key=lambda item: self._turns.get(item[1].source, 0)
        ):
            self._settle(key, generation)
        if not self._unproven:
            self._turns.clear()

    def _settle(self, key: int, generation: Generation) -> None:
        assert generation.guide is not None  # noqa: S101 - else it has nothing to wait for
        verdict = self._guides.verdict(generation.guide, generation.source)
        if verdict is None:
            return
        cost = 0 if verdict else self._token_ns(generation.guide)
        dear = cost > self._guides_ns * _DEAR_SHARE
        if dear and self._too_dear(generation):
            verdict = TRUST_LOST
        elif dear and self._dear and sum(self._dear.values()) + cost > self._guides_ns:
            return  # until others have ended
        del self._unproven[key]
        if verdict:
            whole = verdict.startswith(INVALID_PREFIX) or verdict == TRUST_LOST
            self._report_end(key, End(verdict if whole else _failure(key, verdict)))
        else:
            self._line_up(key, generation)
            if dear and (key in self._running or key in self._waiting):
                self._dear[key] = cost
                self._turns[generation.source] = max(self._turns.values(), default=0) + 1

    def _too_dear(self, generation: Generation) -> bool:
        """Whether its source's guides took so much that this one, which takes much, may not run."""
        assert generation.guide is not None  # noqa: S101 - it follows one
        guide = guide_hash(generation.guide)
        return self._account.no_dear(generation.source, guide, self._clock() / 1e9)

    def _token_ns(self, guide: Guide) -> int:
        """What a token takes: as it was tried, or what it turned out to take, if that is more."""
        return max(self._guides.token_ns(guide), self._account.token_ns(guide_hash(guide)))

    def _line_up(self, key: int, generation: Generation) -> None:
        blocks = blocks_needed(len(generation.prompt), generation.max_new_tokens, self._block_size)
        try:
            self._admission.offer(key, blocks)
        except QueueFullError as error:
            self._report_end(key, End(str(error)))
            return
        except ValueError as error:
            self._report_end(key, End(_failure(key, error)))
            return
        self._waiting[key] = generation
        self._admit()

    def cancel(self, key: int) -> None:
        """End a request with what it has. Nothing happens if it has ended already."""
        if self._admission.withdraw(key):
            del self._waiting[key]
            self._report_end(key, End())
        elif key in self._unproven:
            self._forget(key)
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
        count = len(self._dear)
        self._dear = {
            key: cost
            for key, cost in self._dear.items()
            if key in self._running or key in self._waiting
        }
        if len(self._dear) < count:
            self.prove()
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
                self._report_end(key, End(_failure(key, error)))
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
                guide=guide_hash(generation.guide) if generation.guide else None,
                unread=max(1, len(generation.prompt) - reused * self._block_size),
            )

    def _step(self) -> None:
        leaving, self._leaving = self._leaving, []
        tokens = self._tokens_read()
        following = self._following()
        reading = self._reading.allowed(tokens)
        if following:
            self._set_alarm(following, reading)
        context = self._context()
        compiling = self._guides.compiling
        began, worked = self._clock(), self._worked()
        try:
            self._pipeline.step()
        except Exception as error:  # noqa: BLE001 - the pipeline raises what it likes
            self._leaving = leaving
            self._fail_all(error)
            return
        finally:
            if following:
                self._alarm.clear()
        self._failed_steps = 0
        self._iterations += 1
        for key in leaving:
            self._admission.release(key)
        now = self._clock()
        took = min(now - began, self._worked() - worked)
        answers = sum([self._read(key, run, now) for key, run in list(self._running.items())])
        if following:
            blames = self._watch.took(took - reading, following, now / 1e9)
            if answers and not tokens:
                self._answering.bound(took, answers, context)
            if not (compiling or self._guides.compiling):  # which takes processor time as well
                beyond = took - reading - self._answering.allowed(answers, context)
                blames += self._account_for(beyond, following, now / 1e9)
        else:
            blames = self._watch.rest(now / 1e9)
            self._learn(took, tokens, answers, context)
        for blame in blames:
            self._end_guide(blame)

    def _learn(self, took: int, tokens: int, answers: int, context: int) -> None:
        """Learn from a step that followed no guide what they take."""
        if tokens:
            self._reading.learn(took, tokens)
        elif answers:
            self._answering.learn(took, answers, context)

    def _context(self) -> int:
        """How many tokens the answers of the next step look back on."""
        return sum(
            len(run.generation.prompt) + len(run.generated)
            for run in self._running.values()
            if not run.unread
        )

    def _account_for(self, beyond: int, following: list[Following], now: float) -> list[Blame]:
        """Keep the account of guides, and count those as dear that take more than they may."""
        blames = self._account.took(beyond, following, now)
        for one in following:
            if cost := self._account.token_ns(one.guide):
                self._dear[one.key] = cost
        return blames

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

    def _set_alarm(self, following: list[Following], reading_ns: int) -> None:
        suspects = self._watch.suspects(following)
        keys = [one.key for one in following if one.guide in suspects]
        alone = all(one.guide == following[0].guide for one in following)
        self._alarm.set(keys, self._slow_step_ns + reading_ns, alone=alone)

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
                error = TOO_SLOW if blame.certain else _failure(key, _MAYBE_SLOW)
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
                error = _failure(key, "the KV-cache ran full")
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
            self._news.append(self._progress(key, run, run.end(_failure(key, error))))
        self._running.clear()

    def _report_end(self, key: int, end: End) -> None:
        self._news.append(Progress(key, [], [], end))


TOO_MANY = (
    f"Too many requests wait for their guides, at most {_MAX_UNPROVEN_OF_ONE} with"
    f" {_MAX_GUIDES_OF_ONE} guides may: please try again later"
)
TRUST_LOST = (
    "Guides of this caller made steps slow: for some minutes no others wait for their guides to be"
    " tried, and none that take much run"
)
_MAYBE_SLOW = f"steps are slow and {MAYBE}: please try elsewhere"


def _failure(key: int, reason: object) -> str:
    """TensorRT-LLM's words for a request that the executor could not run."""
    # The pipeline's errors are several lines, where in its source first, the reason last.
    last_line = str(reason).strip().rpartition("\n")[2] or "unknown"
    return f"Executor failed process requestId {key} due to the following error: {last_line}"
