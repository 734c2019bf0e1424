"""``python -m services.router.check ROUTES PRICES``: whether a router would take policy files.

Of routes that it would take it tells the tiers, as name, model and precision: pools have to serve
them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from services.common.checked import tell
from services.common.config import load_document
from services.router.engines.texts import Texts
from services.router.engines.tokenizer import ModelText
from services.router.routes.files import PolicyFiles
from services.router.routes.schema import PricesFile


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks the files; returns the exit status."""
    parser = argparse.ArgumentParser(prog="services.router.check")
    parser.add_argument("routes", type=Path, nargs="?")
    parser.add_argument("prices", type=Path)
    parser.add_argument("--no-models", action="store_true")
    asked = parser.parse_args(arguments)

    def check() -> dict[str, object]:
        if asked.routes is None:
            load_document(asked.prices, PricesFile)
            return {}
        policies = PolicyFiles(asked.routes, asked.prices).load()
        if not asked.no_models:
            Texts(ModelText).of(tier.tokenizer for tier in policies.tiers.values())
        tiers = policies.tiers.values()
        return {"tiers": [(tier.name, tier.model, tier.precision) for tier in tiers]}

    return tell(check)


if __name__ == "__main__":
    sys.exit(main())
