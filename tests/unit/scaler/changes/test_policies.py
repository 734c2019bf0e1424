"""Scaling files are checked, tried, written whole and seen in force; nobody's change is lost."""

import asyncio
import errno
import json

import pytest
from structlog.testing import capture_logs

from services.common import files
from services.common.errors import (
    BadRequest,
    InternalError,
    NotFound,
    NotNow,
    Outrun,
    Overloaded,
    Unavailable,
)
from services.scaler.changes import writing as changes
from services.scaler.changes import written
from services.scaler.changes.asked import Asked
from services.scaler.changes.hand_edits import HandEdits
from services.scaler.changes.policies import Policies
from services.scaler.changes.trying import PLAN_HOLDS_SECONDS, Trying
from services.scaler.changes.writing import Writing
from services.scaler.fleet.scaling_file import ScalingFile
from services.scaler.history import version_files
from services.scaler.history.versions import Source, Versions, hash_of
from services.scaler.try_out import checks

ASKED = Asked("ada", "more room")
POOL = "  p: {tier: small, model: m, precision: int8, repository: ., slots: [{}, {}], size: %d}\n"


def text(size, comment="# kept\n"):
    return f"{comment}pools:\n{POOL % size}"


class Answers:
    """Trials with a set answer."""

    def __init__(self, verdict="same", because="both decide the same"):
        self.answer = {"verdict": verdict, "because": because, "pools": {}}
        self.questions = []

    async def run(self, question, progress=lambda _: None, *, caller=""):
        question = json.loads(json.dumps(question))
        if question["check"] is not None:
            notes, unserved = checks.check(question["given"], **question["check"])
        if question["kind"] == "check":
            return {"notes": notes, "unserved": unserved}
        self.questions.append(question)
        progress(1.0)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Scene:
    """A scaling file, its versions, and a watch that puts it in force."""

    def __init__(self, folder, monkeypatch):
        self.path = folder / "policies" / "scaling.yaml"
        self.path.parent.mkdir()
        model = folder / "m" / "config.pbtxt"
        model.parent.mkdir()
        model.write_text('backend: "python"')
        self.path.write_text(text(1))
        self.versions = Versions(folder / "versions", wall=lambda: 100.0)
        self.versions.in_force(self.path.read_bytes())
        self.trials = Answers()
        self.now = 0.0
        file = ScalingFile(self.path, {0})
        self.trying = Trying(
            file,
            self.versions,
            self.trials,
            folder,
            checks=self.trials,
            urgent_checks=self.trials,
            places_allowed=["/allowed"],
            clock=lambda: self.now,
        )
        self.writing = Writing(file, self.versions, in_force_seconds=5.0)
        self.edits = HandEdits(
            self.writing, self.versions, still_seconds=0.0, clock=lambda: self.now
        )
        self.policies = Policies(self.versions, self.trying, self.writing)
        write = written.write

        def seen(*args):
            found = write(*args)
            loop.call_soon_threadsafe(self.look)
            return found

        loop = asyncio.get_running_loop()
        self.watching = True
        monkeypatch.setattr(changes, "write", seen)

    def look(self):
        if self.watching:
            self.versions.in_force(self.path.read_bytes())


@pytest.fixture
async def scene(tmp_path, monkeypatch):
    return Scene(tmp_path, monkeypatch)


async def test_a_file_is_applied_whole_with_its_comments_author_and_note(scene):
    applied = await scene.policies.apply(text(2), ASKED)
    assert scene.path.read_text() == text(2)
    version = applied.version
    assert (version.number, version.source, version.author, version.note) == (
        (2, Source.APPLY, "ada", "more room")
    )
    assert applied.plan.verdict == "same"


async def test_the_file_in_force_is_not_written_again(scene):
    applied = await scene.policies.apply(text(1), ASKED)
    assert (applied.version.number, applied.plan, scene.trials.questions) == (1, None, [])


async def test_a_file_that_would_be_refused_is_not_written(scene):
    with pytest.raises(BadRequest, match=r"pools.p.size: must not exceed the number of slots, 2"):
        await scene.policies.apply(text(3), ASKED)
    assert scene.path.read_text() == text(1)


async def test_a_worse_file_is_refused_and_a_reason_applies_it(scene):
    scene.trials.answer = {
        "verdict": "worse", "because": "p: it is late", "pools": {}, "reason_needed": True
    }  # fmt: skip
    with pytest.raises(NotNow, match="it does worse than the one in force: p: it is late"):
        await scene.policies.apply(text(2), ASKED)
    assert scene.path.read_text() == text(1)
    applied = await scene.policies.apply(text(2), Asked("ada", "save", anyway="money is short"))
    assert applied.version.anyway == "money is short"


