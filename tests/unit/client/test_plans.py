"""A plan on the screen: a row for each pool and file, their sum, and what held sizes down."""

from pennyweight.command.scaler.trials import BoundShare, Course, Plan, PoolPlan, print_plan


def course(hours, *bounds):
    return Course(hours, 1_000_000, 0.5, 1.0, 0.0, 0.25, 3, bounds)


def test_a_plan_shows_the_sum_and_what_held_a_pool(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    demand, budget = BoundShare("demand", "", 0.75), BoundShare("budget", "gpus", 0.25)
    one = PoolPlan("p", course(1.0, demand), course(0.5, demand, budget), None, 0, 0, "")
    two = PoolPlan("q", course(2.0), course(2.0), None, 0, 0, "")
    print_plan(Plan("same", "why", None, None, 0.0, (one, two), course(3.0), course(2.5)))
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
