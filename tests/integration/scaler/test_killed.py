"""A scaler that is killed in the middle of something: the next one brings it to its end."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from services.scaler.pools.pool import Slot
from services.scaler.targets import processes
from services.scaler.targets.replica_processes import ReplicaProcesses
from services.scaler.targets.starting import OwnStarter
from services.scaler.targets.tritonserver import REPLICA_VARIABLE
from tests.integration.scaler.harness import (
    GONE,
    MODEL,
    READY,
    Home,
    ScalerProcess,
    infer,
    left_of,
    until,
)
from tests.making.replicas import pool


class Killed(BaseException):
    """The scaler dies here."""


class KilledAfter(OwnStarter):
    """Starts a process, and its scaler dies before it hears of it."""

    def start(
        self, argv: Sequence[str], environment: Mapping[str, str], folder: Path, output: Path
    ) -> int:
        super().start(argv, environment, folder, output)
        raise Killed


async def test_a_replica_whose_scaler_was_killed_as_it_started_it_is_found(
    home: Callable[..., Home], tmp_path: Path
) -> None:
    place = home()
    server = tmp_path / "triton" / "bin" / "tritonserver"
    (server.parent.parent / "backends").mkdir(parents=True)
    server.parent.mkdir()
    server.write_text(f"#!{sys.executable}\nimport signal\nsignal.pause()\n")
    server.chmod(0o700)
    settings = pool(model=MODEL, repository=place.model.parent, slots=(Slot(),))
    first = ReplicaProcesses(place.state, {}, server=server, starter=KilledAfter())
    await first.adopt(lambda _id, _what: None)
    with pytest.raises(Killed):
        await first.start("p-0-x", "p", settings, 0)
    (pid,) = processes.family(REPLICA_VARIABLE, "p-0-x")
    await first.close()
    second = ReplicaProcesses(place.state, {}, server=server)
    (found,) = await second.adopt(lambda _id, _what: None)
    assert (found.replica.id, found.ready, found.fault) == ("p-0-x", False, "")
    assert place.replicas()["p-0-x"]["server"]["pid"] == pid
    await second.end("p-0-x", gently=False)
    assert left_of("p-0-x") == []
    assert place.replicas() == {}
    await second.close()


async def told(scaler: ScalerProcess, event: str, *, but: str = "") -> str:
    """The replica of which the scaler's log first tells this, another than `but`."""

    def found() -> str:
        lines = [json.loads(line) for line in scaler.log.read_text().splitlines()]
        replicas = [line["replica"] for line in lines if line["event"] == event]
        return next((one for one in replicas if one != but), "")

    return str(await until(found))


@pytest.mark.parametrize("step", ["starting", "ready", "retiring", "stopping"])
async def test_a_rollout_whose_scaler_is_killed_is_finished_by_the_next(
    home: Callable[..., Home], step: str
) -> None:
    place = home(slots=[{}, {}])
    first = await place.start_process()
    (old,) = await first.ready()
    place.pool["parameters"] = {"changed": True}
    place.write()
    new = await told(first, "starting", but=old.id)
    if step == "starting":  # its process is there
        await until(lambda: place.replicas().get(new, {}).get("server"))
    elif step == "ready":
        await told(first, step, but=old.id)
    else:
        assert await told(first, step) == old.id
    await first.kill()
    second = await place.start()
    async with second.watch() as watch:
        seen = await watch.next()
        states = {one.id: one.state for one in seen.replicas}
        assert READY in states.values(), "somebody serves all the time"
        if old.id in states:
            gone, _ = await watch.until(GONE)
            assert gone.id == old.id
    (left,) = await second.ready()
    assert left.id == new, "none is started a second time"
    assert await infer(left.address, 1) == 1
    await until(lambda: list(place.replicas()) == [new])
    assert left_of(old.id) == []


async def test_an_end_whose_scaler_is_killed_is_not_taken_back(home: Callable[..., Home]) -> None:
    place = home(size=2, slots=[{}, {}])
    first = await place.start_process()
    before = {one.id for one in await first.ready(2)}
    place.pool["size"] = 1
    place.write()
    goes = await told(first, "stopping")
    await first.kill()
    place.pool["size"] = 2
    place.write()
    second = await place.start()
    async with second.watch() as watch:
        states = {one.id: one.state for one in (await watch.next()).replicas}
    assert states.get(goes) != READY
    after = {one.id for one in await second.ready(2)}
    assert after & before == before - {goes}
    await until(lambda: set(place.replicas()) == after)
    assert left_of(goes) == []
