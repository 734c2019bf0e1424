"""A changed scaling file is in force whole or not at all, also where it is a link."""

import errno
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from services.common import seen
from services.common.config import Problem
from services.scaler.config import Scaling
from services.scaler.fleet.scaling_file import MOST_LOOKS, ScalingFile, ScalingWatch
from services.scaler.metrics import Metrics
from tests.making.config_map import ConfigMap

POOL = "{tier: small, model: m, precision: int8, repository: models, slots: [{}, {}], size: %s}"
ONE = f"pools:\n  a: {POOL % 1}\n"
TWO = f"pools:\n  a: {POOL % 2}\n"


class Scene:
    """A scaling file as a kubelet mounts it, its watch, and what was put in force."""

    def __init__(self, folder: Path) -> None:
        self.model = folder / "models/m/config.pbtxt"
        self.model.parent.mkdir(parents=True)
        self.model.touch()
        self.mounted = ConfigMap(folder / "policies", {"scaling.yaml": ONE})
        self.path = self.mounted.folder / "scaling.yaml"
        self.registry = CollectorRegistry()
        self.now = 100.0
        file = ScalingFile(self.path, {0, 1})
        self.adopted: list[Scaling] = [file.load()]
        self.watch = ScalingWatch(
            file, self.adopted.append, Metrics(self.registry), wall=lambda: self.now
        )

    async def change(self, text: str) -> None:
        self.mounted.swap({"scaling.yaml": text})
        await self.look()

    async def look(self) -> None:
        """Lets the watch look until it has seen a change stand still."""
        await self.watch.look()
        await self.watch.look()

    @property
    def sizes(self) -> list[int]:
        return [scaling.pools["a"].size for scaling in self.adopted]

    def metric(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"pennyweight_scaler_{name}")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def test_a_file_that_did_not_change_is_left_alone(scene: Scene) -> None:
    await scene.look()
    assert scene.sizes == [1]


async def test_a_models_configuration_is_taken_up_or_refused(scene: Scene) -> None:
    scene.model.write_text("max_batch_size: 2", encoding="utf-8")
    await scene.look()
    assert [one.pools["a"].config_pbtxt for one in scene.adopted] == ["", "max_batch_size: 2"]
    scene.model.write_text("max_batch_size: two", encoding="utf-8")
    await scene.look()
    assert len(scene.adopted) == 2
    assert scene.watch.refusal is not None
    assert "config.pbtxt that Triton takes" in str(scene.watch.refusal)
    scene.model.write_text("max_batch_size: 2", encoding="utf-8")
    await scene.look()
    assert scene.watch.refusal is None


async def test_a_change_is_taken_up_with_paths_from_where_the_file_is_named(scene: Scene) -> None:
    await scene.change(TWO)
    assert scene.sizes == [1, 2]
    assert scene.adopted[1].pools["a"].repository == scene.model.parents[1]


async def test_a_change_that_breaks_a_rule_leaves_what_was_in_force(scene: Scene) -> None:
    with capture_logs() as logs:
        await scene.change(TWO.replace("size: 2", "size: 0o2"))
        await scene.look()
    assert scene.sizes == [1]
    (line,) = [one for one in logs if one["log_level"] == "error"]
    rule = "must be a whole number in plain digits, such as 250"
    assert line["file"] == str(scene.path)
    assert line["problems"] == [f"line 2: pools.a.size: {rule}, got '0o2'"]
    assert (scene.metric("policy_refused"), scene.metric("policy_refusals_total")) == (1, 1)
    refusal = scene.watch.refusal
    assert refusal is not None
    assert refusal.problems == (Problem(rule, 2, "pools.a.size", "'0o2'"),)
    scene.now = 200.0
    await scene.change("pools: {}\n")
    assert scene.watch.refusal is not None
    assert scene.watch.refusal.since == 100.0  # so long nothing of the file is in force
    await scene.change(TWO)
    assert scene.sizes == [1, 2]
    assert (scene.watch.refusal, scene.metric("policy_refused")) == (None, 0)


@pytest.mark.parametrize(
    "text",
    ["nonsense", "", "pools:\n", "\x00", "pools: {a: " + POOL % 3 + "}", "[" * 5000, "a: &a [*a]"],
)
async def test_no_text_ends_the_watch(scene: Scene, text: str) -> None:
    await scene.change(text)
    assert scene.sizes == [1]
    assert scene.watch.refusal is not None


