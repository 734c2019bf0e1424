"""Edits by hand at the worst moments: none is lost, and who asked for a change hears of it."""

import asyncio
import errno
from contextlib import contextmanager

import pytest

from services.common import files
from services.common.errors import Outrun, Unavailable
from services.scaler.changes import hand_edits, written
from services.scaler.changes.asked import Asked
from services.scaler.history import version_files
from services.scaler.history.versions import Source, Versions
from tests.unit.scaler.changes.test_policies import ASKED, guarded, scene, strict, text

__all__ = ("guarded", "scene")

EDIT = text(2, "# by hand\n")


def kept(scene):
    """What hands wrote that is on record as undone, with its note."""
    return [
        (scene.versions.content(one).decode(), one.note)
        for one in scene.versions.listed(100)
        if one.source is Source.UNDONE
    ]


async def at(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def meanwhile(monkeypatch, scene, edit):
    """Has a hand write the file after it was looked at and right before it is replaced."""
    exchange = files.exchange

    def late(one, other):
        monkeypatch.setattr(files, "exchange", exchange)
        edit(scene.path)
        exchange(one, other)

    monkeypatch.setattr(files, "exchange", late)


def in_place(path):
    path.write_text(EDIT)


def by_rename(path):
    path.with_name("new").write_text(EDIT)
    path.with_name("new").replace(path)


@pytest.mark.parametrize("edit", [in_place, by_rename])
async def test_an_edit_at_the_very_moment_of_an_apply_stays_and_the_caller_hears(
    scene, monkeypatch, edit
):
    meanwhile(monkeypatch, scene, edit)
    with pytest.raises(Outrun, match="this very moment"):
        await scene.policies.apply(text(2), ASKED)
    assert scene.path.read_text() == EDIT
    scene.look()
    assert scene.versions.latest.author == ""  # nothing stays announced
    assert [one.name for one in scene.path.parent.iterdir()] == ["scaling.yaml"]


@pytest.mark.parametrize("edit", [in_place, by_rename])
async def test_an_edit_at_the_very_moment_another_is_undone_stays(guarded, monkeypatch, edit):
    meanwhile(monkeypatch, guarded, edit)
    assert await guarded.edits.undo(text(2).encode())  # that is, it is not taken
    assert guarded.path.read_text() == EDIT
    assert kept(guarded) == []
    assert await guarded.edits.undo(EDIT.encode())  # at the next look
    assert guarded.path.read_text() == strict(1)
    assert kept(guarded) == [(EDIT, "undone, back to version 2")]


async def test_a_change_for_a_reason_keeps_the_edit_that_it_writes_over(scene, monkeypatch):
    scene.path.write_text("pools: {oh no")
    await scene.policies.apply(text(2), Asked("ada", "mend it", anyway="it is broken"))
    scene.path.write_text("pools: {again")
    meanwhile(monkeypatch, scene, in_place)
    await scene.policies.roll_back(1, "bob", "")
    assert scene.path.read_text() == text(1)
    assert kept(scene) == [
        (EDIT, "written over by bob"),
        ("pools: {oh no", "written over by ada"),
    ]


def after_a_kill(scene):
    """What the next scaler has on record as undone, where this one is killed now."""
    again = Versions(scene.versions.folder)
    again.open()
    again.in_force(scene.path.read_bytes())
    return [again.content(one) for one in again.listed(100) if one.source is Source.UNDONE]


async def test_an_edit_that_is_written_over_outlives_a_kill_right_after(scene, monkeypatch):
    await scene.policies.apply(text(2), ASKED)
    await scene.versions.flush()
    in_place(scene.path)
    exchange, found = files.exchange, []

    def watched(one, other):
        exchange(one, other)
        found.append(after_a_kill(scene))

    monkeypatch.setattr(files, "exchange", watched)
    await scene.policies.roll_back(1, "bob", "")
    assert found == [[EDIT.encode()]]
    await scene.versions.flush()
    assert after_a_kill(scene) == [EDIT.encode()]  # and is on record once


@pytest.mark.parametrize("edit", [in_place, by_rename])
async def test_so_does_one_that_comes_the_very_moment_before(scene, monkeypatch, edit):
    await scene.policies.apply(text(2), ASKED)
    await scene.versions.flush()
    meanwhile(monkeypatch, scene, edit)
    exchanged, found = written.exchanged_file, []

    @contextmanager
    def watched(path, data):
        with exchanged(path, data) as before:
            yield before
            found.append(after_a_kill(scene))

    monkeypatch.setattr(written, "exchanged_file", watched)
    await scene.policies.roll_back(1, "bob", "")
    assert found == [[EDIT.encode()]]


async def test_who_is_written_over_before_the_change_is_in_force_hears_of_it(scene):
    scene.watching = False
    apply = asyncio.create_task(scene.policies.apply(text(2), ASKED))
    await at(lambda: scene.writing.coming is not None)
    scene.path.write_text(EDIT)
    scene.look()
    scene.versions.in_force(EDIT.encode())  # as the watch does: edits are respected
    with pytest.raises(Outrun, match="before it was in force"):
        await apply
    assert scene.path.read_text() == EDIT
    scene.path.write_text(text(2))
    assert scene.versions.in_force(text(2).encode()).author == ""  # nothing stays announced


async def test_who_is_written_over_and_not_seen_hears_of_it_when_the_time_is_over(scene):
    scene.watching = False
    scene.writing._in_force_seconds = 0.01
    apply = asyncio.create_task(scene.policies.apply(text(2), ASKED))
    await at(lambda: scene.writing.coming is not None)
    scene.path.write_text(EDIT)
    with pytest.raises(Outrun, match="before it was in force"):
        await apply


async def test_another_that_comes_in_force_first_does_not_end_the_wait(scene):
    scene.watching = False
    apply = asyncio.create_task(scene.policies.apply(text(2), ASKED))
    await at(lambda: scene.writing.coming is not None)
    scene.versions.in_force(EDIT.encode())  # which the watch had read before
    await asyncio.sleep(0)
    scene.versions.in_force(text(2).encode())
    assert (await apply).version.author == "ada"


async def test_an_edit_over_a_change_that_is_coming_is_undone_to_that_change(guarded):
    guarded.watching = False
    guarded.path.write_text(strict(1))
    apply = asyncio.create_task(guarded.policies.apply(strict(2), ASKED))
    await at(lambda: guarded.writing.coming is not None)
    guarded.path.write_text(EDIT)
    assert await guarded.edits.undo(EDIT.encode())
    assert guarded.path.read_text() == strict(2)
    assert kept(guarded) == [(EDIT, "undone, back to what ada is putting in force")]
    guarded.versions.in_force(strict(2).encode())
    assert (await apply).version.author == "ada"


async def test_who_still_writes_is_not_interrupted(guarded, monkeypatch):
    rests, whole = [], text(2) + "# more\n"
    guarded.edits._still_seconds = 3.0

    async def rest(seconds):
        rests.append(seconds)
        if sum(rests) == 2.0:  # after a pause as long as one between two looks
            guarded.path.write_text(whole)

    monkeypatch.setattr(hand_edits.asyncio, "sleep", rest)
    assert await guarded.edits.undo(text(2).encode())  # which is not the whole, and not taken
    assert (guarded.path.read_text(), kept(guarded)) == (whole, [])
    assert await guarded.edits.undo(whole.encode())
    assert sum(rests) == 5.0
    assert guarded.path.read_text() == strict(1)
    assert kept(guarded) == [(whole, "undone, back to version 2")]


async def test_a_file_that_is_open_to_be_written_is_written_over_by_nobody(guarded):
    with guarded.path.open("a") as hand:
        with pytest.raises(Outrun):
            await guarded.policies.roll_back(1, "ada", "")
        assert await guarded.edits.undo(text(2).encode())
        hand.write("# more\n")
    assert guarded.path.read_text() == text(2) + "# more\n"
    assert kept(guarded) == []


async def test_a_file_that_is_held_open_for_good_is_respected_in_the_end(guarded):
    with guarded.path.open("a"):
        assert await guarded.edits.undo(text(2).encode())
        assert not await guarded.edits.undo(text(2).encode())
    guarded.look()
    assert "somebody else writes" in guarded.versions.latest.note


async def test_what_cannot_be_kept_is_not_undone_and_says_why(guarded, monkeypatch):
    await guarded.versions.flush()

    def refuse(path, data):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(version_files, "write_whole", refuse)
    assert not await guarded.edits.undo(text(2).encode())
    assert guarded.path.read_text() == text(2)
    guarded.look()
    version = guarded.versions.latest
    assert (version.source, kept(guarded)) == (Source.FILE, [])
    assert "respected: it cannot be undone" in version.note
    assert "Read-only file system" in version.note
    guarded.path.write_text(EDIT)
    with pytest.raises(Unavailable, match="cannot be kept"):
        await guarded.policies.roll_back(1, "ada", "")
    assert guarded.path.read_text() == EDIT


async def test_what_cannot_be_written_back_is_on_record_as_respected_alone(guarded, monkeypatch):
    def refuse(one, other):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "exchange", refuse)
    assert not await guarded.edits.undo(text(2).encode())
    guarded.look()
    assert kept(guarded) == []
    assert "No space left on device" in guarded.versions.latest.note
