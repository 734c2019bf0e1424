"""Reads paired evidence from a labelled file; docs/routing.md has its format, with an example.

It is JSONL of pairs as the ledger has them, or a CSV with a column for each value. What is written
in it is never lost in silence: a column or a certainty that means nothing is refused.
"""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pennyweight.ledger.schema import PairRecord
from services.router.calibrate.evidence import BadEvidence, Found, usable

PARTS = ("mean", "minimum", "first_k")
OF_A_TIER = (
    *("quality", "certainty", "probability", *PARTS, "micro_usd", "engine_ms", "answer", "valid"),
    *("model", "precision", "version"),
)
"""What a CSV's columns say of a tier, behind its name and a dot."""

OF_A_PAIR = frozenset({"text", "task_type", *(field.name for field in fields(PairRecord))})
"""What may be said of a question; some of it is read from the ledger alone."""

TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")


class _Wrong(ValueError):
    """Something in a line that would be lost; the message says what."""


def from_labelled(
    path: Path,
    ladder: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
    *,
    lowest: float | None = None,
) -> Found:
    """Every pair of a labelled JSONL or CSV file.

    Args:
        path: of the file.
        ladder: names of the route's tiers, cheapest first; without any, the file's.
        names: what a tier of the route is called in the file, where that is not its own name.
        lowest: declared lowest propensity, see `evidence.usable`.

    Raises:
        BadEvidence: it cannot be read, holds nothing, or something in it would be lost.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = _csv_rows(path, file) if path.suffix.lower() == ".csv" else _lines(path, file)
            pairs = [(number, pair) for number, pair in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadEvidence(f"--labelled: {path} cannot be read: {error}") from error
    if not pairs:
        raise BadEvidence(f"--labelled: {path} holds no pairs")
    kinds: set[str] = set()
    for number, pair in pairs:
        try:
            kinds |= _read_certainties(pair)
        except _Wrong as error:
            raise BadEvidence(f"--labelled: {path}, line {number}: {error}") from error
    if len(kinds) > 1:
        raise BadEvidence(
            f"--labelled: {path}: some answers have one number of certainty, some three"
        )
    found = [pair for _, pair in pairs]
    _rename(path, found, ladder, names or {})
    keys = dict.fromkeys(key for pair in found for key in pair)
    return replace(
        usable(found, ladder, lowest=lowest),
        one_number="one" in kinds,
        not_read=tuple(key for key in keys if key not in OF_A_PAIR),
    )


def _rename(
    path: Path, pairs: Sequence[dict[str, Any]], ladder: Sequence[str], names: Mapping[str, str]
) -> None:
    """Gives the tiers of a file the names that the route has for them."""
    tiers = [tier for pair in pairs for tier in _tiers(pair)]
    there = list(dict.fromkeys(name for tier in tiers if isinstance(name := tier.get("tier"), str)))
    wanted = {name: names.get(name, name) for name in (*ladder, *names)}
    missing = [theirs for theirs in wanted.values() if theirs not in there]
    if missing and there:
        example = ",".join(f"{ours}={theirs}" for ours, theirs in zip(ladder, there, strict=False))
        hint = f": say --tiers {example}" if example and not names else ""
        raise BadEvidence(
            f"--tiers: {path} has no tier {missing[0]}; it has {', '.join(there)}{hint}"
        )
    ours = {theirs: name for name, theirs in wanted.items()}
    for tier in tiers:
        if isinstance(theirs := tier.get("tier"), str):
            # One that is not wanted must not pass for one that is.
            other = f"{theirs} of the file" if theirs in wanted else theirs
            tier["tier"] = ours.get(theirs, other)


def _lines(path: Path, file: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            pair = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadEvidence(f"--labelled: {path}, line {number}: no JSON: {error}") from error
        if not isinstance(pair, dict):
            raise BadEvidence(f"--labelled: {path}, line {number}: must be a JSON object")
        yield number, pair


def _csv_rows(path: Path, file: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(file)
    columns = [column for column in reader.fieldnames or () if column]
    names = [name for name, _, part in map(_parted, columns) if part == "quality"]
    for column in columns:
        name, dot, part = _parted(column)
        if dot and name in names and part not in OF_A_TIER:
            raise BadEvidence(
                f"--labelled: {path}: unknown column {column}; of {name} there may be "
                + ", ".join(OF_A_TIER)
            )
        if dot and name not in names and part in OF_A_TIER:
            raise BadEvidence(f"--labelled: {path}: column {column} without {name}.quality")
    for row in reader:
        given = {key: value for key, value in row.items() if isinstance(value, str) and value}
        if None in row:
            raise BadEvidence(
                f"--labelled: {path}, line {reader.line_num}: more values than columns"
            )
        tiers = [_csv_tier(name, given) for name in names]
        plain = {key: value for key, value in given.items() if _parted(key)[0] not in names}
        yield reader.line_num, {**plain, "tiers": tiers}


def _csv_tier(name: str, given: Mapping[str, str]) -> dict[str, Any]:
    tier: dict[str, Any] = {"tier": name}
    for part in OF_A_TIER:
        if (value := given.get(f"{name}.{part}")) is not None:
            tier[part] = value
    three = {part: tier.pop(part) for part in PARTS if part in tier}
    if three:
        tier["certainty"] = {**({"one": tier["certainty"]} if "certainty" in tier else {}), **three}
    if (valid := tier.get("valid")) is not None:
        tier["valid"] = _truth(valid)
    return tier


def _truth(text: str) -> bool | str:
    word = text.strip().lower()
    return True if word in TRUE else False if word in FALSE else text


def _parted(column: str) -> tuple[str, str, str]:
    """A column's tier, dot and part; tiers may have dots in their names."""
    return column.rpartition(".")