async def test_what_nobody_can_say_needs_a_reason_once_enough_is_on_record(scene):
    dark = {"verdict": "unknown", "because": "p: it follows kv", "pools": {}}
    scene.trials.answer = dark | {"reason_needed": True}
    with pytest.raises(NotNow, match="though enough load is on record: p: it follows kv") as error:
        await scene.policies.apply(text(2), ASKED)
    assert error.value.reason == "POLICY_UNKNOWN"
    assert scene.path.read_text() == text(1)
    version = (await scene.policies.apply(text(2), Asked("ada", "kv", anyway="tested"))).version
    assert (version.anyway, version.verdict, version.because) == (
        ("tested", "unknown", "p: it follows kv")
    )
    scene.trials.answer = dark
    version = (await scene.policies.apply(text(0), ASKED)).version
    assert (version.anyway, version.verdict) == ("", "unknown")


async def test_the_verdict_stays_with_the_version_over_a_restart(scene):
    await scene.policies.apply(text(2), ASKED)
    await scene.versions.flush()
    again = Versions(scene.versions.folder)
    again.open()
    assert (again.latest.verdict, again.latest.because) == ("same", "both decide the same")


async def test_a_page_and_other_replicas_are_planned_anew(scene):
    asked, span = {"p": {"start_seconds": 9.0}}, ASKED.span_seconds
    for more in ({}, {"page": True}, {}, {"asked": asked, "page": True}, {"asked": asked}):
        await scene.trying.plan(text(2), span, lambda _: None, **more)
    told = [(one["page"], one["asked"]) for one in scene.trials.questions]
    assert told == [(False, {}), (True, {}), (True, asked)]
    question = scene.trials.questions[0]
    assert question["in_force_since"] == 100.0
    assert question["decisions"].endswith("/decisions")


async def test_a_tier_that_would_lose_its_only_pool_is_named_and_needs_a_reason(scene):
    slip = text(1).replace("tier: small", "tier: smal")
    with pytest.raises(BadRequest, match=r"pools.p.repository: .*did you mean tier small\?"):
        await scene.policies.apply(slip, ASKED)
    scene.trying._places_allowed = [str(scene.path.parent.parent)]
    with pytest.raises(NotNow, match="no pool would serve tier small any more") as refused:
        await scene.policies.apply(slip, ASKED)
    assert refused.value.reason == "TIER_UNSERVED"
    assert "did you mean small where p has smal?" in refused.value.message
    assert (scene.path.read_text(), scene.trials.questions) == (text(1), [])
    applied = await scene.policies.apply(slip, Asked("ada", "n", anyway="it has a new name"))
    assert applied.version.anyway == "it has a new name"
    second = slip + (POOL % 1).replace("  p:", "  q:")
    assert (await scene.policies.apply(second, ASKED)).version.number == 3


async def test_a_reason_that_was_not_needed_is_not_on_record(scene):
    applied = await scene.policies.apply(text(2), Asked("ada", "n", anyway="just in case"))
    assert applied.version.anyway == ""


async def test_a_file_that_cannot_be_tried_needs_a_reason_too(scene):
    scene.trials.answer = InternalError("the trial failed", reason="TRIAL_FAILED")
    with pytest.raises(InternalError):
        await scene.policies.apply(text(2), ASKED)
    applied = await scene.policies.apply(text(2), Asked("ada", "save", anyway="it is urgent"))
    assert (applied.version.number, applied.plan) == (2, None)


async def test_what_was_just_planned_is_not_planned_again(scene):
    span = ASKED.span_seconds
    await scene.trying.plan(text(2), span, lambda _: None)
    await scene.policies.apply(text(2), ASKED)
    assert len(scene.trials.questions) == 1
    question = scene.trials.questions[0]
    assert (question["live"], question["given"]) == (text(1), text(2))
    await scene.trying.plan(text(1), span, lambda _: None)  # another file in force by now
    scene.now += PLAN_HOLDS_SECONDS
    await scene.trying.plan(text(1), span, lambda _: None)
    assert len(scene.trials.questions) == 3


