"""Notices that spot capacity is taken away: files that somebody puts down, metadata over HTTP.

A file ``spot-notice/<name>`` below the state folder is about the pool or the replica of that name;
what it says is the reason, and where it goes the notice is taken back. The metadata page of a pool
is that of its machine: while it answers with status 200 and anything but "false", the pool goes.
That is how the clouds tell it: AWS has ``/latest/meta-data/spot/instance-action`` (404 until two
minutes before; with a token of its version 2 where it gives one), GCP
``/computeMetadata/v1/instance/preempted`` ("FALSE" until about 30 seconds before). Leaves to
`local` what is done about it.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from services.scaler.load.pages import OK, Pages, Unanswered
from services.scaler.pools.pool import Pool

log = structlog.get_logger()

FOLDER = "spot-notice"
LOOK_SECONDS = 1.0
PAGE_SECONDS = 1.0
MAX_BYTES = 4096
MAX_FILES = 4096
MAX_REASON = 200
NOT_FOUND = 404
UNAUTHORIZED = 401

AWS = "http://169.254.169.254/latest/"
"""Where pages of AWS are, which may want a token; other clouds have theirs elsewhere there."""
TOKEN_SECONDS = 21_600
"""The longest that AWS lets a token hold."""
RENEW_SECONDS = TOKEN_SECONDS / 2
AGAIN_SECONDS = 60.0
"""Where no token is given, one is asked for again after this long."""

_HEADERS = {"Metadata-Flavor": "Google"}
_NO_NOTICE = ("", "false", "none")


class _Token:
    """AWS's token, without which version 2 of its metadata tells nothing."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._text = ""
        self._until = -math.inf

    async def headers(self, pages: Pages) -> Mapping[str, str]:
        """What a page of AWS is to be asked with; nothing where only version 1 answers."""
        now = self._clock()
        if now >= self._until:
            wanted = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
            try:
                self._text = (await pages.put(f"{AWS}api/token", wanted)).decode("ascii")
                self._until = now + RENEW_SECONDS
            except (Unanswered, UnicodeDecodeError):
                self._until = now + AGAIN_SECONDS  # what was given before may hold still
        return {"X-aws-ec2-metadata-token": self._text} if self._text else {}

    def refused(self) -> None:
        """It holds no more, as after a machine was started from a picture of itself."""
        if self._text:
            self._text, self._until = "", -math.inf


class SpotNotices:
    """What is known now; looks every second."""

    def __init__(
        self,
        state_folder: Path,
        pools: Callable[[], Mapping[str, Pool]],
        on_change: Callable[[], None] = lambda: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is known yet.

        Args:
            state_folder: where the folder of notices is; it need not be there.
            pools: gives the pools that are configured.
            on_change: is called in the event loop when a notice comes or goes.
            clock: monotonic seconds.
        """
        self._folder = state_folder.absolute() / FOLDER
        self._pools = pools
        self.on_change = on_change
        self._told: dict[str, str] = {}
        self._silent: set[str] = set()
        self._token = _Token(clock)

    def of(self, name: str) -> str:
        """Why the pool or replica of that name is taken away; empty: it is not."""
        return self._told.get(name, "")

    async def run(self) -> None:
        """Looks for ever; the caller owns it."""
        async with Pages(seconds=PAGE_SECONDS, max_bytes=MAX_BYTES) as pages:
            while True:
                await self.look(pages)
                await asyncio.sleep(LOOK_SECONDS)

    async def look(self, pages: Pages) -> None:
        """Looks once."""
        urls = {name: pool.spot_notice for name, pool in self._pools().items() if pool.spot_notice}
        files = await asyncio.to_thread(_files, self._folder)
        asked = sorted(set(urls.values()))
        aws = any(url.startswith(AWS) for url in asked)
        token = await self._token.headers(pages) if aws else {}
        said = await asyncio.gather(*(self._page(pages, url, token) for url in asked))
        by_url = dict(zip(asked, said, strict=True))
        told = {name: by_url[url] for name, url in urls.items() if by_url[url]}
        told.update(files)
        if told == self._told:
            return
        for name in told.keys() - self._told.keys():
            log.warning("capacity is taken away", what=name, why=told[name])
        for name in self._told.keys() - told.keys():
            log.info("capacity stays after all", what=name)
        self._told = told
        self.on_change()

    async def _page(self, pages: Pages, url: str, token: Mapping[str, str]) -> str:
        """What a metadata page gives notice of; empty: nothing, or it does not answer."""
        headers = {**_HEADERS, **token} if url.startswith(AWS) else _HEADERS
        try:
            status, body = await pages.get(
                url, headers=headers, accept=(OK, NOT_FOUND, UNAUTHORIZED)
            )
            if status == UNAUTHORIZED:
                self._token.refused()
                raise Unanswered("it wants a token and takes none that it was given")  # noqa: TRY301
        except Unanswered as error:
            if url not in self._silent:
                log.warning("nobody tells whether capacity is taken away", page=url, why=str(error))
            self._silent.add(url)
            return ""
        self._silent.discard(url)
        text = body.decode("utf-8", errors="replace").strip()
        if status != OK or text.lower() in _NO_NOTICE:
            return ""
        return f"its machine is taken away: {text[:MAX_REASON]}"


def _files(folder: Path) -> dict[str, str]:
    """By name, what each file of the folder says."""
    found: dict[str, str] = {}
    try:
        for path in sorted(folder.iterdir())[:MAX_FILES]:
            if path.is_file() and not path.name.startswith("."):
                with path.open("rb") as file:
                    text = file.read(MAX_REASON).decode("utf-8", errors="replace").strip()
                found[path.name] = text or "its capacity is taken away"
    except OSError:  # no folder, or one that goes away: no notice
        return found
    return found
