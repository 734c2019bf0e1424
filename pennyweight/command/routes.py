"""``routes``: what a key may use, and what is promised of its answers."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from pennyweight.answers import Route
from pennyweight.command.ending import run
from pennyweight.command.options import Address, Json, TimeoutSeconds, TlsCa, connect
from pennyweight.command.refused import refusal_lines
from pennyweight.command.show import console, money, percent, plain, points, print_json


def routes(
    *,
    as_json: Json = False,
    timeout: TimeoutSeconds = 10.0,
    address: Address = "127.0.0.1:50051",
    tls_ca: TlsCa = None,
) -> None:
    """List the routes your key may use, with their ladders, cheapest tier first."""

    async def work() -> None:
        async with connect(address, tls_ca) as client:
            found = await client.list_routes(timeout_seconds=timeout)
        if as_json:
            for route in found.routes:
                print_json("route", route)
            if found.refusal is not None:
                print_json("refusal", found.refusal)
            return
        screen = console()
        if found.refusal is not None:
            lines = refusal_lines(found.refusal, what="the policies")
            screen.print(Text("\n".join(lines), style="red"), soft_wrap=True)
        chosen = [route for route in found.routes if route.quality is not None]
        if chosen:
            screen.print(_qualities(chosen))
        table = _ladders(found.routes)
        table.caption = f"policy {found.policy_version}"
        screen.print(table)

    run(work(), address)


def _ladders(found: Sequence[Route]) -> Table:
    table = Table(caption_justify="left")
    for name in ("route", "tier", "model", "prompt / M", "output / M", "ready", "for"):
        right = name in ("prompt / M", "output / M", "ready")
        table.add_column(name, justify="right" if right else "left")
    for route in found:
        for number, tier in enumerate(route.ladder):
            answers = " ◂ answers" if tier.name == route.fixed_tier else ""
            table.add_row(
                route.name if number == 0 else "",
                tier.name + answers,
                f"{tier.model} {tier.precision}",
                money(tier.prompt_micro_usd_per_million),
                money(tier.output_micro_usd_per_million),
                str(tier.ready_replicas),
                plain(route.description) if number == 0 else "",
            )
        table.add_section()
    return table


def _qualities(chosen: Sequence[Route]) -> Table:
    """What the routes whose tier is chosen for each request tolerate, and what is certified."""
    table = Table(title="The tier is chosen for each request of", title_justify="left")
    for name in ("route", "tolerance", "certified bound", "escalations", "saving", "calibration"):
        right = name in ("tolerance", "certified bound", "escalations", "saving")
        table.add_column(name, justify="right" if right else "left")
    for route in chosen:
        quality = route.quality
        if quality is not None:
            table.add_row(
                route.name,
                points(quality.tolerance),
                points(quality.certified_bound),
                percent(quality.expected_escalation_rate),
                percent(quality.expected_saving),
                quality.calibration_version or "none: the top tier answers",
            )
    return table
