"""What the router needs from outside, in its own words.

Adapters: `triton` (engine), `cache` (answers), `scaler` (fleet), `tokenizer` (text and tokens),
`ledger` (records), `levers` (levers and their watch), `judges` (quality of answers).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from pennyweight.ledger.schema import LedgerRecord
from services.router.policy.prompts import Message as Message  # noqa: PLC0414 -- part of the ports
from services.router.policy.routes import Route, Tier


class GuideKind(Enum):
    """Kind of a guided answer; values are TensorRT-LLM's guide types."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked request with every default filled in: what is asked, apart from who asks.

    Attributes:
        turns: oldest first.
        shape: wanted form of the answer and its text, or None for free text.
        max_output_tokens: at least 1.
        temperature: 0 is greedy.
        top_p: 1 is the whole distribution.
        top_k: 0 is no limit.
        seed: None for any.
        stop: texts that end the answer.
    """

    turns: tuple[Message, ...]
    shape: tuple[GuideKind, str] | None
    max_output_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int | None
    stop: tuple[str, ...]

    @property
    def repeatable(self) -> bool:
        """Whether asking again would draw the same answer, so that a stored one may stand in."""
        return self.temperature == 0 or self.seed is not None


class Finish(Enum):
    """Why an answer ended; values are those of cached answers."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """What a replica measured of one request; None where it did not say."""

    engine_seconds: float | None = None
    reused_prompt_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class EngineChunk:
    """Tokens that have come, and at the end the figures.

    Attributes:
        tokens: new ones.
        final: nothing comes after this.
        figures: at the end.
        log_probs: of all tokens of the answer so far, where they were asked for.
    """

    tokens: Sequence[int]
    final: bool
    figures: EngineFigures | None = None
    log_probs: Sequence[float] | None = None


class ReplicaFailed(Exception):
    """The replica could not go on; before the first token another one may be tried.

    Attributes:
        lost: the replica itself is in trouble, not just full.
    """

    def __init__(self, message: str, *, lost: bool) -> None:
        self.lost = lost
        super().__init__(message)


class EngineRun(Protocol):
    """One request running on a replica. Read it to the end, or cancel or drain it."""

    async def read(self, timeout_seconds: float) -> EngineChunk:
        """The next tokens.

        Raises:
            ReplicaFailed: the replica is lost, refused for now, or silent for too long.
            ServiceError: the request itself cannot be served.
        """

    async def finish(self) -> None:
        """Ends the stream after its final chunk, as the server wants it ended."""

    def cancel(self) -> None:
        """Stops the request on the replica."""

    def give_up(self, why: str) -> None:
        """Ends the run because its replica is lost; whoever reads it gets `ReplicaFailed`."""


class Engine(Protocol):
    """Runs token ids on replicas."""

    def start(
        self,
        address: str,
        tier: Tier,
        prompt: Sequence[int],
        asked: Asked,
        *,
        request_id: str,
        streaming: bool,
        outlives: bool,
        log_probs: bool,
        deadline_seconds: float,
    ) -> EngineRun:
        """Starts a request; the returned run is read by the caller. Never blocks.

        `streaming` brings tokens as they come, otherwise all at the end. `outlives` says that the
        run must survive the cancellation of the task that reads it. `log_probs` asks for them.
        """


@dataclass(frozen=True, slots=True)
class Written:
    """A complete answer with who wrote it."""

    pieces: tuple[tuple[str, int], ...]
    finish: Finish
    prompt_tokens: int
    output_tokens: int
    tier: str
    model: str
    precision: str
    policy_version: str


@dataclass(frozen=True, slots=True)
class CacheHit:
    """A stored answer; `shared` when it was computed while we waited."""

    answer: Written
    shared: bool


@dataclass(frozen=True, slots=True)
class CacheMiss:
    """Nothing stored. `lease` is empty when this request computes for itself alone."""

    lease: str = ""
    available: bool = True


class AnswerCache(Protocol):
    """Stored answers of one tenant and route. No call here raises: a failure is a miss."""

    async def lookup(
        self,
        tenant: str,
        route: str,
        asked: Asked,
        accepted: Sequence[Tier],
        *,
        lease: bool,
        max_wait_seconds: float,
    ) -> CacheHit | CacheMiss:
        """Looks for an answer that one of the accepted tiers wrote."""

    def store(
        self,
        tenant: str,
        route: str,
        asked: Asked,
        answer: Written,
        *,
        lease: str,
        ttl_seconds: float,
    ) -> None:
        """Stores an answer, without waiting for the cache to say so."""

    def abandon(self, tenant: str, route: str, lease: str) -> None:
        """Gives a lease back, without waiting."""

    async def abandon_unless_awaited(self, tenant: str, route: str, lease: str) -> bool:
        """Gives a lease back unless somebody waits for it; True when somebody does."""


class Detokenizer(Protocol):
    """Turns the tokens of one answer into text as they come."""

    def feed(self, tokens: Sequence[int]) -> str:
        """Text that these tokens complete; whole characters only."""

    def rest(self) -> str:
        """Text still held back when no more tokens come, without an unfinished character."""


class TierText(Protocol):
    """Text and tokens of one tier's model."""

    end_id: int
    pad_id: int

    async def encode(self, turns: Sequence[Message]) -> list[int]:
        """Renders the conversation with the tier's chat template and tokenises it.

        Raises:
            BadRequest: the template refuses the conversation.
        """

    def encode_plain(self, text: str) -> list[int]:
        """Tokens of a bare text."""

    def detokenizer(self) -> Detokenizer:
        """A fresh detokenizer for one answer."""


class Ledger(Protocol):
    """One record a finished request."""

    def add(self, record: LedgerRecord | dict[str, Any]) -> None:
        """Takes a record; never blocks and never fails the request."""


class LeverBoard(Protocol):
    """Which levers are halted, one truth for all routers, and the watch that halts them."""

    def halted(self, route: Route) -> Collection[str]:
        """Names of the route's levers that must not be used now; all of them when nobody knows.

        Never blocks: looks at what is known here, which is a moment old at most.
        """

    async def judged(self, route: Route, losses: Mapping[str, float], weight: float) -> None:
        """Takes what a judged pair says of each lever that acted; may halt some. Never raises.

        Args:
            route: that the pair is of.
            losses: by lever, quality of the safer setting minus quality of what the lever gave.
            weight: lowest propensity in the route's policy divided by this sample's, in (0, 1].
        """


class Judge(Protocol):
    """Says how good answers are."""

    async def judge(
        self, route: Route, asked: Asked, answers: Sequence[str]
    ) -> Sequence[float] | None:
        """Quality of each answer in [0, 1]; the last answer is the top tier's. Never raises.

        Returns:
            None where the answers cannot be judged now: the judge failed or was silent, or waits
            for an outcome. That is counted here.
        """


class Keeper(Protocol):
    """Small values that all routers share for a while: outcomes told, pairs that wait for one."""

    async def keep_once(self, key: str, value: bytes, seconds: float) -> bytes | None:
        """Keeps a value for so long, unless the key has one already.

        Returns:
            the value that was there before; None if this one is kept now.

        Raises:
            Unavailable: nobody knows, as the shared state cannot be reached.
        """

    async def kept(self, key: str) -> bytes | None:
        """The value of a key; None if it has none or it has run out.

        Raises:
            Unavailable: as above.
        """
