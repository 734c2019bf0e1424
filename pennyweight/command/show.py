"""How things read on a screen: money, time, the one line about an answer."""

import os
import sys

from rich.console import Console
from rich.text import Text

from pennyweight.answers import Decision, Finished

PIPED_WIDTH = 140
"""Columns of tables that no terminal shows."""

_MICRO_USD, _MICRO_USD_OF_A_CENT = 1_000_000, 10_000

# Answers come from a model: nothing in them may steer the terminal.
_STEERING = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def console(*, stderr: bool = False) -> Console:
    """A console; wide enough for tables where the output is piped."""
    stream = sys.stderr if stderr else sys.stdout
    piped = not stream.isatty() and "COLUMNS" not in os.environ
    return Console(stderr=stderr, highlight=False, width=PIPED_WIDTH if piped else None)


def money(micro_usd: int) -> str:
    """Micro-dollars below a cent, dollars above."""
    if abs(micro_usd) < _MICRO_USD_OF_A_CENT:
        return f"{micro_usd:,} µ$"
    digits = 4 if abs(micro_usd) < _MICRO_USD else 2
    return f"${micro_usd / _MICRO_USD:,.{digits}f}"


def milliseconds(seconds: float | None) -> str:
    """Milliseconds; a dash where there is nothing to tell."""
    if seconds is None:
        return "-"
    value = seconds * 1000
    return f"{value:,.1f} ms" if value < 100 else f"{value:,.0f} ms"  # noqa: PLR2004


def words(name: str) -> str:
    """An enum's name as words: ``fixed_tier`` is ``fixed tier``."""
    return name.replace("_", " ")


def plain(text: str) -> str:
    """Text without what could steer a terminal; lines and tabs stay."""
    return text.translate(_STEERING)


def share(saved: int, baseline: int) -> str:
    """What part of the baseline was saved."""
    return f"{saved / baseline:.0%}" if baseline else "-"


def summary_line(summary: Finished) -> Text:
    """Tier, why, cache, tokens, time, money: one answer in one line."""
    decision, usage, cost = summary.decision, summary.usage, summary.cost
    parts = [
        f"{decision.tier} ({decision.precision})",
        words(decision.reason),
        f"cache {words(decision.cache)}",
        f"{usage.prompt_tokens} + {usage.output_tokens} tokens",
        f"engine {milliseconds(summary.timings.engine_seconds)}",
        f"total {milliseconds(summary.timings.total_seconds)}",
        f"{money(cost.micro_usd)}, saved {money(cost.saved_micro_usd)}",
    ]
    if summary.finish_reason == "length":
        parts.append("cut at the token limit")
    return Text(" · ".join(parts), style="dim")


def decision_lines(decision: Decision) -> Text:
    """A decision in sentences."""
    where = f"replica {decision.replica}" if decision.replica else "no replica"
    stale = " The fleet is the last known one." if decision.fleet_stale else ""
    details = (
        f"route {decision.route} · tier {decision.tier} · model {decision.model} "
        f"{decision.precision} · {where} · cache {words(decision.cache)} · "
        f"policy {decision.policy_version}"
    )
    return Text.assemble((f"{decision.explanation}{stale}\n", "bold"), (details, "dim"))
