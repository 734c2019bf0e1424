"""``python -m services.scaler.check FILE``: whether a scaler would take a scaling file.

With ``--tiers``, which the router's check tells, also whether its pools and those tiers go
together: a router gives requests of a tier only to replicas of its name, model and precision.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from services.common.checked import tell
from services.common.config import load_document
from services.scaler.config import Scaling, notes
from services.scaler.pools.rules import strangers
from services.scaler.targets.cores import available_cores, available_gpus


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks the file; returns the exit status."""
    parser = argparse.ArgumentParser(prog="services.scaler.check")
    parser.add_argument("file", type=Path)
    parser.add_argument("--no-models", action="store_true")
    parser.add_argument("--this-machine", action="store_true")
    parser.add_argument("--tiers", type=json.loads, help="name, model and precision of each")
    asked = parser.parse_args(arguments)
    cores = available_cores() if asked.this_machine else None
    gpus = available_gpus() if asked.this_machine else None

    def check() -> dict[str, object]:
        document = load_document(asked.file, Scaling)
        models = not asked.no_models
        scaling = Scaling.of(document, asked.file, cores, models=models, gpus=gpus)
        if asked.tiers is not None:
            document.refuse(strangers(scaling.pools, [tuple(tier) for tier in asked.tiers]))
        return {"notes": [dataclasses.asdict(note) for note in notes(scaling, document)]}

    return tell(check)


if __name__ == "__main__":
    sys.exit(main())