async def test_of_two_applies_at_once_one_is_told_to_look_again(scene):
    results = await asyncio.gather(
        scene.policies.apply(text(2, "# a\n"), ASKED),
        scene.policies.apply(text(2, "# b\n"), Asked("bob", "mine")),
        return_exceptions=True,
    )
    (outrun,) = [one for one in results if isinstance(one, Outrun)]
    (applied,) = [one for one in results if not isinstance(one, Exception)]
    assert outrun.reason == "POLICY_CHANGED"
    assert hash_of(scene.path.read_bytes()) == applied.version.hash
    assert scene.versions.number == 2


async def test_a_change_that_began_with_another_version_is_refused(scene):
    began = scene.versions.latest.hash
    await scene.policies.apply(text(2), ASKED)
    with pytest.raises(Outrun, match="version 2 is in force"):
        await scene.policies.apply(text(0), Asked("bob", "late", based_on=began))


async def test_what_somebody_wrote_by_hand_is_not_overwritten_unseen(scene):
    scene.path.write_text("pools: {oh no")  # refused by the watch, so not in force
    with pytest.raises(Outrun, match="holds a change of somebody else"):
        await scene.policies.apply(text(2), ASKED)
    assert scene.path.read_text() == "pools: {oh no"
    applied = await scene.policies.apply(text(2), Asked("ada", "mend it", anyway="it is broken"))
    assert applied.version.number == 2


async def test_a_hand_that_is_quicker_than_an_apply_wins(scene):
    class Slow(Answers):
        async def run(self, question, progress, **turn):
            scene.path.write_text(text(0))
            scene.look()
            return self.answer

    scene.trying._trials = Slow()
    with pytest.raises(Outrun):
        await scene.policies.apply(text(2), ASKED)
    assert scene.path.read_text() == text(0)
    assert scene.versions.latest.source is Source.FILE


async def test_a_read_only_file_is_refused_and_says_so(scene, tmp_path, monkeypatch):
    elsewhere = tmp_path / "mounted.yaml"
    scene.path.rename(elsewhere)
    scene.path.symlink_to(elsewhere)
    assert "is a link, as a mounted ConfigMap is" in scene.policies.read_only
    for change in (
        scene.policies.apply(text(2), ASKED),
        scene.policies.roll_back(1, "ada", ""),
    ):
        with pytest.raises(NotNow):
            await change
    assert elsewhere.read_text() == text(1)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EBUSY, errno.EACCES])
async def test_a_file_system_that_refuses_for_good_is_read_only(scene, monkeypatch, code):
    def refuse(source, target):
        raise OSError(code, "refused")

    monkeypatch.setattr(files, "exchange", refuse)
    monkeypatch.setattr(scene.versions, "announce", lambda change: None)
    with pytest.raises(NotNow, match="is read-only here"):
        await scene.policies.apply(text(2), ASKED)
    assert scene.path.read_text() == text(1)
    assert [one.name for one in scene.path.parent.iterdir()] == ["scaling.yaml"]


async def test_a_full_disk_leaves_file_and_versions_as_they_were(scene, monkeypatch):
    def refuse(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(version_files, "write_whole", refuse)
        with pytest.raises(Unavailable, match="No space left"):
            await scene.policies.apply(text(2), ASKED)
    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "copymode", refuse)  # of what announces, nothing needs it
        with pytest.raises(Unavailable, match="No space left"):
            await scene.policies.apply(text(2), ASKED)
    assert scene.path.read_text() == text(1)
    scene.path.write_text(text(2))
    scene.look()
    assert scene.versions.latest.author == ""  # nothing stays announced


async def test_whoever_hangs_up_leaves_file_and_version_together(scene):
    started = asyncio.Event()
    announce = scene.versions.announce
    loop = asyncio.get_running_loop()

    def announcing(change):
        loop.call_soon_threadsafe(started.set)
        announce(change)

    scene.versions.announce = announcing
    call = asyncio.create_task(scene.policies.apply(text(2), ASKED))
    await started.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    version = await scene.versions.until_in_force(hash_of(text(2).encode()), 5.0)
    assert version.author == "ada"
    assert scene.path.read_text() == text(2)


async def test_a_file_that_the_watch_does_not_take_is_told_as_written_alone(scene):
    scene.watching = False
    scene.writing._in_force_seconds = 0.01
    applied = await scene.policies.apply(text(2), ASKED)
    assert applied.version is None
    assert scene.path.read_text() == text(2)


async def test_the_mode_of_the_file_stays(scene):
    scene.path.chmod(0o640)
    await scene.policies.apply(text(2), ASKED)
    assert scene.path.stat().st_mode & 0o777 == 0o640


