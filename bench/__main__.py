"""``python -m bench [name] [--quick]``: runs one benchmark, or all in turn."""

import argparse
import importlib
import inspect
import signal
import sys
from pathlib import Path

BENCHMARKS = {
    "hop": "what the router adds to a request, and how many it carries on one core",
    "batching": "what in-flight batching is worth on one replica",
    "cache": "how fast a cached answer comes",
    "tiers": "a calibrated ladder of the local models on BANKING77's test questions",
    "mmlu": "predicted difficulty on MMLU's questions, for the models of RouteLLM's table",
    "decide": "what it costs to decide which tier answers, with 1, 10 and 100 routes",
    "loop": "what a request costs the event loop beside deciding",
    "guardrail": "judged samples and requests until a lever that has become too costly is halted",
    "tick": "what it costs to decide the sizes of 100 pools",
    "backtest": "scaling policies on unseen days: ours, others', and who knows all",
    "spot": "what spot capacity saves at the same attainment",
    "live-scaling": "the real stack follows its load from one replica to two, one, none and one",
    "start": "from nothing to the first answer, and the memory of each process",
}


def _stop(*_: object) -> None:
    """Leaves every block, so that what was started is ended; a second signal changes nothing."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + signal.SIGTERM)


def main() -> None:
    """Runs what the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"  {name:12} {what}" for name, what in BENCHMARKS.items()),
    )
    parser.add_argument("name", nargs="?", choices=BENCHMARKS, help="without it, all in turn")
    parser.add_argument("--quick", action="store_true", help="only shows that it runs")
    parser.add_argument(
        "--whole", action="store_true", help="backtest: all of it, which takes half an hour or so"
    )
    parser.add_argument(
        "--ours", action="store_true", help="backtest: ours beside the clairvoyant alone"
    )
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder with the public data sets"
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    for name in [arguments.name] if arguments.name else BENCHMARKS:
        run = importlib.import_module(f"bench.{name.replace('-', '_')}").run
        wanted = inspect.signature(run).parameters
        given = {
            "quick": arguments.quick,
            "whole": arguments.whole,
            "ours": arguments.ours,
            "data": arguments.data,
        }
        run(**{key: value for key, value in given.items() if key in wanted})


if __name__ == "__main__":
    main()
