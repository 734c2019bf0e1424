"""Each version of the policies that came in force is kept whole, and not for ever."""

import datetime as dt
import json
import os
from pathlib import Path
from typing import Any

import pytest

from services.common import versions as policy_store
from services.common.versions import MAX_VERSIONS, PolicyStore

START = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
FILES = {"routes.yaml": b"routes", "prices.yaml": b"prices", "calibration/chat.json": b"{}"}


def keep(folder: Path, version: str, at: int = 0, **changes: Any) -> None:
    now = START + dt.timedelta(seconds=at)
    PolicyStore(folder).keep(
        version, **{"contents": FILES, "source": "files", "now": now} | changes
    )


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def versions(folder: Path) -> set[str]:
    return {version.name for version in (folder / "versions").iterdir()}


def test_a_version_is_kept_as_its_files_were(tmp_path: Path) -> None:
    keep(tmp_path / "state", "v1", source="start")
    place = tmp_path / "state/versions/v1"
    kept = {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*.*")}
    assert kept == FILES
    assert history(tmp_path / "state") == [
        {"time": "2026-11-21T00:00:00+00:00", "version": "v1", "source": "start"}
    ]


def test_the_history_tells_what_came_in_force_and_when(tmp_path: Path) -> None:
    for at, version in enumerate(("v1", "v1", "v2", "v1")):  # the second is a restart
        keep(tmp_path, version, at)
    assert [(line["time"][17:19], line["version"]) for line in history(tmp_path)] == [
        ("00", "v1"),
        ("02", "v2"),
        ("03", "v1"),
    ]
    assert versions(tmp_path) == {"v1", "v2"}


def test_a_line_that_a_crash_tore_stays_alone(tmp_path: Path) -> None:
    keep(tmp_path, "v1")
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"time": "2026')
    keep(tmp_path, "v2", 1)
    first, torn, last = (tmp_path / "history.jsonl").read_text().splitlines()
    assert json.loads(first)["version"] == "v1"
    assert torn == '{"time": "2026'
    assert json.loads(last)["version"] == "v2"


def test_the_history_does_not_grow_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_store, "MAX_LINES", 10)
    for at in range(25):
        keep(tmp_path, f"v{at % 2}", at)
        assert len(history(tmp_path)) <= 11
    assert history(tmp_path)[-1]["time"].startswith("2026-11-21T00:00:24")


def test_versions_that_were_in_force_long_ago_are_dropped(tmp_path: Path) -> None:
    for at in range(MAX_VERSIONS):
        keep(tmp_path, f"v{at}", at)
    keep(tmp_path, "v0", MAX_VERSIONS)  # in force again
    keep(tmp_path, "new", MAX_VERSIONS + 1)
    assert versions(tmp_path) == {"v0", "new", *(f"v{at}" for at in range(2, MAX_VERSIONS))}


def test_the_version_in_force_is_never_dropped(tmp_path: Path) -> None:
    for at in range(MAX_VERSIONS):
        keep(tmp_path, f"v{at}", 1000 + at)
    keep(tmp_path, "now", 0)  # the clock was put back
    assert len(versions(tmp_path)) == MAX_VERSIONS
    assert "now" in versions(tmp_path)


def test_what_a_crash_left_unfinished_goes_after_a_while(tmp_path: Path) -> None:
    keep(tmp_path, "v1")
    for name, age in ((".v2.77", 7200), (".v3.78", 60)):
        (tmp_path / "versions" / name).mkdir()
        made = START.timestamp() - age
        os.utime(tmp_path / "versions" / name, (made, made))
    keep(tmp_path, "v4")
    assert versions(tmp_path) == {"v1", "v4", ".v3.78"}


def test_a_version_that_cannot_be_written_whole_is_not_there(tmp_path: Path) -> None:
    torn = {"routes.yaml": b"routes", "routes.yaml/prices.yaml": b"prices"}
    with pytest.raises(OSError, match=r"routes\.yaml"):
        keep(tmp_path, "v1", contents=torn)
    assert versions(tmp_path) == set()
    keep(tmp_path, "v1")
    assert versions(tmp_path) == {"v1"}


def test_a_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(OSError, match="state"):
        keep(tmp_path / "state", "v1")


def test_a_folder_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path / "state")
    store.keep("v1", FILES, source="start", now=START)
    (tmp_path / "state").rename(tmp_path / "moved")
    store.keep("v2", FILES, source="files", now=START)
    assert versions(tmp_path / "state") == {"v2"}
    assert [line["version"] for line in history(tmp_path / "state")] == ["v2"]
