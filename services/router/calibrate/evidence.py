"""Reads paired evidence: from the ledger's files through DuckDB, or from a labelled file.

In the ledger a pair is a record of kind `pair`, as `pennyweight.ledger.schema` has it. Rarely
drawn pairs weigh more, unless `uniform` says that `propensity` depended on the time alone: then
each weighs the same, as traffic is taken to be alike over the whole of the evidence. A pair that no
judge has judged is judged by the first record of kind `outcome` with its `request_id`, if there is
one, with the help of `answered`, the tier whose answer the caller got, and `digests` of what each
tier answered; see `outcomes`. What cannot be used is left out and counted by reason, lines and
files that cannot be read among it.

A labelled file is JSONL of such records, in which `text` (and `task_type`) may stand for
`features` and `propensity` may be left out, or a CSV with `text`, `task_type`, `propensity` and,
for each tier, `<tier>.quality`, `<tier>.mean`, `<tier>.minimum`, `<tier>.first_k`,
`<tier>.micro_usd`, `<tier>.engine_ms`, `<tier>.answer`. With the answers' texts the guardrail's
level can be told in the terms of the judge that will watch the route.
"""

import csv
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pennyweight.ledger.reader import FILES, LedgerError, NoLedger, opened
from services.router.calibrate.outcomes import first_of_each, judged
from services.router.policy.certainty import Certainty
from services.router.policy.difficulty import FEATURES, Signals, SparseFeatures, features
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
        answer: its text, where a labelled file tells it.
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
    """One request that every tier of the ladder answered, cheapest first."""

    request_id: str
    time: str
    told: SparseFeatures
    propensity: float
    tiers: tuple[TierResult, ...]


@dataclass(frozen=True)
class Found:
    """The evidence of one route.

    Attributes:
        records: usable ones of the ladder, oldest first.
        ladder: their models, cheapest first.
        left_out: how many could not be used, by reason.
    """

    records: tuple[Record, ...]
    ladder: tuple[Model, ...]
    left_out: Mapping[str, int]


class _Unusable(ValueError):
    """A record cannot be used; the message is the reason it is counted under."""


