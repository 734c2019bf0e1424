"""Every scaling file that was in force, who put it there, and what a kill or a full disk leaves."""

import asyncio
import errno
import json
import shutil

import pytest
from structlog.testing import capture_logs

from services.scaler.history import version_files, versions
from services.scaler.history.versions import Change, Source, Versions, hash_of


def opened(folder):
    found = Versions(folder, wall=lambda: 100.0)
    found.open()
    return found


def change(content, **more):
    return Change(hash_of(content), Source.APPLY, "ada", "why", **more)


async def test_versions_count_in_order_and_outlive_a_restart(tmp_path):
    one = opened(tmp_path)
    for content in (b"a", b"b", b"a"):
        one.in_force(content)
    assert one.in_force(b"a").number == 3  # the same once more is no new version
    await one.flush()
    again = opened(tmp_path)
    assert [(v.number, v.hash, v.source) for v in again.listed(10)] == [
        (3, hash_of(b"a"), Source.FILE),
        (2, hash_of(b"b"), Source.FILE),
        (1, hash_of(b"a"), Source.START),
    ]
    assert again.content(again.find(2)) == b"b"
    assert again.find(9) is None
    assert [one.number for one in again.listed(2)] == [3, 2]


async def test_who_announces_a_file_is_its_author_and_nobody_else_is(tmp_path):
    one = opened(tmp_path)
    one.in_force(b"a")
    one.announce(change(b"b", anyway="the cheaper one"))
    assert one.in_force(b"c").author == ""  # a hand was quicker
    version = one.in_force(b"b")
    assert (version.author, version.note, version.anyway) == ("ada", "why", "the cheaper one")
    await one.flush()
    assert not (tmp_path / "applying.json").exists()
    assert opened(tmp_path).latest == version


async def test_a_scaler_killed_after_the_file_was_written_names_the_author_after_its_restart(
    tmp_path,
):
    one = opened(tmp_path)
    one.in_force(b"a")
    await one.flush()
    one.announce(change(b"b"))
    # killed here; the file holds b already
    again = opened(tmp_path)
    version = again.in_force(b"b")
    assert (version.number, version.source, version.author) == (2, Source.APPLY, "ada")


async def test_a_scaler_killed_before_the_file_was_written_makes_no_version_of_it(tmp_path):
    one = opened(tmp_path)
    one.in_force(b"a")
    await one.flush()
    one.announce(change(b"b"))
    # killed here; the file still holds a
    again = opened(tmp_path)
    assert again.in_force(b"a").number == 1
    assert again.in_force(b"other").author == ""


async def test_a_version_that_the_disk_refuses_is_held_and_written_later(tmp_path, monkeypatch):
    one = opened(tmp_path)
    write = version_files.write_whole

    def refuse(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(version_files, "write_whole", refuse)
    version = one.in_force(b"a")
    with pytest.raises(OSError, match="No space"):
        await one.flush()
    assert (one.unwritten, one.latest, one.content(version)) == (1, version, b"a")
    monkeypatch.setattr(version_files, "write_whole", write)
    await one.flush()
    assert one.unwritten == 0
    assert opened(tmp_path).latest == version


async def test_the_writer_goes_on_after_a_disk_that_refused(tmp_path, monkeypatch):
    one = opened(tmp_path)
    write, refused = version_files.write_whole, asyncio.Event()

    def refuse(path, data):
        monkeypatch.setattr(version_files, "write_whole", write)
        loop.call_soon_threadsafe(refused.set)
        raise OSError(errno.ENOSPC, "No space left on device")

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(version_files, "write_whole", refuse)
    monkeypatch.setattr(versions, "RETRY_SECONDS", 0.001)
    task = asyncio.create_task(one.run())
    one.in_force(b"a")
    await refused.wait()
    async with asyncio.timeout(5):
        while one.unwritten:
            await asyncio.sleep(0.001)
    task.cancel()
    assert opened(tmp_path).number == 1


async def test_damaged_lines_are_left_out_and_numbers_go_on(tmp_path):
    one = opened(tmp_path)
    one.in_force(b"a")
    one.in_force(b"b")
    await one.flush()
    lines = tmp_path / "versions.jsonl"
    lines.write_bytes(lines.read_bytes() + b'{"number": 3, "ha')
    again = opened(tmp_path)
    assert again.number == 2
    again.in_force(b"c")
    await again.flush()
    assert [one.number for one in opened(tmp_path).listed(9)] == [3, 2, 1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"number": "second"},
        {"number": 10**30},
        {"number": None},
        {"since": 1e300},
        {"since": "now"},
        {"hash": "../../../keys"},
        {"hash": 7},
        {"source": "nobody"},
        {"author": ["ada"]},
        {"rolled_back_to": -(10**30)},
    ],
)
async def test_a_line_that_is_no_version_is_left_out(tmp_path, wrong):
    one = opened(tmp_path)
    version = one.in_force(b"a")
    await one.flush()
    lines = tmp_path / "versions.jsonl"
    said = json.loads(lines.read_bytes())
    more = [json.dumps(said | {"number": 2} | wrong), "[" * 100_000, '"a"']
    lines.write_bytes(lines.read_bytes() + "\n".join(more).encode() + b"\n")
    again = opened(tmp_path)
    assert again.listed(9) == [version]
    assert again.in_force(b"b").number == 2


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[[", "7", '{"hash": "../keys"}', '{"hash": null, "source": 1}']
)
def test_an_announcement_that_cannot_be_read_is_none_and_logged(tmp_path, text):
    (tmp_path / "applying.json").write_text(text)
    with capture_logs() as logged:
        one = opened(tmp_path)
    assert [said["log_level"] for said in logged] == ["error"]
    assert one.in_force(b"a").author == ""


async def test_a_file_that_was_changed_on_the_disk_is_not_taken_for_the_version(tmp_path):
    one = opened(tmp_path)
    version = one.in_force(b"a")
    one.in_force(b"c")
    await one.flush()
    (tmp_path / f"{version.hash}.yaml").write_bytes(b"b")
    with pytest.raises(OSError, match="not what it was"):
        one.content(version)


async def test_what_was_removed_under_a_running_scaler_is_made_anew(tmp_path):
    folder = tmp_path / "versions"
    one = opened(folder)
    for content in (b"a", b"b"):
        one.in_force(content)
    await one.flush()
    shutil.rmtree(folder)
    await one.mend()
    again = opened(folder)
    assert again.listed(9) == one.listed(9)
    assert opened(folder).content(again.latest) == b"b"
    shutil.rmtree(folder)
    one.in_force(b"c")  # quicker than any look
    await one.flush()
    again = opened(folder)
    assert again.listed(9) == one.listed(9)
    again.in_force(b"c")  # as a scaler that starts anew has it
    shutil.rmtree(folder)
    await again.mend()
    assert opened(folder).content(one.latest) == b"c"


async def test_a_look_finds_what_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "LOOK_SECONDS", 0.001)
    one = opened(tmp_path)
    one.in_force(b"a")
    await one.flush()
    (tmp_path / "versions.jsonl").unlink()
    task = asyncio.create_task(one.run())
    async with asyncio.timeout(5):
        while not (tmp_path / "versions.jsonl").exists():
            await asyncio.sleep(0.001)
    task.cancel()


