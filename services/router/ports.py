"""What the router needs from outside, in its own words.

Adapters: `engines/` (engines, text and tokens), `clients.cache` (answers), `ledger.file` (records),
`levers.board` (levers and their watch), `evidence.judges` (quality of answers), `state/` (what
routers share), `clients.waking` (replicas for tiers that have none).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Protocol

from pennyweight.ledger.schema import LedgerRecord
from services.common.errors import ServiceError
from services.router.policy.prompts import Message
from services.router.policy.routes import Route, Tier


class GuideKind(Enum):
    """Kind of a guided answer, as callers ask for it; engines are told of all kinds as grammars."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked request with every default filled in: what is asked, apart from who asks.

    Attributes:
        messages: of the conversation, oldest first.
        guide: wanted form of the answer, its kind and text, or None for free text.
        grammar: what engines are told of it (EBNF), made when the request was checked: in the loop
            that serves everybody it would take too long. It follows from the guide.
        max_output_tokens: at least 1.
        temperature: 0 is greedy.
        top_p: 1 is the whole distribution.
        top_k: 0 is no limit.
        seed: None for any.
        stop: texts that end the answer.
    """

    messages: tuple[Message, ...]
    guide: tuple[GuideKind, str] | None
    max_output_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int | None
    stop: tuple[str, ...]
    grammar: str = field(default="", repr=False, compare=False)

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


class ReplicaFailed(Exception):
    """The replica could not go on; before anything was committed another one may be tried.

    Attributes:
        lost: the replica itself is in trouble, not just full.
        refused: it took no work; one that is full does not.
        silent: nobody knows what it did meanwhile, if anything.
        died: it broke down while it worked, and what it worked on may be why.
        lasting: it would say the same of this request again; another replica may not.
    """

    def __init__(
        self,
        message: str,
        *,
        lost: bool,
        refused: bool = False,
        silent: bool = False,
        died: bool = False,
        lasting: bool = False,
    ) -> None:
        self.lost = lost
        self.died = died
        self.refused = refused or not lost
        self.silent = silent
        self.lasting = lasting
        super().__init__(message)


def brief(error: ReplicaFailed | ServiceError) -> str:
    """What an attempt failed of, for a log; a refusal's text may hold what the caller sent."""
    if isinstance(error, ServiceError):
        return error.reason or error.code.name
    return str(error)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do, as its adapter knows it.

    Attributes:
        has_log_probs: it tells how likely each token was; None while nobody knows. Where it does, a
            log-probability of 0 is a token that was certain; where it does not, certainty is
            unknown, whatever numbers it fills in.
        can_resume: it can go on from a prompt and the tokens of an answer so far.
        counts_tokens: it says how many tokens it made.
        has_priority: it serves more important requests first.
    """

    has_log_probs: bool | None
    can_resume: bool
    counts_tokens: bool
    has_priority: bool


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation as an engine gets it: as messages, and as that tier's tokens."""

    messages: tuple[Message, ...]
    tokens: Sequence[int]


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What one engine is asked for.

    Attributes:
        tier: whose model answers.
        text: text and tokens of that model.
        prompt: the conversation.
        asked: how the answer is drawn; its `messages` are those of the prompt or longer.
        max_output_tokens: at most as many as `asked` says.
        request_id: names it in the replica's log.
        streaming: text comes as it is made, otherwise all of it at the end.
        log_probs: they are wanted.
        deadline_seconds: from now, after which the replica may give up.
        tenant: whose it is; engines are told a hash of it, and only beside a guide, so that what
            they have to try for one does not keep others waiting.
    """

    tier: Tier
    text: "TierText"
    prompt: Prompt
    asked: Asked
    max_output_tokens: int
    request_id: str
    streaming: bool
    log_probs: bool
    deadline_seconds: float
    tenant: str = ""


@dataclass(slots=True)
class Piece:
    """The next text of an answer and the tokens it stands for; `ended`: the answer is complete.

    Tokens that complete no character count with the text that does.
    """

    text: str
    tokens: int
    ended: bool


class EngineCall(Protocol):
    """One request running on a replica; the cancellation of whoever reads it leaves it alone.

    Whoever started it ends it, in one of three ways: `finish` where `final` says that the replica
    is done, `stop` where it is not, or by reading on until `final`.
    """

    output_tokens: int
    """Tokens that the replica is known to have made, read or not."""

    final: bool
    """The replica has said all it will say: `output_tokens` is exact."""

    heard_at: float | None
    """When something of its answer came last, read or not, by the clock; None before."""

    @property
    def finish_reason(self) -> Finish:
        """Why the answer ended, once it has."""

    figures: EngineFigures
    """What the replica measured, once it is final."""

    async def read(self, timeout_seconds: float) -> Piece:
        """The next text; after the answer has ended, empty pieces until `final`.

        Raises:
            ReplicaFailed: the replica is lost, refused for now, or silent for too long.
            ServiceError: the request itself cannot be served.
        """

    def log_probs(self, most: int) -> Sequence[float] | None:
        """Those of the answer's first tokens; None where not all of them are there."""

    def finish(self) -> None:
        """Lets go of a call that is final, as its server wants it ended; the rest is still read."""

    async def stop(self) -> None:
        """Ends the request on the replica, and hears how far it came where the replica says so."""

    def cancel(self) -> None:
        """Ends the request on the replica, and hears no more of it."""

    def give_up(self, failure: ReplicaFailed) -> None:
        """Ends the call because its replica is lost; whoever reads it gets the failure."""


