"""Reads paired evidence from the ledger's files, through DuckDB; `labelled` reads other files.

In the ledger a pair is a record of kind `pair`, as `pennyweight.ledger.schema` has it. Rarely
drawn pairs weigh more, against the lowest propensity that is declared, unless `uniform` says that
`propensity` depended on the time alone: then each weighs the same, as traffic is taken to be alike
over the whole of the evidence. A pair that no judge has judged is judged by the first record of
kind `outcome` with its `request_id`, if there is one, with the help of `answered`, the tier whose
answer the caller got, and `digests` of what each tier answered; see `outcomes`. What cannot be used
is left out and counted by reason, lines and files that cannot be read among it.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pennyweight.ledger.lines import FILES
from pennyweight.ledger.reader import LedgerError, NoLedger, opened
from services.router.calibrate.outcomes import first_of_each, judged
from services.router.policy.certainty import Certainty
from services.router.policy.difficulty import FEATURES, Signals, SparseFeatures, features
from services.router.policy.judging import normalised
from services.router.routes.artefact import Model


class BadEvidence(ValueError):
    """Evidence that cannot be read at all; the message says where and why."""


@dataclass(frozen=True, slots=True)
class TierResult:
    """What one tier made of a request.

    Attributes:
        model: what it served.
        quality: of its answer, in [0, 1].
        certainty: None where unknown.
        micro_usd: money.
        engine_ms: engine time.
        valid: its answer had the wanted form.
        answer: its text, where a labelled file has it.
    """

    model: Model
    quality: float
    certainty: Certainty | None
    micro_usd: float
    engine_ms: float
    valid: bool = True
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One request that every tier of the ladder answered.

    Attributes:
        request_id: names it.
        time: when, RFC 3339; empty where it is not known.
        features: of its prompt and signals.
        propensity: probability with which it was drawn as evidence, in (0, 1].
        tiers: what each made of it, cheapest first.
        question: names what was asked, the same for whoever asks it; empty where the evidence does
            not tell.
        asked: how many requests it stands for; see `questions`.
        draws: independent draws of traffic among them.
        once: it counts where each question counts once.
    """

    request_id: str
    time: str
    features: SparseFeatures
    propensity: float
    tiers: tuple[TierResult, ...]
    question: str = ""
    asked: float = 1.0
    draws: int = 1
    once: bool = True


@dataclass(frozen=True)
class Found:
    """The evidence of one route.

    Attributes:
        records: usable ones of the ladder, oldest first.
        ladder: their models, cheapest first.
        left_out: how many could not be used, by reason.
        one_number: certainties are one number an answer, which stands for each measure.
        not_read: columns or keys of a labelled file that mean nothing here.
    """

    records: tuple[Record, ...]
    ladder: tuple[Model, ...]
    left_out: Mapping[str, int]
    one_number: bool = False
    not_read: tuple[str, ...] = ()


class _Unusable(ValueError):
    """A record cannot be used; the message is the reason it is counted under."""


def from_ledger(
    folder: Path,
    route: str,
    ladder: Sequence[str] = (),
    first_k: int | None = None,
    *,
    lowest: float | None = None,
) -> Found:
    """Every pair of a route in a ledger folder.

    Args:
        folder: with the ledger's `*.jsonl` files.
        route: whose pairs are wanted.
        ladder: names of its tiers, cheapest first; without it, those of the youngest pair.
        first_k: pairs whose certainty looked at another number of first tokens are left out.
        lowest: declared lowest propensity, see `usable`.

    Raises:
        BadEvidence: there is no such folder, it cannot be read, no pair of the route is in it, or
            propensities do not fit the lowest.
    """
    try:
        with opened(folder) as ledger:
            records = ledger.records(route, ("pair", "outcome"))
            unreadable = ledger.unreadable
    except NoLedger as error:
        raise BadEvidence(f"--ledger: {folder} holds no {FILES} files") from error
    except LedgerError as error:
        raise BadEvidence(f"--ledger: {error} {error.hint}") from error
    outcomes = first_of_each(record for record in records if record["kind"] == "outcome")
    pairs = [judged(record, outcomes) for record in records if record["kind"] == "pair"]
    if not pairs:
        notes = " ".join(("", *unreadable.notes()))
        raise BadEvidence(f"--ledger: {folder} holds no pairs of route {route}.{notes}")
    found = usable(pairs, ladder, first_k, lowest=lowest)
    return replace(found, left_out={**found.left_out, **unreadable.counts()})


def usable(
    pairs: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    first_k: int | None = None,
    *,
    lowest: float | None = None,
) -> Found:
    """What of some pairs can be used.

    Args:
        pairs: as the ledger has them, in any order.
        names: of the wanted tiers, cheapest first; without any, those of the youngest pair.
        first_k: pairs whose certainty looked at another number of first tokens are left out.
        lowest: propensity with which any request was drawn, also such as no pair shows; None where
            all were drawn alike.

    Raises:
        BadEvidence: propensities differ and the lowest is not declared, or one is below it.
    """
    left_out: Counter[str] = Counter()
    records = _of_ladder(_read(pairs, first_k, left_out), names, left_out)
    _check_propensities([record.propensity for record in records], lowest)
    return Found(
        records=tuple(records),
        ladder=_models(records[-1]) if records else (),
        left_out=dict(+left_out),
    )


def _check_propensities(propensities: Sequence[float], lowest: float | None) -> None:
    least, most = min(propensities, default=1.0), max(propensities, default=1.0)
    if lowest is None and least < most:
        raise BadEvidence(
            f"--lowest-propensity: pairs were drawn with propensities from {least:g} to {most:g}: "
            "say the lowest with which any request was drawn, also such as no pair shows"
        )
    if lowest is not None and least < lowest:
        raise BadEvidence(
            f"--lowest-propensity: a pair was drawn with a lower one, {least:g}, got {lowest:g}"
        )


