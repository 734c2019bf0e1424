"""``python -m bench [name] [--quick]``: runs one benchmark, or all in turn."""

import argparse
import importlib
import signal
import sys

BENCHMARKS = {
    "hop": "what the router adds to a request, and how many it carries on one core",
    "batching": "what in-flight batching is worth on one replica",
    "cache": "how fast a cached answer comes",
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
        epilog="\n".join(f"  {name:10} {what}" for name, what in BENCHMARKS.items()),
    )
    parser.add_argument("name", nargs="?", choices=BENCHMARKS, help="without it, all in turn")
    parser.add_argument("--quick", action="store_true", help="only shows that it runs")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    for name in [arguments.name] if arguments.name else BENCHMARKS:
        importlib.import_module(f"bench.{name}").run(quick=arguments.quick)


if __name__ == "__main__":
    main()
