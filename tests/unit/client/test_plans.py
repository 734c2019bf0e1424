"""A plan on the screen: a row for each pool and file, what held sizes down, and what differs."""

import datetime as dt

import pytest
from typer import Exit

from pennyweight.command.scaler.assumptions import (
    Assumed,
    Difference,
    replica_of,
    replicas_of,
    rows_of,
    write_page,
)
from pennyweight.command.scaler.courses import BoundShare, Course
from pennyweight.command.scaler.plans import Plan, PoolPlan, print_plan


def course(hours, *bounds):
    return Course(hours, 1_000_000, 0.5, 1.0, 0.0, 0.25, 3, bounds)


def test_a_plan_shows_the_sum_and_what_held_a_pool(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    demand, budget = BoundShare("demand", "", 0.75), BoundShare("budget", "gpus", 0.25)
    one = PoolPlan("p", course(1.0, demand), course(0.5, demand, budget), (), 0, None, "")
    two = PoolPlan("q", course(2.0), course(2.0), (), 0, None, "")
    print_plan(
        Plan(
            "same",
            "why",
            None,
            None,
            0.0,
            (one, two),
            course(3.0),
            course(2.5),
            reason_needed=False,
        )
    )
    shown = capsys.readouterr().out
    rows = [line.split("│")[1:4] for line in shown.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["p", "in force", "1.00"],
        ["p", "planned", "0.50"],
        ["q", "in force", "2.00"],
        ["q", "planned", "2.00"],
        ["all", "in force", "3.00"],
        ["all", "planned", "2.50"],
    ]
    assert (
        "p: budget gpus held it in 0% of the decisions by the file in force and in 25% by this"
        in " ".join(shown.split())
    )
    assert "demand" not in shown


def test_differences_have_both_reasons_and_replicas_are_told_to_be_repeated(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "160")
    since = dt.datetime(2026, 11, 29, 2, tzinfo=dt.UTC)
    one = Difference(
        since, since + dt.timedelta(minutes=9), 2, 3, "2 replicas: a.", "3 replicas: b."
    )
    replica = Assumed(0.01, 0.0008, 1e-7, 1e-5, 61.5, 0.25, "measured")
    pool = PoolPlan("p", course(1.0), course(1.5), (one,), 21, replica, "")
    print_plan(Plan("better", "why", None, None, 0.0, (pool,), None, None, reason_needed=False))
    shown = capsys.readouterr().out
    (row,) = [line for line in shown.splitlines() if "2 replicas: a." in line]
    cells = [cell.strip() for cell in row.split("│")[1:-1]]
    assert cells == ["p", "2026-11-29 02:00:00 UTC", "9.0 min", "2 replicas: a.", "3 replicas: b."]
    told = " ".join(shown.split())
    assert "p: of 21 times in which the sizes differ, the 1 of most replica-hours" in told
    assert replica.as_option.startswith("a=0.01,b=0.0008,c=0.0000001,p=0.00001,start=61.5")
    assert replica.as_option in told
    found = replicas_of([f"p:{replica.as_option}"])["p"]
    assert (found.a, found.b, found.c, found.p) == (0.01, 0.0008, 1e-7, 1e-5)
    assert (found.start.ToMilliseconds(), found.start_spread) == (61_500, 0.25)


def test_only_a_start_leaves_the_constants_as_they_are_known():
    found = replica_of("start=180")
    assert (found.a, found.start.seconds, found.HasField("start_spread")) == (0.0, 180, False)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda: replicas_of(["a=1"]), "names no pool: 'a=1'"),
        (lambda: replica_of("a=x"), "a is a number, not 'x'"),
        (lambda: replica_of("q=1"), "'q=1' is not NAME=VALUE"),
        (lambda: rows_of("gpu"), "'gpu' is not NAME=VALUE"),
    ],
)
def test_what_is_not_understood_ends_the_command_with_the_form(wrong, why, capsys):
    with pytest.raises(Exit) as ended:
        wrong()
    assert ended.value.exit_code == 2
    assert why in " ".join(capsys.readouterr().err.split())


def test_without_a_page_no_file_is_written_and_that_is_no_failure(tmp_path, capsys):
    write_page(tmp_path / "p.html", "")
    assert list(tmp_path.iterdir()) == []
    assert "p.html is not written: nothing was tried." in " ".join(capsys.readouterr().err.split())
    write_page(tmp_path / "p.html", "<p>")
    assert (tmp_path / "p.html").read_text() == "<p>"
