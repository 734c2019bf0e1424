"""A router's policies under watch, put together as at its start."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet

from prometheus_client import CollectorRegistry

from services.common.config import ConfigError
from services.common.versions import PolicyStore
from services.router.engines.texts import Texts
from services.router.fleet.fleet import Fleet
from services.router.metrics import Metrics
from services.router.policy.routes import Calibrated, Policies
from services.router.routes.compiled import Compiled
from services.router.routes.files import PolicyFiles
from services.router.routes.in_force import InForce
from services.router.routes.watch import PolicyWatch
from tests.making.policy_folder import LADDERED, PRICES, Files

TINY = "  tiny: {model: tiny, precision: int8, tokenizer: models/tiny, max_sequence_tokens: 9}\n"
WITH_TINY = LADDERED.replace("routes:\n", TINY + "routes:\n", 1)
TINY_PRICE = PRICES + "  tiny: {prompt: 1, output: 1}\n"


@dataclass(eq=False)
class Text:
    """Stands for the text of the models in a folder."""

    folder: Path


class Scene:
    """Files, what they put in force, and what was counted and kept of it.

    `held` are the texts that somebody holds.
    """

    def __init__(self, folder: Path, routes: str = LADDERED) -> None:
        self.files = Files(folder)
        self.files.load(routes)
        self.state = folder / "state"
        self.registry = CollectorRegistry()
        self.absent: set[str] = set()
        self.adopted: list[tuple[str, str]] = []
        metrics = Metrics(self.registry)
        reading = PolicyFiles(self.files.routes, self.files.prices)
        policies = reading.load()
        self.texts = Texts(self.text)
        self.held: WeakSet[Text] = WeakSet()
        self.fleet = Fleet(policies, metrics, spawn=lambda work: work.close())
        self.in_force = InForce(self.prepare(policies))
        self.watch = PolicyWatch(
            reading,
            self.in_force,
            self.prepare,
            PolicyStore(self.state),
            metrics,
            adopters=[self.fleet.adopt, self.adopt],
        )

    def prepare(self, policies: Policies) -> Compiled:
        return Compiled(policies, self.texts.of(tier.tokenizer for tier in policies.tiers.values()))

    def text(self, folder: Path) -> Any:
        if folder.name in self.absent:
            raise ConfigError(str(folder), ["cannot load the tokenizer"])
        text = Text(folder)
        self.held.add(text)
        return text

    def adopt(self, policies: Policies) -> None:
        self.adopted.append((self.in_force.now.version, policies.version))

    async def write(self, routes: str = LADDERED, prices: str = PRICES) -> None:
        """Changes the files, and lets the watch look."""
        self.files.routes.write_text(routes)
        self.files.prices.write_text(prices)
        await self.look()

    async def look(self) -> None:
        """Lets the watch look until it has seen a change stand still."""
        await self.watch.look()
        await self.watch.look()

    @property
    def version(self) -> str:
        return self.in_force.now.version

    @property
    def calibration(self) -> Calibrated | None:
        quality = self.in_force.now.routes["plain"].quality
        assert quality is not None
        return quality.calibration

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"pennyweight_router_{name}", labels)

    def history(self) -> list[tuple[str, str]]:
        lines = (self.state / "history.jsonl").read_text().splitlines()
        return [(line["version"], line["source"]) for line in map(json.loads, lines)]
