"""``python -m services.scaler.check FILE``: whether a scaler would take a scaling file."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from services.common.checked import tell
from services.scaler.config import Scaling
from services.scaler.targets.cores import available_cores


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks the file; returns the exit status."""
    parser = argparse.ArgumentParser(prog="services.scaler.check")
    parser.add_argument("file", type=Path)
    parser.add_argument("--no-models", action="store_true")
    parser.add_argument("--this-machine", action="store_true")
    asked = parser.parse_args(arguments)
    cores = available_cores() if asked.this_machine else None
    return tell(lambda: Scaling.load(asked.file, cores, models=not asked.no_models))


if __name__ == "__main__":
    sys.exit(main())
