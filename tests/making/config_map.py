"""A folder as a kubelet mounts a ConfigMap there, and as it changes one."""

import shutil
from collections.abc import Mapping
from itertools import count
from pathlib import Path


class ConfigMap:
    """Every file is a link through ``..data``, a link to a folder of its own for each version."""

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._numbers = count(1)
        self._version = self._write(files)
        (folder / "..data").symlink_to(self._version.name)
        for name in files:
            (folder / name).symlink_to(Path("..data", name))

    def swap(self, files: Mapping[str, str]) -> None:
        """All files at once, by renaming one link over the other; the old folder goes."""
        old, self._version = self._version, self._write(files)
        following = self.folder / "..data_tmp"
        following.symlink_to(self._version.name)
        following.rename(self.folder / "..data")
        shutil.rmtree(old)

    def _write(self, files: Mapping[str, str]) -> Path:
        version = self.folder / f"..2026_11_28_10_00_{next(self._numbers):02}.123456789"
        version.mkdir()
        for name, text in files.items():
            (version / name).write_text(text)
        return version
