"""Reads the policy files and turns them into policies.

Each file is read once a reading, so that what is checked, hashed, put in force and kept in the
version store is the same.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from services.common.config import MAX_BYTES as MAX_DOCUMENT_BYTES
from services.common.config import ConfigError, Document, load_document, parse_document
from services.common.files import above, folder_of
from services.common.seen import SeenFiles
from services.router.policy.routes import Policies, Route
from services.router.routes.artefact_file import MAX_BYTES, BadArtefact
from services.router.routes.calibration import load_calibration
from services.router.routes.rules import Broken, broken_prices, broken_rules
from services.router.routes.schema import PricesFile, RoutesFile, tier_of

T = TypeVar("T")

ROUTES, PRICES = "routes.yaml", "prices.yaml"


def read_routes(path: Path) -> RoutesFile:
    """What a routes file says, for those who need neither prices nor calibrations.

    Raises:
        ConfigError: it breaks a rule, or a name in it leads nowhere.
    """
    document = load_document(path, RoutesFile)
    document.refuse(broken_rules(document.content))
    return document.content


class PolicyFiles:
    """One reading of the policy files.

    Attributes:
        seen: every file that was looked for, to know whether it changes.
        contents: what was read, by the name it is kept under in the version store: routes.yaml,
            prices.yaml, and each calibration by its path from the folder of the routes file.
    """

    def __init__(
        self, routes_file: Path, prices_file: Path, *, wall: Callable[[], float] = time.time
    ) -> None:
        """Nothing is read yet; `wall` gives seconds since 1970."""
        self.routes_file = routes_file
        self.prices_file = prices_file
        self.seen = SeenFiles(wall)
        self._wall = wall
        self.contents: dict[str, bytes] = {}

    def again(self) -> "PolicyFiles":
        """A new reading of the same files."""
        return PolicyFiles(self.routes_file, self.prices_file, wall=self._wall)

    def load(self) -> Policies:
        """Reads all files and resolves every name in them.

        The version is the beginning of a hash over them, so equal files are equal versions. A
        calibration without a file leaves its route uncalibrated.

        Raises:
            ConfigError: a file breaks a rule, a name in it leads nowhere, or a calibration must not
                be used.
        """
        document = self._document(self.routes_file, RoutesFile, ROUTES)
        declared = document.content
        prices = self._document(self.prices_file, PricesFile, PRICES).content.tiers
        document.refuse(
            (*broken_rules(declared), *broken_prices(declared, prices, self.prices_file))
        )
        root = above(self.routes_file)  # holds policies/, wherever we run
        tiers = {
            name: tier_of(name, options, prices[name], root)
            for name, options in declared.tiers.items()
        }
        routes = {
            name: entry.route(name, tiers, self._folder) for name, entry in declared.routes.items()
        }
        problems: list[Broken] = []
        for name, route in routes.items():
            try:
                routes[name] = self._with_calibration(route)
            except (BadArtefact, OSError) as error:
                said = f"cannot be read: {error}" if isinstance(error, OSError) else str(error)
                problems.append((("routes", name, "quality", "calibration"), said))
        document.refuse(problems)
        return Policies(version=self._version(), tiers=tiers, routes=routes)

    def _document(self, path: Path, kind: type[T], name: str) -> Document[T]:
        try:
            self.contents[name] = self.seen.read(path, MAX_DOCUMENT_BYTES)
            text = self.contents[name].decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(str(path), [f"cannot be read: {error}"]) from error
        return parse_document(text, kind, source=str(path))

    def _version(self) -> str:
        digest = hashlib.sha256()
        for name, data in self.contents.items():
            digest.update(f"{name} {len(data)}\n".encode())
            digest.update(data)
        return digest.hexdigest()[:12]

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
        return folder_of(self.routes_file)

    def _kept_name(self, path: Path) -> str:
        """Where a calibration is kept: as it lies below the routes file, or else by its path."""
        if path.is_relative_to(self._folder):
            name = str(path.relative_to(self._folder))
            if name not in self.contents:
                return name
        return f"elsewhere{path}"
