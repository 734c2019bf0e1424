"""Policy files that are links: paths start where a file is named, and changes are taken up."""

from collections.abc import Callable
from pathlib import Path

import pytest

from services.router.policy.calibration import Rung
from services.router.policy.routes import Policies
from services.router.routes.files import PolicyFiles
from tests.making.config_map import ConfigMap
from tests.making.policy_folder import LADDERED, PRICES, ROUTES, Files
from tests.making.watching import TINY_PRICE, WITH_TINY, Scene

FIRST = {"routes.yaml": LADDERED, "prices.yaml": PRICES}


def mounted(folder: Path) -> Path:
    return ConfigMap(folder / "policies", FIRST).folder / "routes.yaml"


def linked(folder: Path) -> Path:
    (folder / "elsewhere/far").mkdir(parents=True)
    (folder / "policies").mkdir()
    for name, text in FIRST.items():
        (folder / "elsewhere/far" / name).write_text(text)
        (folder / "policies" / name).symlink_to(folder / "elsewhere/far" / name)
    return folder / "policies/routes.yaml"


def in_a_linked_folder(folder: Path) -> Path:
    (folder / "releases/42/policies").mkdir(parents=True)
    for name, text in FIRST.items():
        (folder / "releases/42/policies" / name).write_text(text)
    (folder / "policies").symlink_to(folder / "releases/42/policies")
    return folder / "policies/routes.yaml"


def named_with_dots(folder: Path) -> Path:
    path = mounted(folder)
    return path.parent / "../policies" / path.name


def load(routes: Path) -> Policies:
    return PolicyFiles(routes, routes.with_name("prices.yaml")).load()


@pytest.mark.parametrize("made", [mounted, linked, in_a_linked_folder, named_with_dots])
def test_relative_paths_start_where_the_file_is_named(
    tmp_path: Path, made: Callable[[Path], Path]
) -> None:
    loaded = load(made(tmp_path))
    assert loaded.tiers["small"].tokenizer == str(tmp_path / "models/small")
    quality = loaded.routes["plain"].quality
    assert quality is not None
    assert quality.artefact == str(tmp_path / "policies/calibration/plain.json")


def test_a_calibration_is_kept_as_it_lies_below_the_routes_however_these_are_named(
    tmp_path: Path,
) -> None:
    named_with_dots(tmp_path)
    files = Files.__new__(Files)
    files.routes = tmp_path / "policies/../policies/routes.yaml"
    files.calibrate("plain", Rung(1.0, -0.5))
    reading = PolicyFiles(files.routes, files.routes.with_name("prices.yaml"))
    assert reading.load().routes["plain"].quality
    assert set(reading.contents) == {"routes.yaml", "prices.yaml", "calibration/plain.json"}


def test_a_relative_name_starts_at_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = mounted(tmp_path)
    for folder, name in ((tmp_path, "policies/routes.yaml"), (routes.parent, "routes.yaml")):
        monkeypatch.chdir(folder)
        assert load(Path(name)).tiers["small"].tokenizer == str(tmp_path / "models/small")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    scene = Scene(tmp_path)
    for path in (scene.files.routes, scene.files.prices):
        path.unlink()
    scene.files.routes.parent.rmdir()
    return scene


async def test_a_swap_is_taken_up_whole(scene: Scene) -> None:
    config_map = ConfigMap(scene.files.routes.parent, FIRST)
    await scene.look()
    before = scene.version
    config_map.swap({"routes.yaml": WITH_TINY, "prices.yaml": TINY_PRICE})
    await scene.look()
    assert "tiny" in scene.in_force.now.tiers
    config_map.swap({"routes.yaml": "nonsense", "prices.yaml": PRICES})
    await scene.look()
    assert "tiny" in scene.in_force.now.tiers
    assert scene.metric("policy_refused") == 1
    config_map.swap(FIRST)
    await scene.look()
    assert scene.version == before
    assert scene.metric("policy_refused") == 0


async def test_files_that_are_swapped_while_they_are_read_are_read_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_map = ConfigMap(scene.files.routes.parent, FIRST)
    await scene.look()
    second = {"routes.yaml": WITH_TINY, "prices.yaml": TINY_PRICE}
    third = {"routes.yaml": ROUTES, "prices.yaml": PRICES.replace("100000", "100001")}
    swaps = [third]
    load_one = PolicyFiles._document

    def between(files: PolicyFiles, path: Path, kind: type, name: str) -> object:
        found = load_one(files, path, kind, name)
        if name == "routes.yaml" and swaps:
            config_map.swap(swaps.pop())
        return found

    monkeypatch.setattr(PolicyFiles, "_document", between)
    config_map.swap(second)
    await scene.look()
    assert scene.adopted == []  # never routes of one, prices of other
    await scene.look()
    assert scene.version == load(scene.files.routes).version
    assert scene.adopted[-1][1] == scene.version
    assert len(scene.adopted) == 1
