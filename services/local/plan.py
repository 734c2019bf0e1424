"""What is started, where it listens and with which settings.

The environment of the command goes before what is planned here, so every setting of every service
can be changed as usual: ``PENNYWEIGHT_ROUTER_LISTEN=127.0.0.1:6000``.
"""

import errno
import socket
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pennyweight.cache.v1 import cache_pb2
from pennyweight.channel import DEVELOPMENT_KEY
from pennyweight.router.v1 import router_pb2
from pennyweight.scaler.v1 import scaler_pb2
from services.common.config import prefix_of
from services.common.files import above, resolved
from services.common.strict_yaml import YamlProblem, read_tree

ROOT = Path(__file__).resolve().parents[2]
"""The tree the services run from."""

ADDRESSES = {
    "cache": ("127.0.0.1:50052", "127.0.0.1:9102"),
    "scaler": ("127.0.0.1:50053", "127.0.0.1:9103"),
    "router": ("127.0.0.1:50051", "127.0.0.1:9101"),
}
"""Of gRPC and of the metrics, in the order in which services start; they stop in reverse."""

FULL_NAMES: Mapping[str, str] = {
    "cache": cache_pb2.DESCRIPTOR.services_by_name["CacheService"].full_name,
    "scaler": scaler_pb2.DESCRIPTOR.services_by_name["ScalerService"].full_name,
    "router": router_pb2.DESCRIPTOR.services_by_name["RouterService"].full_name,
}
"""Their gRPC services."""

DEMO_LEDGER = "demo-ledger"
"""Folder below the state of what demos asked: made-up questions are no part of the real ledger."""

SCALING_FILE = "PENNYWEIGHT_SCALER_SCALING_FILE"
SCALING_NAME = "scaling.yaml"


class StackError(Exception):
    """The stack cannot run. `hint` is what to do about it or what the part said; may be empty."""

    def __init__(self, sentence: str, hint: str = "") -> None:
        super().__init__(sentence)
        self.hint = hint


STATES = ("router", "scaler")
"""Services with a state folder, which is one process's at a time."""


@dataclass(frozen=True)
class Service:
    """One of our services: its name, where it listens, its whole environment."""

    name: str
    listen: str
    metrics_listen: str
    environment: Mapping[str, str]

    @property
    def module(self) -> str:
        """What ``python -m`` runs."""
        return f"services.{self.name}"

    @property
    def full_name(self) -> str:
        """Its gRPC service, which the health check is asked about."""
        return FULL_NAMES[self.name]

    @property
    def address(self) -> str:
        """Where it is reached from this machine."""
        return _reached(self.listen)


@dataclass(frozen=True)
class Plan:
    """The services in the order in which they start, and the folders they write to.

    Attributes:
        scaling: of the scaling file that is made for this stack; empty where the usual one serves.
    """

    services: tuple[Service, ...]
    state: Path
    logs: Path
    ledger: Path
    scaler_state: Path
    scaling: str = ""

    def state_of(self, name: str) -> Path:
        """The state folder of one of `STATES`."""
        return Path(self[name].environment[f"{prefix_of(name)}STATE_FOLDER"])

    def put_scaling(self) -> None:
        """Writes the scaling file of this stack, once the state folder is its own.

        Raises:
            StackError: it cannot be written.
        """
        if not self.scaling:
            return
        target = self.state / SCALING_NAME
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(self.scaling, encoding="utf-8")
        except OSError as error:
            raise StackError(f"{target} cannot be written: {error.strerror}.") from error

    def key(self) -> str | None:
        """The key that opens every call; None where the services' keys are in a file of others.

        It is the one that the router shows to the others. Without key files it is the published
        one, whatever key the user has for services elsewhere.

        Raises:
            StackError: the file cannot be read.
        """
        environment = self["router"].environment
        path = environment.get("PENNYWEIGHT_ROUTER_SERVICE_KEY_FILE")
        if not path:
            return None if environment.get("PENNYWEIGHT_ROUTER_KEYS_FILE") else DEVELOPMENT_KEY
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise StackError(f"The service key cannot be read: {error}.") from None

    def __getitem__(self, name: str) -> Service:
        return next(service for service in self.services if service.name == name)