async def test_rollback_is_one_call_and_a_version_of_its_own(scene):
    await scene.policies.apply(text(2), ASKED)
    applied = await scene.policies.roll_back(0, "bob", "")
    version = applied.version
    assert scene.path.read_text() == text(1)
    assert (version.number, version.source, version.rolled_back_to, version.note) == (
        (3, Source.ROLLBACK, 1, "back to version 1")
    )
    assert (await scene.policies.roll_back(2, "bob", "no, it was right")).version.number == 4
    assert len(scene.trials.questions) == 1  # a rollback waits for no trial


async def test_a_rollback_waits_for_no_check_of_what_may_come(scene):
    class Never(Answers):
        async def run(self, question, progress=lambda _: None, *, caller=""):
            raise Overloaded("other scaling files wait", reason="TRIAL_RUNNING")

    await scene.policies.apply(text(2), ASKED)
    scene.trying._trials = scene.trying._checks = Never()
    with pytest.raises(Overloaded):
        await scene.policies.check(text(1))
    assert (await scene.policies.roll_back(0, "bob", "")).version.number == 3


async def test_a_rollback_takes_a_broken_hand_edit_back(scene):
    await scene.policies.apply(text(2), ASKED)
    scene.path.write_text("pools: {oh no")
    await scene.policies.roll_back(1, "ada", "")
    assert scene.path.read_text() == text(1)


async def test_rollback_refuses_what_it_cannot_do(scene, tmp_path):
    with pytest.raises(NotFound, match="a version before 1 is not on record"):
        await scene.policies.roll_back(0, "ada", "")
    with pytest.raises(NotFound, match="version 7 is not on record"):
        await scene.policies.roll_back(7, "ada", "")
    with pytest.raises(NotNow, match="in force already"):
        await scene.policies.roll_back(1, "ada", "")
    await scene.policies.apply(text(2), ASKED)
    await scene.versions.flush()
    (tmp_path / "m" / "config.pbtxt").unlink()
    with pytest.raises(NotNow, match=r"version 1 would be refused now: .*model folder"):
        await scene.policies.roll_back(1, "ada", "")
    (scene.versions.folder / f"{scene.versions.find(1).hash}.yaml").unlink()
    with pytest.raises(NotNow, match="cannot be read"):
        await scene.policies.roll_back(1, "ada", "")
    assert scene.path.read_text() == text(2)


def strict(size, comment=""):
    return f"edits: undone\n{text(size, comment)}"


@pytest.fixture
async def guarded(scene):
    """What is in force has edits undone; a hand has written 2 replicas over it."""
    await scene.policies.apply(strict(1), ASKED)
    scene.path.write_text(text(2))
    return scene


async def test_an_edit_is_undone_once_and_kept(guarded):
    with capture_logs() as logs:
        assert await guarded.edits.undo(text(2).encode())
    assert guarded.path.read_text() == strict(1)
    assert [one["event"] for one in logs] == ["an edit of the scaling file is undone"]
    undone, live, _ = guarded.versions.listed(3)
    assert (undone.number, undone.source, undone.note) == (
        (3, Source.UNDONE, "undone, back to version 2")
    )
    assert guarded.versions.latest == live  # it was in force all the time
    guarded.look()
    assert guarded.versions.latest == live
    assert not await guarded.edits.undo(strict(1).encode())
    applied = await guarded.policies.roll_back(3, "ada", "")
    assert guarded.path.read_text() == text(2)
    assert (applied.version.number, applied.version.rolled_back_to) == (4, 3)
    assert (await guarded.policies.roll_back(0, "ada", "")).version.rolled_back_to == 2


async def test_who_edits_again_within_a_minute_is_respected(guarded):
    assert await guarded.edits.undo(text(2).encode())
    guarded.now = 59.0
    guarded.path.write_text(text(2))
    with capture_logs() as logs:
        assert not await guarded.edits.undo(text(2).encode())
    assert [one["event"] for one in logs] == ["an edit of the scaling file is respected"]
    guarded.look()
    version = guarded.versions.latest
    assert (version.number, version.source) == (4, Source.FILE)
    assert "edited again within a minute" in version.note


async def test_an_edit_a_minute_later_is_undone_again(guarded):
    assert await guarded.edits.undo(text(2).encode())
    guarded.now = 61.0
    guarded.path.write_text("pools: [")
    assert await guarded.edits.undo(b"pools: [")  # what would be refused is undone as well
    assert guarded.path.read_text() == strict(1)


