"""A ledger that grows is followed; what in it is no record is counted and named."""

from pathlib import Path
from typing import Any

import pytest

from pennyweight.ledger.lines import Unreadable
from pennyweight.ledger.tail import Tail
from tests.making.ledger import line, outcome, pair, plain, request

GOOD = line(request("r1")) + line(pair()) + line(outcome(resolved=True))


def test_a_tail_reads_what_comes(tmp_path: Path) -> None:
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    old.write_text(GOOD)
    tail = Tail(tmp_path)
    assert tail.read() == []
    with old.open("a") as file:
        file.write(line(request("2")))
    new.write_text(line(request("3")) + line(request("4"))[:50])
    assert [record["request_id"] for record in tail.read()] == ["3", "2"]
    with new.open("a") as file:
        file.write(line(request("4"))[50:])
    assert tail.read() == [plain(request("4"))]
    assert tail.read() == []
    assert tail.unreadable == Unreadable()


def test_a_tail_goes_on_after_what_it_cannot_read(tmp_path: Path) -> None:
    tail = Tail(tmp_path)
    (tmp_path / "a.jsonl").write_bytes(b"\0\0\0{\n\xff\xfe\n" + GOOD.encode())
    (tmp_path / "folder.jsonl").mkdir()
    assert len(tail.read()) == 3
    assert tail.unreadable == Unreadable({"a.jsonl": 2})


def test_a_tail_names_a_file_it_may_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    tail = Tail(tmp_path)
    (tmp_path / "a.jsonl").write_text(GOOD)
    with monkeypatch.context() as locked:
        locked.setattr(Path, "open", refuse)
        assert tail.read() == []
    assert tail.unreadable == Unreadable(files={"a.jsonl": "Permission denied"})
    assert len(tail.read()) == 3
    assert tail.unreadable == Unreadable()
