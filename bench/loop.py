"""What a request costs the router's event loop beside deciding: parts that every one of them pays.

Over the real code, in one thread, each beside the plain way to the same end in the same run: the
choice of a replica among 1, 8 and 64 that are alike; the log-probabilities of a streamed answer of
1,000 tokens, of which each message brings the whole list so far; and the counting of one request
that ended.
"""

import struct
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram

from bench import report
from services.common.tally import Counted, Histograms
from services.router.engines.trtllm import unpack_log_probs
from services.router.fleet.replica import WHOLE, Replica, State
from services.router.metrics import SECONDS
from services.router.policy.replicas import choose_replica

REPLICAS = (1, 8, 64)
TOKENS = 1000
COUNTERS = 6
HISTOGRAMS = 3
"""About what one request counts."""


def run(*, quick: bool) -> None:
    """Measures and prints."""
    scale = 1 if quick else 20
    choices = {count: _cost(_choosing(count), 200 * scale) for count in REPLICAS}
    once, each = (_cost(work, scale) for work in _log_probs())
    ours, theirs = (_cost(work, 200 * scale) for work in _counting())
    report.table(
        "What a request costs the event loop beside deciding",
        ("part", "here", "plain way"),
        [
            *(
                (f"choice of one replica of {count}", f"{seconds * 1e6:.2f} us", "")
                for count, seconds in choices.items()
            ),
            (f"log-probs of {TOKENS:,} tokens", f"{once * 1e3:.3f} ms", f"{each * 1e3:.2f} ms"),
            ("counting a request", f"{ours * 1e6:.2f} us", f"{theirs * 1e6:.2f} us"),
        ],
        note=(
            "plain way: log-probs unpacked from every message; prometheus_client's own counters\n"
            f"and histograms. A request counts {COUNTERS} numbers and {HISTOGRAMS} durations."
        ),
    )
    report.figure("loop.choose_of_64", choices[64] * 1e6, "us")
    report.figure("loop.log_probs_of_1000", once * 1e3, "ms")
    report.figure("loop.log_probs_gain", each / once, "x")
    report.figure("loop.counting", ours * 1e6, "us")
    report.figure("loop.counting_gain", theirs / ours, "x")


def _cost(work: Callable[[], object], times: int) -> float:
    """Seconds of one piece of work: the best of five rounds, as others use the machine too."""
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(times):
            work()
        best = min(best, (time.perf_counter() - start) / times)
    return best


def _choosing(count: int) -> Callable[[], object]:
    replicas = [
        Replica(f"r{number}", "t", "m", "int8", "", State.READY, 64, in_flight=number % 7)
        for number in range(count)
    ]
    assert all(replica.breaker is WHOLE for replica in replicas)
    return lambda: choose_replica(replicas, now=1.0)


def _log_probs() -> tuple[Callable[[], object], Callable[[], object]]:
    """Unpacked when somebody asks, and from every message."""
    messages = [struct.pack(f"<{count}f", *[-0.5] * count) for count in range(1, TOKENS + 1)]

    def once() -> object:
        return unpack_log_probs(messages[-1], TOKENS)

    def each() -> object:
        return [unpack_log_probs(raw, count) for count, raw in enumerate(messages, 1)]

    return once, each


def _counting() -> tuple[Callable[[], object], Callable[[], object]]:
    """What one request counts, in our tallies and in the library's."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counts = [Counted(f"c{number}", "", ("a",), ours).labels("x").inc for number in range(COUNTERS)]
    times = [
        Histograms(f"h{number}", "", ("a",), SECONDS, ours).labels("x").observe
        for number in range(HISTOGRAMS)
    ]
    plain_counts = [
        Counter(f"c{number}", "", ("a",), registry=theirs).labels("x").inc
        for number in range(COUNTERS)
    ]
    plain_times = [
        Histogram(f"h{number}", "", ("a",), buckets=SECONDS, registry=theirs).labels("x").observe
        for number in range(HISTOGRAMS)
    ]

    def tally() -> None:
        for count in counts:
            count(3)
        for observe in times:
            observe(0.07)

    def library() -> None:
        for inc in plain_counts:
            inc(3)
        for observe in plain_times:
            observe(0.07)

    return tally, library