def from_ledger(
    folder: Path, route: str, ladder: Sequence[str] = (), first_k: int | None = None
) -> Found:
    """Every pair of a route in a ledger folder.

    Args:
        folder: with the ledger's `*.jsonl` files.
        route: whose pairs are wanted.
        ladder: names of its tiers, cheapest first; without it, those of the youngest pair.
        first_k: pairs whose certainty looked at another number of first tokens are left out.

    Raises:
        BadEvidence: there is no such folder, it cannot be read, or no pair of the route is in it.
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
    found = _found(pairs, ladder, first_k)
    return replace(found, left_out={**found.left_out, **unreadable.counts()})


def from_labelled(path: Path, ladder: Sequence[str] = ()) -> Found:
    """Every pair of a labelled JSONL or CSV file.

    Raises:
        BadEvidence: it cannot be read, or holds nothing.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            told = list(_csv_rows(file) if path.suffix.lower() == ".csv" else _lines(path, file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadEvidence(f"--labelled: {path} cannot be read: {error}") from error
    if not told:
        raise BadEvidence(f"--labelled: {path} holds no pairs")
    return _found(told, ladder)


def _lines(path: Path, file: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            told = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadEvidence(f"--labelled: {path}, line {number}: no JSON: {error}") from error
        if not isinstance(told, dict):
            raise BadEvidence(f"--labelled: {path}, line {number}: must be a JSON object")
        yield told


def _csv_rows(file: Iterable[str]) -> Iterator[dict[str, Any]]:
    reader = csv.DictReader(file)
    names = [
        field.removesuffix(".quality")
        for field in reader.fieldnames or ()
        if field.endswith(".quality")
    ]
    for row in reader:
        given = {key: value for key, value in row.items() if isinstance(value, str) and value}
        tiers = []
        for name in names:
            certainty = {key: given.get(f"{name}.{key}") for key in ("mean", "minimum", "first_k")}
            known = all(value is not None for value in certainty.values())
            tiers.append(
                {
                    "tier": name,
                    "quality": given.get(f"{name}.quality"),
                    "certainty": certainty if known else None,
                    "micro_usd": given.get(f"{name}.micro_usd", 0.0),
                    "engine_ms": given.get(f"{name}.engine_ms", 0.0),
                    "answer": given.get(f"{name}.answer"),
                }
            )
        yield {**given, "tiers": tiers}


def _found(
    told: Sequence[Mapping[str, Any]], names: Sequence[str], first_k: int | None = None
) -> Found:
    left_out: Counter[str] = Counter()
    usable: dict[str, Record] = {}
    for number, one in enumerate(told):
        if first_k is not None and one.get("first_k", first_k) != first_k:
            left_out["another number of first tokens"] += 1
            continue
        try:
            record = _record(one, number)
        except _Unusable as reason:
            left_out[str(reason)] += 1
            continue
        if usable.setdefault(record.request_id, record) is not record:
            left_out["the same request twice"] += 1
    ordered = sorted(usable.values(), key=lambda record: record.time)
    if not ordered:
        return Found((), (), left_out)
    wanted = tuple(names) or tuple(one.model.tier for one in ordered[-1].tiers)
    kept: list[Record] = []
    for record in reversed(ordered):
        by_name = {one.model.tier: one for one in record.tiers}
        if not all(name in by_name for name in wanted):
            left_out["not every tier of the ladder answered"] += 1
            continue
        tiers = tuple(by_name[name] for name in wanted)
        if kept and [one.model for one in tiers] != [one.model for one in kept[0].tiers]:
            left_out["another model or precision answered"] += 1
            continue
        kept.append(Record(record.request_id, record.time, record.told, record.propensity, tiers))
    kept.reverse()
    return Found(
        records=tuple(kept),
        ladder=tuple(one.model for one in kept[-1].tiers) if kept else (),
        left_out=dict(left_out),
    )


def _record(told: Mapping[str, Any], number: int) -> Record:
    tiers = told.get("tiers")
    if not isinstance(tiers, list) or len(tiers) < 2:  # noqa: PLR2004 -- a pair
        raise _Unusable("fewer than two tiers")
    propensity = _number(told.get("propensity", 1.0), "propensity")
    if not 0.0 < propensity <= 1.0:
        raise _Unusable("propensity not in (0, 1]")
    if told.get("uniform") is True:
        propensity = 1.0
    return Record(
        request_id=str(told.get("request_id") or f"line {number + 1}"),
        time=str(told.get("time") or ""),
        told=_features(told),
        propensity=propensity,
        tiers=tuple(_tier(one) for one in tiers),
    )


def _features(told: Mapping[str, Any]) -> SparseFeatures:
    given = told.get("features")
    if given is None:
        text, task_type = told.get("text"), told.get("task_type")
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


def _tier(told: Any) -> TierResult:
    if not isinstance(told, dict) or not isinstance(told.get("tier"), str):
        raise _Unusable("a tier without a name")
    if told.get("quality") is None:
        raise _Unusable("not judged")
    quality = _number(told["quality"], "quality")
    if not 0.0 <= quality <= 1.0:
        raise _Unusable("quality not in [0, 1]")
    micro_usd = _number(told.get("micro_usd") or 0.0, "micro_usd")
    engine_ms = _number(told.get("engine_ms") or 0.0, "engine_ms")
    if min(micro_usd, engine_ms) < 0.0:
        raise _Unusable("negative cost")
    names = [str(told.get(key) or "") for key in ("tier", "model", "precision", "version")]
    return TierResult(
        model=Model(*names),
        quality=quality,
        certainty=_certainty(told.get("certainty")),
        micro_usd=micro_usd,
        engine_ms=engine_ms,
        valid=told.get("valid") is not False,
        answer=answer if isinstance(answer := told.get("answer"), str) else None,
    )


def _certainty(told: Any) -> Certainty | None:
    if not isinstance(told, dict):
        return None
    numbers = [_number(told.get(key), "certainty") for key in ("mean", "minimum", "first_k")]
    # All zero is what engines report that do not know.
    return Certainty(*numbers) if max(numbers) <= 0.0 and min(numbers) < 0.0 else None


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise _Unusable(f"{name} is no number") from error
    if not math.isfinite(number):
        raise _Unusable(f"{name} is not finite")
    return number
