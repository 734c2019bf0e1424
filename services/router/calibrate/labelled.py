"""Reads paired evidence from a labelled file.

It is JSONL of pairs as the ledger has them, or a CSV. Lines of JSONL need `features` and `tiers`
(of each `tier`, `quality` and what it cost) alone; `text` (and `task_type`) may stand for
`features`, `propensity` may be left out. A CSV has `text`, `task_type`, `propensity` and, for each
tier, `<tier>.quality`, `<tier>.mean`, `<tier>.minimum`, `<tier>.first_k`, `<tier>.micro_usd`,
`<tier>.engine_ms`, `<tier>.answer`. With the answers' texts, the level that the guardrail starts
from is that of the judge that will watch the route.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from services.router.calibrate.evidence import BadEvidence, Found, usable


def from_labelled(path: Path, ladder: Sequence[str] = ()) -> Found:
    """Every pair of a labelled JSONL or CSV file.

    Raises:
        BadEvidence: it cannot be read, or holds nothing.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            pairs = list(_csv_rows(file) if path.suffix.lower() == ".csv" else _lines(path, file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadEvidence(f"--labelled: {path} cannot be read: {error}") from error
    if not pairs:
        raise BadEvidence(f"--labelled: {path} holds no pairs")
    return usable(pairs, ladder)


def _lines(path: Path, file: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            pair = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadEvidence(f"--labelled: {path}, line {number}: no JSON: {error}") from error
        if not isinstance(pair, dict):
            raise BadEvidence(f"--labelled: {path}, line {number}: must be a JSON object")
        yield pair


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
