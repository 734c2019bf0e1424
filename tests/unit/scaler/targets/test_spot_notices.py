"""Notices of capacity that is taken away, and what becomes of replicas on it."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from services.scaler.config import Scaling
from services.scaler.load.pages import Unanswered
from services.scaler.metrics import Metrics
from services.scaler.pools.pool import Capacity, Slot
from services.scaler.ports import PoolStatus
from services.scaler.targets import spot_notices
from services.scaler.targets.kept_pools import HEARD_SECONDS
from services.scaler.targets.local import LocalTarget
from services.scaler.targets.spot_notices import (
    AGAIN_SECONDS,
    FOLDER,
    RENEW_SECONDS,
    SpotNotices,
)
from tests.making.replicas import Clock, Host, Quick, pool

URL = "http://169.254.169.254/notice"


class Pages:
    """A metadata server."""

    def __init__(self, status: int | None = 404, body: bytes = b"") -> None:
        self.status, self.body = status, body
        self.asked: list[str] = []

    async def get(self, url: str, **_: object) -> tuple[int, bytes]:
        self.asked.append(url)
        if self.status is None:
            raise Unanswered("it does not answer within 1 s")
        return self.status, self.body


@pytest.fixture
def notices(tmp_path):
    pools = {"a": pool(spot_notice=URL), "b": pool(spot_notice=URL), "c": pool()}
    changes: list[None] = []
    found = SpotNotices(tmp_path, lambda: pools, lambda: changes.append(None))
    return found, changes, tmp_path / FOLDER


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, b"not found", ""),
        (200, b"FALSE", ""),
        (200, b"", ""),
        (None, b"", ""),
        (200, b"TRUE", "its machine is taken away: TRUE"),
        (200, b'{"action": "terminate"}', 'its machine is taken away: {"action": "terminate"}'),
    ],
)
async def test_a_metadata_page_speaks_for_its_pools(notices, status, body: bytes, said: str):
    notices, changes, _ = notices
    pages = Pages(status, body)
    await notices.look(pages)
    assert (notices.of("a"), notices.of("b"), notices.of("c")) == (said, said, "")
    assert pages.asked == [URL], "one page for both"
    assert len(changes) == bool(said)


async def test_a_file_speaks_for_a_pool_or_a_replica_until_it_goes(notices):
    notices, changes, folder = notices
    folder.mkdir()
    (folder / "c-0-x").write_text("in two minutes\n")
    (folder / "c").touch()
    (folder / ".c.swp").touch()
    await notices.look(Pages())
    assert notices.of("c-0-x") == "in two minutes"
    assert notices.of("c") == "its capacity is taken away"
    assert notices.of(".c.swp") == ""
    (folder / "c").unlink()
    await notices.look(Pages())
    assert notices.of("c") == ""
    await notices.look(Pages())
    assert len(changes) == 2


class Aws:
    """Metadata of AWS: its version 2 wants a token that it has given."""

    def __init__(self, *, version: int) -> None:
        self.version = version
        self.puts, self.busy = 0, False
        self.good = ""

    async def put(self, url: str, headers: dict[str, str]) -> bytes:
        assert url == "http://169.254.169.254/latest/api/token"
        assert headers == {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}
        self.puts += 1
        if self.version == 1 or self.busy:
            raise Unanswered("it answers with status 404")
        self.good = f"token-{self.puts}"
        return self.good.encode()

    async def get(self, url: str, *, headers: dict[str, str], **_: object) -> tuple[int, bytes]:
        token = headers.get("X-aws-ec2-metadata-token", "")
        if self.version == 2 and token != self.good:
            return 401, b""
        return 200, b"terminate"


@pytest.mark.parametrize("version", [1, 2])
async def test_aws_is_asked_with_a_token_and_without_where_it_gives_none(tmp_path, version: int):
    url = "http://169.254.169.254/latest/meta-data/spot/instance-action"
    clock, aws = Clock(), Aws(version=version)
    notices = SpotNotices(tmp_path, lambda: {"a": pool(spot_notice=url)}, clock=clock)
    for _ in range(3):
        await notices.look(aws)
        assert notices.of("a") == "its machine is taken away: terminate"
    assert aws.puts == 1, "one token for many looks, and one try for none"
    clock.now += AGAIN_SECONDS if version == 1 else RENEW_SECONDS
    await notices.look(aws)
    assert aws.puts == 2
    aws.busy = True
    clock.now += RENEW_SECONDS
    await notices.look(aws)
    assert aws.puts == 3
    assert notices.of("a"), "the token of before holds for a while yet"


async def test_a_token_that_holds_no_more_is_asked_for_anew(tmp_path):
    url = "http://169.254.169.254/latest/meta-data/spot/instance-action"
    aws = Aws(version=2)
    notices = SpotNotices(tmp_path, lambda: {"a": pool(spot_notice=url)}, clock=Clock())
    await notices.look(aws)
    aws.good = "another"
    await notices.look(aws)
    assert notices.of("a") == ""
    await notices.look(aws)
    assert notices.of("a") == "its machine is taken away: terminate"
    assert aws.puts == 2


async def test_what_gives_notice_is_bounded(notices, monkeypatch):
    notices, _, folder = notices
    monkeypatch.setattr(spot_notices, "MAX_FILES", 2)
    (folder / "a-folder").mkdir(parents=True)
    (folder / "b-file").write_text("y" * 300)
    (folder / "c").touch()
    await notices.look(Pages(200, b"x" * 300))
    assert notices.of("a") == f"its machine is taken away: {'x' * 200}"
    assert (notices.of("a-folder"), notices.of("b-file"), notices.of("c")) == ("", "y" * 200, "")


class Scene:
    """A target with a pool on spot and one on demand, and notices as a test gives them."""

    def __init__(self, **spot: object) -> None:
        self.clock, self.rhythm, self.host = Clock(), Quick(), Host()
        self.told: dict[str, str] = {}
        settings = {"slots": (Slot(),) * 3, "capacity": Capacity.SPOT, "notice_seconds": 120.0}
        pools = {"a": pool(**(settings | spot)), "b": pool(slots=(Slot(),) * 3, size=0)}
        self.target = LocalTarget(
            Scaling(pools=pools),
            self.host,
            Metrics(CollectorRegistry()),
            notice=lambda name: self.told.get(name, ""),
            clock=self.clock,
            rhythm=self.rhythm,
        )

    def resize(self, name: str, size: int) -> None:
        self.target.resize(name, size, draining=(), drained=())

    def pool(self, name: str = "a") -> PoolStatus:
        return self.target.observe()[name]

    def leaving(self) -> dict[str, bool]:
        return {one.replica.id: bool(one.leaving) for one in self.pool().replicas}


@pytest.fixture
async def scene():
    running: list[asyncio.Task[None]] = []

    async def make(**spot: object) -> Scene:
        scene = Scene(**spot)
        await scene.target.open(lambda: None)
        running.append(asyncio.create_task(scene.target.run()))
        scene.resize("a", 1)
        scene.resize("b", 0)
        await scene.rhythm.decided()
        return scene

    yield make
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def test_a_replica_that_is_taken_away_serves_until_another_does(scene):
    scene = await scene()
    (first,) = scene.leaving()
    scene.host.ready = False
    scene.told[first] = "in two minutes"
    await scene.rhythm.decided()
    assert scene.leaving()[first] is False
    assert len(scene.leaving()) == 2, "its successor starts at once"
    (noticed,) = [one for one in scene.pool().replicas if one.notice]
    assert (noticed.replica.id, noticed.outdated, noticed.ready) == (first, True, True)
    scene.host.ready = True
    for _ in range(3):
        await scene.rhythm.decided()
    assert scene.leaving()[first] is True


async def test_it_does_not_wait_longer_than_its_requests_leave_time_for(scene):
    scene = await scene(slots=(Slot(),), drain_seconds=30.0)
    (first,) = scene.leaving()
    scene.clock.now = HEARD_SECONDS
    scene.resize("b", 1)
    scene.host.never_ready.add("int8")
    scene.told["a"] = "all of it goes"
    await scene.rhythm.decided()
    scene.clock.now += 89.0
    await scene.rhythm.decided()
    assert scene.leaving() == {first: False}
    scene.clock.now += 1.0
    await scene.rhythm.decided()
    assert scene.leaving() == {first: True}


async def test_a_pool_that_goes_as_a_whole_starts_nothing_and_waits_for_another_of_its_tier(scene):
    scene = await scene()
    (first,) = scene.leaving()
    scene.told["a"] = "all of it goes"
    await scene.rhythm.decided()
    assert scene.leaving() == {first: False}
    assert scene.pool().capacity == 0
    assert scene.pool().trouble.startswith("all of it goes")
    scene.host.ready = False
    scene.resize("b", 1)
    scene.clock.now += HEARD_SECONDS + 1
    await scene.rhythm.decided()
    assert scene.leaving() == {first: False}, "the other is not ready yet"
    scene.host.ready = True
    for _ in range(3):
        await scene.rhythm.decided()
    assert scene.leaving() == {first: True}


async def test_a_notice_that_is_taken_back_changes_nothing(scene):
    scene = await scene(slots=(Slot(),))
    (first,) = scene.leaving()
    scene.told["a"] = "all of it goes"
    await scene.rhythm.decided()
    scene.told.clear()
    scene.clock.now += 100.0
    await scene.rhythm.decided()
    assert scene.leaving() == {first: False}
    assert scene.pool().capacity == 1