def plan(
    environ: Mapping[str, str],
    state: Path,
    *,
    any_port: bool = False,
    weights: Sequence[str] = (),
) -> Plan:
    """Plans the stack; port 0 in a setting, or `any_port`, takes a free port.

    Args:
        environ: environment of the command.
        state: folder for logs, ledger and replicas.
        any_port: take free ports wherever no setting says otherwise, for replicas always.
        weights: ``tier=folder``: weights that replicas of a tier load instead of their own.

    Raises:
        StackError: the scaling file is to be changed and cannot be read, or there is no such tier
            or no such weights.
    """
    listens = {}
    for name, (listen, metrics) in ADDRESSES.items():
        default = ("127.0.0.1:0", "127.0.0.1:0") if any_port else (listen, metrics)
        prefix = prefix_of(name)
        listens[name] = (
            _with_port(environ.get(f"{prefix}LISTEN") or default[0]),
            _with_port(environ.get(f"{prefix}METRICS_LISTEN") or default[1]),
        )
    defaults = {
        "PENNYWEIGHT_ROUTER_CACHE_ADDRESS": _reached(listens["cache"][0]),
        "PENNYWEIGHT_ROUTER_SCALER_ADDRESS": _reached(listens["scaler"][0]),
        "PENNYWEIGHT_ROUTER_ROUTES_FILE": str(ROOT / "policies" / "routes.yaml"),
        "PENNYWEIGHT_ROUTER_PRICES_FILE": str(ROOT / "policies" / "prices.yaml"),
        "PENNYWEIGHT_ROUTER_LEDGER_FOLDER": str(state / "ledger"),
        "PENNYWEIGHT_ROUTER_POLICY_FOLDER": str(state / "policies"),
        "PENNYWEIGHT_ROUTER_STATE_FOLDER": str(state / "router"),
        "PENNYWEIGHT_ROUTER_DRAIN_SECONDS": "5",
        "PENNYWEIGHT_CACHE_DRAIN_SECONDS": "5",
        "PENNYWEIGHT_SCALER_DRAIN_SECONDS": "1",  # it ends after the router: nothing runs any more
        SCALING_FILE: str(ROOT / "policies" / "scaling.yaml"),
        "PENNYWEIGHT_SCALER_STATE_FOLDER": str(state / "scaler"),
        "PENNYWEIGHT_SCALER_STOP_REPLICAS_ON_EXIT": "true",
    }
    given = {name: value for name, value in environ.items() if value or name not in defaults}
    environment = {**defaults, **given}
    scaling = ""
    if any_port or weights:
        usual = Path(environment[SCALING_FILE])
        scaling = _changed_scaling(usual, any_port=any_port, weights=weights)
        environment[SCALING_FILE] = str(state / SCALING_NAME)
    for name, (listen, metrics) in listens.items():
        environment[f"{prefix_of(name)}LISTEN"] = listen
        environment[f"{prefix_of(name)}METRICS_LISTEN"] = metrics
    return Plan(
        services=tuple(Service(name, *listens[name], environment) for name in ADDRESSES),
        state=state,
        logs=state / "logs",
        ledger=Path(environment["PENNYWEIGHT_ROUTER_LEDGER_FOLDER"]),
        scaler_state=Path(environment["PENNYWEIGHT_SCALER_STATE_FOLDER"]),
        scaling=scaling,
    )


def plan_demo(environ: Mapping[str, str], state: Path, own: Path) -> Plan:
    """Plans a stack for a moment, that runs beside one that is up and leaves its ledger alone.

    Args:
        environ: environment of the command.
        state: folder in which the demos' common ledger stays.
        own: folder for all else.

    Raises:
        StackError: as `plan` does.
    """
    ledger = {"PENNYWEIGHT_ROUTER_LEDGER_FOLDER": str(state / DEMO_LEDGER)}
    return plan({**ledger, **environ}, own, any_port=True)


def check_ports(services: tuple[Service, ...]) -> None:
    """Makes sure that all addresses can be listened on.

    Raises:
        StackError: something else has one, or it is not this machine's.
    """
    for service in services:
        for what, listen in (("gRPC", service.listen), ("METRICS", service.metrics_listen)):
            try:
                _bind(listen).close()
            except OSError as error:
                middle = "" if what == "gRPC" else "METRICS_"
                setting = f"{prefix_of(service.name)}{middle}LISTEN"
                if error.errno == errno.EADDRINUSE:
                    raise StackError(
                        f"The {service.name} cannot listen on {listen}: the port is in use.",
                        f"Is the stack already running? Otherwise choose another with {setting}.",
                    ) from None
                raise StackError(
                    f"The {service.name} cannot listen on {listen}: {error.strerror}.",
                    f"The address comes from {setting}.",
                ) from None


def _with_port(listen: str) -> str:
    host, _, port = listen.rpartition(":")
    if port != "0":
        return listen
    with closing(_bind(listen)) as found:
        return f"{host}:{found.getsockname()[1]}"


def _bind(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, int(port)))
    except OSError:
        found.close()
        raise
    return found


def _reached(listen: str) -> str:
    host, _, port = listen.rpartition(":")
    return f"127.0.0.1:{port}" if host in ("0.0.0.0", "[::]") else listen


def _changed_scaling(source: Path, *, any_port: bool, weights: Sequence[str]) -> str:
    """The scaling file with port 0 in every slot or other weights for some tiers.

    Raises:
        StackError: the file cannot be read as what it should be (the scaler says what is wrong),
            or there is no such tier or no such weights.
    """
    try:
        scaling = read_tree(source.read_text(encoding="utf-8")).data
        pools = list(scaling["pools"].values())
        for pool in pools:
            pool["repository"] = str(resolved(above(source) / pool["repository"]))
            if any_port:
                pool["slots"] = [
                    {**slot, "grpc_port": 0, "metrics_port": 0} for slot in pool["slots"]
                ]
        for weight in weights:
            _change_weights(pools, weight)
    except (OSError, ValueError, YamlProblem, LookupError, TypeError, AttributeError) as error:
        raise StackError(f"The scaling file {source} cannot be used.", repr(error)) from error
    text: str = yaml.safe_dump(scaling)
    return text


def _change_weights(pools: Sequence[dict[str, Any]], weights: str) -> None:
    tier, _, folder = weights.partition("=")
    if not tier or not folder:
        raise StackError(f"--weights must be TIER=FOLDER, got {weights!r}.")
    found = [pool for pool in pools if pool["tier"] == tier]
    if not found:
        tiers = ", ".join(sorted({pool["tier"] for pool in pools}))
        raise StackError(f"--weights names the tier {tier!r}; there are: {tiers}.")
    for pool in found:
        place = Path(pool["repository"], pool["model"], folder)
        if not (place / "openvino_model.xml").is_file():
            raise StackError(
                f"--weights names {folder!r}, but {place} holds no weights.",
                "`make damage` makes damaged ones.",
            )
        pool["parameters"] = {**(pool.get("parameters") or {}), "model": folder}