def _read(
    pairs: Sequence[Mapping[str, Any]], first_k: int | None, left_out: Counter[str]
) -> list[Record]:
    """What can be read of some pairs, oldest first, each request once."""
    numbered = [
        (number, pair)
        for number, pair in enumerate(pairs)
        if first_k is None or pair.get("first_k", first_k) == first_k
    ]
    left_out["another number of first tokens"] += len(pairs) - len(numbered)
    records: list[Record] = []
    for number, pair in numbered:
        try:
            records.append(_record(pair, number))
        except _Unusable as reason:
            left_out[str(reason)] += 1
    known: dict[str, Record] = {}
    for record in records:
        known.setdefault(record.request_id, record)
    left_out["the same request twice"] += len(records) - len(known)
    return sorted(known.values(), key=lambda record: record.time)


def _of_ladder(
    records: Sequence[Record], names: Sequence[str], left_out: Counter[str]
) -> list[Record]:
    """Those with all the tiers, where they served what they do in the youngest of those."""
    if not records:
        return []
    wanted = tuple(names) or tuple(model.tier for model in _models(records[-1]))
    complete: list[Record] = []
    for record in records:
        by_name = {tier.model.tier: tier for tier in record.tiers}
        if by_name.keys() >= set(wanted):
            complete.append(replace(record, tiers=tuple(by_name[name] for name in wanted)))
    left_out["not every tier of the ladder answered"] += len(records) - len(complete)
    kept = [record for record in complete if _models(record) == _models(complete[-1])]
    left_out["another model or precision answered"] += len(complete) - len(kept)
    return kept


def _models(record: Record) -> tuple[Model, ...]:
    return tuple(tier.model for tier in record.tiers)


def _record(pair: Mapping[str, Any], number: int) -> Record:
    tiers = pair.get("tiers")
    if not isinstance(tiers, list) or len(tiers) < 2:  # noqa: PLR2004 -- a pair
        raise _Unusable("fewer than two tiers")
    propensity = _number(pair.get("propensity", 1.0), "propensity")
    if not 0.0 < propensity <= 1.0:
        raise _Unusable("propensity not in (0, 1]")
    if pair.get("uniform") is True:
        propensity = 1.0
    return Record(
        request_id=str(pair.get("request_id") or f"line {number + 1}"),
        time=str(pair.get("time") or ""),
        features=_features(pair),
        propensity=propensity,
        tiers=tuple(_tier(tier) for tier in tiers),
        question=_question(pair),
    )


def _question(pair: Mapping[str, Any]) -> str:
    given, text = pair.get("question"), pair.get("text")
    if isinstance(given, str) and given:
        return given
    if not isinstance(text, str):
        return ""
    # The same for spellings that count as the same.
    return hashlib.blake2b(normalised(text).encode(errors="surrogatepass")).hexdigest()


def _features(pair: Mapping[str, Any]) -> SparseFeatures:
    given = pair.get("features")
    if given is None:
        text, task_type = pair.get("text"), pair.get("task_type")
        if not isinstance(text, str):
            raise _Unusable("neither features nor text")
        return features(text, Signals(task_type=task_type if isinstance(task_type, str) else None))
    try:
        found = {int(index): float(value) for index, value in given}
    except (TypeError, ValueError, OverflowError) as error:
        raise _Unusable("features that are no numbers") from error
    if not all(0 <= at < FEATURES and math.isfinite(value) for at, value in found.items()):
        raise _Unusable("features out of range")
    return tuple(found.items())


def _tier(tier: Any) -> TierResult:
    if not isinstance(tier, dict) or not isinstance(tier.get("tier"), str):
        raise _Unusable("a tier without a name")
    if tier.get("quality") is None:
        raise _Unusable("not judged")
    quality = _number(tier["quality"], "quality")
    if not 0.0 <= quality <= 1.0:
        raise _Unusable("quality not in [0, 1]")
    micro_usd = _number(tier.get("micro_usd") or 0.0, "micro_usd")
    engine_ms = _number(tier.get("engine_ms") or 0.0, "engine_ms")
    if min(micro_usd, engine_ms) < 0.0:
        raise _Unusable("negative cost")
    names = [str(tier.get(key) or "") for key in ("tier", "model", "precision", "version")]
    return TierResult(
        model=Model(*names),
        quality=quality,
        certainty=_certainty(tier.get("certainty")),
        micro_usd=micro_usd,
        engine_ms=engine_ms,
        valid=tier.get("valid") is not False,
        answer=answer if isinstance(answer := tier.get("answer"), str) else None,
    )


def _certainty(given: Any) -> Certainty | None:
    if not isinstance(given, dict):
        return None
    try:
        numbers = [float(given[key]) for key in ("mean", "minimum", "first_k")]
    except (KeyError, TypeError, ValueError) as error:
        raise _Unusable("certainty is no number") from error
    # A token of no probability at all is for routers no certainty either: its answer never stands
    # by it, but counts, and it is often the worst.
    if not all(map(math.isfinite, numbers)):
        return None
    # All zero may be as sure as can be, or what an engine fills in that does not know: routers find
    # out which, and then write null. Taken for sure, it is certified with what it loses; taken for
    # unknown, answers that routers let stand would be in no certificate.
    return Certainty(*numbers) if max(numbers) <= 0.0 else None


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise _Unusable(f"{name} is no number") from error
    if not math.isfinite(number):
        raise _Unusable(f"{name} is not finite")
    return number
