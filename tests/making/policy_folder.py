"""Policy files to test with, in a folder of their own."""

from pathlib import Path
from typing import Any

from services.router.policy.calibration import Rung
from services.router.policy.routes import Policies
from services.router.routes.artefact import Model
from services.router.routes.files import PolicyFiles
from tests.making.calibrations import write_calibration

ROUTES = """\
tiers:
  small:
    model: small
    precision: int8
    tokenizer: models/small
    max_sequence_tokens: 512
  large:
    model: large
    precision: fp8
    tokenizer: /models/large
    max_sequence_tokens: 4096
    cancel: drain
    queue_size: 7
routes:
  chat:
    ladder: [small, large]
    fixed_tier: small
    output_tokens: {default: 64, most: 256}
    cache: {use: true, ttl_seconds: 60, wait_seconds: 1}
  theirs:
    ladder: [large]
    fixed_tier: large
    tenants: [acme]
"""
LADDERED = (
    ROUTES
    + """\
  good:
    ladder: [small, large]
    quality:
      tolerance: 0.03
      confidence: 0.9
      hold: tokens
      first_tokens: 12
      run_length: 5000
      evidence:
        share: 0.1
        share_until_calibrated: 0.5
        keep_text: true
        most_running: 2
        seconds: 30
        judge: {kind: model, address: judge.local:50061, timeout_seconds: 3}
    limits: {micro_usd: 500, seconds: 20}
    trimming: {white_space: true, history_turns: 6, passages: 4}
  plain:
    ladder: [small, large]
    quality: {tolerance: 0.02}
"""
)
PRICES = """\
tiers:
  small: {prompt: 100000, output: 400000}
  large: {prompt: 800000, output: 3200000}
"""


MODELS = (Model("small", "small", "int8"), Model("large", "large", "fp8"))
"""What these tiers serve."""


class Files:
    """The two files; routes `good` and `plain` of `LADDERED` may have a calibration."""

    def __init__(self, folder: Path) -> None:
        (folder / "policies").mkdir()
        self.routes, self.prices = folder / "policies/routes.yaml", folder / "policies/prices.yaml"

    def load(self, routes: str = ROUTES, prices: str = PRICES) -> Policies:
        self.routes.write_text(routes)
        self.prices.write_text(prices)
        return PolicyFiles(self.routes, self.prices).load()

    def calibrate(self, route: str, *rungs: Rung, **changes: Any) -> Path:
        """Writes a calibration of the route; see `write_calibration`."""
        path = self.routes.parent / f"calibration/{route}.json"
        names = [model.tier for model in MODELS]
        write_calibration(path, route, names, *rungs, **{"ladder": MODELS, **changes})
        return path
