"""Changed policy files come in force all at once, and files that are wrong not at all."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.common.config import ConfigError
from services.router.fleet.replica import Replica, State
from services.router.policy.calibration import Rung
from services.router.policy.certainty import Measure
from services.router.routes import watch as policies_module
from services.router.routes.files import PolicyFiles
from tests.making.policies import calibrated
from tests.making.policy_folder import LADDERED, PRICES
from tests.making.watching import TINY_PRICE, WITH_TINY, Scene

SURE = Rung(1.0, -0.5)
BAD = LADDERED.replace("tolerance: 0.02", "tolerance: 2")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def test_files_that_did_not_change_change_nothing(scene: Scene) -> None:
    before = scene.in_force.now
    for _ in range(3):
        await scene.look()
    assert scene.in_force.now is before
    assert scene.adopted == []
    assert scene.history() == [(before.version, "start")]
    assert scene.metric("policy_version", version=before.version) == 1
    assert scene.metric("policy_refused") == 0


async def test_a_good_change_comes_in_force_at_once(scene: Scene) -> None:
    before = scene.version
    await scene.write(WITH_TINY, TINY_PRICE)
    after = PolicyFiles(scene.files.routes, scene.files.prices).load()
    assert scene.in_force.now == after
    assert scene.adopted == [(before, after.version)]  # adopted before it is in force
    tiny = scene.in_force.now.tiers["tiny"]
    assert scene.in_force.compiled.texts[tiny.tokenizer].folder == Path(tiny.tokenizer)
    scene.fleet.update([Replica("a", "tiny", "tiny", "int8", "a:1", State.READY, 1)])
    assert scene.fleet.preview("tiny") == "a"
    assert scene.metric("policy_version", version=before) is None
    assert scene.metric("policy_version", version=after.version) == 1
    assert scene.history() == [(before, "start"), (after.version, "files")]


async def test_every_version_in_force_can_be_put_back(scene: Scene) -> None:
    calibration = scene.files.calibrate("plain", SURE)
    await scene.look()
    wanted = scene.version
    calibration.unlink()
    await scene.write(WITH_TINY, TINY_PRICE)
    assert scene.version != wanted
    policies = scene.files.routes.parent
    shutil.copytree(scene.state / "versions" / wanted, policies, dirs_exist_ok=True)
    await scene.look()
    assert scene.version == wanted
    assert scene.calibration is not None


async def test_a_bad_change_leaves_what_was_in_force(scene: Scene) -> None:
    before = scene.in_force.now
    with capture_logs() as logs:
        await scene.write(BAD.replace("first_tokens: 12", "first_tokens: 0"))
        await scene.look()  # nothing has changed since
    assert scene.in_force.now is before
    (line,) = [one for one in logs if one["log_level"] == "error"]
    assert [problem.split(": ")[1] for problem in line["problems"]] == [
        "routes.good.quality.first_tokens",
        "routes.plain.quality.tolerance",
    ]
    assert line["policy_version"] == before.version
    assert scene.metric("policy_refused") == 1
    assert scene.metric("policy_refusals_total") == 1
    await scene.write(BAD)
    assert scene.metric("policy_refusals_total") == 2
    await scene.write(WITH_TINY, TINY_PRICE)
    assert scene.in_force.now is not before
    assert scene.metric("policy_refused") == 0
    assert len(scene.history()) == 2


async def test_a_bad_change_may_be_taken_back(scene: Scene) -> None:
    before = scene.in_force.now
    await scene.write(BAD)
    await scene.write()
    assert scene.in_force.now is before
    assert scene.adopted == []
    assert scene.metric("policy_refused") == 0


async def test_a_file_that_is_away_for_a_moment_changes_nothing(scene: Scene) -> None:
    before = scene.in_force.now
    scene.files.prices.rename(scene.files.prices.with_name("away"))
    await scene.look()
    assert scene.in_force.now is before
    assert scene.metric("policy_refused") == 1
    scene.files.prices.with_name("away").rename(scene.files.prices)
    await scene.look()
    assert scene.in_force.now is before
    assert scene.metric("policy_refused") == 0


async def test_files_that_fit_only_together_come_in_force_together(scene: Scene) -> None:
    before = scene.version
    await scene.write(WITH_TINY, PRICES)  # a tier without a price
    assert scene.version == before
    await scene.write(WITH_TINY, TINY_PRICE)
    assert "tiny" in scene.in_force.now.tiers


async def test_a_calibration_comes_in_force_when_its_file_appears(scene: Scene) -> None:
    assert scene.calibration is None
    path = scene.files.calibrate("plain", SURE)
    await scene.look()
    assert scene.calibration is not None
    kept = scene.state / "versions" / scene.version / "calibration/plain.json"
    assert kept.read_bytes() == path.read_bytes()
    path.unlink()
    await scene.look()
    assert scene.calibration is None


async def test_a_calibration_that_is_cut_off_is_refused_and_the_old_one_stays(scene: Scene) -> None:
    path = scene.files.calibrate("plain", SURE)
    await scene.look()
    calibration = scene.calibration
    assert calibration is not None
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    await scene.look()
    assert scene.calibration is calibration
    assert scene.metric("policy_refused") == 1
    path.write_bytes(data)
    await scene.look()
    assert scene.calibration is calibration
    assert scene.metric("policy_refused") == 0


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("tolerance: 0.01", "allows a loss of 0.02, the route's tolerance is 0.01"),
        ("tolerance: 0.02, confidence: 0.99", "wrong with probability 0.05"),
        ("tolerance: 0.02, hold: tokens", "compare mean, which needs the whole answer"),
    ],
)
async def test_a_route_that_asks_for_more_than_is_certified_is_refused_and_the_old_one_stays(
    asked: str, said: str, scene: Scene
) -> None:
    """It would cost money to fall back on the top tier, and nobody asked for that."""
    scene.files.calibrate("plain", SURE)
    await scene.look()
    before = scene.in_force.now
    assert scene.calibration is not None
    with capture_logs() as logs:
        await scene.write(LADDERED.replace("tolerance: 0.02", asked))
    assert scene.in_force.now is before
    assert scene.metric("policy_refused") == 1
    (line,) = [one for one in logs if one["log_level"] == "error"]
    (problem,) = line["problems"]
    assert problem.split(": ")[1] == "routes.plain.quality.calibration"
    assert said in problem
    made = calibrated(SURE, measure=Measure.FIRST_K if "hold" in asked else Measure.MEAN)
    judgement = replace(made.judgement, first_k=8)
    stricter = replace(made.certificate, epsilon=0.005, delta=0.005)
    now = replace(made, judgement=judgement, certificate=stricter)
    scene.files.calibrate("plain", calibration=now)
    await scene.look()
    assert scene.in_force.now is not before
    assert scene.metric("policy_refused") == 0


def test_a_start_with_such_a_file_is_refused(tmp_path: Path) -> None:
    """Nothing looser is in force then that could stay."""
    scene = Scene(tmp_path)
    scene.files.calibrate("plain", SURE)
    scene.files.routes.write_text(LADDERED.replace("tolerance: 0.02", "tolerance: 0.01"))
    with pytest.raises(ConfigError, match=r"plain\.quality\.calibration: .* tolerance is 0\.01"):
        PolicyFiles(scene.files.routes, scene.files.prices).load()


async def test_a_route_that_is_not_calibrated_is_named_once(tmp_path: Path) -> None:
    with capture_logs() as logs:
        scene = Scene(tmp_path)
        await scene.write(WITH_TINY, TINY_PRICE)
        scene.files.calibrate("plain", SURE)
        await scene.look()
        (scene.files.routes.parent / "calibration/plain.json").unlink()
        await scene.look()
    found = [one["route"] for one in logs if one["event"].startswith("not calibrated")]
    assert found == ["good", "plain", "plain"]


async def test_a_tokenizer_that_cannot_be_loaded_refuses_the_change(scene: Scene) -> None:
    before = scene.in_force.now
    scene.absent.add("tiny")
    await scene.write(WITH_TINY, TINY_PRICE)
    assert scene.in_force.now is before
    assert scene.metric("policy_refused") == 1
    (scene.files.routes.parents[1] / "models/tiny").mkdir(parents=True)  # now it is there
    scene.absent.clear()
    await scene.look()
    assert "tiny" in scene.in_force.now.tiers


async def test_an_error_of_any_kind_leaves_what_was_in_force(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    before = scene.in_force.now
    monkeypatch.setattr(scene.texts, "of", broken)
    await scene.write(WITH_TINY, TINY_PRICE)
    assert scene.in_force.now is before
    assert scene.metric("policy_refused") == 1


async def test_policies_come_in_force_though_they_cannot_be_kept(scene: Scene) -> None:
    scene.state.write_text("in the way")
    with capture_logs() as logs:
        await scene.look()
        await scene.write(WITH_TINY, TINY_PRICE)
    assert "tiny" in scene.in_force.now.tiers
    failures = scene.metric("policy_store_failures_total")
    assert failures is not None
    assert failures >= 2
    assert sum(one["log_level"] == "error" for one in logs) == 1
    scene.state.unlink()
    await scene.look()
    assert scene.history() == [(scene.version, "files")]
    assert scene.metric("policy_store_failures_total") == failures


async def test_the_watch_goes_on_looking(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies_module, "LOOK_SECONDS", 0.01)
    came = asyncio.Event()
    monkeypatch.setattr(scene.watch, "_adopters", [lambda _: came.set()])
    watching = asyncio.create_task(scene.watch.run())
    scene.files.routes.write_text(BAD)
    while not scene.metric("policy_refused"):
        await asyncio.sleep(0.01)
    scene.files.calibrate("plain", SURE)
    scene.files.routes.write_text(LADDERED)
    async with asyncio.timeout(20):
        await came.wait()
    watching.cancel()


async def test_a_file_that_somebody_has_open_to_write_it_is_not_taken_for_a_while(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, half = scene.version, LADDERED[: LADDERED.index("  good:")]
    with scene.files.routes.open("w") as file:
        file.write(half)
        file.flush()
        for _ in range(4):
            await scene.watch.look()
        assert scene.version == before
    await scene.watch.look()
    assert (taken := scene.version) != before
    monkeypatch.setattr(policies_module, "MOST_LOOKS", 3)
    with scene.files.routes.open("w") as file:
        file.write(LADDERED)
        file.flush()
        for _ in range(3):
            await scene.watch.look()
        assert scene.version == taken
        await scene.watch.look()
        assert scene.version == before


async def test_a_file_that_is_still_written_is_not_taken(scene: Scene) -> None:
    before = scene.version
    half = LADDERED[: LADDERED.index("  good:")]  # a policy of its own, with fewer routes
    assert PolicyFiles(scene.files.routes, scene.files.prices).load().version == before
    for text in (half, half + LADDERED[len(half) :][:9], WITH_TINY):
        scene.files.routes.write_text(text)
        await scene.watch.look()
        assert scene.version == before
        assert scene.metric("policy_refusals_total") == 0
    scene.files.prices.write_text(TINY_PRICE)
    await scene.watch.look()
    assert scene.version == before
    await scene.watch.look()
    assert "tiny" in scene.in_force.now.tiers
    assert scene.metric("policy_refusals_total") == 0


@pytest.mark.parametrize("text", ["", "\n", "# routes\n", LADDERED[:-20], "\0" * 100])
async def test_an_empty_or_cut_file_is_refused_in_words(scene: Scene, text: str) -> None:
    before = scene.version
    await scene.write(text)
    assert scene.version == before
    refusal = scene.watch.refusal
    assert refusal is not None
    assert all(problem.rule for problem in refusal.problems)
