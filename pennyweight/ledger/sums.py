"""Adds a ledger up, by what its requests have in common."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from enum import StrEnum

from pennyweight.ledger.money import Money
from pennyweight.ledger.reader import Ledger

# What ran for evidence stands in the request's attempts since schema 2, before in the pair of its
# request. A pair whose request is not in these files still cost what it cost; an outcome says
# nothing without its request.
SUMS = """
    WITH requests AS (
        SELECT request_id, tenant, route, tier, time, cache IN ('exact', 'shared') AS cached,
            prompt_tokens, output_tokens, micro_usd, baseline_micro_usd,
            coalesce(list_sum([one.micro_usd FOR one IN attempts IF one.cause = 'evidence']), 0)
                AS evidence
        FROM lines WHERE kind = 'request' AND handle IS NOT NULL
    ), pairs AS (
        SELECT request_id AS id, any_value(tenant) AS tenant, any_value(route) AS route,
            any_value(answered) AS tier, min(time) AS time, sum(shadow_micro_usd) AS shadow
        FROM lines WHERE schema < 2 AND shadow_micro_usd IS NOT NULL GROUP BY ALL
    ), outcomes AS (
        SELECT request_id AS id, resolved, rating FROM lines WHERE kind = 'outcome'
        QUALIFY row_number() OVER (PARTITION BY request_id ORDER BY time) = 1
    ), parts AS (
        SELECT {request} AS name, 1 AS requests, cached, prompt_tokens, output_tokens,
            micro_usd - evidence AS paid, evidence AS shadow, baseline_micro_usd AS baseline,
            resolved, rating,
            CASE WHEN resolved IS NOT NULL THEN micro_usd + coalesce(pairs.shadow, 0) END
                AS known_cost
        FROM requests LEFT JOIN outcomes ON outcomes.id = requests.request_id
            LEFT JOIN pairs ON pairs.id = requests.request_id
        UNION ALL BY NAME
        SELECT coalesce({request}, {pair}) AS name, pairs.shadow
        FROM pairs LEFT JOIN requests ON pairs.id = requests.request_id
    )
    SELECT coalesce(name, '') AS name, coalesce(sum(requests), 0)::HUGEINT,
        count(*) FILTER (cached),
        coalesce(sum(prompt_tokens), 0)::HUGEINT, coalesce(sum(output_tokens), 0)::HUGEINT,
        coalesce(sum(paid), 0)::HUGEINT AS paid, coalesce(sum(shadow), 0)::HUGEINT,
        coalesce(sum(baseline), 0)::HUGEINT,
        count(resolved), count(*) FILTER (resolved), coalesce(sum(known_cost), 0)::HUGEINT,
        count(rating), coalesce(sum(rating), 0.0)::DOUBLE
    FROM parts GROUP BY name ORDER BY {order}
"""


class By(StrEnum):
    """What requests have in common. DAY is that on which they ended, in UTC."""

    ROUTE = "route"
    TIER = "tier"
    TENANT = "tenant"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class Sums:
    """What the requests of one name add up to; money is micro-USD.

    Attributes:
        name: of the route, tier, tenant or day; empty where it is unknown.
        requests: that ended, well or not.
        cached: of them answered from the cache.
        paid: for them, what ran for evidence apart.
        shadow: paid for what ran for evidence alone.
        baseline: what the top tier without a cache would have cost.
        known: requests of which somebody said whether they were resolved.
        resolved: of those, the resolved ones.
        known_cost: paid for `known`, evidence included.
        rated: requests that somebody rated.
        ratings: their sum.
    """

    name: str
    requests: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    paid: int = 0
    shadow: int = 0
    baseline: int = 0
    known: int = 0
    resolved: int = 0
    known_cost: int = 0
    rated: int = 0
    ratings: float = 0.0

    @property
    def saved(self) -> int:
        """What the top tier without a cache would have cost more."""
        return Money(self.paid, self.shadow, self.baseline).saved


def add_up(ledger: Ledger, by: By) -> list[Sums]:
    """The sums of each name: dearest first, days as they came."""
    request, pair = f"requests.{by.value}", f"pairs.{by.value}"
    if by is By.DAY:
        request, pair = (f"strftime({table}.time, '%Y-%m-%d')" for table in ("requests", "pairs"))
    order = "name" if by is By.DAY else "paid DESC, name"
    rows = ledger.base.execute(SUMS.format(request=request, pair=pair, order=order)).fetchall()
    return [Sums(*row) for row in rows]


def total(rows: Sequence[Sums]) -> Sums:
    """All of them together."""
    columns = zip(*(astuple(row)[1:] for row in rows), strict=True)
    return Sums("all", *(sum(column) for column in columns))
