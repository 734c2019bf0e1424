"""Reads pages over HTTP: few at a time, each within a deadline and no longer than a bound.

The library takes half a second to import: it is, in a thread, when the first page is wanted, so
that no replica starts later for it.
"""

import asyncio
import importlib
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import aiohttp

MAX_BYTES = 1 << 20
AT_ONCE = 8
OK = 200
GET_SECONDS = 2.0


class Unanswered(Exception):
    """A page could not be had; the message says why, in words for an operator."""


class Pages:
    """A client for as long as its ``async with``. No proxy, redirect or cookie is heeded."""

    def __init__(self, *, seconds: float = GET_SECONDS, max_bytes: int = MAX_BYTES) -> None:
        """Nothing is open yet.

        Args:
            seconds: a page takes longer: given up.
            max_bytes: a page is longer: given up.
        """
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._room = asyncio.Semaphore(AT_ONCE)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(importlib.import_module, "aiohttp")
        import aiohttp  # noqa: PLC0415

        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=AT_ONCE, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(
        self,
        url: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        accept: Collection[int] = (OK,),
    ) -> tuple[int, bytes]:
        """Status and body of a page.

        Args:
            url: of the page.
            query: parameters of the URL.
            headers: to send.
            accept: statuses that are an answer.

        Raises:
            Unanswered: nobody answers in time, or with another status, or with too much.
        """
        return await self._ask("GET", url, query, headers, accept)

    async def put(self, url: str, headers: Mapping[str, str]) -> bytes:
        """What a page answers to a PUT of nothing with these headers.

        Raises:
            Unanswered: see `get`.
        """
        _, body = await self._ask("PUT", url, None, headers, (OK,))
        return body

    async def _ask(
        self,
        method: str,
        url: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        accept: Collection[int],
    ) -> tuple[int, bytes]:
        import aiohttp  # noqa: PLC0415

        assert self._session is not None  # noqa: S101 -- it was entered
        try:
            async with (
                self._room,  # who waits for a turn is not late
                asyncio.timeout(self._seconds),
                self._session.request(
                    method, url, params=query, headers=headers, allow_redirects=False
                ) as response,
            ):
                body = await response.content.read(self._max_bytes + 1)
                while len(body) <= self._max_bytes and (more := await response.content.readany()):
                    body += more
                if len(body) > self._max_bytes:
                    raise Unanswered(f"its answer is longer than {self._max_bytes:,} bytes")
                if response.status not in accept:
                    raise Unanswered(f"it answers with status {response.status}")
                return response.status, body
        except TimeoutError as error:
            raise Unanswered(f"it does not answer within {self._seconds:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unanswered(
                f"it cannot be reached: {str(error) or type(error).__name__}"
            ) from error