def _tiers(pair: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    tiers = pair.get("tiers")
    for tier in tiers if isinstance(tiers, list) else ():
        if isinstance(tier, dict):
            yield tier


def _read_certainties(pair: Mapping[str, Any]) -> set[str]:
    """Puts each tier's certainty in the ledger's words; says which words the line had."""
    kinds = set()
    for tier in _tiers(pair):
        given, probability = tier.get("certainty"), tier.pop("probability", None)
        if not isinstance(tier.get("valid"), bool | None):
            raise _Wrong(f"{tier.get('tier')}.valid must be true or false, got {tier['valid']!r}")
        if given is None and probability is None:
            continue
        if given is not None and probability is not None:
            raise _Wrong(f"{tier.get('tier')} has both a certainty and a probability")
        kinds.add("three" if isinstance(given, dict) else "one")
        tier["certainty"] = _certainty(str(tier.get("tier")), given, probability)
    return kinds


def _certainty(tier: str, given: Any, probability: Any) -> dict[str, float] | None:
    """None where it is unknown, or as uncertain as can be: such an answer never stands by it."""
    if probability is not None:
        value = _float(f"{tier}.probability", probability)
        if not (math.isnan(value) or 0.0 <= value <= 1.0):
            raise _Wrong(f"{tier}.probability must be in [0, 1], got {value:g}")
        numbers = [math.log(value) if value > 0.0 else -math.inf] * len(PARTS)
    elif isinstance(given, dict):
        if set(given) != set(PARTS):
            raise _Wrong(
                f"{tier}: a certainty is mean, minimum and first_k together, or one number as "
                f"certainty or probability; got {', '.join(map(str, given)) or 'nothing'}"
            )
        numbers = [_log_prob(f"{tier}.{part}", given[part]) for part in PARTS]
    else:
        numbers = [_log_prob(f"{tier}.certainty", given)] * len(PARTS)
    if not all(map(math.isfinite, numbers)):
        return None
    return dict(zip(PARTS, numbers, strict=True))


def _log_prob(name: str, value: Any) -> float:
    number = _float(name, value)
    if number > 0.0:
        raise _Wrong(
            f"{name} must be a log-probability, at most 0, got {number:g}; a probability is named "
            "so: probability"
        )
    return number


def _float(name: str, value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError  # noqa: TRY301 -- true is no number
        return float(value)
    except (TypeError, ValueError) as error:
        raise _Wrong(f"{name} must be a number, got {value!r}") from error
