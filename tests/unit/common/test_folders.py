"""Room on the disks of a service's folders."""

import os
from pathlib import Path

from prometheus_client import CollectorRegistry

from services.cache.config import CacheSettings
from services.common.folders import FolderCollector, folders_of, free_bytes
from services.router.config import RouterSettings


def test_the_room_is_that_of_the_disk_the_folder_will_be_on(tmp_path: Path) -> None:
    there = free_bytes(tmp_path)
    assert there is not None
    assert there > 0
    assert free_bytes(tmp_path / "not" / "yet") is not None
    assert free_bytes(Path("/proc")) == 0
    assert free_bytes(Path(os.devnull) / "below") is None


def test_each_folder_of_the_settings_is_told_by_its_setting(tmp_path: Path) -> None:
    assert folders_of(CacheSettings()) == {}
    named = folders_of(RouterSettings())
    assert {"ledger_folder", "policy_folder", "state_folder"} <= named.keys()
    registry = CollectorRegistry()
    registry.register(FolderCollector({"state_folder": tmp_path, "gone": Path(os.devnull, "x")}))
    name = "pennyweight_folder_free_bytes"
    assert registry.get_sample_value(name, {"setting": "state_folder"})
    assert registry.get_sample_value(name, {"setting": "gone"}) is None
