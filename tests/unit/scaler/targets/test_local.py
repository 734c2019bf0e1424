"""The local target over a host that does as it is told: slots, repair, adoption."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from services.scaler.config import Scaling
from services.scaler.metrics import Metrics
from services.scaler.pools.pool import Capacity, Pool, Restart, Slot
from services.scaler.ports import PoolStatus, ReplicaStatus
from services.scaler.targets.good_settings import GoodSettings
from services.scaler.targets.local import LocalTarget
from services.scaler.targets.occupants import EXIT_SECONDS
from services.scaler.targets.slots import Adopted
from tests.making.beside import beside
from tests.making.replicas import Clock, Host, Quick, again, pool


class Scene:
    """A target at work, and what it says."""

    def __init__(
        self, host: Host, pools: dict[str, Pool], good: GoodSettings | None = None
    ) -> None:
        self.clock = Clock()
        self.metrics = Metrics(CollectorRegistry())
        scaling = Scaling(pools=pools, restart=Restart(first_seconds=10))
        self.host = host
        self.changed = asyncio.Event()
        self.rhythm = Quick()
        self.sent: dict[str, int] = {}  # the longest request, by tier
        self.target = LocalTarget(
            scaling,
            host,
            self.metrics,
            good=good,
            longest=lambda tier: self.sent.get(tier, 0),
            clock=self.clock,
            rhythm=self.rhythm,
        )

    def status(self, name: str = "a") -> PoolStatus:
        return self.target.observe()[name]

    def resize(self, size: int, *, name: str = "a", draining=(), drained=()) -> None:
        self.target.resize(name, size, draining=draining, drained=drained)

    async def happens(self, condition) -> None:
        """Waits until a change that is told fulfils the condition."""
        async with asyncio.timeout(5.0):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def until(self, wanted) -> PoolStatus:
        """The status of pool a, once it is as wanted."""
        await self.happens(lambda: wanted(self.status()))
        return self.status()

    async def ready(self, count: int = 1) -> tuple[ReplicaStatus, ...]:
        status = await self.until(lambda it: [one.ready for one in it.replicas] == [True] * count)
        return status.replicas

    async def decided(self) -> None:
        await self.rhythm.decided()

    async def asked(self) -> None:
        """Waits until replicas were asked how they are, and what they said was acted on."""
        await again(self.host.asked)


@asynccontextmanager
async def at_work(host: Host, good: GoodSettings | None = None, **pools: Pool):
    scene = Scene(host, pools or {"a": pool()}, good)
    await scene.target.open(scene.changed.set)
    async with beside(scene.target.run()):
        yield scene


async def test_nothing_is_started_before_a_size_is_wanted():
    async with at_work(Host()) as scene:
        await scene.decided()
        assert scene.status() == PoolStatus(capacity=2)
        scene.resize(2)
        first, second = await scene.ready(2)
        assert [one.replica.address for one in (first, second)] == ["127.0.0.1:0", "127.0.0.1:1"]


async def test_asking_whether_it_is_ready_changes_nothing_and_the_first_yes_is_noted_once():
    host = Host()
    async with at_work(host) as scene:
        scene.resize(1)
        (one,) = await scene.ready()
        await scene.asked()
        assert host.noted == [one.replica.id]


async def test_a_replica_that_lost_a_part_when_it_was_ready_does_not_serve():
    host = Host()
    host.whole = False
    async with at_work(host, a=pool(slots=(Slot(),))) as scene:
        scene.resize(1)
        status = await scene.until(lambda it: len(it.replicas) == 1)
        await scene.asked()
        assert not scene.status().replicas[0].ready
        host.kill(status.replicas[0].replica.id, "its Python stub died")
        assert scene.status().replicas == ()
        assert scene.status().ending == 1


async def test_a_replica_that_falls_silent_is_not_ready_until_it_answers_again():
    host = Host()
    async with at_work(host, a=pool(slots=(Slot(),))) as scene:
        scene.resize(1)
        (one,) = await scene.ready()
        host.ready = False
        await scene.asked()
        for _ in range(3):
            scene.clock.now += 2.5
            await scene.decided()
            assert scene.status().replicas[0].ready
        scene.clock.now += 2.0
        await scene.until(lambda it: not it.replicas[0].ready)
        await scene.until(lambda it: it.trouble == "1 replica does not answer")
        assert host.ended == []
        host.ready = True
        (same,) = await scene.ready()
        assert same.replica.id == one.replica.id
        await scene.until(lambda it: not it.trouble)


async def test_another_slot_takes_over_at_once():
    host = Host()
    async with at_work(host) as scene:
        scene.resize(1)
        (before,) = await scene.ready()
        host.kill(before.replica.id, "its Python stub died")
        assert scene.status().replicas == ()
        (after,) = await scene.ready()
        assert after.replica.address == "127.0.0.1:1"
        await scene.until(lambda it: not it.ending)
        assert host.ended == [(before.replica.id, False)]


async def test_what_cannot_start_is_the_pools_trouble_and_is_tried_again():
    host = Host()
    host.refusal = "port 18101 is taken"
    async with at_work(host, a=pool(slots=(Slot(),))) as scene:
        scene.resize(1)
        await scene.decided()
        expected = "slot 0: failed once, last because port 18101 is taken; next try in 10 s"
        assert scene.status().trouble == expected
        host.refusal = ""
        scene.clock.now = 10.0
        await scene.ready()
        await scene.decided()
        assert scene.status().trouble == ""


async def test_adopted_replicas_stay_and_have_what_their_pool_says_today():
    host = Host()
    host.left = [Adopted(host.replica("a-0-old", "a", pool(), 0), ready=True)]
    async with at_work(host, a=pool(capacity=Capacity.SPOT)) as scene:
        (one,) = scene.status().replicas
        assert (one.replica.id, one.ready) == ("a-0-old", True)
        assert one.replica.capacity is Capacity.SPOT
        scene.resize(1)
        await scene.decided()
        assert (host.ended, scene.status().starts.typical_seconds) == ([], None)


async def test_an_adopted_replica_that_is_broken_is_only_cleared_away():
    host = Host()
    broken = host.replica("a-0-old", "a", pool(), 0)
    host.left = [Adopted(broken, ready=True, fault="it died unobserved")]
    async with at_work(host) as scene:
        assert (scene.status().replicas, scene.status().ending) == ((), 1)
        scene.resize(0)
        await scene.until(lambda it: it.empty)
        assert host.ended == [("a-0-old", False)]


async def test_a_pool_that_is_no_longer_configured_leaves():
    host = Host()
    host.left = [Adopted(host.replica("b-0-old", "b", pool(), 0), ready=True)]
    async with at_work(host, a=pool(size=0)) as scene:
        scene.resize(0, name="b")
        await scene.happens(lambda: scene.status("b").replicas[0].leaving)
        scene.resize(0, name="b", drained=["b-0-old"])
        await scene.happens(lambda: "b" not in scene.target.observe())
    assert host.ended == [("b-0-old", True)]


async def test_a_draining_replica_stays_with_its_engines_count_until_it_is_drained():
    host = Host()
    host.running = 2
    async with at_work(host) as scene:
        scene.resize(1)
        (one,) = await scene.ready()
        assert one.running_requests is None
        name = one.replica.id
        scene.resize(0, draining=[name])
        status = await scene.until(lambda it: it.replicas[0].running_requests == 2)
        assert [one.ready for one in status.replicas] == [True]
        await scene.decided()
        assert host.ended == []
        scene.resize(0, drained=[name])
        await scene.until(lambda it: it.empty)
        assert host.ended == [(name, True)]


async def test_a_draining_replica_does_not_count():
    async with at_work(Host()) as scene:
        scene.resize(1)
        (before,) = await scene.ready()
        scene.resize(1, draining=[before.replica.id])
        kept, _ = await scene.ready(2)
        assert kept.replica.id == before.replica.id


async def test_outdated_replicas_leave_when_their_successor_is_ready():
    host = Host()
    old = host.replica("a-0-old", "a", pool(parameters={"x": "1"}), 0)
    host.left = [Adopted(old, ready=True)]
    host.ready = False
    async with at_work(host) as scene:
        scene.resize(1)
        status = await scene.until(lambda it: len(it.replicas) == 2)
        assert [(one.outdated, one.leaving) for one in status.replicas] == [
            (True, ""),
            (False, ""),
        ]
        host.ready = True
        status = await scene.until(lambda it: it.replicas[0].leaving != "")
        assert status.replicas[0].leaving == "its settings are not the pool's any more"
        assert status.replicas[1].ready


async def test_a_typical_start_is_the_median():
    host = Host()
    host.ready = False
    async with at_work(host, a=pool(slots=(Slot(),))) as scene:
        scene.resize(1)
        await scene.until(lambda it: len(it.replicas) == 1)
        scene.clock.now = 4.0
        host.ready = True
        await scene.ready()
        assert scene.status().starts.typical_seconds == 4.0


async def test_a_scaler_that_paused_does_not_take_its_own_silence_for_a_replicas():
    host = Host()
    async with at_work(host, a=pool(slots=(Slot(),))) as scene:
        scene.resize(1)
        await scene.ready()
        host.ready = False
        await scene.asked()
        scene.clock.now += 34.0
        await scene.decided()
        assert host.ended == []
        for _ in range(8):
            scene.clock.now += 4.0
            await scene.decided()
        assert host.ended, "real silence is still noticed"


async def test_a_replica_that_exits_is_replaced_long_before_one_that_is_silent():
    host = Host()
    async with at_work(host, a=pool(slots=(Slot(), Slot()))) as scene:
        scene.resize(1)
        (one,) = await scene.ready()
        host.ready, host.exiting = False, True
        await scene.asked()
        await scene.asked()
        scene.clock.now += EXIT_SECONDS - 0.1
        await scene.asked()
        await scene.asked()
        assert scene.status().replicas[0].replica.id == one.replica.id
        scene.clock.now += 0.2
        await scene.until(lambda it: one.replica.id not in {it.replica.id for it in it.replicas})
        host.ready, host.exiting = True, False
        (other,) = await scene.ready()
        assert other.replica.id != one.replica.id


class Trying:
    """Pool a with two replicas of good settings, and a host on which other ones may fail."""

    def __init__(self, scene: Scene, host: Host) -> None:
        self.scene = scene
        self.host = host

    def ask(self, *, again: bool = False, **changes) -> None:
        self.scene.target.configure(
            Scaling(pools={"a": pool(size=2, slots=(Slot(),) * 3, **changes)}), again=again
        )

    def models(self) -> list[str]:
        return sorted(one.replica.precision for one in self.scene.status().replicas if one.ready)


@asynccontextmanager
async def trying(good: GoodSettings | None = None):
    host = Host()
    async with at_work(host, good=good, a=pool(size=2, slots=(Slot(),) * 3)) as scene:
        scene.resize(2)
        await scene.ready(2)
        await scene.decided()
        yield Trying(scene, host)


async def test_new_settings_that_cannot_start_are_refused_and_cost_no_replica():
    async with trying() as scene:
        scene.host.refusal = "int9 has no model folder"
        scene.ask(precision="int9", max_in_flight=7)
        status = await scene.scene.until(lambda it: it.refused is not None)
        assert "a-2-" in status.refused.reason
        assert status.refused.reason.endswith("int9 has no model folder")
        assert [(one.key, one.value, one.before) for one in status.refused.changes] == [
            ("pools.a.max_in_flight", 7, 64),
            ("pools.a.precision", "int9", "int8"),
        ]
        assert status.in_force.precision == "int8"
        await scene.scene.decided()
        assert scene.models() == ["int8", "int8"]
        trouble = scene.scene.status().trouble
        assert trouble.startswith("its new settings are refused: a-2-")
        assert trouble.endswith("int9 has no model folder; it goes on with the last good ones")
        assert scene.host.ended == []


async def test_new_settings_that_die_before_they_are_ready_are_refused():
    async with trying() as scene:
        scene.host.never_ready = {"int9"}
        scene.ask(precision="int9")
        status = await scene.scene.until(lambda it: len(it.replicas) == 3)
        (fresh,) = [one for one in status.replicas if not one.outdated]
        scene.host.kill(fresh.replica.id, "its server ended while starting")
        await scene.scene.until(lambda it: it.refused is not None and not it.ending)
        assert scene.models() == ["int8", "int8"]
        assert [name for name, _ in scene.host.ended] == [fresh.replica.id]


async def test_new_settings_that_are_not_ready_in_time_are_refused():
    async with trying() as scene:
        scene.host.never_ready = {"int9"}
        scene.ask(precision="int9", start_seconds=20)
        await scene.scene.until(lambda it: len(it.replicas) == 3)
        for _ in range(5):
            scene.scene.clock.now += 4.0
            await scene.scene.asked()
            await scene.scene.decided()
        refused = scene.scene.status().refused
        assert refused is not None
        assert refused.reason.endswith("not ready after 20 s")
        assert scene.models() == ["int8", "int8"]


async def test_new_settings_that_fall_silent_while_they_are_tried_are_refused():
    async with trying() as scene:
        scene.ask(precision="int9")
        await scene.scene.until(lambda it: any(one.leaving for one in it.replicas))
        scene.host.never_ready = {"int9"}
        for _ in range(4):
            await scene.scene.asked()
            scene.scene.clock.now += 4.0
            await scene.scene.decided()
        refused = scene.scene.status().refused
        assert refused is not None
        assert refused.reason.endswith("it fell silent while its settings were tried")


async def test_a_pool_goes_back_where_some_replicas_were_already_replaced():
    async with trying() as scene:
        scene.ask(precision="int9")
        status = await scene.scene.until(lambda it: any(one.leaving for one in it.replicas))
        (first,) = [one.replica.id for one in status.replicas if one.leaving]
        scene.scene.resize(2, drained=[first])
        scene.host.refusal = "no memory is left"
        await scene.scene.until(lambda it: it.refused is not None)
        scene.host.refusal = ""
        status = await scene.scene.until(lambda it: [one for one in it.replicas if one.leaving])
        (new,) = [one for one in status.replicas if one.leaving]
        assert new.replica.precision == "int9"
        assert scene.models().count("int8") == 2  # before the new one goes


async def test_new_settings_that_take_less_than_routers_send_are_refused():
    async with trying() as scene:
        scene.host.longest["int9"] = 128
        scene.scene.sent["small"] = 512
        scene.ask(precision="int9")
        status = await scene.scene.until(lambda it: it.refused is not None)
        assert "512 tokens" in status.refused.reason
        assert "exceeds max_seq_len" in status.trouble
        await scene.scene.decided()
        assert scene.models() == ["int8", "int8"]  # no good one was replaced
        scene.scene.sent["small"] = 128  # routes.yaml says so now
        scene.ask(precision="int9", again=True)
        await scene.scene.until(
            lambda it: {one.replica.precision for one in it.replicas} >= {"int9"}
        )
        assert scene.scene.status().refused is None


async def test_where_there_is_no_way_back_one_that_takes_less_serves():
    host = Host()
    host.longest["int8"] = 128
    async with at_work(host) as scene:
        scene.sent["small"] = 512
        scene.resize(1)
        await scene.ready()
        assert host.measured == []


async def test_refused_settings_are_tried_again_when_they_change_or_on_demand():
    async with trying() as scene:
        scene.host.refusal = "int9 has no model folder"
        scene.ask(precision="int9")
        await scene.scene.until(lambda it: it.refused is not None)
        scene.host.refusal = ""
        scene.ask(precision="int9")  # another pool of the file changed
        assert scene.scene.status().refused is not None
        scene.ask(precision="int9", again=True)
        assert scene.scene.status().refused is None
        scene.host.refusal = "still none"
        await scene.scene.until(lambda it: it.refused is not None)
        scene.ask()
        assert scene.scene.status().refused is None
        await scene.scene.decided()
        assert scene.models() == ["int8", "int8"]


async def test_a_slot_that_fails_when_a_pool_grows_refuses_nothing():
    async with trying() as scene:
        scene.host.refusal = "port 18103 is taken"
        scene.ask(max_in_flight=9)
        scene.scene.resize(3)
        await scene.scene.decided()
        assert "port 18103" in scene.scene.status().trouble
        status = scene.scene.status()
        assert status.refused is None
        assert [one.replica.max_in_flight for one in status.replicas] == [9, 9]


async def test_another_model_configuration_is_tried_like_other_settings(tmp_path):
    kept = GoodSettings(tmp_path)
    slots = (Slot(),) * 3
    host, before = Host(), pool(size=2, slots=slots).having("max_batch_size: 1")
    async with at_work(host, good=kept, a=before) as scene:
        scene.resize(2)
        await scene.ready(2)
        async with asyncio.timeout(5):
            while kept.load("a") is None:
                await asyncio.sleep(0)
        host.refusal = "it does not start"
        scene.target.configure(Scaling(pools={"a": before.having("max_batch_size: -1")}))
        status = await scene.until(lambda it: it.refused is not None)
        (change,) = status.refused.changes
        assert change.key == "pools.a.config.pbtxt"
        assert change.value.startswith("sha256 ")
        assert change.value != change.before
        assert status.in_force == kept.load("a") == before
        assert host.ended == []


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "7", '{"slots": 1e400}', '{"size": "x"}'])
def test_what_are_no_good_settings_are_left_out(tmp_path, text):
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "a.json").write_text(text)
    assert GoodSettings(tmp_path).load("a") is None


async def test_good_settings_outlive_the_scaler(tmp_path):
    kept = GoodSettings(tmp_path)
    async with trying(kept):
        async with asyncio.timeout(5):
            while kept.load("a") is None:
                await asyncio.sleep(0)
    host = Host()
    before = kept.load("a")
    host.left = [Adopted(host.replica("a-0-old", "a", before, 0), ready=True)]
    host.refusal = "int9 has no model folder"
    asked = pool(precision="int9")
    async with at_work(host, good=kept, a=asked) as scene:
        scene.resize(1)
        host.ready = True
        status = await scene.until(lambda it: it.refused is not None)
        assert status.in_force.precision == "int8"


async def test_where_the_good_settings_fail_too_the_new_ones_get_another_try(tmp_path):
    kept = GoodSettings(tmp_path)
    kept.keep("a", pool(precision="int7"))  # of a model that is gone
    host = Host()
    host.refusal = "the machine is slow today"
    async with at_work(host, good=kept) as scene:
        scene.resize(1)
        await scene.until(lambda it: it.refused is not None and it.in_force.precision == "int7")
        await scene.until(lambda it: it.refused is None)  # it failed as well
        host.refusal = ""
        scene.clock.now += 20
        (one,) = await scene.ready()
        assert one.replica.precision == "int8"


async def test_a_pool_without_good_settings_goes_on_trying():
    host = Host()
    host.refusal = "int9 has no model folder"
    async with at_work(host, a=pool(precision="int9")) as scene:
        scene.resize(1)
        await scene.decided()
        assert scene.status().trouble
        assert scene.status().refused is None
        host.refusal = ""
        scene.clock.now += 20
        await scene.ready()


async def test_a_pool_that_was_renamed_leaves_when_the_new_one_is_ready():
    async with trying() as scene:
        scene.host.ready = False
        scene.scene.target.configure(Scaling(pools={"b": pool(size=2)}))
        scene.scene.resize(2, name="b")
        scene.scene.resize(0)
        await scene.scene.happens(lambda: len(scene.scene.status("b").replicas) == 2)
        await scene.scene.decided()
        assert [one.leaving for one in scene.scene.status().replicas] == ["", ""]
        scene.host.ready = True
        await scene.scene.happens(lambda: all(one.leaving for one in scene.scene.status().replicas))
        assert all(one.ready for one in scene.scene.status("b").replicas)
