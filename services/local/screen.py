"""What the user sees while the stack starts, runs and stops."""

import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from pennyweight.command.show import money, share
from services.local.asking import Step
from services.local.ledger_tail import Totals
from services.local.plan import ADDRESSES, SCALING_FILE, Plan, StackError
from services.local.status import PoolStatus, Status

_NEXT_TRY = re.compile(r"; next try in \d+ s")  # the words of the scaler

STYLES = {"ready": "green", "starting": "yellow", "draining": "magenta", "gone": "dim"}


class Screen:
    """Writes to a console: live on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, sentence: str) -> None:
        """One line."""
        self._print(Text(sentence, style="dim"))

    def _print(self, what: Text | str) -> None:
        """Prints, or not: that nobody can see it is no reason to end what runs."""
        with suppress(OSError):
            self.console.print(what, soft_wrap=True, markup=False)

    def fail(self, error: StackError) -> None:
        """What went wrong, and the hint."""
        self._print(Text(str(error), style="bold red"))
        if error.hint:
            self._print(Text(error.hint))

    async def show_start(self, starting: AsyncIterator[tuple[Step, ...]]) -> None:
        """Shows what is waited for until nothing is; without a terminal, each change of it once."""
        began, done, said = time.monotonic(), dict[str, str](), dict[str, str]()
        spinner = Spinner("dots")
        with Live(console=self.console, refresh_per_second=10) as live:
            async for steps in starting:
                for step in steps:
                    if step.done and step.name not in done:
                        done[step.name] = f"{time.monotonic() - began:.1f} s"
                if self.console.is_terminal:
                    live.update(_steps(steps, done, spinner))
                    continue
                for step in steps:
                    if said.get(step.name) != (state := _timeless(step.state)):
                        said[step.name] = state
                        took = f" ({done[step.name]})" if step.done else ""
                        self.say(f"{step.name}: {state}{took}")

    def show_up(self, plan: Plan) -> None:
        """Says that the stack is up and how to use it."""
        router = plan["router"]
        usual = router.listen == ADDRESSES["router"][0]
        scaler = plan["scaler"]
        usual_scaler = scaler.listen == ADDRESSES["scaler"][0]
        fleet = "" if usual_scaler else f" --address {scaler.address}"
        policy = scaler.environment[SCALING_FILE]
        address = "" if usual else f" --address {router.address}"
        self._print(
            Text.assemble(
                ("Pennyweight is up", "bold green"),
                f" at {router.address}; metrics at http://{router.metrics_listen}/metrics\n",
                f'  .venv/bin/pennyweight ask "My card was declined in a shop"{address}\n',
                f"  .venv/bin/pennyweight pools{fleet}\n",
                (f"  the scaler is at {scaler.address}, and {policy} is in force\n", "dim"),
                (f"  logs are in {plan.logs}, the ledger in {plan.ledger}\n", "dim"),
                ("  Ctrl-C stops everything; once more kills it", "dim"),
            )
        )

    async def show_status(self, statuses: AsyncIterator[Status]) -> None:
        """Shows each status as it comes: in place on a terminal, else a line when it changed."""
        if self.console.is_terminal:
            with Live(console=self.console, auto_refresh=False, transient=True) as live:
                async for status in statuses:
                    live.update(status_panel(status), refresh=True)
            return
        said = ""
        async for status in statuses:
            line = status_line(status)
            if line != said:
                self._print(line)
                said = line


def _steps(steps: tuple[Step, ...], done: Mapping[str, str], spinner: Spinner) -> Table:
    """One row for each thing that is waited for, with the seconds it took."""
    table = Table.grid(padding=(0, 2))
    for step in steps:
        sign = Text("✓", style="green") if step.done else spinner
        seconds = Text(done.get(step.name, "") if step.done else "", style="dim")
        table.add_row(sign, step.name, Text(step.state), seconds)
    return table


def status_panel(status: Status) -> RenderableType:
    """The status as a small table."""
    pools = Table.grid(padding=(0, 2))
    for _ in range(3):
        pools.add_column(no_wrap=True)
    pools.add_column(overflow="fold")
    for pool in status.pools:
        load = f"{pool.running} running, {pool.waiting} waiting"
        said = [Text(pool.why, style="dim")] if pool.why else []
        said += [Text(pool.trouble, style="red")] if pool.trouble else []
        pools.add_row(pool.name, _replicas(pool), load, Text("\n").join(said))
    totals = status.totals
    numbers = Table.grid(padding=(0, 2))
    for _ in range(5):
        numbers.add_column(justify="right", no_wrap=True)
    failed = f"{totals.failed} failed" if totals.failed else ""
    entries = "" if status.cached_answers is None else f"{status.cached_answers:,} answers kept"
    numbers.add_row(
        "requests", f"{totals.requests:,}", f"{status.requests_per_second:.1f}/s", failed
    )
    numbers.add_row("tokens", f"{totals.output_tokens:,}", f"{status.tokens_per_second:.0f}/s")
    numbers.add_row("from the cache", f"{totals.from_cache:,}", _part(totals), entries)
    sums = totals.money
    saved = share(sums.saved, sums.baseline)
    numbers.add_row("saved", money(sums.saved), saved, f"paid {money(sums.spent)}")
    notes = [Text(note, style="yellow") for note in status.notes]
    return Group(Text(), pools, Text(), numbers, *notes)


def status_line(status: Status) -> str:
    """The status in one line; without rates, so that it changes only when something happened."""
    totals = status.totals
    pools = ", ".join(
        f"{pool.name} {_replicas(pool).plain}{_wanted(pool)}"
        + (f" ({_timeless(pool.trouble)})" if pool.trouble else "")
        for pool in status.pools
    )
    sums = (
        pools,
        f"{totals.requests:,} requests",
        f"{totals.output_tokens:,} tokens",
        f"{totals.from_cache:,} from the cache",
        f"saved {money(totals.money.saved)}",
    )
    return " · ".join((*sums, *status.notes))


def _wanted(pool: PoolStatus) -> str:
    """Where other than as many as are wanted are ready: that it changes, and why."""
    ready = dict(pool.states).get("ready", 0)
    return f" of {pool.desired}: {pool.why}" if pool.why and ready != pool.desired else ""


def _timeless(state: str) -> str:
    """Without the seconds that pass until a next try: a line is for what happened."""
    return _NEXT_TRY.sub("", state)


def _replicas(pool: PoolStatus) -> Text:
    found = [(f"{count} {state}", STYLES.get(state, "")) for state, count in pool.states]
    text = Text(", ").join(Text(words, style=style) for words, style in found)
    return text if found else Text("no replicas", style="" if pool.desired == 0 else "red")


def _part(totals: Totals) -> str:
    return f"{totals.from_cache / totals.requests:.0%}" if totals.requests else ""