class Engine(Protocol):
    """Answers requests on replicas, in pieces of text."""

    def capabilities(self, tier: Tier) -> Capabilities:
        """What the tier's engine can do, as far as is known now."""

    def learn_log_probs(self, tier: Tier, *, has: bool) -> None:
        """Takes what a probe found out: whether the tier's engine tells log-probabilities."""

    def start(self, address: str, request: EngineRequest) -> EngineCall:
        """Starts a request; whoever calls it reads the call. Never blocks."""

    def forget(self, address: str) -> None:
        """Lets go of what is kept for a replica that is gone."""

    async def watch(self) -> None:
        """Gives up calls that stay silent beyond their time. Runs for ever; the caller owns it."""

    async def close(self) -> None:
        """Lets go of every replica."""


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


@dataclass(frozen=True, slots=True)
class TooLong:
    """A conversation that has too many tokens, so many at least."""

    tokens: int


class TierText(Protocol):
    """Text and tokens of one tier's model. All of it may be asked in any thread."""

    end_id: int
    pad_id: int

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Renders the conversation with the tier's chat template and tokenises it.

        Takes about a millisecond for 8 KB; others run meanwhile, if it is in a thread of its own.

        Raises:
            BadRequest: the template refuses the conversation.
        """

    def encode_below(self, messages: Sequence[Message], limit: int) -> list[int] | TooLong:
        """The same, of less than so many tokens; what cannot have less is not tokenised.

        Raises:
            BadRequest: the template refuses the conversation.
        """

    def least_tokens(self, messages: Sequence[Message]) -> int:
        """How few tokens the conversation can have, without tokenising it; 0 where nobody knows.

        Raises:
            BadRequest: the template refuses the conversation.
        """

    def encode_plain(self, text: str) -> list[int]:
        """Tokens of a bare text."""

    def detokenizer(self) -> Detokenizer:
        """A fresh detokenizer for one answer."""


MakeRecord = Callable[[], LedgerRecord]
"""Makes a record of what does not change any more; called beside the requests, in a thread."""


class Ledger(Protocol):
    """One record a finished request."""

    def number(self) -> int:
        """The place of a request among those that this process has answered, counted from 1.

        It is asked for as the caller has its answer, and stands in the request's record; a number
        without a record is a gap in the ledger.
        """

    def add(self, record: LedgerRecord | MakeRecord) -> None:
        """Takes a record, or what makes it; never blocks and never fails the request."""


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

    async def keep_once(
        self, key: str, value: bytes, seconds: float, *, tenant: str
    ) -> bytes | None:
        """Keeps a value for so long, unless the key has one already.

        `tenant` is whose it is: what is kept, and waits to be, is bounded for each.

        Returns:
            the value that was there before; None if this one is kept now.

        Raises:
            Unavailable: nobody knows, as the shared state cannot be reached.
        """

    async def kept(self, key: str, *, tenant: str) -> bytes | None:
        """The value of a key; None if it has none or it has run out.

        Raises:
            Unavailable: as above.
        """


class ComingAnswer(StrEnum):
    """What is said of a tier without replicas."""

    COMING = "coming"
    """A replica is on its way."""
    NONE = "none"
    """None will come."""
    UNKNOWN = "unknown"
    """Nobody says."""


@dataclass(frozen=True, slots=True)
class Coming:
    """Whether a tier that has no replica gets one.

    Attributes:
        answer: what is said.
        seconds: in about how long one is ready; 0 unless one is on its way.
    """

    answer: ComingAnswer
    seconds: float = 0.0

    @property
    def unknown(self) -> bool:
        """Whether nobody says."""
        return self.answer is ComingAnswer.UNKNOWN


class Waking(Protocol):
    """Who can bring a tier replicas."""

    async def wake(self, tier: str) -> Coming:
        """Asks for a replica of the tier, within seconds."""
