"""How callers reach a service: the channel, TLS, and the API key shown with each call."""

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import grpc

from pennyweight.errors import Unauthenticated

DEVELOPMENT_KEY = "pennyweight-development"
"""Published: services without a key file accept it, and those listen on loopback only."""

KEY_VARIABLE = "PENNYWEIGHT_API_KEY"

PROXY_VARIABLE = "PENNYWEIGHT_USE_PROXY"
"""Set, a service that is not on this machine is reached through the proxy of ``https_proxy`` or
``http_proxy``, but for the hosts in ``no_proxy``."""

KEEPALIVE_MS = 60_000

_LOOPBACK = ("127.", "localhost:", "[::1]:", "unix:")


def is_loopback(target: str) -> bool:
    """Whether the target is on this machine for certain; ``dns:///`` and the like may precede."""
    for scheme in ("dns:///", "dns:", "ipv4:", "ipv6:"):
        if target.startswith(scheme):
            target = target.removeprefix(scheme)
            break
    return target.startswith(_LOOPBACK)


def open_channel(
    target: str,
    *,
    tls_ca: Path | str | None = None,
    tls_certificate: Path | str | None = None,
    tls_key: Path | str | None = None,
    tls: bool | None = None,
) -> grpc.aio.Channel:
    """Opens a channel inside a running event loop; it connects when first used.

    It uses no proxy, whatever the environment names, unless `PROXY_VARIABLE` is set.

    Args:
        target: host:port, or any gRPC target such as ``dns:///router.example:443``.
        tls_ca: PEM bundle that signed the service's certificate.
        tls_certificate: PEM chain to show to a service that asks for one; needs `tls_key`.
        tls_key: PEM key of `tls_certificate`.
        tls: whether to speak TLS. None: exactly when one of the files is given. True without
            `tls_ca` trusts gRPC's own roots.

    Raises:
        OSError: a file cannot be read.
        ValueError: the certificate or its key is missing.
    """
    if (tls_certificate is None) != (tls_key is None):
        raise ValueError("tls_certificate and tls_key go together")
    options: list[tuple[str, int | str]] = [
        ("grpc.primary_user_agent", f"pennyweight/{_version()}"),
        # A restarted service is found again within a second.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # In spite of its name, the time that a connection may take to come up.
        ("grpc.min_reconnect_backoff_ms", 5_000),
        # A dead peer is noticed during a call; servers tolerate a ping a minute.
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", 10_000),
    ]
    if is_loopback(target) or not os.environ.get(PROXY_VARIABLE):
        options.append(("grpc.enable_http_proxy", 0))
    if tls is None:
        tls = tls_ca is not None or tls_certificate is not None
    if not tls:
        return grpc.aio.insecure_channel(target, options=options)
    credentials = grpc.ssl_channel_credentials(
        _bytes(tls_ca), _bytes(tls_key), _bytes(tls_certificate)
    )
    return grpc.aio.secure_channel(target, credentials, options=options)


def metadata_for(target: str, api_key: str | None = None) -> tuple[tuple[str, str], ...]:
    """What to send with each call: the key given, of the environment, or the development key.

    Raises:
        Unauthenticated: there is no key, and the target is not on this machine.
    """
    key = api_key or os.environ.get(KEY_VARIABLE)
    if not key:
        if not is_loopback(target):
            raise Unauthenticated(
                f"no API key for {target}: pass api_key or set {KEY_VARIABLE}",
                grpc.StatusCode.UNAUTHENTICATED,
                reason="KEY_MISSING",
            )
        key = DEVELOPMENT_KEY
    return (("authorization", f"Bearer {key}"),)


def _bytes(path: Path | str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()


def _version() -> str:
    try:
        return version("pennyweight")
    except PackageNotFoundError:  # run from a source tree
        return "source"
