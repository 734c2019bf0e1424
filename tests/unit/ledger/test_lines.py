"""What of a folder is no record is told in few words."""

from pennyweight.ledger.lines import Unreadable


def test_of_many_files_some_are_named() -> None:
    unreadable = Unreadable({f"{n}.jsonl": n for n in range(1, 6)})
    (note,) = unreadable.notes()
    assert note.endswith(" left out: 15 (1.jsonl: 1, 2.jsonl: 2, 3.jsonl: 3, and 2 more).")
    assert unreadable.counts() == {
        "lines that cannot be read (1.jsonl, 2.jsonl, 3.jsonl, and 2 more)": 15
    }
    assert Unreadable().notes() == ()
    assert Unreadable().counts() == {}
