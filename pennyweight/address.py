"""Where a service listens, as callers write it: what is on this machine, what lacks a port.

Any gRPC target will do: ``host:port``, ``dns:///host:port``, ``unix:/path``.
"""

import re

ROUTER_PORT, SCALER_PORT = 50051, 50053
"""Where `make up` and the containers listen."""

MAX_PORT = 65_535
"""gRPC takes a greater one for what is left of it after a division."""

_NAMED_HOSTS = ("dns:///", "dns:", "ipv4:", "ipv6:")
"""Schemes that may precede hosts and ports."""

_OTHER_SCHEMES = re.compile(r"(unix|unix-abstract|vsock|xds|google-c2p|passthrough):|//")
_LOOPBACK = re.compile(r"127\.|localhost(:|$)|\[::1\](:|$)|::1$|unix:")
_HOST_AND_PORT = re.compile(r"(\[[^\]]+\]|[^:\[\]]+):[^:]+")


def is_loopback(target: str) -> bool:
    """Whether the target is on this machine for certain; ``dns:///`` and the like may precede."""
    return _LOOPBACK.match(_hosts(target)) is not None


def check_target(target: str) -> None:
    """Refuses what gRPC would read as something else; without a port it takes that of HTTPS, 443.

    Raises:
        ValueError: the target names no port, or is a URL.
    """
    if target.startswith(("http://", "https://")):
        bare = target.split("//", 1)[1].rstrip("/")
        raise ValueError(
            f"the address {target!r} must be host:port, such as {bare}; TLS is an option"
        )
    hosts = _hosts(target)
    if _OTHER_SCHEMES.match(hosts):
        return
    for host in hosts.split(","):
        named = _HOST_AND_PORT.fullmatch(host)
        if named and not _is_port(host.rpartition(":")[2]):
            raise ValueError(f"the address {target!r} must end in a port from 1 to 65535")
        if not named:
            bare = host.removesuffix(":")
            bare = f"[{bare}]" if ":" in bare and "[" not in bare else bare or "localhost"
            raise ValueError(
                f"the address {target!r} names no port: write {bare}:{ROUTER_PORT} for a router, "
                f"where {ROUTER_PORT} is usual; a scaler's is {SCALER_PORT}"
            )


def host_and_port(target: str) -> tuple[str, int] | None:
    """What to connect to; None for targets that gRPC resolves by itself."""
    hosts = _hosts(target)
    host, _, port = hosts.split(",")[0].rpartition(":")
    if _OTHER_SCHEMES.match(hosts) or not _HOST_AND_PORT.fullmatch(f"{host}:{port}"):
        return None
    return (host.strip("[]"), int(port)) if port.isdecimal() else None


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 0 < int(text[:6]) <= MAX_PORT


def _hosts(target: str) -> str:
    for scheme in _NAMED_HOSTS:
        if target.startswith(scheme):
            return target.removeprefix(scheme)
    return target
