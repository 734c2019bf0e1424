# ruff: noqa: S311 -- repeatable draws are the point
"""Traffic: asks many questions of a running stack and adds up what the answers took.

Left to others: making questions up (`customers`), showing what came of them (`traffic_report`),
choosing tiers (the router). Nothing of questions or answers is kept.
"""

import asyncio
import csv
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from random import Random

from pennyweight import Client, Finished, Options, PennyweightError
from pennyweight.ledger.money import NOTHING, Money
from services.local.customers import asked
from services.local.own_records import OwnRecord

HOPELESS = 20
"""So many failures before any answer end the traffic."""

COLUMN = "text"
ESCALATED = "escalated"
FAILED = "failed"


@dataclass(frozen=True)
class Wanted:
    """What is asked of the stack.

    Attributes:
        route: that is asked.
        requests: how many questions.
        in_flight: most questions that wait for their answers at a time.
        per_second: questions started a second, at most; None: as fast as answers come.
        use_cache: whether a stored answer may serve; without it the cache is neither read nor
            written.
    """

    route: str
    requests: int
    in_flight: int
    per_second: float | None = None
    use_cache: bool = False


@dataclass
class Sum:
    """Answers of one tier for one reason, and their money."""

    answers: int = 0
    money: Money = NOTHING

    def add(self, other: "Sum") -> None:
        """Adds another sum to this one."""
        self.answers += other.answers
        self.money = self.money.plus(other.money)


@dataclass
class Tally:
    """What became of the questions so far: sums by tier and reason, failures by status code.

    Attributes:
        sums: as callers were told, without what runs behind their backs as evidence.
        handles: of the requests, answered or not.
    """

    sums: defaultdict[tuple[str, str], Sum] = field(default_factory=lambda: defaultdict(Sum))
    failures: Counter[str] = field(default_factory=Counter)
    last_failure: str = ""
    handles: set[str] = field(default_factory=set)

    def answered(self, summary: Finished) -> None:
        """Counts an answer."""
        cost = summary.cost
        self.handles.add(summary.handle)
        self.sums[summary.decision.tier, summary.decision.reason].add(
            Sum(1, Money(cost.micro_usd, baseline=cost.baseline_micro_usd))
        )

    def failed(self, error: PennyweightError) -> None:
        """Counts a question without an answer."""
        self.failures[error.code.name] += 1
        self.last_failure = error.message
        if error.handle:
            self.handles.add(error.handle)

    @property
    def whole(self) -> Sum:
        """Everything answered, added up."""
        return total(self.sums.values())

    @property
    def done(self) -> int:
        """Questions answered or failed."""
        return self.whole.answers + self.failures.total()

    @property
    def escalated(self) -> float | None:
        """Share of the answers before which a lower tier was tried; None before any answer."""
        answers = self.whole.answers
        tried = sum(one.answers for (_, reason), one in self.sums.items() if reason == ESCALATED)
        return tried / answers if answers else None

    @property
    def hopeless(self) -> bool:
        """Whether all of the first questions failed."""
        return not self.sums and self.failures.total() >= HOPELESS


def total(sums: Iterable[Sum]) -> Sum:
    """All of them together."""
    whole = Sum()
    for one in sums:
        whole.add(one)
    return whole


def charged(records: Iterable[OwnRecord]) -> dict[tuple[str, str], Sum]:
    """Sums by tier and reason as the ledger has them; what failed may have cost something too."""
    sums: defaultdict[tuple[str, str], Sum] = defaultdict(Sum)
    for one in records:
        key = (one.tier, one.reason) if one.answered else (one.tier or "-", FAILED)
        sums[key].add(Sum(int(one.answered), one.money))
    return dict(sums)


def questions(file: Path | None, seed: int) -> Iterator[str]:
    """Questions without end: those of a file in a drawn order, again and again, or made-up ones.

    Args:
        file: one question a line, or a CSV file with a column `text`; None: made-up customers.
        seed: of the order, or of the customers.

    Raises:
        OSError, ValueError: the file cannot be read, or holds no questions.
    """
    if file is None:
        return (one.text for one in asked(seed))
    found = [line for line in map(str.strip, _lines(file)) if line]
    if not found:
        raise ValueError(f"{file} holds no questions.")
    return _again_and_again(found, Random(seed))


def _lines(file: Path) -> list[str]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as source:
            if file.suffix.lower() != ".csv":
                return source.read().splitlines()
            rows = csv.DictReader(source)
            if COLUMN not in (rows.fieldnames or ()):
                found = ", ".join(rows.fieldnames or ()) or "none"
                raise ValueError(f"{file} has no column {COLUMN}; its columns: {found}.")
            return [" ".join((row[COLUMN] or "").split()) for row in rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} cannot be read: {error}.") from error


def _again_and_again(found: list[str], random: Random) -> Iterator[str]:
    while True:
        yield from random.sample(found, len(found))


async def send(
    client: Client,
    asked: Iterator[str],
    wanted: Wanted,
    tally: Tally,
    after_each: Callable[[], None],
) -> None:
    """Asks until every question has its answer or its failure, or the first ones all failed.

    Args:
        client: of the running stack.
        asked: what to ask; as many are taken as are wanted.
        wanted: how many, how fast, of which route.
        tally: counts what became of each.
        after_each: called whenever a question is done.
    """
    options: Options = {"attributes": {"feature": "traffic"}}
    if not wanted.use_cache:
        options["cache_use"] = "bypass"
    began = time.monotonic()
    waiting = enumerate(islice(asked, wanted.requests))

    async def ask_on() -> None:
        for number, question in waiting:
            if wanted.per_second is not None:
                due = began + number / wanted.per_second
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            try:
                answer = await client.complete(wanted.route, question, **options)
            except PennyweightError as error:
                tally.failed(error)
            else:
                tally.answered(answer.summary)
            after_each()
            if tally.hopeless:
                return

    async with asyncio.TaskGroup() as group:
        for _ in range(min(wanted.in_flight, wanted.requests)):
            group.create_task(ask_on())
