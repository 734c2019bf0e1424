"""Overrides outlive restarts, end by themselves, and hold though the disk refuses them."""

import errno
import json
import shutil

import pytest
from structlog.testing import capture_logs

from services.scaler.history import overrides
from services.scaler.history.overrides import Held, OverrideBook
from services.scaler.policy.sizing.override import Override, OverrideKind


def pin(pool="p", size=3, *, since=10.0, expires=20.0):
    return Held(pool, OverrideKind.PIN, size, "ada", "a test", since, expires)


def book(path, now=10.0):
    found = OverrideBook(path / "overrides.json", wall=lambda: now)
    found.open()
    return found


async def test_an_override_outlives_a_restart_and_ends_by_itself(tmp_path):
    assert await book(tmp_path).put(pin())
    again = book(tmp_path)
    assert again.of("p", 19.9) == Override(OverrideKind.PIN, 20.0, 3, "ada", "a test")
    assert again.of("p", 20.0) is None
    assert again.of("other", 15.0) is None
    assert again.of("p", 1.0) is not None  # a clock that goes back ends nothing
    assert again.listed() == [pin()]
    assert book(tmp_path, now=20.0).listed() == []


async def test_the_last_one_of_a_pool_holds(tmp_path):
    one = book(tmp_path)
    await one.put(pin(size=3))
    await one.put(pin(size=5))
    await one.put(pin("q"))
    assert [(held.pool, held.size) for held in book(tmp_path).listed()] == [("p", 5), ("q", 3)]


async def test_ending_one_says_which_and_is_kept(tmp_path):
    one = book(tmp_path)
    await one.put(pin())
    assert await one.end("p") == (pin(), True)
    assert await one.end("p") == (None, True)
    assert book(tmp_path).listed() == []


async def test_a_full_disk_keeps_no_override_from_holding(tmp_path, monkeypatch):
    def refuse(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(overrides, "write_whole", refuse)
    one = book(tmp_path)
    with capture_logs() as logged:
        assert not await one.put(pin())
        await one.mend()
    assert one.of("p", 15.0) is not None
    assert book(tmp_path).listed() == []
    assert [said["event"] for said in logged] == ["overrides cannot be kept"]
    monkeypatch.undo()
    await one.mend()  # there is room again
    assert book(tmp_path).listed() == [pin()]


async def test_an_end_that_the_disk_refused_is_kept_later(tmp_path, monkeypatch):
    def refuse(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    one = book(tmp_path)
    await one.put(pin())
    monkeypatch.setattr(overrides, "write_whole", refuse)
    assert await one.end("p") == (pin(), False)
    monkeypatch.undo()
    await one.mend()
    assert book(tmp_path).listed() == []


async def test_what_was_removed_under_a_running_scaler_is_made_anew(tmp_path):
    one = book(tmp_path / "history")
    await one.mend()  # nothing holds, so nothing is there
    assert not (tmp_path / "history").exists()
    await one.put(pin())
    shutil.rmtree(tmp_path / "history")
    await one.mend()
    assert book(tmp_path / "history").listed() == [pin()]


async def test_a_damaged_file_holds_nothing_and_is_written_anew(tmp_path):
    (tmp_path / "overrides.json").write_text('[{"pool": "p", "kind": "pin"')
    one = book(tmp_path)
    assert one.listed() == []
    await one.put(pin())
    assert book(tmp_path).listed() == [pin()]


@pytest.mark.parametrize(
    "wrong",
    [
        {"expires": "soon"},
        {"expires": None},
        {"expires": 1e300},
        {"since": -1e300},
        {"size": "many"},
        {"size": 10**30},
        {"pool": ["p"]},
        {"kind": "stop"},
        {"reason": None},
    ],
)
async def test_what_is_no_override_is_left_out_and_the_others_hold(tmp_path, wrong):
    await book(tmp_path).put(pin("q"))
    path = tmp_path / "overrides.json"
    (good,) = json.loads(path.read_bytes())
    path.write_text(json.dumps([good | {"pool": "p"} | wrong, "none", good]))
    with capture_logs() as logged:
        assert book(tmp_path).listed() == [pin("q")]
    assert len(logged) == 2
    assert all(f": {key} " in logged[0]["error"] for key in wrong)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{}", "1" * 9999, "\x00"])
def test_a_file_of_another_kind_holds_nothing(tmp_path, text):
    (tmp_path / "overrides.json").write_text(text)
    assert book(tmp_path).listed() == []


async def test_they_are_bounded_by_those_that_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(overrides, "MAX_OVERRIDES", 2)
    one = book(tmp_path)
    await one.put(pin("a", expires=10.0))  # over already
    await one.put(pin("b"))
    await one.put(pin("c"))
    with pytest.raises(OverflowError):
        await one.put(pin("d"))
    await one.put(pin("c", size=9))


@pytest.mark.parametrize("text", ["{", "7", "[7]", "[{}]", '[{"kind": "pin"}]'])
async def test_a_file_of_something_else_holds_nothing(tmp_path, text):
    path = tmp_path / "overrides.json"
    path.write_text(text)
    book = OverrideBook(path)
    book.open()
    assert book.listed() == []


async def test_a_file_that_cannot_be_opened_holds_nothing(tmp_path):
    book = OverrideBook(tmp_path)
    book.open()
    assert book.listed() == []
