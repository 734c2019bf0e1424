"""Keys are rotated while a service runs, and a wrong file takes nobody's key away."""

import errno
import hashlib
from pathlib import Path
from types import ModuleType

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from services.common import config, keys_in_force
from services.common.config import ConfigError
from services.common.credentials import DEVELOPMENT_KEY, Identity
from services.common.errors import Unauthenticated
from services.common.keys_in_force import KeysInForce


class Rotation:
    """A key file that changes under a service."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "keys.yaml"
        self.registry = CollectorRegistry()
        self.write("old")
        self.keys = KeysInForce(self.path, self.registry)

    def write(self, *keys: str) -> None:
        entries = [
            f"  - {{sha256: {hashlib.sha256(key.encode()).hexdigest()}, tenant: {key}}}\n"
            for key in keys
        ]
        self.path.write_text("keys:\n" + "".join(entries))

    async def look(self) -> None:
        """Looks until a change has been seen to stand still."""
        await self.keys.look()
        await self.keys.look()

    def tenant(self, key: str) -> str:
        return self.keys.identify([("authorization", f"Bearer {key}")]).tenant

    @property
    def refused(self) -> float | None:
        return self.registry.get_sample_value("pennyweight_keys_refused")


@pytest.fixture
def rotation(tmp_path: Path) -> Rotation:
    return Rotation(tmp_path)


async def test_a_new_key_works_beside_the_old_one_and_then_alone(rotation: Rotation) -> None:
    assert rotation.tenant("old") == "old"
    rotation.write("old", "new")
    await rotation.look()
    assert (rotation.tenant("old"), rotation.tenant("new")) == ("old", "new")
    rotation.write("new")
    await rotation.look()
    assert rotation.tenant("new") == "new"
    with pytest.raises(Unauthenticated):
        rotation.tenant("old")  # though it was accepted before


@pytest.mark.parametrize("content", ["", "keys: []", "keys: [{sha256: x, tenant: y}]", "\x00"])
async def test_a_wrong_file_is_refused_and_the_keys_stay(rotation: Rotation, content: str) -> None:
    rotation.path.write_text(content)
    with capture_logs() as logs:
        await rotation.look()
        await rotation.look()
    assert rotation.tenant("old") == "old"
    assert rotation.refused == 1
    assert [log["log_level"] for log in logs] == ["error"]  # said once
    rotation.write("new")
    await rotation.look()
    assert rotation.tenant("new") == "new"
    assert rotation.refused == 0


async def test_a_file_that_is_gone_for_a_while_takes_no_key_away(rotation: Rotation) -> None:
    rotation.path.unlink()
    await rotation.look()
    assert rotation.tenant("old") == "old"
    assert rotation.refused == 1
    rotation.write("old")
    await rotation.look()
    assert rotation.refused == 0


async def test_a_file_that_cannot_be_read_for_a_while_is_named_as_such_and_taken_up_again(
    rotation: Rotation,
) -> None:
    for content in (("old",), ("old", "new")):
        rotation.path.rename(rotation.path.with_suffix(".away"))
        with capture_logs() as logs:
            await rotation.look()
            await rotation.look()
        (said,) = logs
        assert said["event"] == "the key file cannot be read, the keys of before stay"
        assert "No such file" in said["error"]
        rotation.write(*content)
        await rotation.look()
        assert rotation.refused == 0
        assert [rotation.tenant(key) for key in content] == list(content)


@pytest.mark.parametrize("failing", [keys_in_force, config])
async def test_want_of_descriptors_is_not_held_against_the_file(
    rotation: Rotation, monkeypatch: pytest.MonkeyPatch, failing: ModuleType
) -> None:
    rotation.write("old", "new")

    def refuse(*_args: object, **_named: object) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as full, capture_logs() as logs:
        full.setattr(failing, "read_plain", refuse)
        await rotation.look()
        await rotation.look()
    assert ["cannot be read" in log["event"] for log in logs] == [True]
    assert "Too many open files" in logs[0]["error"]
    assert rotation.refused == 1
    await rotation.look()
    assert rotation.tenant("new") == "new"
    assert rotation.refused == 0


async def test_a_wrong_file_that_was_away_is_still_wrong(rotation: Rotation) -> None:
    rotation.path.write_text("keys: []")
    await rotation.look()
    rotation.path.unlink()
    await rotation.look()
    rotation.path.write_text("keys: []")
    await rotation.look()
    assert rotation.refused == 1
    with capture_logs() as logs:
        await rotation.look()
    assert logs == []


async def test_what_has_not_changed_is_not_read_as_yaml_again(
    rotation: Rotation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.common.keys_in_force.Keyring", None)
    await rotation.look()
    assert rotation.tenant("old") == "old"


def test_a_wrong_file_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text("keys: []")
    with pytest.raises(ConfigError, match="keys"):
        KeysInForce(path, CollectorRegistry())


async def test_without_a_file_the_published_key_stays_in_force() -> None:
    keys = KeysInForce(None, CollectorRegistry())
    await keys.run()  # there is nothing to watch
    shown = [("authorization", f"Bearer {DEVELOPMENT_KEY}")]
    assert isinstance(keys.identify(shown), Identity)


async def test_a_file_that_is_still_written_takes_nobodys_key_away(rotation: Rotation) -> None:
    for keys in (("new",), ("new", "old")):  # as far as it is written it would do
        rotation.write(*keys)
        await rotation.keys.look()
        assert rotation.tenant("old") == "old"
    await rotation.keys.look()
    assert (rotation.tenant("old"), rotation.tenant("new")) == ("old", "new")