async def test_versions_are_bounded_and_what_they_hold_goes_with_them(tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "MAX_VERSIONS", 4)
    one = opened(tmp_path)
    for number in range(9):
        one.in_force(str(number).encode())
        await one.flush()
    lines = (tmp_path / "versions.jsonl").read_text().splitlines()
    kept = {json.loads(line)["number"] for line in lines}
    assert kept <= set(range(4, 10))
    assert 9 in kept
    assert len(list(tmp_path.glob("*.yaml"))) <= 4
    assert one.content(one.find(9)) == b"8"


async def test_what_was_kept_before_a_kill_is_on_record_afterwards(tmp_path):
    one = opened(tmp_path)
    live = one.in_force(b"live")
    await one.flush()
    one.keep(b"edit")
    (tmp_path / f"{hash_of(b'other')}.yaml").write_bytes(b"damaged")
    # killed here
    again = opened(tmp_path)
    assert again.in_force(b"live") == live
    edit = again.listed(1)[0]
    assert (edit.number, edit.source, edit.note) == (2, Source.UNDONE, versions.FOUND)
    await again.flush()
    third = opened(tmp_path)
    third.in_force(b"live")
    assert third.listed(9) == [edit, live]
    assert third.content(edit) == b"edit"


async def test_a_file_that_is_in_force_and_has_no_line_yet_is_not_undone(tmp_path):
    one = opened(tmp_path)
    one.keep(b"live")
    # killed here
    again = opened(tmp_path)
    assert (again.in_force(b"live").source, len(again.listed(9))) == (Source.START, 1)


async def test_what_is_kept_and_no_version_yet_stays_as_old_ones_go(tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "MAX_VERSIONS", 4)
    one = opened(tmp_path)
    one.keep(b"edit")
    for number in range(9):
        one.in_force(str(number).encode())
        await one.flush()
    assert (tmp_path / f"{hash_of(b'edit')}.yaml").exists()


@pytest.mark.parametrize("flushed", [True, False])
async def test_edits_that_are_undone_never_push_out_what_is_in_force(
    tmp_path, monkeypatch, flushed
):
    monkeypatch.setattr(versions, "MAX_VERSIONS", 4)
    one = opened(tmp_path)
    one.in_force(b"before")
    live = one.in_force(b"live")
    for number in range(20):
        one.undone(str(number).encode(), "undone")
        if flushed:
            await one.flush()
    await one.flush()
    again = opened(tmp_path)
    for found in (one, again):
        assert found.latest == live
        assert found.content(live) == b"live"
        assert found.content(found.before(live.number)) == b"before"
        assert found.content(found.listed(1)[0]) == b"19"
        assert len(found.listed(99)) <= 4
    assert len(list(tmp_path.glob("*.yaml"))) <= 6
    assert again.in_force(b"live") == live  # and is no new version


async def test_the_file_in_force_is_made_anew_though_an_edit_was_undone_since(tmp_path):
    one = opened(tmp_path / "versions")
    live = one.in_force(b"live")
    one.undone(b"edit", "undone")
    await one.flush()
    shutil.rmtree(tmp_path / "versions")
    await one.mend()
    assert opened(tmp_path / "versions").content(live) == b"live"


async def test_who_waits_for_a_version_hears_of_it_and_not_of_another(tmp_path):
    one = opened(tmp_path)
    one.in_force(b"a")
    waits = asyncio.create_task(one.until_in_force(hash_of(b"b"), 5.0))
    await asyncio.sleep(0)
    one.in_force(b"b")
    assert (await waits).number == 2
    assert await one.until_in_force(hash_of(b"z"), 0.001) is None


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"hash": "a", "source": "nobody"}'])
async def test_an_announcement_that_cannot_be_read_is_none(tmp_path, text):
    (tmp_path / "applying.json").write_text(text)
    assert opened(tmp_path).in_force(b"a").author == ""


async def test_an_announcement_that_cannot_be_removed_is_withdrawn(tmp_path):
    one = opened(tmp_path)
    one.announce(change(b"a"))
    (tmp_path / "applying.json").unlink()
    (tmp_path / "applying.json").mkdir()
    one.withdraw(change(b"a"))
    assert one.in_force(b"a").author == ""
