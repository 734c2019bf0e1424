"""What it costs to decide which tier answers: features, prediction, verdict, the reason in words.

Over the real code, in one thread, for policies of 1, 10 and 100 calibrated routes whose requests
come in turn, so that no route's model stays in the processor's cache by itself. Each route has
models of its own over 20,000 words and pairs of words, about what a few thousand questions leave.
The prompts are the demo's questions, and one of 4,000 characters. Beside it: a route with a fixed
tier, which needs no features.
"""

import gc
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import cast

from bench import report
from services.local.questions import WAVES
from services.router.policy.calibration import (
    Certificate,
    Judgement,
    Rung,
    Thresholds,
    TierModels,
)
from services.router.policy.certainty import Certainty, Measure
from services.router.policy.difficulty import (
    FIRST_WORD,
    WORDS,
    DifficultyModel,
    Signals,
    features,
)
from services.router.policy.drift import Bands, Rate
from services.router.policy.routes import (
    CachePolicy,
    Calibrated,
    Cancel,
    Price,
    Quality,
    Route,
    Tier,
)
from services.router.ports import TierText
from services.router.routes.compiled import CompiledRoute

ROUTES = (1, 10, 100)
KNOWN_WORDS = 20_000
QUESTIONS = [question for wave in WAVES for _, question in wave]
LONG = " ".join(QUESTIONS * 10)[:4000]
SURE = Certainty(-0.02, -0.4, -0.05)
NO_TEXT = cast("TierText", None)
"""Nothing is tokenised here."""


def run(*, quick: bool) -> None:
    """Measures and prints."""
    decisions = 500 if quick else 20_000
    rows = []
    figure = 0.0
    fixed = [_route("fixed", fixed=True, seed=0)]
    for name, routes, questions in (
        ("fixed tier", fixed, QUESTIONS),
        *((f"{count} calibrated", _routes(count), QUESTIONS) for count in ROUTES),
        (f"{ROUTES[-1]}, 4,000 characters", _routes(ROUTES[-1]), [LONG]),
    ):
        times = _timed(routes, questions, decisions)
        median = report.median(times)
        rows.append((name, f"{median:.1f}", f"{report.quantile(times, 0.99):.1f}"))
        if name.startswith(f"{ROUTES[-1]} calibrated"):
            figure = median
    report.table(
        f"Deciding which tier answers, {decisions:,} decisions each",
        ("routes", "median us", "99 % us"),
        rows,
        note="One thread, prompt to reason; each with a certainty to judge, as after a first run.",
    )
    report.figure("decide.time", figure, "us")


def _timed(routes: Sequence[Route], questions: Sequence[str], decisions: int) -> list[float]:
    """Microseconds of each decision, after a warm-up."""
    clock: Callable[[], int] = time.perf_counter_ns
    compiled = [CompiledRoute(route, "bench", {"": NO_TEXT}) for route in routes]
    for number in range(min(decisions, 200)):
        _decide(compiled[number % len(compiled)], questions[number % len(questions)])
    gc.collect()
    gc.disable()
    times = []
    for number in range(decisions):
        route, question = compiled[number % len(compiled)], questions[number % len(questions)]
        before = clock()
        _decide(route, question)
        times.append((clock() - before) / 1e3)
    gc.enable()
    return times


def _decide(route: CompiledRoute, question: str) -> str:
    """As a request decides: before the first attempt, and once it has answered."""
    cascade = route.cascade((), features(question, Signals()) if route.uses_features else ())
    step = cascade.step()
    if step.checked:
        cascade.stands(SURE, valid=True)
        cascade.step()
    cascade.candidates()
    return cascade.explanation()


def _routes(count: int) -> list[Route]:
    return [_route(f"route-{number}", fixed=False, seed=number) for number in range(count)]


def _route(name: str, *, fixed: bool, seed: int) -> Route:
    small, large = _tier("small", 1), _tier("large", 8)
    return Route(
        name=name,
        ladder=(small, large),
        fixed_tier=small if fixed else None,
        cache=CachePolicy(use=True, ttl_seconds=60.0, wait_seconds=1.0),
        quality=None if fixed else Quality(tolerance=0.02, calibration=_calibrated(seed)),
    )


def _tier(name: str, price: int) -> Tier:
    return Tier(
        name=name,
        model=name,
        precision="int8",
        tokenizer="",
        max_sequence_tokens=512,
        cancel=Cancel.ABORT,
        first_token_seconds=1.0,
        idle_seconds=1.0,
        queue_size=1,
        queue_seconds=1.0,
        price=Price(price, price),
    )


def _calibrated(seed: int) -> Calibrated:
    random = Random(seed)
    known = {index for text in QUESTIONS for index, _ in features(text, Signals())}
    words = [index for index in known if index >= FIRST_WORD]
    words += random.sample(range(FIRST_WORD, FIRST_WORD + WORDS), KNOWN_WORDS)

    def model() -> DifficultyModel:
        return DifficultyModel(
            weights={index: random.gauss(0, 1) for index in words},
            rarities={index: random.uniform(1, 9) for index in words},
            bias=0.0,
            points=((-2.0, -0.05), (0.0, 0.05), (2.0, 0.3)),
        )

    thresholds = Thresholds((Rung(0.29, -2.0),), Measure.LEARNED)
    return Calibrated(
        version="bench",
        until=0.0,
        judgement=Judgement(thresholds, (TierModels(model(), model()),), 8),
        certificate=Certificate(
            thresholds=thresholds,
            certified=True,
            epsilon=0.02,
            delta=0.05,
            bound=0.015,
            loss=0.0,
            n_fit=1,
            n_certify=1,
            escalation_rate=0.3,
            tier_shares=(0.7, 0.3),
            saving=0.5,
            shadow_share=0.05,
            method="",
            assumptions="",
        ),
        bands=Bands(Rate(0.3, 100), (None,), (None,)),
        level=0.0,
    )
