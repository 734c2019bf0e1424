"""Reads the policy files and turns them into policies.

Each file is read once a reading, so that what is checked, hashed, put in force and kept in the
version store is the same.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from services.common.config import ConfigError, line_in_text, parse_document
from services.router.policy.routes import (
    CachePolicy,
    EvidencePolicy,
    Judging,
    Limits,
    Policies,
    Price,
    Quality,
    Route,
    Tier,
    Trimming,
)
from services.router.routes.artefact import MAX_BYTES, BadArtefact
from services.router.routes.calibration import load_calibration
from services.router.routes.rules import Broken, broken_rules
from services.router.routes.schema import (
    PriceEntry,
    PricesFile,
    QualityEntry,
    RouteEntry,
    RoutesFile,
    TierEntry,
)
from services.router.routes.seen import SeenFiles

T = TypeVar("T")

ROUTES, PRICES = "routes.yaml", "prices.yaml"

MAX_DOCUMENT = 8 << 20
"""Bytes of a YAML file."""


class PolicyFiles:
    """One reading of the policy files.

    Attributes:
        seen: every file that was looked for, to know whether it changes.
        contents: what was read, by the name it is kept under in the version store: routes.yaml,
            prices.yaml, and each calibration by its path from the folder of the routes file.
    """

    def __init__(self, routes_file: Path, prices_file: Path) -> None:
        """Nothing is read yet."""
        self.routes_file = routes_file
        self.prices_file = prices_file
        self.seen = SeenFiles()
        self.contents: dict[str, bytes] = {}

    def again(self) -> "PolicyFiles":
        """A new reading of the same files."""
        return PolicyFiles(self.routes_file, self.prices_file)

    def load(self) -> Policies:
        """Reads all files and resolves every name in them.

        The version is the beginning of a hash over them, so equal files are equal versions. A
        calibration without a file leaves its route uncalibrated.

        Raises:
            ConfigError: a file breaks a rule, a name in it leads nowhere, or a calibration must not
                be used.
        """
        declared = self._document(self.routes_file, RoutesFile, ROUTES)
        prices = self._document(self.prices_file, PricesFile, PRICES).tiers
        self._refuse(broken_rules(declared, prices, self.prices_file))
        tiers = {
            name: self._tier(name, entry, prices[name]) for name, entry in declared.tiers.items()
        }
        routes = {name: self._route(name, entry, tiers) for name, entry in declared.routes.items()}
        problems: list[Broken] = []
        for name, route in routes.items():
            try:
                routes[name] = self._with_calibration(route)
            except (BadArtefact, OSError) as error:
                said = f"cannot be read: {error}" if isinstance(error, OSError) else str(error)
                problems.append((("routes", name, "quality", "calibration"), said))
        self._refuse(problems)
        return Policies(version=self._version(), tiers=tiers, routes=routes)

    def _document(self, path: Path, kind: type[T], name: str) -> T:
        try:
            self.contents[name] = self.seen.read(path, MAX_DOCUMENT)
            text = self.contents[name].decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(str(path), [f"cannot be read: {error}"]) from error
        return parse_document(text, kind, source=str(path))

    def _refuse(self, broken: Iterable[Broken]) -> None:
        """Refuses the routes file if any rule is broken."""
        text = self.contents[ROUTES].decode("utf-8")
        problems = [
            f"line {line_in_text(text, place)}: {'.'.join(place)}: {rule}" for place, rule in broken
        ]
        if problems:
            raise ConfigError(str(self.routes_file), problems)

    def _version(self) -> str:
        digest = hashlib.sha256()
        for name, data in self.contents.items():
            digest.update(f"{name} {len(data)}\n".encode())
            digest.update(data)
        return digest.hexdigest()[:12]

    def _tier(self, name: str, entry: TierEntry, price: PriceEntry) -> Tier:
        folder = entry.tokenizer
        if not folder.is_absolute():  # relative to the tree that holds policies/, wherever we run
            folder = self.routes_file.resolve().parent.parent / folder
        return Tier(
            name=name,
            model=entry.model,
            precision=entry.precision,
            tokenizer=str(folder),
            max_sequence_tokens=entry.max_sequence_tokens,
            cancel=entry.cancel,
            first_token_seconds=entry.first_token_seconds,
            idle_seconds=entry.idle_seconds,
            queue_size=entry.queue_size,
            queue_seconds=entry.queue_seconds,
            price=Price(price.prompt, price.output),
            version=entry.version,
        )

    def _route(self, name: str, entry: RouteEntry, tiers: dict[str, Tier]) -> Route:
        return Route(
            name=name,
            description=entry.description,
            ladder=tuple(tiers[one] for one in entry.ladder),
            fixed_tier=tiers[entry.fixed_tier] if entry.fixed_tier is not None else None,
            default_output_tokens=entry.output_tokens.default,
            max_output_tokens=entry.output_tokens.most,
            default_deadline_seconds=entry.deadline.default_seconds,
            shortest_deadline_seconds=entry.deadline.shortest_seconds,
            cache=CachePolicy(entry.cache.use, entry.cache.ttl_seconds, entry.cache.wait_seconds),
            tenants=frozenset(entry.tenants),
            quality=self._quality(name, entry.quality) if entry.quality is not None else None,
            limits=Limits(entry.limits.micro_usd, entry.limits.seconds),
            trimming=Trimming(
                white_space=entry.trimming.white_space,
                history_turns=entry.trimming.history_turns,
                passages=entry.trimming.passages,
            ),
        )

    def _quality(self, route: str, entry: QualityEntry) -> Quality:
        path = entry.calibration or Path("calibration") / f"{route}.json"
        evidence, judge = entry.evidence, entry.evidence.judge
        return Quality(
            tolerance=entry.tolerance,
            confidence=entry.confidence,
            hold=entry.hold,
            first_tokens=entry.first_tokens,
            run_length=entry.run_length,
            evidence=EvidencePolicy(
                share=evidence.share,
                share_until_calibrated=evidence.share_until_calibrated,
                keep_text=evidence.keep_text,
                most_running=evidence.most_running,
                seconds=evidence.seconds,
                judging=Judging(
                    judge.kind, judge.address, judge.timeout_seconds, judge.least_similarity
                ),
            ),
            artefact=os.path.normpath(self._folder / path),
        )

    def _with_calibration(self, route: Route) -> Route:
        """The route with its calibration, if there is a file.

        Raises:
            BadArtefact: it must not be used.
            OSError: it cannot be read.
        """
        quality = route.quality
        if quality is None:
            return route
        path = Path(quality.artefact)
        try:
            data = self.seen.read(path, MAX_BYTES)
        except FileNotFoundError:
            return route
        self.contents[self._kept_name(path)] = data
        calibration = load_calibration(route.name, route.ladder, quality, data)
        return replace(route, quality=replace(quality, calibration=calibration))

    @property
    def _folder(self) -> Path:
        return self.routes_file.absolute().parent

    def _kept_name(self, path: Path) -> str:
        """Where a calibration is kept: as it lies below the routes file, or else by its path."""
        if path.is_relative_to(self._folder):
            name = str(path.relative_to(self._folder))
            if name not in self.contents:
                return name
        return f"elsewhere{path}"
