"""Traces made into arrivals, step by step, by a stated generator.

Two generators fill the windows of rates. *Interpolated Poisson*: the rate runs straight from the
middle of one window to the middle of the next, counts are Poisson. *Steps of CV 2*: the rate stays
the same within a window and jumps at its end, and counts are drawn from the negative binomial
distribution whose variance is four times its mean, which is what arrivals have over time whose gaps
vary by twice their mean. The second is the harder one: its jumps cannot be foreseen.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from services.scaler.simulator.silicon import Floats, Serving
from services.scaler.simulator.traces import MAX_REQUESTS, Rates, Requests

DAY = 86_400.0
JITTER_SECONDS = 5.0
FANO = 4.0
"""Variance of a count by its mean, of arrivals whose gaps have a coefficient of variation of 2."""
NEIGHBOURS = 20
MAX_STEPS = 31 * 86_400
"""A month of seconds."""


class Generator(StrEnum):
    """How windows of rates are filled."""

    POISSON = "poisson"
    STEPS = "steps"


@dataclass(frozen=True)
class Arrivals:
    """What arrives in each step. All arrays are of one length.

    Attributes:
        step: seconds of one.
        count: requests.
        prompt: tokens of their prompts.
        output: tokens that their answers will have.
        work: the same in requests of the mean size, by what they take of a replica.
    """

    step: float
    count: Floats
    prompt: Floats
    output: Floats
    work: Floats

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return self.step * len(self.count)

    def between(self, begin: float, end: float) -> "Arrivals":
        """Those of a part, in seconds."""
        part = slice(round(begin / self.step), round(end / self.step))
        return Arrivals(
            self.step, self.count[part], self.prompt[part], self.output[part], self.work[part]
        )


def mean_lengths(requests: Requests) -> tuple[float, float]:
    """Prompt and output tokens of the mean request."""
    return float(requests.input_length.mean()), float(requests.output_length.mean())


def from_rates(
    rates: Rates,
    serving: Serving,
    *,
    replicas: float | None,
    generator: Generator,
    seed: int,
    step: float = 1.0,
) -> Arrivals:
    """Rates filled by a generator, every request of the mean size.

    Args:
        rates: of windows.
        serving: what a replica is.
        replicas: full replicas that the mean rate is to need; None: rates as they are.
        generator: what fills the windows.
        seed: of its draws.
        step: seconds.
    """
    steps = round(rates.seconds / step)
    _check_steps(steps)
    wanted = rates.per_second
    if replicas is not None:
        wanted = wanted * (replicas * serving.throughput / max(1e-12, float(wanted.mean())))
    middle = (np.arange(steps) + 0.5) * step
    draw = np.random.default_rng(seed)
    if generator is Generator.POISSON:
        at = (np.arange(len(wanted)) + 0.5) * rates.window_seconds
        count = draw.poisson(np.interp(middle, at, wanted) * step).astype(float)
    else:
        window = np.minimum((middle / rates.window_seconds).astype(int), len(wanted) - 1)
        mean = wanted[window] * step
        count = np.zeros(steps)
        some = mean > 0.0
        count[some] = draw.negative_binomial(mean[some] / (FANO - 1.0), 1.0 / FANO)
    return Arrivals(step, count, count * serving.prompt, count * serving.output, count)


def thickened(requests: Requests, serving: Serving, replicas: float, seed: int) -> Requests:
    """A trace made as dense as so many full replicas need on average."""
    work = float(serving.work(requests.input_length, requests.output_length).sum())
    times = replicas * serving.throughput * requests.seconds / work
    return multiplied(requests, times, seed)


def multiplied(requests: Requests, times: float, seed: int) -> Requests:
    """A trace with so many times the requests.

    Each request is copied, a copy comes up to 5 s earlier or later and has the lengths of a request
    close to it, so that the drift of lengths over time stays.

    Raises:
        ValueError: none is left, or there are too many.
    """
    came = len(requests.timestamp)
    if not came * times <= MAX_REQUESTS:
        raise ValueError(f"{came * times:.0f} requests are too many: at most {MAX_REQUESTS}")
    draw = np.random.default_rng(seed)
    copies = np.full(came, int(times))
    copies += draw.random(came) < times - int(times)
    original = np.repeat(np.arange(came), copies)
    if not len(original):
        raise ValueError(f"{times} times the trace leave no request")
    jitter = draw.uniform(-JITTER_SECONDS, JITTER_SECONDS, len(original)) * 1000.0
    at = np.clip(requests.timestamp[original] + jitter, 0.0, requests.timestamp[-1])
    near = original + draw.integers(-NEIGHBOURS, NEIGHBOURS + 1, len(original))
    lengths = np.clip(near, 0, came - 1)
    order = np.argsort(at, kind="stable")
    return Requests(
        at[order], requests.input_length[lengths][order], requests.output_length[lengths][order]
    )


def from_requests(requests: Requests, serving: Serving, *, step: float = 1.0) -> Arrivals:
    """Single requests, added up by step."""
    steps = int(requests.seconds / step) + 1
    _check_steps(steps)
    at = np.minimum((requests.timestamp / 1000.0 / step).astype(int), steps - 1)

    def summed(weights: Floats) -> Floats:
        return np.asarray(np.bincount(at, weights=weights, minlength=steps), float)

    prompt, output = requests.input_length, requests.output_length
    work = serving.work(prompt, output)
    return Arrivals(step, summed(np.ones(len(at))), summed(prompt), summed(output), summed(work))


def _check_steps(steps: int) -> None:
    if steps > MAX_STEPS:
        raise ValueError(f"a trace of {steps} steps is too long: at most {MAX_STEPS}")
