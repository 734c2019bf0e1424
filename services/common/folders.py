"""How much room there is where a service writes, for Prometheus: a full disk ends no service."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


def folders_of(settings: object) -> dict[str, Path]:
    """The folders that a service's settings name, by setting."""
    fields = dataclasses.fields(settings)  # type: ignore[arg-type]
    named = {one.name: getattr(settings, one.name) for one in fields if "folder" in one.name}
    return {name: value for name, value in named.items() if isinstance(value, Path)}


class FolderCollector(Collector):
    """Free bytes of each folder's disk, read when Prometheus asks."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        family = GaugeMetricFamily(
            "pennyweight_folder_free_bytes",
            "Room left on the disk of a folder, by the setting that names it. At 0 what should be "
            "kept there is lost, and counted, while answers go on.",
            labels=("setting",),
        )
        for name, folder in self._folders.items():
            if (left := free_bytes(folder)) is not None:
                family.add_metric((name,), left)
        yield family


def free_bytes(folder: Path) -> int | None:
    """Bytes that are left on the disk of a folder, which need not be there yet; None: unknown."""
    while True:
        try:
            disk = os.statvfs(folder)
        except FileNotFoundError:
            if folder == folder.parent:
                return None
            folder = folder.parent
        except OSError:
            return None
        else:
            return disk.f_bavail * disk.f_frsize