async def test_a_file_that_goes_and_comes_back_changes_nothing(scene: Scene) -> None:
    scene.path.unlink()
    await scene.look()
    assert scene.watch.refusal is not None
    scene.path.symlink_to("..data/scaling.yaml")
    await scene.look()
    assert scene.watch.refusal is None
    assert scene.sizes == [1, 1]


async def test_a_model_folder_that_comes_later_is_taken_up_when_it_is_there(scene: Scene) -> None:
    await scene.change(TWO.replace("model: m", "model: n"))
    assert scene.watch.refusal is not None
    folder = scene.model.parents[1] / "n"
    folder.mkdir()
    (folder / "config.pbtxt").touch()
    await scene.look()
    assert scene.watch.refusal is None
    assert scene.adopted[-1].pools["a"].model == "n"


async def test_a_file_that_is_still_written_is_not_taken(scene: Scene) -> None:
    both = f"{TWO}  b: {POOL % 1}\n"
    for text in (TWO, both):  # as far as it is written it would do
        scene.mounted.swap({"scaling.yaml": text})
        await scene.watch.look()
        assert scene.sizes == [1]
    await scene.watch.look()
    assert scene.sizes == [1, 2]
    assert set(scene.adopted[1].pools) == {"a", "b"}


async def test_an_edit_that_was_undone_is_not_taken(scene: Scene) -> None:
    heard = []

    async def undone(content: bytes) -> bool:
        heard.append(content.decode())
        return len(heard) == 1

    file = ScalingFile(scene.path, {0, 1})
    file.load()
    scene.watch = ScalingWatch(
        file, scene.adopted.append, Metrics(CollectorRegistry()), undone=undone
    )
    await scene.change(TWO)
    assert scene.sizes == [1]
    await scene.change(f"# once more\n{TWO}")
    assert scene.sizes == [1, 2]
    assert heard == [TWO, f"# once more\n{TWO}"]


async def test_bytes_that_are_no_text_and_what_nobody_foresaw_are_refused(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scene.path.parent / "..data" / "scaling.yaml").write_bytes(b"\xff")
    await scene.look()
    assert scene.watch.refusal is not None
    assert "cannot be read" in str(scene.watch.refusal)
    with monkeypatch.context() as patch:
        patch.setattr(Scaling, "of", lambda *_args, **_named: 1 / 0)
        await scene.change(TWO)
    assert "ZeroDivisionError" in str(scene.watch.refusal)
    assert scene.sizes == [1]


async def test_a_file_that_we_cannot_read_now_is_told_at_once_and_read_when_we_can(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    scene.mounted.swap({"scaling.yaml": TWO})
    with monkeypatch.context() as patch:
        patch.setattr(seen, "read_plain", refuse)
        await scene.watch.look()
    assert "Too many open files" in str(scene.watch.refusal)
    await scene.look()
    assert (scene.sizes, scene.watch.refusal) == ([1, 2], None)


async def test_a_file_that_somebody_has_open_to_write_is_taken_when_it_is_closed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "policies" / "scaling.yaml"
    path.parent.mkdir()
    (tmp_path / "models/m").mkdir(parents=True)
    (tmp_path / "models/m/config.pbtxt").touch()
    path.write_text(ONE)
    adopted = list[Scaling]()
    file = ScalingFile(path, {0, 1})
    file.load()
    watch = ScalingWatch(file, adopted.append, Metrics(CollectorRegistry()))

    async def looks(count: int) -> int:
        for _ in range(count):
            await watch.look()
        return len(adopted)

    with path.open("w") as hand:
        hand.write(TWO)  # which would do, and is not all
        hand.flush()
        assert await looks(5) == 0
        hand.write(f"  b: {POOL % 1}\n")
    assert await looks(3) == 1
    assert set(adopted[0].pools) == {"a", "b"}
    with path.open("a") as hand:  # and never closes it
        hand.write("# done\n")
        hand.flush()
        assert await looks(MOST_LOOKS) == 1
        assert await looks(2) == 2


async def test_an_edit_that_is_neither_undone_nor_taken_is_looked_at_again(scene: Scene) -> None:
    heard = []

    async def undone(content: bytes) -> bool:
        heard.append(content.decode())
        return len(heard) < 3

    file = ScalingFile(scene.path, {0, 1})
    file.load()
    scene.watch = ScalingWatch(
        file, scene.adopted.append, Metrics(CollectorRegistry()), undone=undone
    )
    await scene.change(TWO)
    await scene.look()
    assert scene.sizes == [1]
    await scene.look()
    assert (scene.sizes, heard) == ([1, 2], [TWO] * 3)
