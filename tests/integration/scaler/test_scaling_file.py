"""Changes of the scaling file over a real Triton: rolled, or refused without missing a replica."""

import asyncio
import shutil

from pennyweight.scaler.v1 import scaler_pb2 as pb
from tests.integration.scaler.harness import KEY, READY, infer, until_async


async def pools(scaler) -> pb.ListPoolsResponse:
    return await scaler.stub.ListPools(pb.ListPoolsRequest(), metadata=KEY, timeout=5)


async def least_ready(scaler, done: asyncio.Event) -> int:
    """The fewest replicas that were ready at a time, until `done`."""
    least = 100
    while not done.is_set():
        pool = await scaler.pool()
        least = min(least, sum(one.state == READY for one in pool.replicas))
        await asyncio.sleep(0.02)
    return least


async def test_a_model_that_cannot_start_costs_no_replica_and_is_told(home):
    home = home(size=2, slots=[{}, {}, {}])
    scaler = await home.start(keep=False)
    before = {one.id for one in await scaler.ready(2)}
    shutil.copytree(home.model, home.model.with_name("broken"))
    (home.model.with_name("broken") / "1/model.py").write_text("not python at all\n")
    done = asyncio.Event()
    watching = asyncio.create_task(least_ready(scaler, done))
    home.pool["model"] = "broken"
    home.write()

    async def refused() -> pb.Pool | None:
        pool = await scaler.pool()
        return pool if pool.HasField("settings_refusal") and len(pool.replicas) == 2 else None

    pool = await until_async(refused, 60)
    assert {one.id for one in pool.replicas} == before
    assert pool.model == "waiter"
    (change,) = pool.settings_refusal.changes
    assert (change.key, change.value, change.in_force) == ("pools.p.model", "broken", "waiter")
    assert pool.settings_refusal.reason.startswith("p-2-")
    assert pool.trouble.startswith("its new settings are refused: ")
    # Mended, it is tried again when the file says something else, and rolled.
    shutil.copytree(home.model, home.model.with_name("mended"))
    home.pool["model"] = "mended"
    home.write()

    async def rolled() -> pb.Pool | None:
        pool = await scaler.pool()
        new = not {one.id for one in pool.replicas} & before
        return pool if new and len(pool.replicas) == 2 and pool.model == "mended" else None

    pool = await until_async(rolled, 60)
    done.set()
    assert await watching == 2
    assert not pool.HasField("settings_refusal")


async def test_a_file_that_breaks_a_rule_is_told_and_a_scaler_that_starts_anew_goes_back(home):
    home = home(size=1, slots=[{}, {}])
    scaler = await home.start(keep=True)
    (before,) = await scaler.ready(1)
    await until_async(lambda: asyncio.to_thread((home.state / "good/p.json").exists))
    text = home.scaling.read_text()
    home.scaling.write_text(text.replace("size: 1", "size: 010"))

    async def refused() -> pb.PolicyRefusal | None:
        found = await pools(scaler)
        return found.refusal if found.HasField("refusal") else None

    refusal = await until_async(refused)
    (problem,) = refusal.problems
    assert refusal.file == str(home.scaling)
    assert (problem.key, problem.value) == ("pools.p.size", "'010'")
    assert [one.id for one in (await pools(scaler)).pools[0].replicas] == [before.id]
    await scaler.stop()
    shutil.copytree(home.model, home.model.with_name("broken"))
    (home.model.with_name("broken") / "1/model.py").write_text("not python at all\n")
    home.pool["model"] = "broken"
    home.write()
    scaler = await home.start(keep=False)

    async def went_back() -> pb.Pool | None:
        pool = await scaler.pool()
        return pool if pool.HasField("settings_refusal") and len(pool.replicas) == 1 else None

    pool = await until_async(went_back, 60)
    assert [one.id for one in pool.replicas] == [before.id]
    assert await infer(before.address, 1) == 1
