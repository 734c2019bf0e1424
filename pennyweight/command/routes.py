"""``routes``: what a key may use, and what is promised of its answers."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from pennyweight.answers import Lever, Route
from pennyweight.command.ending import run
from pennyweight.command.options import (
    Address,
    Json,
    Target,
    TimeoutSeconds,
    TlsCa,
    TlsCertificate,
    TlsKey,
    connect,
)
from pennyweight.command.refused import refusal_lines
from pennyweight.command.show import (
    add_columns,
    console,
    line,
    money,
    percent,
    plain,
    points,
    print_json,
    print_table,
    say,
)

CHOSEN = (
    "Each request of these routes is answered by the cheapest tier that will do, so that on "
    "average no more quality is lost than they tolerate."
)

Halted = Mapping[str, Sequence[Lever]]
"""The levers of each route that are out of use now."""

UNKNOWN = "halted while what routers share cannot be reached"


def routes(
    *,
    as_json: Json = False,
    timeout: TimeoutSeconds = 10.0,
    address: Address = "127.0.0.1:50051",
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
) -> None:
    """List the routes your key may use, with their ladders, cheapest tier first."""
    target = Target(address, tls_ca, tls_certificate, tls_key)

    async def work() -> None:
        async with connect(target) as client:
            found = await client.list_routes(timeout_seconds=timeout)
            chosen = [route for route in found.routes if route.quality is not None]
            halted = dict[str, list[Lever]]()
            if chosen and not as_json:
                for lever in (await client.levers(timeout_seconds=timeout)).levers:
                    if lever.state != "on":
                        halted.setdefault(lever.route, []).append(lever)
        if as_json:
            for route in found.routes:
                print_json("route", route)
            if found.refusal is not None:
                print_json("refusal", found.refusal)
            return
        screen = console()
        if found.refusal is not None:
            lines = refusal_lines(found.refusal, what="the policies")
            say(screen, "\n".join([*lines, ""]), "red")
        screen.print(_descriptions(found.routes))
        if chosen:
            say(screen, f"\n{CHOSEN}\n")
            print_table(screen, _qualities(chosen, halted))
        screen.print()
        print_table(screen, _ladders(found.routes), f"policy {found.policy_version}")
        say_troubles(screen, found.routes)

    run(work(), target)


def _descriptions(found: Sequence[Route]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for route in found:
        grid.add_row(line(route.name), line(route.description))
    return grid


def say_troubles(screen: Console, found: Sequence[Route]) -> None:
    """A line for each tier that something ails."""
    ailing = {tier.name: tier.trouble for route in found for tier in route.ladder if tier.trouble}
    for name, trouble in sorted(ailing.items()):
        say(screen, f"tier {plain(name)}: {plain(trouble)}", "red")


def _ladders(found: Sequence[Route]) -> Table:
    table = Table()
    add_columns(table, ("route", "tier", "model"), numbers=("prompt / M", "output / M", "ready"))
    for route in found:
        for number, tier in enumerate(route.ladder):
            answers = " ◂ answers" if tier.name == route.fixed_tier else ""
            table.add_row(
                line(route.name) if number == 0 else "",
                line(tier.name) + answers,
                line(f"{tier.model} {tier.precision}"),
                money(tier.prompt_micro_usd_per_million),
                money(tier.output_micro_usd_per_million),
                str(tier.ready_replicas),
            )
        table.add_section()
    return table


def _qualities(chosen: Sequence[Route], halted: Halted) -> Table:
    """What the routes whose tier is chosen for each request tolerate, and what is certified."""
    table = Table()
    add_columns(
        table,
        ("route",),
        numbers=("tolerance", "certified bound", "escalations", "saving"),
    )
    table.add_column("calibration")
    for route in chosen:
        quality = route.quality
        if quality is None:
            continue
        calibration = quality.calibration_version or "none: the top tier answers"
        # What a calibration expects holds with all its tiers in use.
        out = [one for one in halted.get(route.name, ()) if one.name.startswith("tier:")]
        for why, unknown in (("halted", False), (UNKNOWN, True)):
            if names := [one.name for one in out if (one.state == "unknown") is unknown]:
                calibration += f"; {why}: {', '.join(names)}"
        table.add_row(
            line(route.name),
            points(quality.tolerance),
            points(quality.certified_bound),
            percent(None if out else quality.expected_escalation_rate),
            percent(None if out else quality.expected_saving),
            line(calibration),
        )
    return table