async def test_edits_are_respected_where_the_policy_in_force_says_nothing(scene):
    scene.path.write_text(strict(2))
    assert not await scene.edits.undo(strict(2).encode())
    assert scene.path.read_text() == strict(2)


async def test_an_edit_that_cannot_be_undone_is_respected_and_says_why(guarded, monkeypatch):
    why = "it is read-only here"
    monkeypatch.setattr(changes, "read_only", lambda _: why)
    assert not await guarded.edits.undo(text(2).encode())
    guarded.look()
    assert guarded.versions.latest.note == f"respected: {why}"

    def full(*_):
        raise Unavailable("the disk is full")

    monkeypatch.setattr(changes, "read_only", lambda _: "")
    await guarded.versions.flush()
    guarded.path.write_text(strict(1))
    guarded.look()
    guarded.path.write_text(text(2))
    monkeypatch.setattr(changes, "write", full)
    assert not await guarded.edits.undo(text(2).encode())
    guarded.look()
    assert guarded.versions.latest.note == "respected: it cannot be undone: the disk is full"
    assert guarded.path.read_text() == text(2)


async def test_what_is_applied_is_no_edit(guarded):
    guarded.watching = False
    guarded.writing._in_force_seconds = 0.01
    await guarded.policies.apply(text(2, ""), Asked("ada", "x", anyway="over the edit"))
    assert not await guarded.edits.undo(text(2, "").encode())


async def test_an_edit_that_changed_meanwhile_is_looked_at_again(guarded):
    guarded.path.write_text(text(1, "# newer\n"))
    assert await guarded.edits.undo(text(2).encode())  # that is, it is not taken
    assert guarded.path.read_text() == text(1, "# newer\n")


STRANGE = text(1) + "  evil: {tier: small, model: m, precision: int8, external: {dns: 'evil:1'}}\n"


async def test_a_file_that_sends_texts_elsewhere_is_refused_whatever_the_reason(scene):
    with pytest.raises(BadRequest, match=r"content:4: pools.evil.external.dns: .*, got 'evil:1'"):
        await scene.policies.apply(STRANGE, Asked("eve", "n", anyway="it is urgent"))
    scene.trials.answer = InternalError("the trial failed", reason="TRIAL_FAILED")
    with pytest.raises(BadRequest):
        await scene.policies.apply(STRANGE, Asked("eve", "n", anyway="it is urgent"))
    assert scene.path.read_text() == text(1)


async def test_a_rollback_to_new_places_is_for_what_a_hand_put_in_force(scene):
    scene.versions.in_force(STRANGE.encode())
    scene.path.write_text(STRANGE)
    await scene.policies.apply(STRANGE + "# more\n", ASKED)
    scene.path.write_text(text(1))
    scene.look()
    with pytest.raises(NotNow, match=r"version 3 would be refused now: .*got 'evil:1'"):
        await scene.policies.roll_back(3, "eve", "")
    assert (await scene.policies.roll_back(2, "ada", "")).version.number == 5


async def test_what_callers_send_is_never_read_in_this_process(scene):
    class Elsewhere(Answers):
        async def run(self, question, progress=lambda _: None, *, caller=""):
            asked.append((question["kind"], caller))
            if question["kind"] == "check":
                return {"notes": [], "unserved": ""}
            return self.answer

    asked = []
    scene.trying._trials = scene.trying._checks = Elsewhere()
    await scene.policies.check("{", caller="acme")
    await scene.trying.plan("{", 60.0, lambda _: None, caller="acme")
    await scene.policies.apply("{{", Asked("ada", "n", caller="globex"))
    assert asked == [("check", "acme"), ("plan", "acme"), ("check", "globex"), ("plan", "globex")]


async def test_a_file_that_cannot_be_tried_is_checked_all_the_same(scene):
    class Fails(Answers):
        async def run(self, question, progress=lambda _: None, *, caller=""):
            raise InternalError("the trial failed", reason="TRIAL_FAILED")

    scene.trying._trials = Fails()
    with pytest.raises(BadRequest, match="must not exceed the number of slots"):
        await scene.policies.apply(text(3), Asked("ada", "n", anyway="it is urgent"))


async def test_a_file_that_was_removed_can_be_applied_again(scene):
    scene.path.unlink()
    await scene.policies.apply(text(2), ASKED)
    assert scene.path.read_text() == text(2)
