"""Where traffic's questions come from, and how what became of them is added up."""

from itertools import islice
from pathlib import Path

import grpc
import pytest

from pennyweight import Cost, Decision, Finished, Timings, Unavailable, Usage
from pennyweight.ledger.money import Money
from pennyweight.ledger.reader import opened
from pennyweight.ledger.sums import By, add_up, total
from services.local.ledger_tail import LedgerTail
from services.local.own_records import OwnRecords
from services.local.traffic import HOPELESS, Sum, Tally, charged, questions
from tests.making.ledger import attempt, line, request


def finished(tier: str, reason: str, paid: int, baseline: int) -> Finished:
    decision = Decision(
        "chat", "v1", tier, tier, "int8", "r-0", reason, "So.", "bypassed", fleet_stale=False
    )
    return Finished("h", decision, "stop", Usage(9, 9), Cost(paid, baseline), Timings())


def failure(code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> Unavailable:
    return Unavailable("no replica", code)


def test_answers_are_added_up_by_tier_and_reason() -> None:
    tally = Tally()
    assert (tally.done, tally.escalated) == (0, None)
    for _ in range(3):
        tally.answered(finished("small", "calibrated", 2, 10))
    tally.answered(finished("large", "escalated", 12, 10))
    tally.failed(failure())
    assert tally.sums == {
        ("small", "calibrated"): Sum(3, Money(6, 0, 30)),
        ("large", "escalated"): Sum(1, Money(12, 0, 10)),
    }
    assert tally.whole == Sum(4, Money(18, 0, 40))
    assert (tally.done, tally.escalated) == (5, 0.25)


def test_failures_are_counted_by_code() -> None:
    tally = Tally()
    for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.UNAVAILABLE):
        tally.failed(failure(code))
    assert tally.failures == {"UNAVAILABLE": 2, "ABORTED": 1}


def test_it_is_hopeless_only_when_all_of_the_first_fail() -> None:
    lost, saved = Tally(), Tally()
    saved.answered(finished("small", "calibrated", 2, 10))
    for number in range(1, HOPELESS + 1):
        lost.failed(failure())
        saved.failed(failure())
        assert lost.hopeless == (number == HOPELESS)
        assert not saved.hopeless


EVIDENCE = attempt("large", 40, cause="evidence", verdict="evidence", committed=False)


def test_saved_is_one_number_on_the_screen_in_traffic_and_in_the_ledger(tmp_path: Path) -> None:
    screen, records = LedgerTail(tmp_path), OwnRecords(tmp_path)
    (tmp_path / "a.jsonl").write_text(
        line(request("1", attempt(), EVIDENCE, reason="calibrated", baseline_micro_usd=40))
        + line(request("2", attempt("large", 50), reason="escalated", baseline_micro_usd=40))
        + line(request("3", attempt(verdict="failed"), status="UNAVAILABLE", baseline_micro_usd=0))
    )
    records.read()
    sums = charged(records.of({f"h-{number}" for number in (1, 2, 3)}))
    assert sums == {
        ("small", "calibrated"): Sum(1, Money(3, 40, 40)),
        ("large", "escalated"): Sum(1, Money(50, 0, 40)),
        ("small", "failed"): Sum(0, Money(3, 0, 0)),
    }
    with opened(tmp_path) as ledger:
        told = total(add_up(ledger, By.ROUTE))
    saved = {screen.read().money.saved, told.saved, sum(one.money.saved for one in sums.values())}
    assert saved == {80 - 53 - 40 - 3}


def test_requests_of_others_and_those_still_to_come_are_not_ours(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(line(request("1", attempt())))
    records = OwnRecords(tmp_path)
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write(line(request("2", attempt())) + line(request("3", attempt())))
    records.read()
    assert len(records.of({"h-1", "h-3", "h-4"})) == 1


def test_a_file_of_lines_is_asked_again_and_again_in_a_drawn_order(tmp_path: Path) -> None:
    file = tmp_path / "questions.txt"
    lines = [f"Question {number}?" for number in range(30)]
    file.write_text("\ufeff" + "\n\n".join(lines) + "\n  \n", encoding="utf-8")
    drawn = list(islice(questions(file, 1), 60))
    assert sorted(drawn[:30]) == sorted(drawn[30:]) == sorted(lines)
    assert drawn[:30] != lines
    assert list(islice(questions(file, 1), 60)) == drawn
    assert list(islice(questions(file, 2), 60)) != drawn


def test_a_table_of_questions_is_read_by_its_column(tmp_path: Path) -> None:
    file = tmp_path / "questions.csv"
    file.write_text('text,category\n"Where, please,\nis it?",a\nWhen?,b\n,c\n')
    assert set(islice(questions(file, 1), 2)) == {"Where, please, is it?", "When?"}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"question\nWhy?\n", "has no column text; its columns: question"),
        ("a.csv", b"", "has no column text; its columns: none"),
        ("a.csv", b"text\n", "holds no questions"),
        ("a.txt", b" \n\n", "holds no questions"),
        ("a.txt", b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_file_that_holds_no_questions_is_refused(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said):
        questions(tmp_path / name, 1)


def test_without_a_file_customers_are_made_up() -> None:
    assert len(set(islice(questions(None, 1), 100))) > 90
