"""Answers of a Prometheus to the queries of pools, by its HTTP API for instant queries."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson
import structlog

from services.scaler.load.pages import Pages, Unanswered
from services.scaler.policy.sizing.settings import Query
from services.scaler.policy.sizing.views import Reading

log = structlog.get_logger()

LOOK_SECONDS = 10.0
MAX_BYTES = 1 << 16
ANSWERS = (200, 400, 422)
"""Statuses of an answer; the latter two tell what is wrong with a query."""

Name = tuple[str, str]
"""A pool and a query of it."""


class NoNumber(Exception):
    """An answer is not one number; the message says what it is."""


def number_of(body: bytes) -> float:
    """The one number of an answer; NaN where it has none, as a ratio of what did not happen.

    Raises:
        NoNumber: it is several, infinite or negative, or no answer at all.
    """
    try:
        answer: Any = orjson.loads(body)
        status = answer["status"]
        if status != "success":
            raise NoNumber(f"Prometheus refuses it: {str(answer.get('error', status))[:200]}")
        kind, result = answer["data"]["resultType"], answer["data"]["result"]
        if kind == "vector":
            if len(result) > 1:
                many = f"it gives {len(result)} series where one number is wanted"
                raise NoNumber(f"{many}; sum() makes one")
            result = result[0]["value"] if result else (0, "NaN")
        elif kind != "scalar":
            raise NoNumber(f"it gives a {kind} where one number is wanted")
        value = float(result[1])
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise NoNumber("its answer is not one of Prometheus") from error
    if math.isinf(value) or value < 0:
        raise NoNumber(f"it gives {value}, which says nothing of a load")
    return value


class Queries:
    """Asks one Prometheus; keeps the last answer to each query and what is wrong with it."""

    def __init__(
        self,
        address: str,
        asked: Callable[[], Mapping[Name, Query]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is asked yet.

        Args:
            address: its base URL; empty: there is none.
            asked: gives the queries of the policy in force.
            clock: monotonic seconds.
        """
        self._url = f"{address.rstrip('/')}/api/v1/query"
        self._there = bool(address)
        self._asked = asked
        self._clock = clock
        self._readings: dict[Name, tuple[str, Reading]] = {}
        self._wrong: dict[Name, str] = {}

    def reading(self, pool: str, query: str, text: str) -> Reading | None:
        """The last answer; None: there is none to this text."""
        found = self._readings.get((pool, query))
        return found[1] if found is not None and found[0] == text else None

    def wrong(self, pool: str, query: str) -> str:
        """Why the query has no answer now; empty: it has."""
        return self._wrong.get((pool, query), "")

    async def run(self) -> None:
        """Asks all every ten seconds. Runs for ever; the caller owns it."""
        async with Pages(max_bytes=MAX_BYTES) as pages:
            while True:
                await self.look(pages)
                await asyncio.sleep(LOOK_SECONDS)

    async def look(self, pages: Pages) -> None:
        """Asks all once."""
        asked = dict(self._asked()) if self._there else {}
        for gone in {*self._readings, *self._wrong} - asked.keys():
            self._readings.pop(gone, None)
            self._wrong.pop(gone, None)
        await asyncio.gather(*(self._ask(pages, name, query) for name, query in asked.items()))

    async def _ask(self, pages: Pages, name: Name, query: Query) -> None:
        at = self._clock()
        try:
            _, body = await pages.get(self._url, {"query": query.query}, accept=ANSWERS)
            value = number_of(body)
        except (Unanswered, NoNumber) as error:
            if name not in self._wrong:
                log.warning("a query has no answer", pool=name[0], query=name[1], why=str(error))
            self._wrong[name] = str(error)
        else:
            if self._wrong.pop(name, ""):
                log.info("a query has its answer again", pool=name[0], query=name[1])
            if math.isnan(value):  # which says something where nothing is asked of the pool
                self._wrong[name] = "it gives no number"
            self._readings[name] = query.query, Reading(value, at)
