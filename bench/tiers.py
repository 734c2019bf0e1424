"""What a calibrated ladder of the local models saves, and whether its certificates hold.

The small and the large model answer every question of BANKING77's test part, which neither was
trained on. Then 100 times: the questions are split at random into a fit, a certify and a test part;
`services.router.calibrate` calibrates on the first two and is measured on the third. Nothing is
chosen by the test part, nor from split to split. A bound held if the test part's own loss, as
measured, is within the tolerance.

That says little about whether certificates are true; so they are also judged by known truth, at
three tolerances and beside two other rules: see `bench.known_truth`.

Engine time is processor time of the engine with one question in flight, as a share of the large
model's for every question; 5 % of the requests are sampled, and the tiers that they did not run
count too.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench import known_truth, report
from bench.known_truth import Asked, Truth
from bench.ladder import TIERS, Answered, answered
from services.router.calibrate.cascade import EvidenceTable, Floats, outcome, table_of
from services.router.calibrate.evidence import Record, TierResult
from services.router.calibrate.process import Settings, calibrate_parts
from services.router.policy.calibration import Judgement
from services.router.policy.certainty import certainty_of
from services.router.policy.difficulty import Signals, features
from services.router.routes.artefact import Model

Ints = NDArray[np.int64]

DRAWS = 100
FIT, CERTIFY = 0.30, 0.45
"""Shares of the questions; the rest is for the test."""

BOTH = Settings(epsilon=0.02, delta=0.05, shadow_share=0.05, cost="engine_ms", first_k=8)
DIFFICULTY = replace(BOTH, measures=())
CASCADE = replace(BOTH, predict=False)
CALIBRATED = {
    "difficulty and cascade": BOTH,
    "difficulty only": DIFFICULTY,
    "cascade only": CASCADE,
}


@dataclass(frozen=True)
class Shown:
    """One way on one test part.

    Attributes:
        loss: points of accuracy lost against always-large, from 0 to 1.
        kept: share of always-large's accuracy.
        time: share of always-large's engine time.
        certified: thresholds were certified.
        escalated: share of the questions that the large model answered.
    """

    loss: float
    kept: float
    time: float
    certified: bool = True
    escalated: float = 0.0


def run(*, quick: bool, data: Path) -> None:
    """Asks, splits, calibrates and prints."""
    try:
        tiers = answered(data, 400 if quick else None)
    except FileNotFoundError as error:
        report.say(f"tiers: {error}")
        return
    records = _records(tiers)
    splits = 2 if quick else 100
    shown: dict[str, list[Shown]] = {}
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for done, one in enumerate(pool.map(partial(_split, records), range(splits))):
            if done % 10 == 0:
                report.say(f"split {done + 1} of {splits}")
            for name, each in one.items():
                shown.setdefault(name, []).append(each)
        _print(tiers, shown, splits)
        for name, asked in _asked(records).items():
            draws, judged = 2 if quick else DRAWS, defaultdict[tuple[str, float], list[Truth]](list)
            drawn = pool.map(partial(known_truth.drawn, asked), range(draws))
            for done, each_way in enumerate(drawn):
                if done % 10 == 0:
                    report.say(f"{name}: draw {done + 1} of {draws}")
                for key, truth in each_way.items():
                    judged[key].append(truth)
            _print_truth(name, asked, judged)


def _asked(records: Sequence[Record]) -> dict[str, Asked]:
    """The populations that are drawn from, and the tolerances at which they tell something."""
    fit, certify = round(FIT * len(records)), round(CERTIFY * len(records))
    return {
        "the questions": Asked(records, (0.005, 0.01, 0.02), BOTH, fit, certify),
        "harder ones": Asked(known_truth.harder(records), (0.02,), BOTH, fit, certify),
    }


def _records(tiers: Sequence[Sequence[Answered]]) -> list[Record]:
    models = [Model(tier, tier, precision) for tier, precision in TIERS]
    return [
        Record(
            request_id=str(number),
            time="",
            features=features(row[0].question, Signals()),
            propensity=1.0,
            tiers=tuple(
                TierResult(
                    model,
                    float(one.right),
                    certainty_of(one.log_probs, BOTH.first_k),
                    micro_usd=0.0,
                    engine_ms=one.engine_ms,
                )
                for model, one in zip(models, row, strict=True)
            ),
        )
        for number, row in enumerate(zip(*tiers, strict=True))
    ]


def _split(records: Sequence[Record], seed: int) -> dict[str, Shown]:
    order = np.random.default_rng(seed).permutation(len(records))
    first, second = round(FIT * len(order)), round((FIT + CERTIFY) * len(order))
    fit, certify, test = ([records[at] for at in part] for part in np.split(order, (first, second)))
    found: dict[str, Shown] = {}
    for name, settings in CALIBRATED.items():
        result = calibrate_parts(fit, certify, settings)
        judgement = result.judgement
        table = table_of(judgement, test, settings.cost)
        seen = outcome(table, judgement.thresholds, settings.shadow_share)
        certified = result.calibration.certificate.certified
        found[name] = _shown(table, seen.answered, seen.costs, certified=certified)
    plain = table_of(Judgement.safe(len(TIERS)), test, BOTH.cost)
    rows = np.arange(len(test))
    for name, chosen in (
        ("always small", np.zeros(len(test), int)),
        ("always large", np.full(len(test), len(TIERS) - 1)),
        # The cheapest tier that is as good as the best one, known beforehand.
        ("oracle", plain.qualities.argmax(axis=1)),
    ):
        found[name] = _shown(plain, chosen, plain.costs[rows, chosen])
    small, ours = found["always small"], found["difficulty and cascade"]
    # As much time as ours, spent on sending a random share of the questions to the large model.
    share = min(1.0, max(0.0, (ours.time - small.time) / (1.0 - small.time)))
    lost = small.loss * (1.0 - share)
    top = small.loss / (1.0 - small.kept) if small.kept < 1.0 else 1.0
    found["random mix, same time"] = Shown(lost, 1.0 - lost / top, ours.time, escalated=share)
    return found


def _shown(table: EvidenceTable, answered: Ints, costs: Floats, *, certified: bool = True) -> Shown:
    """What it comes to that these tiers answered, at these costs."""
    top = table.qualities[:, -1]
    losses = top - table.qualities[np.arange(len(table)), answered]
    return Shown(
        loss=float(losses.mean()),
        kept=1.0 - float(losses.sum() / top.sum()),
        time=float(costs.sum() / table.costs[:, -1].sum()),
        certified=certified,
        escalated=float((answered == table.lower).mean()),
    )


def _print(tiers: Sequence[Sequence[Answered]], shown: dict[str, list[Shown]], splits: int) -> None:
    epsilon, delta = BOTH.epsilon, BOTH.delta
    rows = []
    for name, many in shown.items():
        held = sum(one.loss <= epsilon for one in many)
        calibrated = name in CALIBRATED
        rows.append(
            (
                name,
                f"{100 * held / splits:.0f} ({_wilson(held, splits)})" if calibrated else "",
                f"{sum(one.certified for one in many)}" if calibrated else "",
                _range([100 * one.kept for one in many]),
                _range([100 * one.time for one in many]),
                _range([100 * one.escalated for one in many]),
            )
        )
    accuracy = ", ".join(
        f"{model} {precision} {np.mean([one.right for one in many]):.1%} right in "
        f"{np.mean([one.engine_ms for one in many]):.1f} ms"
        for (model, precision), many in zip(TIERS, tiers, strict=True)
    )
    report.table(
        f"Ladder of the local models on {len(tiers[0]):,} test questions of BANKING77: {accuracy}",
        ("way", "bound held %", "certified", "accuracy kept %", "engine time %", "large answers %"),
        rows,
        note=(
            f"Source: BANKING77 (CC-BY-4.0). {splits} random splits: {FIT:.0%} fit, {CERTIFY:.0%}"
            f" certify, {1 - FIT - CERTIFY:.0%} test;\ntolerance {100 * epsilon:g} points, wrong"
            f" with probability {delta:g}. Shares of always large's; in brackets 95 %\nof the"
            " splits, for the first column the 95 % interval. Engine time counts 5 % shadow runs."
        ),
    )
    ours = shown["difficulty and cascade"]
    report.figure(
        "tiers.bound_held", 100.0 * sum(one.loss <= epsilon for one in ours) / splits, "%"
    )
    report.figure("tiers.accuracy_kept", 100.0 * float(np.mean([one.kept for one in ours])), "%")
    report.figure("tiers.engine_time", 100.0 * float(np.mean([one.time for one in ours])), "%")


def _print_truth(
    name: str, asked: Asked, judged: Mapping[tuple[str, float], Sequence[Truth]]
) -> None:
    rows = []
    for tolerance in asked.tolerances:
        best = known_truth.best_cost(asked.population, tolerance, BOTH)
        for way in known_truth.WAYS:
            many = judged[way, tolerance]
            false = sum(one.certified and one.loss > tolerance for one in many)
            above = [100.0 * (one.cost - best) for one in many]
            rows.append(
                (
                    f"{100 * tolerance:g}: {way}",
                    f"{100 * false / len(many):.1f} ({_wilson(false, len(many))})",
                    f"{100 * sum(one.certified for one in many) / len(many):.0f}",
                    _range([100.0 * one.loss for one in many]),
                    _range([100.0 * one.cost for one in many]),
                    _range(above),
                )
            )
            if way == known_truth.OURS:
                at = f"{100 * tolerance:g}".replace(".", "_") + "_harder" * ("harder" in name)
                share = 100.0 * false / len(many)
                report.figure(f"tiers.false_certificates_at_{at}", share, "%")
                report.figure(f"tiers.cost_above_best_at_{at}", float(np.mean(above)), "%")
    small = np.mean([one.tiers[-1].quality - one.tiers[0].quality for one in asked.population])
    report.table(
        f"By known truth: draws from {name}, {len(asked.population):,} as the population; the small"
        f" model alone loses {100 * small:.2f} points",
        ("tolerance: way", "false %", "chosen %", "true loss", "engine time %", "above best"),
        rows,
        note=(
            f"{asked.fit:,} questions to fit and {asked.certify:,} to certify, drawn with"
            " replacement. False: the thresholds lose more on\nthe population than the tolerance;"
            f" {BOTH.delta:.0%} of the draws may. In brackets 95 % of the draws, for the first\n"
            "column the 95 % interval. Losses in points; above best: points of engine time above"
            " the cheapest\ntruly valid thresholds. Engine time counts 5 % shadow runs for every"
            " way."
        ),
    )


def _range(values: Sequence[float]) -> str:
    low, high = np.quantile(values, (0.025, 0.975))
    return f"{np.mean(values):.1f} ({low:.1f}-{high:.1f})"


def _wilson(count: int, total: int) -> str:
    z = 1.96
    share = count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * (share * (1 - share) / total + (z / (2 * total)) ** 2) ** 0.5
    return f"{abs(100 * (middle - half)):.1f}-{100 * (middle + half):.1f}"
