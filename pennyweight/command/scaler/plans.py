"""A plan, two scaling files on the recorded days: as the scaler tells it, and as it is shown."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

from rich.table import Table

from pennyweight.command.scaler.assumptions import (
    Assumed,
    Difference,
    assumed_of,
    difference_of,
    differences_table,
)
from pennyweight.command.scaler.courses import FIGURES, Course, course_of, figures_of
from pennyweight.command.show import add_columns, console, line, moment, plain, print_table, say
from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.wire import name_of, time_of

STYLES = {"better": "green", "worse": "red", "unknown": "yellow"}

HOLDING = ("budget", "money", "room", "max")
"""Bounds that keep a pool from more than it asks for."""


@dataclass(frozen=True)
class PoolPlan:
    """What two scaling files would have done with one pool; a course None: it was not tried."""

    pool: str
    live: Course | None
    planned: Course | None
    differences: tuple[Difference, ...]
    differences_found: int
    replica: Assumed | None
    untried: str


@dataclass(frozen=True)
class Plan:
    """What a scaling file would have done on the recorded days, beside the one in force.

    Its own courses are those of all pools together; None: fewer than two were tried.
    """

    verdict: str
    because: str
    since: dt.datetime | None
    until: dt.datetime | None
    recorded_share: float
    pools: tuple[PoolPlan, ...]
    live: Course | None
    planned: Course | None
    reason_needed: bool


def plan_of(message: pb.Plan) -> Plan:
    """A plan as it is shown."""
    return Plan(
        verdict=name_of(pb.PlanVerdict.DESCRIPTOR, "PLAN_VERDICT", message.verdict),
        because=message.because,
        since=time_of(message.since) if message.HasField("since") else None,
        until=time_of(message.until) if message.HasField("until") else None,
        recorded_share=message.recorded_share,
        pools=tuple(
            PoolPlan(
                pool=one.pool,
                live=course_of(one.live) if one.HasField("live") else None,
                planned=course_of(one.planned) if one.HasField("planned") else None,
                differences=tuple(difference_of(some) for some in one.differences),
                differences_found=one.differences_found,
                replica=assumed_of(one.replica) if one.HasField("replica") else None,
                untried=one.untried,
            )
            for one in message.pools
        ),
        live=course_of(message.live) if message.HasField("live") else None,
        planned=course_of(message.planned) if message.HasField("planned") else None,
        reason_needed=message.reason_needed,
    )


def print_plan(found: Plan) -> None:
    """A plan as a table, with its verdict."""
    screen = console()
    tried = [one for one in found.pools if not one.untried]
    if tried:
        print_table(screen, _table(found, tried), named_by=2)
    for one in tried:
        for held in _held(one):
            say(screen, plain(held))
    if any(one.differences for one in tried):
        differ = {one.pool: one.differences for one in tried}
        print_table(screen, differences_table(differ), named_by=2)
    for one in tried:
        for said in _notes(one):
            say(screen, plain(said), "dim")
    for one in found.pools:
        if one.untried:
            say(screen, plain(f"{one.pool} was not tried: {one.untried}"), "dim")
    if found.since is not None:
        share = f"{found.recorded_share:.0%} of the minutes on record"
        say(screen, f"{moment(found.since)} to {moment(found.until)}, {share}", "dim")
    say(screen, plain(f"{found.verdict}: {found.because}"), STYLES.get(found.verdict, ""))


def _notes(pool: PoolPlan) -> Iterator[str]:
    """How many differences are left out, and what its replicas were taken to be."""
    told = len(pool.differences)
    if pool.differences_found > told:
        yield (
            f"{pool.pool}: of {pool.differences_found:,} times in which the sizes differ, "
            f"the {told} of most replica-hours"
        )
    if pool.replica is not None:
        yield f"{pool.pool}: replicas are taken to be {pool.replica.in_words}"


def _table(found: Plan, pools: list[PoolPlan]) -> Table:
    table = Table()
    add_columns(table, ("pool", "by"), numbers=FIGURES)
    rows = [(one.pool, one.live, one.planned) for one in pools]
    for name, live, planned in [*rows, ("all", found.live, found.planned)]:
        for by, course in (("in force", live), ("planned", planned)):
            if course is not None:
                table.add_row(line(name), by, *figures_of(course))
    return table


def _held(pool: PoolPlan) -> list[str]:
    """What kept a pool from more than it asked for, a sentence each."""
    shares = [
        {} if course is None else {(one.bound, one.detail): one.share for one in course.bounds}
        for course in (pool.live, pool.planned)
    ]
    return [
        f"{pool.pool}: {' '.join(filter(None, which))} held it in "
        f"{shares[0].get(which, 0.0):.0%} of the decisions by the file in force and in "
        f"{shares[1].get(which, 0.0):.0%} by this"
        for which in dict.fromkeys([*shares[0], *shares[1]])
        if which[0] in HOLDING
    ]
